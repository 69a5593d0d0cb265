"""Readers of public data sets: exact round trips from layouts written as their authors describe them."""

import h5py
import numpy as np
import pytest
import torch
from dataset_files import in_turn, write_cc359, write_cmrxrecon, write_m4raw, write_skm_tea
from raw_files import centred_fft, noise, read, write_fastmri
from raw_files import header as fastmri_header

from msm.errors import DataError
from msm.raw.read_through import remarks
from msm.raw.readers import import_scans
from msm.transforms import ifft2c


def close(a, b):
    torch.testing.assert_close(a, torch.as_tensor(np.array(b)).to(a.dtype), rtol=0, atol=1e-5)


def blob(height, width, coils=2, slices=3):
    """Images (slices, coils, H, W) of an object a little off the middle."""
    y, x = np.indices((height, width)) / np.array([height, width])[:, None, None]
    image = np.exp(-40 * ((y - 0.55) ** 2 + (x - 0.45) ** 2))
    factors = noise((slices, coils, 1, 1)).numpy()
    return (image * factors).astype(np.complex64)


def taken(scan):
    return remarks(scan)[0]


# ---- M4Raw


def m4raw_k_space(slices=3):
    """K-space (slices, 4, 256, 256) of rows around 136, 195 columns around 128, as the data set has it."""
    whole = centred_fft(blob(272, 256, 4, slices), (-2, -1)).astype(np.complex64)
    whole[..., :30], whole[..., 225:] = 0, 0
    return whole, whole[..., :256, :]  # row 136 is the middle of 272


def test_m4raw_has_its_centre_where_the_data_have_it(tmp_path):
    whole, k_space = m4raw_k_space()
    path = write_m4raw(tmp_path / "2022061003_T201.h5", k_space)
    assert [scan.provenance["centre"] for scan in read(path)] == [[136, 128]] * 3
    measured = torch.zeros(1, 272, 256, dtype=torch.bool)
    measured[:, :256, 30:225] = True
    for scan, own in zip(import_scans([path]), whole):
        assert scan.mask.shape == (1, 272, 256) and torch.equal(scan.mask, measured)
        close(scan.k_space / scan.provenance["scale"], np.where(measured, own, 0))
        assert scan.voxel_mm == (0.9375, 0.9375, 5)
    told, uneven = remarks(scan)
    assert "taken for M4Raw" in told and "limits in its header are not used" in told
    assert "256 × 256 has its centre at row 136, column 128" in uneven


def test_m4raw_slices_without_signal_have_the_centre_of_the_others(tmp_path):
    _, k_space = m4raw_k_space()
    k_space[0] = noise(k_space.shape[1:]).numpy() * (np.abs(k_space[1]).max() * 1e-3)
    k_space[0][..., :30], k_space[0][..., 225:] = 0, 0
    path = write_m4raw(tmp_path / "a.h5", k_space)
    assert [scan.k_space.shape for scan in import_scans([path])] == [(4, 272, 256)] * 3


def test_the_readout_of_a_fastmri_file_may_have_its_centre_elsewhere(tmp_path):
    """Its header says nothing of it; that of the columns it does say."""
    _, k_space = m4raw_k_space()
    path = write_fastmri(tmp_path / "a.h5", k_space, fastmri_header(256, 256))
    assert [scan.provenance["centre"] for scan in read(path)] == [[136, 128]] * 3
    assert next(import_scans([path])).mask.shape == (1, 272, 256)


# ---- SKM-TEA


def test_skm_tea(tmp_path):
    """Hybrid space (x, ky, kz, echoes, coils): slices along x, echo by echo, maps of the file; the target unread."""
    images = blob(20, 16, coils=3 * 2, slices=5)
    k_space = centred_fft(images, (-2, -1)).reshape(5, 2, 3, 20, 16)
    k_space[..., :2, :] = 0  # rows of zero-padding
    stored = np.moveaxis(k_space, (3, 4, 1, 2), (1, 2, 3, 4))
    maps = noise((5, 20, 16, 3, 1), 1).numpy()
    maps[4] = 0
    path = write_skm_tea(tmp_path / "MTR_001.h5", stored, maps, target=np.full((5, 20, 16, 2, 1), np.nan + 0j))
    scans = read(path)
    assert [scan.name for scan in scans] == [f"MTR_001:echo{e}:{i}" for e in range(2) for i in range(5)]
    for n, scan in enumerate(scans):
        echo, i = divmod(n, 5)
        close(scan.k_space, k_space[i, echo])
        assert torch.equal(scan.mask[0], torch.arange(20)[:, None].expand(20, 16) >= 2)
        if i == 4:
            assert scan.maps is None
        else:
            own = np.moveaxis(maps[i, ..., 0], -1, 0)
            close(scan.maps, own / np.sqrt((np.abs(own) ** 2).sum(0)))
    assert "hybrid space (x, ky, kz, echoes, coils)" in taken(scans[0])
    assert "coil maps of the file; target not used" in taken(scans[0])


@pytest.mark.parametrize("sets", [0, 2])
def test_skm_tea_without_one_set_of_maps(tmp_path, sets):
    maps = noise((3, 10, 8, 4, sets)) if sets else None
    scans = read(write_skm_tea(tmp_path / "a.h5", noise((3, 10, 8, 2, 4)), maps))
    assert len(scans) == 6 and all(scan.maps is None for scan in scans) and "coil maps estimated" in taken(scans[0])


def test_skm_tea_maps_of_another_size_are_refused(tmp_path):
    path = write_skm_tea(tmp_path / "a.h5", noise((3, 10, 8, 2, 4)), noise((3, 10, 8, 2, 1)))
    with pytest.raises(DataError, match=r"maps is complex64 \(3, 10, 8, 2, 1\), expected complex \(3, 10, 8, 4, 1\)"):
        read(path)


# ---- CC359


@pytest.mark.parametrize("shape", [(24, 20), (21, 15)], ids=["even", "odd"])
@pytest.mark.parametrize("at", ["middle", "corners"])
@pytest.mark.parametrize("suffix", [".h5", ".npy"])
def test_cc359(tmp_path, shape, at, suffix):
    """What numpy's ifft2 makes of the file, as its authors do, is what our centred FFT makes of the scan."""
    images = blob(*shape, coils=1 if at == "corners" else 2)
    stored = np.fft.fft2(images)
    if at == "middle":
        stored = np.fft.fftshift(stored, (-2, -1))
    path = write_cc359(tmp_path / f"e14498s5{suffix}", stored)
    scans = read(path)
    assert len(scans) == 3 and all(scan.mask.all() for scan in scans)
    for scan, own, raw in zip(scans, images, stored):
        image = ifft2c(scan.k_space) / np.sqrt(np.prod(shape))
        close(image.abs(), np.abs(np.fft.ifft2(raw)))
        close(image, own)  # the phase is that of the object, without jumps
    assert f"low frequencies {'in the middle' if at == 'middle' else 'at the corners'}" in taken(scans[0])


def test_cc359_beyond_85_percent_of_kz_nothing_was_measured(tmp_path):
    """Where what is there is faint beside its mirror image; elsewhere it counts."""
    images = blob(24, 40) + 0.05 * noise((3, 2, 24, 40)).numpy()
    stored = np.fft.fftshift(np.fft.fft2(images), (-2, -1))
    assert all(scan.mask.all() for scan in read(write_cc359(tmp_path / "a.h5", stored)))
    stored[..., 34:] *= 1e-3
    (first, *_) = read(write_cc359(tmp_path / "b.h5", stored))
    assert first.mask[..., :34].all() and not first.mask[..., 34:].any() and not first.k_space[..., 34:].any()
    assert "the last 6 columns not measured" in taken(first)


@pytest.mark.parametrize("kind", ["<f2", "<f4", "<f8", ">f4"])
def test_cc359_of_any_precision(tmp_path, kind):
    values = noise((3, 2, 10, 8)).numpy()
    np.save(tmp_path / "a.npy", in_turn(values).astype(kind))
    scans = read(tmp_path / "a.npy")
    assert len(scans) == 3
    for scan, own in zip(scans, values):
        assert (scan.k_space.abs() - torch.from_numpy(own).abs()).abs().max() < (3e-3 if kind == "<f2" else 1e-6)


def test_cc359_undersampled(tmp_path):
    keep = np.random.default_rng(0).random((24, 20)) < 0.5
    keep[8:16, 6:14] = True
    stored = np.fft.fftshift(np.fft.fft2(blob(24, 20)), (-2, -1)) * keep
    (scan, *_) = read(write_cc359(tmp_path / "a.h5", stored))
    assert torch.equal(scan.mask[0], torch.from_numpy(keep))


# ---- CMRxRecon


@pytest.mark.parametrize(
    ("name", "slices", "frames"),
    [
        *[(name, *counts) for name in ("kspace_full", "kspace_sub04", "kus") for counts in ((3, 2), (3, 1), (1, 1))],
        *[("kspace", 3, 2), ("kspace", 3, 1)],  # three axes of that name are (coils, H, W)
    ],
)
def test_cmrxrecon(tmp_path, name, slices, frames):
    """MATLAB's (kx, ky, coils, slices, frames): readout kx along H; of each frame a volume."""
    k = noise((18, 14, 4, slices, frames)).numpy()
    k[:, ::3] = 0
    scans = read(write_cmrxrecon(tmp_path / "cine_sax.mat", name, k))
    assert len(scans) == slices * frames
    for n, scan in enumerate(scans):
        frame, i = divmod(n, slices)
        assert scan.name == (f"cine_sax:frame{frame}:{i}" if frames > 1 else f"cine_sax:{i}")
        assert torch.equal(scan.k_space, torch.from_numpy(k[..., i, frame].transpose(2, 0, 1).copy()))
        assert torch.equal(scan.mask[0], torch.arange(14).expand(18, 14) % 3 > 0)
    assert f"{name} taken for CMRxRecon's k-space (kx, ky, coils, slices, frames), kx the readout" in taken(scans[0])


@pytest.mark.parametrize("name", ["kspace_single_full", "kspace_single_sub10"])
def test_cmrxrecon_of_combined_coils(tmp_path, name):
    k = noise((18, 14, 3, 2)).numpy()
    scans = read(write_cmrxrecon(tmp_path / "T1map.mat", name, k))
    assert [scan.name for scan in scans] == [f"T1map:frame{t}:{i}" for t in range(2) for i in range(3)]
    assert torch.equal(scans[4].k_space[0], torch.from_numpy(k[..., 1, 1].copy()))


def test_cmrxrecon_of_older_matlab_files(tmp_path):
    k = noise((18, 14, 4, 3, 2)).numpy()
    pytest.importorskip("scipy").io.savemat(tmp_path / "a.mat", {"kspace_full": k})
    scans = read(tmp_path / "a.mat")
    assert torch.equal(scans[5].k_space, torch.from_numpy(k[..., 2, 1].transpose(2, 0, 1).copy()))


def test_cmrxrecon_reads_slice_by_slice(tmp_path, monkeypatch):
    path = write_cmrxrecon(tmp_path / "a.mat", "kspace_full", noise((18, 14, 4, 3, 2)).numpy())
    taken, get = [], h5py.Dataset.__getitem__
    monkeypatch.setattr(h5py.Dataset, "__getitem__", lambda data, key: taken.append(got := get(data, key)) or got)
    read(path)
    assert {part.shape for part in taken} == {(4, 14, 18)}


def test_a_data_set_with_its_centre_elsewhere_is_refused(tmp_path):
    """Its description says where it is: what is elsewhere is another array."""
    k = np.roll(centred_fft(blob(64, 48), (-2, -1)), 12, -1)
    path = write_cmrxrecon(tmp_path / "a.mat", "kspace_full", np.moveaxis(k[..., None], (2, 3, 1, 0), (0, 1, 2, 3)))
    with pytest.raises(
        DataError, match="along the axis of the columns k-space has its centre at 36 of 48, expected 24"
    ):
        read(path)


def test_arrays_of_our_order_stay_what_they_are(tmp_path):
    """(slices, coils, H, W) named kspace: its coils are fewer than rows and columns."""
    k = noise((2, 3, 12, 10)).numpy()
    (first, _) = read(write_cmrxrecon(tmp_path / "a.mat", "kspace", k))
    assert first.provenance["format"] == "MATLAB" and torch.equal(first.k_space, torch.from_numpy(k[0]))
