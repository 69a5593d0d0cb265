"""CC359, the raw data of Calgary-Campinas: hybrid space, real and imaginary parts in turn along the last axis.

    .h5           kspace (x, ky, kz, 2 × coils), of 12 or 32 coils
    .npy          (slices, ky, kz, 2), coils combined, or likewise of several coils

The first axis is an image already. Images are those of an inverse FFT without any shift, of arrays whose low
frequencies lie in the middle (several coils) or at the corners (coils combined): half a field of view away from where a
centred FFT has them. Of the slice encoding kz, 85 % was acquired; what the files hold beyond is not measured.

Source: github.com/rmsouza01/MC-MRRec-challenge and Hybrid-CS-Model-MRI; Souza et al., NeuroImage 170 (2018).
"""

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch
from torch import Tensor

from ...errors import DataError
from ..scan import Scan
from .guards import _check_array, _guess_mask, _measured, _tensor

ACQUIRED = 0.85  # of kz
FAINT = 0.25  # of the power of the same frequencies on the other side: not measured


def cc359_scans(path: Path, array: np.ndarray | h5py.Dataset) -> Iterator[Scan]:
    """Slices of an array in hybrid space, each brought to centred k-space (coils, ky, kz).

    Args:
        path: the file.
        array: (slices, H, W, 2 × coils), real.

    Raises:
        DataError: if it is of another kind.
    """
    count, height, width, numbers = array.shape
    if array.dtype.kind != "f" or numbers % 2:
        raise DataError(f"{path}: is {array.dtype} {array.shape}, expected real (slices, H, W, 2 × coils) of CC359")
    coils = numbers // 2
    one = np.broadcast_to(np.complex64(), (count, coils, height, width))  # takes no memory
    _check_array(str(path), one, axes=(4,), coil_axis=-3)

    def k_space(i: int) -> Tensor:
        part = np.ascontiguousarray(array[i], np.result_type(array.dtype, np.float32))
        return _tensor(f"{path}: slice {i}", part.view(np.result_type(part.dtype, np.complex64)).transpose(2, 0, 1))

    middle = k_space(count // 2)
    at_corners = _is_at_corners(middle)
    kept = _acquired(torch.fft.fftshift(middle, (1, 2)) if at_corners else middle)
    about: dict[str, Any] = {"format": "CC359", "file": path.name, "centre": [height // 2, width // 2]}
    about["taken_for"] = _taken(at_corners, kept, width)
    phases = _half_shift(height)[:, None] * _half_shift(width)
    for i in range(count):
        values = torch.fft.fftshift(k_space(i), (1, 2)) if at_corners else k_space(i)
        mask = _guess_mask(values) & (torch.arange(width) < kept)
        mask = _measured(path, i, mask)
        yield Scan(f"{path.stem}:{i}", torch.where(mask, values * phases, 0), mask, about | {"slice": i})


def _taken(at_corners: bool, kept: int, width: int) -> str:
    place = "at the corners" if at_corners else "in the middle"
    rest = f", the last {width - kept} columns not measured" if kept < width else ""
    return (
        f"real numbers taken for CC359's hybrid space (slices, ky, kz, 2 × coils), low frequencies {place}, images by "
        f"an FFT without shifts{rest} (anything else: save it as complex numbers (slices, coils, H, W))"
    )


def _is_at_corners(k_space: Tensor) -> bool:
    """Whether low frequencies lie at the corners of k-space rather than in the middle."""
    power = k_space.abs().square().sum(0)
    height, width = (max(1, n // 8) for n in power.shape)
    middle = power[power.shape[0] // 2 - height :, power.shape[1] // 2 - width :][: 2 * height, : 2 * width].sum()
    return bool(power.roll((height, width), (0, 1))[: 2 * height, : 2 * width].sum() > middle)


def _acquired(k_space: Tensor) -> int:
    """How many columns were acquired: all, or 85 % if what lies beyond is faint beside its mirror image."""
    width = k_space.shape[-1]
    kept = math.ceil(ACQUIRED * width)
    power = k_space.abs().square().sum((0, 1))
    beyond = torch.arange(kept, width)
    mirrored = (2 * (width // 2) - beyond) % width
    return kept if power[beyond].sum() < FAINT * power[mirrored].sum() else width


def _half_shift(size: int) -> Tensor:
    """Phases along an axis of centred k-space that move the image by size // 2, from an FFT without shifts."""
    turns = (torch.arange(size) - size // 2) * (size // 2) % size / size
    return torch.exp(2j * torch.pi * turns.double()).to(torch.complex64)
