"""Arrays that no header explains: NumPy and MATLAB files."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from torch import Tensor

from ..scan import Scan
from .guards import _check_array, _measured, _nonzero, _tensor
from .matlab import read_mat

MAT_NAMES = ("kdata", "kspace", "data")
FULL_LINE = 0.95  # of a line's points are not zero: it was measured whole


def npy_scans(path: Path) -> Iterator[Scan]:
    """Slices of a NumPy array, read slice by slice; pickled objects are refused."""
    return _array_scans(path, "NumPy", np.lib.format.open_memmap(path, mode="r"))


def mat_scans(path: Path) -> Iterator[Scan]:
    """Slices of a MATLAB file, versions 5 to 7.3: the first of kdata, kspace and data that it holds."""
    return _array_scans(path, "MATLAB", read_mat(path, MAT_NAMES))


def _array_scans(path: Path, kind: str, array: np.ndarray) -> Iterator[Scan]:
    """Slices of an array that no header explains."""
    _check_array(str(path), array, axes=(2, 3, 4), coil_axis=-3)
    array = array.reshape(-1, *array.shape[-3:]) if array.ndim > 2 else array[None, None]
    for i, part in enumerate(array):
        k_space = _tensor(f"{path}: slice {i}", part)
        mask = _measured(path, i, _guess_mask(k_space))
        yield Scan(f"{path.stem}:{i}", k_space, mask, {"format": kind, "file": path.name, "slice": i})


def _guess_mask(k_space: Tensor) -> Tensor:
    """What was measured (1, H, W), where the file does not say: what is not exactly zero in all coils."""
    mask = _nonzero(k_space)[None]
    for axis in (1, 2):  # a few zeros in lines that are else full were measured too
        share = mask.float().mean(axis, keepdim=True)
        if ((share == 0) | (share > FULL_LINE)).all():
            return (share > 0).expand(mask.shape)
    return mask
