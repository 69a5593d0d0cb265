"""Chunks made for HDF5's filters: HDF5 reads them, checks their sums, and packs the same sums itself."""

import h5py
import numpy as np
import pytest

from msm.data.lzf import chunk_of, fletcher32

FILTERS = {"compression": "lzf", "fletcher32": True}


def read_back(path, values, mask):
    chunk, left_out = chunk_of(values, mask)
    with h5py.File(path, "w") as file:
        data = file.create_dataset("values", values.shape, np.complex64, chunks=values.shape, **FILTERS)
        data.id.write_direct_chunk((0, 0, 0), chunk, left_out)
    with h5py.File(path) as file:
        return file["values"][:], len(chunk)


def noise(*shape):
    return np.random.default_rng(0).standard_normal((*shape, 2), np.float32).view(np.complex64)[..., 0]


@pytest.mark.parametrize("seed", range(60))
def test_any_mask(tmp_path, seed):
    """Runs of all lengths, of what was measured and of what was not, across the ends of rows."""
    rng = np.random.default_rng(seed)
    coils, height, width = rng.integers(1, [4, 40, 90])
    lengths = 1 + rng.exponential(rng.choice([1, 5, 60], (2, height * width)).T).astype(int).ravel()
    runs = np.repeat(np.arange(len(lengths)) % 2 == seed % 2, lengths)
    mask, values = runs[: height * width].reshape(height, width), noise(coils, height, width)
    found, size = read_back(tmp_path / "a.h5", values, mask)
    assert np.array_equal(found, np.where(mask, values, 0)) and size <= values.nbytes + 4


@pytest.mark.parametrize("every", [1, 2, 3, 8, 200])
def test_columns(tmp_path, every):
    """Smaller than HDF5 packs it, but where nothing is left out; what was not measured may be anything."""
    mask = np.broadcast_to(np.arange(256) % every == 0, (128, 256))
    values = noise(4, 128, 256)
    measured = np.where(mask, values, 0)
    found, size = read_back(tmp_path / "a.h5", np.where(mask, values, np.nan), mask)
    assert np.array_equal(found, measured)
    with h5py.File(tmp_path / "b.h5", "w") as file:
        file.create_dataset("values", data=measured, chunks=values.shape, shuffle=True, **FILTERS)
        assert every == 1 or size <= file["values"].id.get_storage_size()


@pytest.mark.parametrize("size", [1, 2, 3, 4095, 8192, 8193, 100_001, 3_000_000])
def test_check_sum(tmp_path, size):
    for content in (
        np.random.default_rng(size).integers(0, 256, size, np.uint8),
        *np.full((2, size), [[0], [255]], "u1"),
    ):
        with h5py.File(tmp_path / "a.h5", "w") as file:
            data = file.create_dataset("a", data=content, chunks=content.shape, fletcher32=True)
            _, chunk = data.id.read_direct_chunk((0,))
        assert int.from_bytes(chunk[-4:], "little") == fletcher32(content)
