"""Arrays that no header explains: NumPy and MATLAB files."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from ..scan import Scan
from .cc359 import cc359_scans
from .cmrxrecon import NAMES, cmrxrecon_scans, in_cmrxrecon_order
from .guards import _check_array, _guess_mask, _measured, _tensor
from .matlab import open_mat

MAT_NAMES = ("kdata", "kspace", "data")
AXES = {2: "(H, W)", 3: "(coils, H, W)", 4: "(slices, coils, H, W)"}


def npy_scans(path: Path) -> Iterator[Scan]:
    """Slices of a NumPy array, read slice by slice; pickled objects are refused."""
    array = np.lib.format.open_memmap(path, mode="r")
    if array.dtype.kind == "f" and array.ndim == 4 and array.shape[-1] % 2 == 0:
        return cc359_scans(path, array)
    return _array_scans(path, "NumPy", array)


def mat_scans(path: Path) -> Iterator[Scan]:
    """Slices of a MATLAB file, versions 5 to 7.3: the first of kdata, kspace and data that it holds, or CMRxRecon's."""
    with open_mat(path, MAT_NAMES + NAMES) as (name, array):
        if in_cmrxrecon_order(name, array.shape):
            yield from cmrxrecon_scans(path, name, array)
        else:
            yield from _array_scans(path, "MATLAB", array.at())


def _array_scans(path: Path, kind: str, array: np.ndarray) -> Iterator[Scan]:
    """Slices of an array that no header explains."""
    _check_array(str(path), array, axes=(2, 3, 4), coil_axis=-3)
    taken = f"taken for k-space {AXES[array.ndim]}, H the readout, measured where it is not zero"
    about = {"format": kind, "file": path.name, "taken_for": f"{taken} (for other axes, transpose it and save it)"}
    array = array.reshape(-1, *array.shape[-3:]) if array.ndim > 2 else array[None, None]
    for i, part in enumerate(array):
        k_space = _tensor(f"{path}: slice {i}", part)
        mask = _measured(path, i, _guess_mask(k_space))
        yield Scan(f"{path.stem}:{i}", k_space, mask, about | {"slice": i})
