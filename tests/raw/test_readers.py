"""Raw files: exact round trips from the published layouts. Damaged and hostile ones: test_damaged.py."""

import struct
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from raw_files import (
    COILS,
    GOOD,
    NX,
    NY,
    NZ,
    H,
    W,
    centred_fft,
    header,
    lines_of,
    noise,
    read,
    undersampled,
    write_cfl,
    write_fastmri,
    write_ismrmrd,
)

from msm.data.store import MeasurementStore, StoreWriter
from msm.errors import DataError
from msm.raw import scan as raw
from msm.raw.read_through import remarks
from msm.raw.readers import import_scans, read_scans
from msm.raw.scan import Scan, fit, normalise, padded_size, unfit
from msm.transforms import fft2c, ifft2c

SHARED = Path(__file__).resolve().parents[3] / "shared" / "data" / "kspace"


def close(a, b):
    torch.testing.assert_close(a, torch.as_tensor(np.array(b)).to(a.dtype), rtol=0, atol=2e-6)


def columns(*kept, height=H, width=W):
    mask = torch.zeros(1, height, width, dtype=torch.bool)
    mask[..., list(kept)] = True
    return mask


# ---- fastMRI


def test_fastmri_multi_coil(tmp_path):
    k = noise((4, COILS, H, W))
    scans = read(write_fastmri(tmp_path / "brain.h5", k, header(H, W)))
    assert [scan.name for scan in scans] == [f"brain:{i}" for i in range(4)]
    for scan, own in zip(scans, k):
        assert torch.equal(scan.k_space, own) and scan.k_space.dtype == torch.complex64
        assert scan.mask.shape == (1, H, W) and scan.mask.all() and scan.voxel_mm == (1, 2, 5)


def test_fastmri_single_coil_with_readout_oversampling(tmp_path):
    """An object in the inner half of the readout's field of view comes out as if it had never been oversampled."""
    image = noise((2, 2 * H, W)).numpy()
    image[:, : H // 2] = image[:, -H // 2 :] = 0
    k = centred_fft(image, (-2, -1)).astype(np.complex64)
    scans = read(write_fastmri(tmp_path / "knee.h5", k, header(2 * H, W, oversampling=2)))
    for scan, own in zip(scans, image):
        assert scan.k_space.shape == (1, H, W) and scan.voxel_mm == (1, 2, 5)
        close(scan.k_space[0], centred_fft(own[H // 2 : -H // 2], (0, 1)))


def test_fastmri_measures_what_mask_header_and_data_say(tmp_path):
    """Columns 2…9 lie within the header's limits (centre at 4 of 8 lines), the mask keeps even ones, 6 is empty."""
    k = noise((1, COILS, H, W))
    k[..., 6] = 0
    mask = np.arange(W) % 2 == 0
    (scan,) = read(write_fastmri(tmp_path / "a.h5", k, header(H, W, cy=4, my=7), mask.astype(np.float32)))
    assert torch.equal(scan.mask, columns(2, 4, 8))
    assert torch.equal(scan.k_space, torch.where(columns(2, 4, 8), k[0], 0))


# ---- arrays


@pytest.mark.parametrize("shape", [(H, W), (COILS, H, W), (2, COILS, H, W)])
@pytest.mark.parametrize("kind", ["npy", "mat"])
def test_arrays(tmp_path, shape, kind):
    k = undersampled(*shape)
    path = tmp_path / f"scan.{kind}"
    if kind == "npy":
        np.save(path, k.numpy().astype(np.complex128))
    else:
        pytest.importorskip("scipy").io.savemat(path, {"kdata": k.numpy()}, do_compression=True)
    scans = read(path)
    expected = k.reshape(-1, *([1] * (len(shape) == 2)), *shape[-3:])
    assert len(scans) == len(expected)
    for scan, own in zip(scans, expected):
        assert torch.equal(scan.k_space, own)
        assert torch.equal(scan.mask, columns(1, 2, 4, 6, 7, 8, 9, 10, 11))


def test_a_zero_within_a_measured_line_was_measured(tmp_path):
    k = undersampled(COILS, 64, W)
    k[:, 5, 2] = 0
    np.save(tmp_path / "a.npy", k)
    assert read(tmp_path / "a.npy")[0].mask[0, :, 2].all() and not read(tmp_path / "a.npy")[0].mask[0, :, 3].any()


def test_points_measured_one_by_one(tmp_path):
    keep = torch.rand(1, H, W, generator=torch.Generator().manual_seed(0)) < 0.4
    np.save(tmp_path / "a.npy", torch.where(keep, noise((COILS, H, W)), 0))
    assert torch.equal(read(tmp_path / "a.npy")[0].mask, keep)


@pytest.mark.parametrize(
    ("dims", "order"),
    [((H, W, 1, COILS), (2, 0, 1)), ((1, H, W, COILS), (2, 0, 1))],
    ids=["read × phase", "phase × phase"],
)
def test_bart_slices(tmp_path, dims, order):
    k = undersampled(2, COILS, H, W)
    array = k.permute(2, 3, 1, 0).numpy()  # H, W, coils, slices
    path = write_cfl(tmp_path / "scan", array, (*dims, *[1] * 9, 2, 1, 1))
    for scans in (read(path), read(path.with_suffix(".hdr"))):
        assert [scan.name for scan in scans] == ["scan:0", "scan:1"]
        assert all(torch.equal(scan.k_space, own) for scan, own in zip(scans, k))


@pytest.mark.parametrize("kind", ["npy", "cfl", "h5", "mrd", "mat"])
def test_upper_case_suffixes(tmp_path, kind):
    path = GOOD[{"h5": "fastmri", "mrd": "ismrmrd"}.get(kind, kind)](tmp_path)
    for file in [path] + [path.with_suffix(".hdr")] * (kind == "cfl"):
        file.rename(file.with_suffix(file.suffix.upper()))
    assert len(read(path.with_suffix(path.suffix.upper()))) in (1, 2)


def write_mat73(path, name, array, pairs=True):
    """MATLAB 7.3: HDF5 behind 512 bytes, axes reversed, complex numbers as pairs."""
    with h5py.File(path, "w", userblock_size=512) as file:
        stored = np.asarray(array).T
        if pairs:
            part = stored.real.dtype
            both = np.empty(stored.shape, [("real", part), ("imag", part)])
            both["real"], both["imag"] = stored.real, stored.imag
            stored = both
        file.create_dataset(name, data=stored, chunks=stored.shape, compression=3)
        file.create_group("#refs#")
        file.create_group("settings")["tr"] = np.ones((1, 1))
    with path.open("r+b") as file:
        file.write(b"MATLAB 7.3 MAT-file, Platform: GLNXA64 HDF5 schema 1.00 .".ljust(124) + b"\0\2IM")
    return path


@pytest.mark.parametrize("shape", [(H, W), (COILS, H, W), (2, COILS, H, W)])
@pytest.mark.parametrize("precision", [np.complex64, np.complex128])
def test_matlab_73(tmp_path, shape, precision):
    k = undersampled(*shape)
    scans = read(write_mat73(tmp_path / "a.mat", "kspace", k.numpy().astype(precision)))
    expected = k.reshape(-1, *([1] * (len(shape) == 2)), *shape[-3:])
    assert len(scans) == len(expected) and all(torch.equal(s.k_space, own) for s, own in zip(scans, expected))


def test_matlab_73_of_no_use_is_one_clear_line(tmp_path):
    for name, array, message in (
        ("other", noise((H, W)), r"holds \['other', 'settings'\], none of kdata"),
        ("kdata", noise((H, W)).real, "float32, expected complex"),
    ):
        path = write_mat73(tmp_path / f"{name}.mat", name, array.numpy(), pairs=array.is_complex())
        with pytest.raises(DataError, match=message):
            read(path)
    with h5py.File(write_mat73(tmp_path / "s.mat", "a", noise((H, W)).numpy()), "r+") as file:
        file.create_group("kdata")
    with pytest.raises(DataError, match="kdata is no numeric array"):
        read(tmp_path / "s.mat")


def test_opaque_matlab_variables_are_skipped(tmp_path):
    """A string object beside the array, as MATLAB writes it: it has no sizes where other variables have theirs."""

    def element(kind, data):
        return struct.pack("<II", kind, len(data)) + data + bytes(-len(data) % 8)

    k = undersampled(COILS, H, W).numpy()
    pytest.importorskip("scipy").io.savemat(tmp_path / "a.mat", {"kdata": k})
    plain = (tmp_path / "a.mat").read_bytes()
    parts = element(1, b"fname") + element(1, b"MCOS") + element(1, b"string")
    opaque = element(14, element(6, struct.pack("<II", 17, 0)) + parts)
    for content in (plain[:128] + opaque + plain[128:], plain + opaque):
        (tmp_path / "a.mat").write_bytes(content)
        assert torch.equal(read(tmp_path / "a.mat")[0].k_space, torch.from_numpy(k))


# ---- the centre of k-space


def peaked(height=32, width=40, row=None, column=None):
    """K-space of one coil whose power falls off around a point, and noise."""
    y, x = np.indices((height, width))
    row, column = height // 2 if row is None else row, width // 2 if column is None else column
    k = noise((1, height, width)) / torch.from_numpy(1 + (y - row) ** 2 + (x - column) ** 2).float()
    k[:, row, column] = 3
    return k


@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize("kind", ["npy", "mat", "cfl", "h5", "mrd"])
def test_low_frequencies_at_the_end_of_one_axis_are_refused(tmp_path, axis, kind):
    """In every reader, with the axis and the place."""
    k = torch.roll(peaked(), (-16, -20)[axis], axis + 1)
    path = tmp_path / f"a.{kind}"
    if kind == "npy":
        np.save(path, k)
    elif kind == "mat":
        write_mat73(path, "kdata", k.numpy())
    elif kind == "cfl":
        write_cfl(path, k.permute(1, 2, 0).numpy(), (32, 40, 1, 1))
    elif kind == "h5":
        write_fastmri(path, k[None], header(32, 40))
    else:
        pytest.importorskip("ismrmrd")
        write_ismrmrd(path, header(32, 40), lines_of(k, range(40)))
    found = (
        f"along the axis of the {('rows', 'columns')[axis]} k-space has its centre at 0 of {(32, 40)[axis]}, expected"
    )
    with pytest.raises(DataError, match=found):
        read(path)


def test_a_centre_that_is_not_where_the_header_says_is_refused(tmp_path):
    path = write_fastmri(tmp_path / "a.h5", peaked(column=28)[None], header(32, 40))
    with pytest.raises(DataError, match="has its centre at 28 of 40, expected 20; correct it in the header"):
        read(path)


@pytest.mark.parametrize("kind", ["npy", "mat", "cfl"])
def test_an_array_that_ends_unevenly_is_padded(tmp_path, kind):
    """Partial Fourier along both axes, saved without its empty part: every sample goes where it belongs."""
    whole = peaked(64, 48)
    part, path = whole[:, :44, 8:].numpy(), tmp_path / f"a.{kind}"
    if kind == "npy":
        np.save(path, part)
    elif kind == "mat":
        write_mat73(path, "kdata", part)
    else:
        write_cfl(path, part.transpose(1, 2, 0), (44, 40, 1, 1))
    (scan,) = import_scans([path])
    measured = torch.zeros(1, 64, 48, dtype=torch.bool)
    measured[:, :44, 8:] = True
    assert torch.equal(scan.mask, measured) and read(path)[0].provenance["centre"] == [32, 16]
    close(scan.k_space / scan.provenance["scale"], torch.where(measured, whole, 0))
    taken, line = remarks(scan)
    axes = "(slices, coils, H, W)" if kind == "cfl" else "(coils, H, W)"
    assert taken.startswith(f"taken for k-space {axes}, H the readout") and "middle" not in taken
    assert "44 × 40 has its centre at row 32, column 16" in line and "padded to 64 × 48" in line


@pytest.mark.parametrize("shift", [-1, 1])
def test_a_peak_beside_the_middle_is_a_phase(tmp_path, shift):
    np.save(tmp_path / "a.npy", peaked(row=16 + shift).numpy())
    (scan,) = import_scans([tmp_path / "a.npy"])
    assert scan.mask.shape == (1, 32, 40) and scan.mask.all() and len(remarks(scan)) == 1
    assert remarks(scan)[0].endswith("read with its centre in the middle")


# ---- volumes: split along what was measured whole


def volume_lines(pattern):
    """Which (y, z) of a volume are measured."""
    if pattern == "y":
        return np.repeat(np.arange(NY)[:, None] % 3 > 0, NZ, 1)
    return np.random.default_rng(0).random((NY, NZ)) < 0.6


def expected_slices(volume, lines):
    """Slices of (coils, x, y, z) k-space, and their mask, by NumPy in double precision."""
    measured = np.where(lines, volume, 0)
    if (lines.all(1) == lines.any(1)).all():
        inverse = np.conj(centred_fft(np.conj(measured), (3,)))
        return np.moveaxis(inverse, 3, 0), np.repeat(lines.any(1)[None], NX, 0)
    return np.moveaxis(np.conj(centred_fft(np.conj(measured), (1,))), 1, 0).swapaxes(2, 3), lines.T


def ismrmrd_volume(path, volume, lines):
    own = [{"data": volume[:, :, y, z], "y": y, "z": z} for y, z in np.argwhere(lines)]
    return write_ismrmrd(path, header(NX, NY, NZ), own)


@pytest.mark.parametrize("pattern", ["y", "yz"])
@pytest.mark.parametrize("kind", ["ismrmrd", "bart"])
@pytest.mark.parametrize("budget", [1, 2**28])
def test_volumes(tmp_path, monkeypatch, pattern, kind, budget):
    monkeypatch.setattr(raw, "CHUNK_BYTES", budget)
    volume, lines = noise((COILS, NX, NY, NZ)).numpy(), volume_lines(pattern)
    if kind == "bart":
        array = np.moveaxis(np.where(lines, volume, 0), 0, -1)
        path = write_cfl(tmp_path / "v", array, array.shape)
    else:
        pytest.importorskip("ismrmrd")
        path = ismrmrd_volume(tmp_path / "v.mrd", volume, lines)
    slices, mask = expected_slices(volume, lines)
    scans = read(path)
    assert len(scans) == len(slices) == (NZ if pattern == "y" else NX)
    for i, (scan, own) in enumerate(zip(scans, slices)):
        assert scan.name == f"v:{i}" and np.array_equal(scan.mask[0], mask)
        close(scan.k_space, own)
    if kind == "ismrmrd":
        assert scans[0].voxel_mm == ((1, 2, 5) if pattern == "y" else (5, 2, 1))
        assert scans[0].directions[0] == ((0, 0, 1) if pattern == "y" else (0, 1, 0))


def test_a_volume_is_read_in_bounded_memory(tmp_path, monkeypatch):
    """What is held of the slices is a chunk, however many there are."""
    monkeypatch.setattr(raw, "CHUNK_BYTES", 2**18)
    taken, zeros = [], torch.zeros

    def counting(*shape, **options):
        taken.append(8 * torch.Size(shape).numel())
        return zeros(*shape, **options)

    monkeypatch.setattr(raw.torch, "zeros", counting)
    array = noise((128, 32, 32, 4)).numpy() * (np.random.default_rng(0).random((32, 32)) < 0.5)[None, :, :, None]
    count = sum(scan.k_space.shape == (4, 32, 32) for scan in read_scans(write_cfl(tmp_path / "v", array, array.shape)))
    assert count == 128 and max(taken) <= 2**18 < array.nbytes / 10


# ---- ISMRMRD


@pytest.fixture
def write(tmp_path):
    pytest.importorskip("ismrmrd")
    return lambda xml, lines: write_ismrmrd(tmp_path / "scan.h5", xml, lines)


def test_ismrmrd_slices_out_of_order_with_noise_and_navigators(write):
    k, samples = noise((2, COILS, H, W)), noise((COILS, 40), 1)
    lines = [line for i in (1, 0) for line in reversed(lines_of(k[i], [1, 4, 7], slice=i, sample_time_us=2))]
    scan_of_noise = {"data": samples.numpy(), "flags": ["ACQ_IS_NOISE_MEASUREMENT"], "sample_time_us": 5}
    other = [{"data": samples.numpy(), "flags": [flag]} for flag in ("ACQ_IS_NAVIGATION_DATA", "ACQ_IS_DUMMYSCAN_DATA")]
    scans = read(write(header(H, W), [scan_of_noise, *other, *lines]))
    assert [scan.name for scan in scans] == ["scan:0", "scan:1"]
    for scan, own in zip(scans, k):
        assert torch.equal(scan.mask, columns(1, 4, 7))
        assert torch.equal(scan.k_space, torch.where(columns(1, 4, 7), own, 0))
        assert torch.equal(scan.noise, samples) and scan.calibration is None
        assert scan.provenance["lines_left_out"] == 2 and scan.provenance["averages"] == [1, 1]
        assert (scan.provenance["dwell_us"], scan.provenance["noise_dwell_us"]) == (2, 5)
        assert scan.provenance["noise_bandwidth"] == 0.79
    assert scans[0].directions == ((0, 0, 1), (1, 0, 0), (0, 1, 0))


def test_ismrmrd_noise_lines_of_other_channels_are_left_out(write):
    k, samples = noise((COILS, H, W)), noise((COILS, 40), 1)
    flag = {"flags": ["ACQ_IS_NOISE_MEASUREMENT"]}
    other = [{"data": noise((n, 30)).numpy(), **flag} for n in (COILS + 1, 1)]
    (scan,) = read(write(header(H, W), [*other, {"data": samples.numpy(), **flag}, *lines_of(k)]))
    assert torch.equal(scan.noise, samples) and scan.provenance["noise_lines_left_out"] == 2
    assert remarks(scan) == ["2 noise lines of another number of channels are left out"]
    (scan,) = read(write(header(H, W), [*other, *lines_of(k)]))
    assert scan.noise is None and torch.equal(scan.k_space, k)


def test_ismrmrd_repeated_lines_are_averaged(write):
    k = noise((COILS, H, W))
    twice = [line for sign in (1, -1) for line in lines_of(k + sign * noise((COILS, H, W), 1), [2, 3])]
    (scan,) = read(write(header(H, W), [*twice, *lines_of(k, [5])]))
    close(scan.k_space, torch.where(columns(2, 3, 5), k, 0))
    assert scan.provenance["averages"] == [1, 2]


def test_ismrmrd_contrasts_and_repetitions_are_images_of_their_own(write):
    k = noise((4, COILS, H, W))
    lines = [line for i in range(4) for line in lines_of(k[i], contrast=i // 2, repetition=i % 2)]
    scans = read(write(header(H, W), lines))
    names = [f"scan:contrast{i // 2}:repetition{i % 2}:0" for i in range(4)]
    assert [scan.name for scan in scans] == names
    assert all(torch.equal(scan.k_space, own) for scan, own in zip(scans, k))


def test_ismrmrd_partial_fourier_and_partial_echo_stay_unmeasured(write):
    """Lines 0…7 of 12 with the centre at 2 fill columns 4…11; 12 of 16 samples with the centre at 4 fill rows 4…15."""
    k = noise((COILS, H, W))
    lines = [{"data": k[:, 4:, y + 4].numpy(), "y": y, "center": 4} for y in range(8)]
    (scan,) = read(write(header(H, W, cy=2, my=7, oversampling=2), lines))
    expected = torch.zeros(1, H, W, dtype=torch.bool)
    expected[:, 4:, 4:] = True
    assert torch.equal(scan.mask, expected) and torch.equal(scan.k_space, torch.where(expected, k, 0))
    assert scan.provenance["oversampling_removed"] is False  # a partial readout has no image to cut


def test_ismrmrd_reversed_and_discarded_samples(write):
    k = noise((COILS, H, W))
    odd = [{**line, "data": line["data"][:, ::-1].copy(), "flags": ["ACQ_IS_REVERSE"]} for line in lines_of(k)[1::2]]
    extra = noise((COILS, 5), 1).numpy()
    even = [
        {**line, "data": np.concatenate([extra[:, :2], line["data"], extra[:, 2:]], 1)} for line in lines_of(k)[::2]
    ]
    even = [{**line, "discard_pre": 2, "discard_post": 3, "center": H // 2 + 2} for line in even]
    (scan,) = read(write(header(H, W), [*odd, *even]))
    assert torch.equal(scan.k_space, k) and scan.mask.all()


def test_ismrmrd_oversampling_removed(write):
    image = noise((COILS, 2 * H, W)).numpy()
    image[:, : H // 2] = image[:, -H // 2 :] = 0
    k = torch.from_numpy(centred_fft(image, (-2, -1)).astype(np.complex64))
    (scan,) = read(write(header(2 * H, W, oversampling=2), lines_of(k, [1, 5])))
    expected = torch.from_numpy(centred_fft(image[:, H // 2 : -H // 2], (-2, -1)))
    close(scan.k_space, torch.where(columns(1, 5), expected, 0))
    assert torch.equal(scan.mask, columns(1, 5)) and scan.provenance["oversampling_removed"] is True


@pytest.mark.parametrize("mode", ["embedded", "separate"])
def test_ismrmrd_calibration_lines(write, mode):
    """Lines for calibration only are measured if they are embedded, else kept apart; lines for both are measured."""
    k, calibration = noise((COILS, H, W)), noise((COILS, H, W), 1)
    both = lines_of(k, [6], flags=["ACQ_IS_PARALLEL_CALIBRATION_AND_IMAGING"])
    only = lines_of(calibration, [5, 7], flags=["ACQ_IS_PARALLEL_CALIBRATION"])
    (scan,) = read(write(header(H, W, calibration=mode), [*lines_of(k, [0, 3, 9]), *both, *only]))
    if mode == "embedded":
        assert torch.equal(scan.mask, columns(0, 3, 5, 6, 7, 9)) and scan.calibration is None
        assert torch.equal(scan.k_space[..., 5], calibration[..., 5])
    else:
        assert torch.equal(scan.mask, columns(0, 3, 6, 9)) and torch.equal(scan.calibration.mask, columns(5, 7))
        assert torch.equal(scan.calibration.k_space, torch.where(columns(5, 7), calibration, 0))


# ---- scale, size, store


def test_values_too_large_to_be_squared_are_refused(tmp_path):
    np.save(tmp_path / "a.npy", noise((COILS, H, W)).numpy() * np.float32(1e30))
    with pytest.raises(DataError, match="a:0: its values, squared, are too large for single precision; scale"):
        list(import_scans([tmp_path / "a.npy"]))


def test_scale_can_be_undone():
    scan = Scan("a", 1e-6 * noise((COILS, 40, 40)), torch.ones(1, 40, 40, dtype=torch.bool), {}, 1e-6 * noise((3, 9)))
    scaled = normalise(scan)
    magnitude = ifft2c(scaled.k_space).abs().square().sum(0).sqrt()
    assert abs(np.quantile(magnitude, 0.9995) - 0.9) < 1e-5
    scale = scaled.provenance["scale"]
    torch.testing.assert_close(scaled.k_space / scale, scan.k_space)
    torch.testing.assert_close(scaled.noise / scale, scan.noise)


def scan_of(mask, seed=0):
    k = torch.where(mask, noise((COILS, *mask.shape[1:]), seed), 0)
    return Scan("a", k, mask, {}, noise((COILS, 9)), (1.0, 2.0, 5.0))


@pytest.mark.parametrize("height", [13, 16])
@pytest.mark.parametrize("width", [11, 12])
@pytest.mark.parametrize("size", [(32, 24), (17, 13)])
@pytest.mark.parametrize("pattern", ["columns", "points", "full"])
def test_padding_is_undone_exactly(height, width, size, pattern):
    mask = {
        "columns": columns(1, 5, 6, height=height, width=width),
        "points": torch.rand(1, height, width, generator=torch.Generator().manual_seed(0)) < 0.5,
        "full": torch.ones(1, height, width, dtype=torch.bool),
    }[pattern]
    scan = scan_of(mask)
    fitted = fit(scan, size)
    assert fitted.k_space.shape == (COILS, *size) and fitted.mask.shape == (1, *size)
    assert not fitted.k_space[:, ~fitted.mask[0]].any()
    close(fft2c(unfit(ifft2c(fitted.k_space), fitted)), scan.k_space)


def test_the_phase_encoding_is_padded_by_entries_not_measured():
    """Columns: the data stay as they are up to the grid's factor, what is new was not measured, pixels shrink."""
    scan = scan_of(columns(1, 5, 6))
    fitted = fit(scan, (H, 2 * W))
    factor = 2**0.5
    assert fitted.provenance["fit"] == {"from": [H, W], "by": ["image", "k-space"]}
    assert torch.equal(fitted.mask, columns(7, 11, 12, width=2 * W))
    close(fitted.k_space[..., 6:18], factor * scan.k_space)
    torch.testing.assert_close(fitted.noise, factor * scan.noise)
    assert fitted.voxel_mm == (1.0, 1.0, 5.0)


def test_the_readout_is_padded_and_cropped_as_an_image():
    """Along whole lines the field of view changes: the image in the middle stays, and so does its level of noise."""
    scan = scan_of(torch.ones(1, H, W, dtype=torch.bool))
    image = ifft2c(scan.k_space)
    fitted = fit(scan, (H + 4, W - 4))
    close(ifft2c(fitted.k_space)[:, 2:-2], image[..., 2:-2])
    assert fitted.mask.all() and fitted.voxel_mm == scan.voxel_mm and torch.equal(fitted.noise, scan.noise)
    back = unfit(ifft2c(fitted.k_space), fitted)
    close(back[..., 2:-2], image[..., 2:-2])
    assert not back[..., :2].any() and not back[..., -2:].any()


def test_cropped_k_space_keeps_the_low_frequencies():
    scan = scan_of(columns(1, 5, 6, 10))
    fitted = fit(scan, (H, 8))
    assert torch.equal(fitted.mask, columns(3, 4, width=8))
    back = fft2c(unfit(ifft2c(fitted.k_space), fitted))
    close(back, torch.where(columns(5, 6), scan.k_space, 0))


def test_a_smooth_image_keeps_its_values_on_a_finer_grid():
    """A constant stays the same constant when k-space is padded."""
    mask = columns(5, 6, 7)
    scan = Scan("a", fft2c(torch.ones(1, H, W, dtype=torch.complex64)) * mask, mask, {})
    close(ifft2c(fit(scan, (H, 32)).k_space), torch.ones(1, H, 32))


def test_padded_size():
    assert padded_size(scan_of(columns(1)), 8) == (16, 16)


def test_imported_scans_go_into_a_store(tmp_path):
    k = undersampled(2, COILS, H, W)
    np.save(tmp_path / "a.npy", k)
    write_fastmri(tmp_path / "b.h5", k, header(H, W))
    maps = torch.full((COILS, 16, 16), COILS**-0.5, dtype=torch.complex64)
    scans = [fit(scan, (16, 16)) for scan in import_scans([tmp_path / "a.npy", tmp_path / "b.h5"])]
    with StoreWriter(tmp_path / "store.h5", {"scans": [scan.provenance for scan in scans]}) as writer:
        for scan in scans:
            writer.add(scan.name, scan.k_space, scan.mask, maps, 0.01)
    store = MeasurementStore(tmp_path / "store.h5")
    assert store.names(range(4)) == ["a:0", "a:1", "b:0", "b:1"] and store.provenance["scans"][3]["format"] == "fastMRI"
    batch = store.batch(range(4))
    close(batch.values[:2], batch.values[2:])
    assert torch.equal(batch.mask[0], scans[0].mask)


@pytest.mark.parametrize("name", ["knee_1ch_full.mat", "head_sagittal_1ch_full.mat", "brain_8ch_R8.npy"])
def test_real_files(name):
    if not (SHARED / name).is_file():
        pytest.skip(f"{SHARED / name} is absent")
    (scan,) = import_scans([SHARED / name])
    share = scan.mask.float().mean()
    assert share == 1 if "full" in name else abs(share - 0.124) < 0.001
    peak = ifft2c(scan.k_space).abs().square().sum(0).sqrt().max()
    assert 0.9 < peak < 1.1
