"""Checks of files that may be damaged or hostile, made before memory is taken for what they claim to hold."""

import math
from pathlib import Path

import h5py
import numpy as np
import torch
from torch import Tensor

from ...data.hdf5 import own_dataset
from ...errors import DataError

LARGEST_CLAIM = 64  # a file may need so many times the memory that its data take: undersampling and compression


def refuse_claim(where: str, claimed: int, held: int) -> None:
    """Refuse an array far larger than the data in the file, before any memory is taken for it.

    Args:
        where: the file and what in it makes the claim.
        claimed: bytes the array would take.
        held: bytes of data that the file holds.

    Raises:
        DataError: if the claim is more than 64 times what is held.
    """
    if claimed > LARGEST_CLAIM * held:
        raise DataError(
            f"{where} claims {claimed:.3g} bytes, the file holds {held:.3g} of data; "
            "the file is damaged or cut off, copy or make it again"
        )


def raw_dataset(path: Path, group: h5py.Group, name: str) -> h5py.Dataset:
    """A dataset of an HDF5 file whose size, and that of its chunks, the stored data justify.

    Args:
        path: the file, for the message.
        group: the open file, or a group of it.
        name: name in the group.

    Raises:
        DataError: if it is missing, lies in another file, or claims too much.
    """
    data = own_dataset(path, group, name)
    claimed = max(data.size, math.prod(data.chunks) if data.chunks else 0) * data.dtype.itemsize
    refuse_claim(f"{path}: dataset {name}", claimed, data.id.get_storage_size())
    return data


def check_lengths(path: Path, data: h5py.Dataset, field: str | None = None) -> None:
    """Refuse values of variable length that claim more than the file holds: HDF5 takes the memory first.

    In the file, each is its length (4 bytes) and where it lies (12 bytes).

    Args:
        path: the file.
        data: the dataset.
        field: name of the values in a compound; None if the values are the dataset.

    Raises:
        DataError: if one does, or the lengths are packed away by a filter.
    """
    kind, places = data.id.get_type(), []
    row, offset = kind.get_size(), 0
    if field is not None:
        offset = kind.get_member_offset(kind.get_member_index(field.encode()))
    if data.chunks is None:
        places.append((data.id.get_offset(), data.size))
    else:
        data.id.chunk_iter(lambda chunk: places.append((chunk.byte_offset, math.prod(data.chunks))))
    if data.compression is not None or None in (place for place, _ in places):
        raise DataError(f"{path}: {data.name} is stored packed; write it plainly: h5repack -l CONTI or -f NONE")
    content = np.memmap(path, np.uint8, mode="r")
    for place, count in places:
        rows = content[place : place + count * row].reshape(count, row)
        longest = int(np.ascontiguousarray(rows[:, offset : offset + 4]).view("<u4").max(initial=0))
        refuse_claim(f"{path}: a value of {data.name}", longest, content.size // LARGEST_CLAIM)


def check_finite(where: str, values: Tensor) -> None:
    """Refuse values that are not finite: a scanner writes none, so they hide a fault or mean "not measured".

    Raises:
        DataError: if there are any.
    """
    bad = int((~torch.isfinite(torch.view_as_real(values)).all(-1)).sum())
    if bad:
        raise DataError(
            f"{where}: {bad} values are not finite; set what was not measured to zero, or acquire the scan again"
        )


CORNER_RATIO = 4  # so much more energy at the corners than in the middle is no accident


def _check_array(where: str, array: np.ndarray | h5py.Dataset, axes: tuple[int, ...], coil_axis: int) -> None:
    """Refuse what cannot be k-space; an array of fewer axes than the coils' needs has one coil."""
    shape, dtype = array.shape, array.dtype
    if dtype.kind != "c":
        raise DataError(f"{where} is {dtype}, expected complex k-space; save real and imaginary part as one")
    if len(shape) not in axes:
        raise DataError(f"{where} has shape {shape}, expected {' or '.join(map(str, axes))} axes; reshape it")
    if 0 in shape:
        raise DataError(f"{where} has shape {shape}, which holds nothing; save it again")
    coils = shape[coil_axis] if len(shape) >= abs(coil_axis) else 1
    if coils > min(shape[-2:]):
        raise DataError(
            f"{where} has shape {shape}: {coils} coils for an image of {shape[-2]}×{shape[-1]}; "
            "the axes are swapped, put them in the order (slices, coils, H, W)"
        )


def _tensor(where: str, array: np.ndarray) -> Tensor:
    """Complex64 values, all finite."""
    with np.errstate(over="ignore"):  # found out below
        values = torch.from_numpy(np.array(array, dtype=np.complex64, order="C"))
    check_finite(where, values)
    return values


def _measured(path: Path, number: int, mask: Tensor) -> Tensor:
    """The mask, if it keeps anything."""
    if not mask.any():
        raise DataError(f"{path}: slice {number} is zero throughout, nothing was measured; leave it out")
    return mask


def _check_centre(where: str, k_space: Tensor) -> None:
    """Refuse k-space whose low frequencies lie at the corners."""
    energy = k_space.abs().square().sum(0)
    height, width = (max(n // 8, 1) for n in energy.shape)
    corners = torch.roll(energy, (height, width), (0, 1))[: 2 * height, : 2 * width].sum()
    top, left = (n // 2 - m for n, m in zip(energy.shape, (height, width)))
    middle = energy[max(top, 0) : top + 2 * height, max(left, 0) : left + 2 * width].sum()
    if corners > CORNER_RATIO * middle:
        raise DataError(f"{where}: low frequencies lie at the corners, not in the middle; apply fftshift and save it")
