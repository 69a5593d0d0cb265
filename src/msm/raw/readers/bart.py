"""BART file pairs, .cfl and .hdr."""

import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from torch import Tensor

from ...errors import DataError
from ..scan import Scan, split_axis, split_volume
from .arrays import _array_scans
from .guards import _tensor

BART_AXES, BART_SLICES = 16, 13  # how many there are, and which counts slices


def bart_scans(path: Path) -> Iterator[Scan]:
    """Slices of a BART file pair: 2-D multi-slice, or a volume, which is split along an axis measured whole.

    Args:
        path: the .cfl or the .hdr.

    Raises:
        DataError: if the pair is incomplete, does not fit together, or has axes other than those of k-space.
    """
    array = bart_array(path)
    other = [i for i, n in enumerate(array.shape) if n > 1 and i not in (0, 1, 2, 3, BART_SLICES)]
    if other:
        raise DataError(f"{path}: has {array.shape[other[0]]} along dimension {other[0]}; extract one by bart slice")
    *grid, coils = array.shape[:4]
    grid, count = [n for n in grid if n > 1], array.shape[BART_SLICES]
    array = array.reshape(*grid, coils, count, order="F")
    if len(grid) == 2:
        return _array_scans(path, "BART", array.transpose(3, 2, 0, 1))
    if len(grid) < 2 or count > 1:
        raise DataError(f"{path}: has {count} times {grid} points, expected slices or one volume; use bart slice")
    return _bart_volume(path, array[..., 0])


def bart_array(path: Path) -> np.ndarray:
    """The 16-dimensional array of a BART pair; nothing is read yet.

    Args:
        path: the .cfl or the .hdr.

    Raises:
        DataError: if the pair is incomplete, or does not fit together.
    """
    upper = path.suffix.isupper()
    data, header = (path.with_suffix(suffix.upper() if upper else suffix) for suffix in (".cfl", ".hdr"))
    shape = _bart_shape(header)
    held, count = data.stat().st_size if data.is_file() else 0, math.prod(shape)
    if held != 8 * count:
        stated = f"the {header.suffix} states {count} complex numbers of 8"
        raise DataError(f"{data}: has {held} bytes, {stated}; copy both files again")
    return np.memmap(data, dtype=np.complex64, mode="r", shape=shape, order="F")


def _bart_shape(path: Path) -> tuple[int, ...]:
    """The 16 dimensions that a .hdr states."""
    try:
        with path.open(encoding="ascii") as file:
            lines = file.read(2**16).splitlines()
        sizes = [int(n) for n in lines[lines.index("# Dimensions") + 1].split()]
        if not 1 <= len(sizes) <= BART_AXES or min(sizes) < 1:
            raise ValueError(f"dimensions {sizes}")
    except (FileNotFoundError, ValueError, IndexError) as error:
        raise DataError(f"{path}: not a BART header ({error}); give a .cfl with its .hdr beside it") from None
    return (*sizes, *[1] * (BART_AXES - len(sizes)))


def _bart_volume(path: Path, array: np.ndarray) -> Iterator[Scan]:
    """Slices of a volume (x, y, z, coils)."""
    x, y, z, coils = array.shape
    rows, lines = np.zeros(x, dtype=bool), np.zeros((y, z), dtype=bool)
    for i in range(y):
        measured = (array[:, i] != 0).any(-1)
        rows |= measured.any(1)
        lines[i] = measured.any(0)
    axis = split_axis(rows, lines)
    if axis is None or not lines.any():
        raise DataError(f"{path}: no axis of the volume is measured whole; give slices instead")

    def plane(i: int) -> Tensor:
        return _tensor(f"{path}: phase 1 = {i}", np.moveaxis(array[:, i], -1, 0))

    for i, (k_space, mask) in enumerate(split_volume(plane, rows, lines, coils, axis)):
        yield Scan(f"{path.stem}:{i}", k_space, mask, {"format": "BART", "file": path.name, "plane": i})
