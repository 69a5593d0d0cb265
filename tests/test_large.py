"""Large stores: 10⁵ items open at once, any item is read by itself, workers share no handle, memory stays."""

import os
import resource
import time

import h5py
import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, Dataset

from msm.data.store import MeasurementStore, _digest

COUNT = 10**5


@pytest.fixture(scope="module")
def large(tmp_path_factory):
    """10⁵ items of 4 × 4 pixels in the layout of StoreWriter, a chunk each; item i holds i and nothing else."""
    path = tmp_path_factory.mktemp("large") / "store.h5"
    with h5py.File(path, "w") as file:
        file.attrs.update(format="msm-measurements", version=1, provenance="{}")
        numbers = np.arange(COUNT, dtype=np.float32)[:, None, None, None]
        shape = (COUNT, 1, 4, 4)
        file.create_dataset("values", data=np.broadcast_to(numbers, shape), chunks=(1, 1, 4, 4), fletcher32=True)
        file.create_dataset("mask", data=np.ones(shape, bool), chunks=(1, 1, 4, 4), fletcher32=True)
        file.create_dataset("noise_std", data=np.zeros(COUNT, np.float32), chunks=(1024,), fletcher32=True)
        file.create_dataset("name", data=[f"item{i}" for i in range(COUNT)], dtype=h5py.string_dtype(), chunks=(1024,))
        file.attrs["sha256"] = _digest(file)
    return path


def test_it_opens_under_a_second_and_reads_single_items(large):
    started = time.process_time()
    store = MeasurementStore(large)
    wanted = [COUNT - 1, 0, 77_777]
    batch = store.batch(wanted)
    assert time.process_time() - started < 1
    assert len(store) == COUNT and batch.values[:, 0, 0, 0].tolist() == wanted


def test_memory_does_not_grow_with_what_was_read(large):
    """The peak after 2 000 random items is that after 20 000, but for a few megabytes."""
    store = MeasurementStore(large)
    order = torch.randperm(COUNT, generator=torch.Generator().manual_seed(0)).tolist()

    def read(items):
        for start in range(0, len(items), 100):
            store.batch(items[start : start + 100])
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

    first = read(order[:2000])
    assert read(order[2000:20_000]) - first < 8_000  # kilobytes; the items read hold 2.3 MB, the file more than 20


class Handles(Dataset):
    """For each item, what was read, by which process, through a file opened by which process."""

    def __init__(self, store):
        self.store = store

    def __len__(self):
        return 40

    def __getitem__(self, index):
        value = self.store.batch([index * 100]).values[0, 0, 0, 0]
        return value, os.getpid(), self.store._file[0]


def test_workers_share_no_handle(large):
    store = MeasurementStore(large)
    store.batch([5])  # opened here first: a worker must not go on with it
    values, readers, openers = zip(*DataLoader(Handles(store), batch_size=None, num_workers=2))
    assert [int(v) for v in values] == list(range(0, 4000, 100))
    assert readers == openers and len(set(readers)) == 2 and os.getpid() not in readers
