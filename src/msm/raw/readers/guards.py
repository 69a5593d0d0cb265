"""Checks of files that may be damaged or hostile, made before memory is taken for what they claim to hold."""

from pathlib import Path

import h5py
import numpy as np
import torch
from torch import Tensor

from ...errors import DataError

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
    """Complex64 values, all finite: a scanner writes no others, they hide a fault or mean "not measured"."""
    with np.errstate(over="ignore"):  # found out below
        values = torch.from_numpy(np.array(array, dtype=np.complex64, order="C"))
    if bad := int((~torch.isfinite(torch.view_as_real(values)).all(-1)).sum()):
        raise DataError(
            f"{where}: {bad} values are not finite; set what was not measured to zero, or acquire the scan again"
        )
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
