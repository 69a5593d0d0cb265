"""Small stores of simulated scans."""

import h5py
import pytest
import torch

from msm.data.acquire import acquire, simulate_scan
from msm.data.store import StoreWriter
from msm.masks import CartesianMasks

SIZE = 8
MASKS = CartesianMasks(SIZE, 2, 2)


def scan(i):
    pytest.importorskip("sigpy")
    magnitude = torch.rand(SIZE, SIZE, generator=torch.Generator().manual_seed(i))
    return simulate_scan(f"scan{i}", magnitude, coils=3, seed=0)


def write_scans(path, count):
    """The first `count` scans, each acquired at noise 0.1."""
    with StoreWriter(path, {"from": "test"}) as writer:
        for i in range(count):
            m = acquire(scan(i), MASKS, 0.1, seed=0)
            writer.add(f"scan{i}", m.values[0], m.mask[0], m.maps[0], 0.1)
    return path


def edit(path, field, change):
    with h5py.File(path, "r+") as file:
        data = change(file[field][:])
        del file[field]
        file[field] = data
