"""Checks of files that may be damaged or hostile, made before memory is taken for what they claim to hold."""

from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import torch
from torch import Tensor

from ...errors import DataError
from ..scan import Scan, sum_of_squares

PEAK_RATIO = 4  # so much more power elsewhere than in the middle, and than on average, is no accident
FULL_LINE = 0.95  # of a line's points are not zero: it was measured whole
WITH_HEADER = ("fastMRI", "ISMRMRD", "Siemens")  # formats that say where the centre is


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
        values = torch.from_numpy(np.require(array, np.complex64, ["C", "W", "O"]))
    if bad := int((~np.isfinite(values.numpy())).sum()):
        raise DataError(
            f"{where}: {bad} values are not finite; set what was not measured to zero, or acquire the scan again"
        )
    return values


def _nonzero(k_space: Tensor) -> Tensor:
    """Points (H, W) where any coil (coils, H, W) is not exactly zero; NumPy takes a sixth of the time of PyTorch."""
    parts = torch.view_as_real(k_space).numpy() != 0
    return torch.from_numpy(parts.any(0).any(-1))


def _measured(path: Path, number: int, mask: Tensor) -> Tensor:
    """The mask, if it keeps anything."""
    if not mask.any():
        raise DataError(f"{path}: slice {number} is zero throughout, nothing was measured; leave it out")
    return mask


def _guess_mask(k_space: Tensor) -> Tensor:
    """What was measured (1, H, W), where the file does not say: what is not exactly zero in all coils."""
    mask = _nonzero(k_space)[None]
    for axis in (1, 2):  # a few zeros in lines that are else full were measured too
        share = mask.float().mean(axis, keepdim=True)
        if ((share == 0) | (share > FULL_LINE)).all():
            return (share > 0).expand(mask.shape)
    return mask


def check_centre(path: Path, scan: Scan) -> Scan:
    """Look for the peak of k-space along each axis, and refuse a scan whose low frequencies lie at an end of one.

    Compared is the mean power of measured lines, an eighth of an axis together: noise alone, or a slice without signal,
    has no peak to speak of, and one a few lines off the middle is a phase of the image.

    Args:
        path: the file.
        scan: a slice of it.

    Returns:
        the slice; `centre` of its provenance is where k-space has its centre, (row, column): the middle, or the peak of
        an array that does not end evenly on both sides (`msm.raw.scan.centred`).

    Raises:
        DataError: if the low frequencies are at an end of an axis, or not where a header says.
    """
    energy, measured, centre = sum_of_squares(scan.k_space), scan.mask[0].float(), []
    given = scan.provenance.get("centre")
    for axis, name in enumerate(("row", "column")):
        lines = torch.stack([energy.sum(1 - axis), measured.sum(1 - axis)])
        size, mean = lines.shape[1], energy.sum() / measured.sum()
        expected = given[axis] if given else size // 2
        around = torch.stack([lines.roll(shift, 1) for shift in range(-(size // 16), size // 16 + 1)]).sum(0)
        power, peak = around[0] / around[1].clamp(min=1), int((lines[0] / lines[1].clamp(min=1)).argmax())
        is_off = float(power.max()) > PEAK_RATIO * max(float(power[expected]), float(mean))
        at_end = min(peak, size - 1 - peak) <= size // 16
        with_header = scan.provenance["format"] in WITH_HEADER
        if is_off and (at_end or given or with_header):
            remedy = "correct it in the header" if with_header else "pad it until its centre is there, or leave it out"
            remedy = f"apply fftshift along this axis ({name}s) and save it" if at_end else remedy
            found = f"along the axis of the {name}s k-space has its centre at {peak} of {size}, expected {expected}"
            raise DataError(f"{path}: {scan.name}: {found}; {remedy}")
        centre.append(peak if is_off else expected)
    return replace(scan, provenance=scan.provenance | {"centre": centre})


def find_centre(k_space: Tensor) -> list[int]:
    """Row and column of the peak of k-space (coils, H, W); the middle, if there is no peak, or it is nearly there.

    Nearly is a 64th of the axis: that is a phase of the image. A peak at an end is for `check_centre` to refuse.
    """
    power, centre = k_space.abs().square().sum(0), []
    for axis in (0, 1):
        lines = power.sum(1 - axis)
        size, peak = len(lines), int(lines.argmax())
        is_peak = float(lines[peak]) > PEAK_RATIO * float(lines.sum()) / max(int((lines > 0).sum()), 1)
        is_off = abs(peak - size // 2) > size // 64 and min(peak, size - 1 - peak) > size // 16
        centre.append(peak if is_peak and is_off else size // 2)
    return centre
