"""SKM-TEA's HDF5 files: knees in hybrid space, two echoes, with coil maps.

    kspace   (x, ky, kz, echoes, coils)   the readout x is an image already; centred FFTs along ky and kz
    maps     (x, y, z, coils, sets)       used where there is one set
    target   (x, y, z, echoes, sets)      the image of all of k-space: never read
    masks    undersampling for the test set: not applied

Source: DATASET.md, github.com/StanfordMIMI/skm-tea.
"""

from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from torch import Tensor

from ...data.hdf5 import own_dataset
from ...errors import DataError
from ..coil_maps import unit
from ..scan import Scan
from .guards import _check_array, _guess_mask, _measured, _tensor


def skm_tea_scans(path: Path, data: h5py.Dataset) -> Iterator[Scan]:
    """Slices (coils, ky, kz) along x of each echo; each echo is a volume.

    Args:
        path: the file.
        data: its dataset kspace.

    Raises:
        DataError: if it is of another kind.
    """
    count, height, width, echoes, coils = data.shape
    one = np.broadcast_to(np.empty((), data.dtype), (count, coils, height, width))  # takes no memory
    _check_array(f"{path}: dataset kspace, for SKM-TEA's (x, ky, kz, echoes, coils),", one, axes=(4,), coil_axis=-3)
    maps = _maps(path, data)
    taken = "taken for SKM-TEA's hybrid space (x, ky, kz, echoes, coils), measured where not zero"
    other = [name for name in ("target", "masks") if name in data.file]
    parts = [taken, f"coil maps {'of the file' if maps else 'estimated'}", *(f"{name} not used" for name in other)]
    about: dict[str, Any] = {"format": "SKM-TEA", "file": path.name, "taken_for": "; ".join(parts)}
    about["centre"] = [height // 2, width // 2]
    for echo, i in product(range(echoes), range(count)):
        k_space = _tensor(f"{path}: echo {echo}, slice {i}", data[i, :, :, echo].transpose(2, 0, 1))
        mask = _measured(path, i, _guess_mask(k_space))
        own = None if maps is None else _unit_maps(path, i, maps)
        name = f"{path.stem}:echo{echo}:{i}"
        yield Scan(name, k_space, mask, about | {"echo": echo, "slice": i}, maps=own)


def _maps(path: Path, data: h5py.Dataset) -> h5py.Dataset | None:
    """The file's coil maps, if it has one set of them."""
    if "maps" not in data.file:
        return None
    maps = own_dataset(path, data.file, "maps")
    expected = (*data.shape[:3], data.shape[4])
    if maps.dtype.kind != "c" or maps.ndim != 5 or maps.shape[:4] != expected:
        raise DataError(f"{path}: maps is {maps.dtype} {maps.shape}, expected complex {(*expected, 1)}; remove it")
    return maps if maps.shape[4] == 1 else None


def _unit_maps(path: Path, number: int, maps: h5py.Dataset) -> Tensor | None:
    """Maps of a slice (coils, y, z), scaled; None if they are zero throughout."""
    own = unit(_tensor(f"{path}: maps of slice {number}", maps[number, ..., 0].transpose(2, 0, 1)))
    return own if own.any() else None
