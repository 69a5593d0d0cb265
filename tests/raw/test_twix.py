"""Siemens .dat: files of a scanner, and files written byte by byte from the layouts of VB and VE."""

import sys

import numpy as np
import pytest
import torch
from raw_files import centred_fft, noise, read
from twix_files import TWIX, good_twix, lines_of, protocol_text, scanner_file, write_twix

from msm.errors import DataError, MissingPackage
from msm.raw.geometry import Geometry, affine
from msm.raw.prepare import prewhiten
from msm.raw.read_through import remarks
from msm.raw.readers import import_scans

pytest.importorskip("twixtools")
COILS, NX, NY = 3, 16, 12  # without the readout's oversampling
VERSIONS = pytest.mark.parametrize("version", ["VB", "VE"])


def close(a, b, atol=1e-5):
    torch.testing.assert_close(a, torch.as_tensor(np.array(b)).to(a.dtype), rtol=0, atol=atol)


def oversampled(coils=COILS, seed=0):
    """K-space (coils, 2·NX, NY) of an object in the inner half of the readout, and as if never oversampled."""
    image = noise((coils, 2 * NX, NY), seed).numpy()
    image[:, : NX // 2], image[:, -NX // 2 :] = 0, 0
    inner = image[:, NX // 2 : -NX // 2]
    return centred_fft(image, (1, 2)).astype(np.complex64), centred_fft(inner, (1, 2)).astype(np.complex64)


def write(path, lines, version="VE", **settings):
    return write_twix(path / "meas.dat", (protocol_text(**settings), lines), version=version)


def kept(*columns):
    mask = torch.zeros(1, NX, NY, dtype=torch.bool)
    mask[..., list(columns)] = True
    return mask


# ---- files of a scanner


def test_a_scan_of_a_scanner(tmp_path):
    """What twixtools reads, on the inner half of the readout's field of view; geometry as in the scan's protocol."""
    import twixtools

    path = scanner_file("gre", tmp_path)
    (scan,) = read(path)
    (measurement,) = twixtools.read_twix(str(path), verbose=False, parse_pmu=False)
    lines = np.stack([block.data for block in measurement["mdb"]], -1)  # coils, 320, 160
    assert [block.cLin for block in measurement["mdb"]] == list(range(160))
    image = np.conj(centred_fft(np.conj(lines), (1,)))[:, 80:-80]
    close(scan.k_space, centred_fft(image, (1,)), atol=1e-5 * np.abs(lines).max())
    assert scan.mask.all() and scan.mask.shape == (1, 160, 160) and scan.voxel_mm == (1.25, 1.25, 4)
    about, geometry = scan.provenance, measurement["geometry"][0]
    assert about["position_mm"] == pytest.approx(geometry.offset, abs=1e-4)
    assert scan.directions[2] == pytest.approx(geometry.normal, abs=1e-6)
    assert (about["format"], about["averages"], about["lines_left_out"]) == ("Siemens", [1, 1], 0)
    assert about["oversampling_removed"] and about["centre"] == [80, 80] and not remarks(scan)


def test_epi_of_a_scanner_is_refused(tmp_path):
    with pytest.raises(DataError, match="EPI, 128 lines after an excitation: only Cartesian scans, line by line"):
        read(scanner_file("epi", tmp_path))


# ---- features


@VERSIONS
def test_oversampling(tmp_path, version):
    k_space, inner = oversampled()
    (scan,) = read(write(tmp_path, lines_of(k_space), version))
    close(scan.k_space, inner)
    assert scan.mask.all() and scan.name == "meas:0" and scan.voxel_mm == (1, 2, 5)
    assert scan.provenance["oversampling_removed"] and not remarks(scan)


def test_oversampling_that_the_header_leaves_out(tmp_path):
    k_space, inner = oversampled()
    (scan,) = read(write(tmp_path, lines_of(k_space), oversampling=None))
    close(scan.k_space, inner)
    assert remarks(scan)[0].startswith("readout taken for oversampled twice, which its header leaves out")
    (scan,) = read(write(tmp_path, lines_of(k_space), oversampling=1))
    close(scan.k_space, k_space)


@VERSIONS
def test_noise_scan(tmp_path, version):
    """Lines of noise, of whatever length, become the noise; others of another number of channels are counted."""
    k_space, _ = oversampled()
    own, other = noise((COILS, 50), 1).numpy(), noise((2, 40), 2).numpy()
    lines = [{"data": data, "flags": ["NOISEADJSCAN"]} for data in (own, other, own[:, ::-1])]
    (scan,) = read(write(tmp_path, lines + lines_of(k_space), version))
    assert torch.equal(scan.noise, torch.from_numpy(np.concatenate([own, own[:, ::-1]], 1)))
    assert scan.provenance["noise_lines_left_out"] == 1 and scan.provenance["dwell_us"] == 5
    (scan,) = import_scans([tmp_path / "meas.dat"])
    assert prewhiten(scan).provenance["whitened"]


def test_noise_scan_of_an_earlier_measurement(tmp_path):
    """VD and later keep adjustments before the scan: the last measurement is read, said in a line."""
    k_space, inner = oversampled()
    own = noise((COILS, 50), 1).numpy()
    adjustment = (protocol_text(**{"sRXSPEC__alDwellTime[0]": 9000}), [{"data": own, "flags": ["NOISEADJSCAN"]}])
    other = (protocol_text(), lines_of(noise((COILS, 2 * NX, NY), 5).numpy()))
    path = write_twix(tmp_path / "meas.dat", adjustment, other, (protocol_text(), lines_of(k_space)))
    (scan,) = read(path)
    close(scan.k_space, inner)
    assert torch.equal(scan.noise, torch.from_numpy(own))
    assert scan.provenance["noise_dwell_us"] == 9
    told = "of the file's 3 measurements the last is read; noise lines of measurement 1"
    assert remarks(scan)[0].startswith(told) and scan.provenance["taken_for"] == told


@VERSIONS
@pytest.mark.parametrize("lines", [range(5, NY), range(NY - 3)], ids=["begin", "end"])
def test_partial_fourier(tmp_path, version, lines):
    """Lines that were left out at one end are not measured; where the counter begins does not matter."""
    k_space, inner = oversampled()
    for first in (0, lines[0]):
        kept_lines = lines_of(k_space, lines)
        for line in kept_lines:
            line["lin"], line["center_lin"] = line["lin"] - first, line["center_lin"] - first
        (scan,) = read(write(tmp_path, kept_lines, version))
        assert torch.equal(scan.mask, kept(*lines))
        close(scan.k_space, np.where(kept(*lines), inner, 0))


@VERSIONS
def test_partial_echo(tmp_path, version):
    """Samples before the echo left out: the grid is whole, its oversampling stays."""
    k_space, _ = oversampled()
    lines = lines_of(k_space[:, 10:])
    for line in lines:
        line["center"] = NX - 10
    (scan,) = read(write(tmp_path, lines, version))
    assert scan.k_space.shape == (COILS, 2 * NX, NY) and not scan.provenance["oversampling_removed"]
    assert not scan.mask[:, :10].any() and scan.mask[:, 10:].all()
    close(scan.k_space[:, 10:], k_space[:, 10:])


def test_cut_off_samples_are_not_measured(tmp_path):
    k_space, _ = oversampled()
    (scan,) = read(write(tmp_path, lines_of(k_space, cut=(4, 2))))
    assert scan.mask[:, 4:-2].all() and not scan.mask[:, :4].any() and not scan.mask[:, -2:].any()


@VERSIONS
def test_averages(tmp_path, version):
    k_space, inner = oversampled()
    lines = [line for ave, factor in enumerate((0.5, 1.5)) for line in lines_of(factor * k_space, ave=ave)]
    (scan,) = read(write(tmp_path, lines, version))
    close(scan.k_space, inner)
    assert scan.provenance["averages"] == [2, 2]


@VERSIONS
def test_navigators(tmp_path, version):
    """Navigators, feedback and phase correction are left out and counted; so are bytes that are no acquisition."""
    k_space, inner = oversampled()
    other = noise((COILS, 20)).numpy()
    navigators = [{"data": other, "flags": [flag]} for flag in ("RTFEEDBACK", "PHASCOR")]
    sync = {"sync": b"x" * 64, "flags": ["SYNCDATA"]}
    lines = lines_of(k_space)
    (scan,) = read(write(tmp_path, [sync, *lines[:5], *navigators, sync, *lines[5:]], version))
    close(scan.k_space, inner)
    assert scan.provenance["lines_left_out"] == 2


@VERSIONS
def test_calibration_lines_apart(tmp_path, version):
    """Of a separate reference scan they go to the maps only; those of another resolution are left out."""
    k_space, inner = oversampled()
    _, other = reference = oversampled(seed=3)
    image = lines_of(k_space, range(0, NY, 2))
    lines = lines_of(reference[0], range(4, 9), flags=["PATREFSCAN"])
    coarse = lines_of(noise((COILS, 40, NY)).numpy(), [6], flags=["PATREFSCAN"])
    (scan,) = read(write(tmp_path, lines + coarse + image, version, sPat__ucRefScanMode="0x4"))
    close(scan.k_space, np.where(kept(*range(0, NY, 2)), inner, 0))
    assert torch.equal(scan.mask, kept(*range(0, NY, 2))) and torch.equal(scan.calibration.mask, kept(*range(4, 9)))
    close(scan.calibration.k_space, np.where(kept(*range(4, 9)), other, 0))
    assert scan.provenance["lines_left_out"] == 1


@VERSIONS
def test_calibration_lines_of_the_image(tmp_path, version):
    """Of a reference scan in place they are measured, whether they are flagged as image lines or not."""
    k_space, inner = oversampled()
    lines = lines_of(k_space, range(0, NY, 2))
    lines[3]["flags"] = ["PATREFANDIMASCAN"]
    lines += lines_of(k_space, (5, 7), flags=["PATREFSCAN"])
    (scan,) = read(write(tmp_path, lines, version, sPat__ucRefScanMode=2))
    assert torch.equal(scan.mask, kept(0, 2, 4, 5, 6, 7, 8, 10)) and scan.calibration is None
    close(scan.k_space, np.where(scan.mask, inner, 0))


@VERSIONS
def test_slices_in_order(tmp_path, version):
    """The scanner counts slices as it measured them, interleaved: they come out in the order of their positions."""
    data, place = [oversampled(seed=i) for i in range(4)], [2, 0, 3, 1]  # place of the slice counted 0, 1, …
    lines = [
        line
        for counted, i in enumerate(place)
        for line in lines_of(data[i][0], sli=counted, position=(1, 2, 6.0 * i - 9))
    ]
    scans = read(write(tmp_path, lines, version))
    assert [scan.name for scan in scans] == [f"meas:{i}" for i in range(4)]
    for i, scan in enumerate(scans):
        close(scan.k_space, data[i][1])
        assert scan.provenance["position_mm"] == [1, 2, 6 * i - 9]
    found = affine((NX, NY), [Geometry.of(scan) for scan in scans])
    assert found[:3, 2] == pytest.approx([0, 0, 6], abs=1e-5)


def test_echoes_are_images_of_their_own(tmp_path):
    data = [oversampled(seed=i) for i in range(2)]
    scans = read(write(tmp_path, [line for eco in range(2) for line in lines_of(data[eco][0], eco=eco)]))
    assert [scan.name for scan in scans] == ["meas:contrast0:0", "meas:contrast1:0"]
    close(scans[1].k_space, data[1][1])


def test_reversed_readouts_are_turned_round(tmp_path):
    k_space, inner = oversampled()
    lines = lines_of(k_space)
    for line in lines[::2]:
        line |= {"data": line["data"][:, ::-1], "flags": ["REFLECT"]}
    (scan,) = read(write(tmp_path, lines))
    close(scan.k_space, inner)


@VERSIONS
@pytest.mark.parametrize(
    ("quaternion", "read_dir", "phase_dir", "slice_dir"),
    [
        ((1, 0, 0, 0), (0, 1, 0), (1, 0, 0), (0, 0, 1)),
        ((0.5**0.5, 0, 0, 0.5**0.5), (-1, 0, 0), (0, 1, 0), (0, 0, 1)),
        ((0.5, 0.5, 0.5, 0.5), (0, 0, 1), (0, 1, 0), (1, 0, 0)),
    ],
)
def test_orientation(tmp_path, version, quaternion, read_dir, phase_dir, slice_dir):
    """Columns of the rotation are phase, readout, slice, as siemens_to_ismrmrd has them."""
    k_space, _ = oversampled()
    (scan,) = read(write(tmp_path, lines_of(k_space, quaternion=quaternion, position=(3, 4, 5)), version))
    for found, expected in zip(scan.directions, (read_dir, phase_dir, slice_dir)):
        assert found == pytest.approx(expected, abs=1e-6)
    assert scan.provenance["position_mm"] == [3, 4, 5] and scan.voxel_mm == (1, 2, 5)


@pytest.mark.parametrize("quaternion", [(0, 0, 0, 0), (float("nan"), 0, 0, 1), (1e30, 0, 0, 0)])
def test_no_orientation(tmp_path, quaternion):
    (scan,) = read(write(tmp_path, lines_of(oversampled()[0], quaternion=quaternion)))
    assert scan.directions is None


def test_volumes(tmp_path):
    """3-D: an inverse FFT along the partitions, each line being measured at all of them."""
    volume = noise((COILS, 2 * NX, NY, 6)).numpy()
    image = np.conj(centred_fft(np.conj(volume), (1,)))
    image[:, : NX // 2], image[:, -NX // 2 :] = 0, 0
    volume = centred_fft(image, (1,)).astype(np.complex64)
    lines = [
        line
        for z in range(6)
        for line in lines_of(volume[..., z], [y for y in range(NY) if y % 3], par=z, center_par=3)
    ]
    text = {"sSliceArray__asSlice[0]__dThickness": 30}
    scans = read(write(tmp_path, lines, **text))
    inner = np.conj(centred_fft(np.conj(centred_fft(image[:, NX // 2 : -NX // 2], (1,))), (3,)))
    assert len(scans) == 6 and scans[0].voxel_mm == (1, 2, 5)
    for z, scan in enumerate(scans):
        assert scan.name == f"meas:{z}" and torch.equal(scan.mask, kept(*(y for y in range(NY) if y % 3)))
        close(scan.k_space, np.where(scan.mask, inner[..., z], 0))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"sKSpace__ucTrajectory": "0x2"}, "trajectory 2: only Cartesian"),
        ({"sKSpace__ucTrajectory": None}, "holds no protocol .ASCCONV with sKSpace.ucTrajectory.; export"),
        ({"sSliceAcceleration__lMultiBandFactor": 2}, "2 slices excited at a time: only"),
        ({"sFastImaging__lEPIFactor": 64}, "EPI, 64 lines after an excitation: only"),
        ({"regridding": 2}, "sampling on the gradients' ramps: only"),
        ({"oversampling": 1e9}, "flReadoutOSFactor is 1000000000.000000, expected 1 to 64; export"),
        ({"sKSpace__ucTrajectory": "one"}, "sKSpace.ucTrajectory is 'one', expected a number; export"),
        ({"sSliceArray__asSlice[0]__dPhaseFOV": "nan"}, "dPhaseFOV is nan, out of any range; export"),
    ],
)
def test_what_is_not_read_is_one_clear_line(tmp_path, settings, message):
    with pytest.raises(DataError, match=message) as caught:
        read(write(tmp_path, lines_of(oversampled()[0]), **settings))
    assert "\n" not in str(caught.value)


# ---- damage


def changed(path, place, content):
    held = bytearray(path.read_bytes())
    held[place : place + len(content)] = content
    path.write_bytes(held)
    return path


LYING = {  # place in the file, bytes, what is said
    "count": (4, b"\x40\0\0\0", "measurement 2 lies at bytes 0 to 0 of"),
    "no measurement": (4, bytes(4), "its table lists 0 measurements"),
    "offset": (16, b"\xff" * 8, "measurement 1 lies at bytes 18446744073709551615 to"),
    "header": (10240, b"\xff" * 4, "measurement 1 states a header of 4294967295 bytes"),
    "samples": (None, (48, b"\xff\xff"), "acquisition 1 claims 1573128 bytes"),
    "channels": (None, (50, b"\xff\xff"), "acquisition 1 claims"),
    "sync of nothing": (None, (40, b"\x20"), "acquisition 0 claims"),
    "center": (None, (84, b"\xff\xff"), "claims .* bytes, the file holds"),
    "line": (None, (52, b"\xff\xff"), "claims .* bytes, the file holds"),
}


@pytest.mark.parametrize("case", LYING)
def test_what_a_file_claims_is_bounded(tmp_path, case):
    """Before memory is taken for it."""
    place, content, message = LYING[case]
    path = good_twix(tmp_path)
    if place is None:
        first = 10240 + int.from_bytes(path.read_bytes()[10240:10244], "little")
        place, content = first + content[0], content[1]
        if case == "sync of nothing":
            changed(path, first, bytes(4))
    with pytest.raises(DataError, match=message) as caught:
        read(changed(path, place, content))
    assert "\n" not in str(caught.value) and str(caught.value).startswith(str(path))


@pytest.mark.parametrize("kind", TWIX)
@pytest.mark.parametrize("seed", range(4))
def test_random_damage_never_ends_in_another_error(tmp_path, kind, seed):
    """Bytes changed anywhere, heads and table above all; cut off anywhere."""
    path = TWIX[kind](tmp_path)
    content, rng = path.read_bytes(), np.random.default_rng(seed)
    for number in range(60):
        damaged = bytearray(content)
        for place in rng.integers(0, len(content), 6):
            damaged[place] = rng.integers(256)
        if kind == "twix":
            damaged[int(rng.integers(0, 200))] = rng.integers(256)
        path.write_bytes(damaged[: rng.integers(len(content))] if number % 4 == 0 else damaged)
        try:
            read(path)
        except DataError as error:
            assert "\n" not in str(error) and len(str(error)) < 500


def test_the_missing_package_is_one_clear_line(tmp_path, monkeypatch):
    path = good_twix(tmp_path)
    monkeypatch.setitem(sys.modules, "twixtools.mdh_def", None)
    with pytest.raises(MissingPackage, match=r"reading Siemens .dat files needs twixtools: .*'msm-diffusion\[mri\]'"):
        read(path)
