"""Coil maps from the calibration region of a scan: the fully sampled middle of k-space (ESPIRiT).

Source: Uecker et al., Magn. Reson. Med. 71 (2014), as in sigpy; coil compression: Buehrer et al., Magn. Reson.
Med. 57 (2007).
"""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..errors import DataError, optional
from ..transforms import MultiCoil
from .scan import Scan, resize

KERNEL_WIDTH = 6  # of ESPIRiT's k-space kernels: no calibration region can be smaller
CALIBRATION_WIDTH = 24  # more costs time and adds little: the maps are smooth
GRID = 96  # pixels a side on which ESPIRiT is solved: products of two kernels have only 11 frequencies along an axis


def calibration_size(scan: Scan) -> tuple[int, int]:
    """Height and width of the largest fully sampled rectangle around the centre of k-space.

    Args:
        scan: a slice; its calibration lines count, if it has any.

    Raises:
        DataError: if no rectangle of at least 6 × 6 points is.
    """
    mask = (scan.calibration or scan).mask[0]
    counts = torch.nn.functional.pad(mask.int().cumsum(0).cumsum(1), (1, 0, 1, 0))
    height, width = mask.shape

    def is_full(h: int, w: int) -> bool:
        top, left = height // 2 - h // 2, width // 2 - w // 2
        corners = counts[top : top + h + 1 : h, left : left + w + 1 : w]
        return int(corners[1, 1] - corners[0, 1] - corners[1, 0] + corners[0, 0]) == h * w

    best, w = (0, 0), width
    for h in range(KERNEL_WIDTH, height + 1):
        while w >= KERNEL_WIDTH and not is_full(h, w):
            w -= 1
        if w >= KERNEL_WIDTH and h * w > best[0] * best[1]:
            best = (h, w)
    if best == (0, 0):
        raise DataError(
            f"{scan.name}: the middle of k-space has no fully sampled rectangle of {KERNEL_WIDTH} × {KERNEL_WIDTH}, "
            "coil maps need one; acquire calibration lines, or give maps"
        )
    return best


def calibration_data(scan: Scan) -> Tensor:
    """K-space of the calibration region (coils, h, w), complex64."""
    height, width = calibration_size(scan)
    return resize(resize((scan.calibration or scan).k_space, height, -2), width, -1)


def espirit_app() -> Any:
    """Sigpy's ESPIRiT; a run that will estimate coil maps asks for it at its start.

    Raises:
        MissingPackage: if sigpy is missing.
    """
    return optional("sigpy.mri.app", "estimating coil maps", "mri").EspiritCalib


def espirit_maps(scan: Scan, threshold: float = 0.02, crop: float = 0.95) -> Tensor:
    """Coil maps by ESPIRiT, from the calibration region alone.

    Args:
        scan: a slice of at least two coils; with one coil the map is 1.
        threshold: singular values of the calibration matrix below this share of the largest are noise.
        crop: where the largest eigenvalue is below, there is no signal: the maps are zero.

    Returns:
        (coils, H, W), complex64, with Σ_c |C_c|² = 1 where there is signal, else 0; the first coil is real.

    Raises:
        DataError: if there is no calibration region.
        MissingPackage: if sigpy is missing.
    """
    coils, height, width = scan.k_space.shape
    if coils == 1:
        return torch.ones(1, height, width, dtype=torch.complex64)
    region = calibration_data(scan)
    side = min(*region.shape[1:], CALIBRATION_WIDTH)
    padded = resize(resize(region, min(height, GRID), -2), min(width, GRID), -1).numpy()
    with np.errstate(divide="ignore", invalid="ignore"):  # where the first coil sees nothing its phase is 0/0
        app = espirit_app()(padded, side, threshold, KERNEL_WIDTH, 0, output_eigenvalue=True, show_pbar=False)
        coarse, eigenvalue = (torch.from_numpy(np.ascontiguousarray(array)) for array in app.run())
    coarse = torch.where(torch.isfinite(coarse.abs()).all(0), coarse, 0).to(torch.complex64)
    reference = torch.tensordot(_strongest(region, 1), coarse, dims=1)  # its phase does not turn fast inside the head
    coarse = coarse * torch.polar(torch.ones_like(reference.real), -reference.angle())
    maps = _finer(coarse, (height, width))
    norm = maps.abs().square().sum(0).sqrt()
    maps = maps / norm.clamp(min=1e-6) * torch.polar(torch.ones(height, width), -maps[0].angle())
    return torch.where((norm > 0) & (_finer(eigenvalue[None].float(), (height, width))[0] > crop), maps, 0)


def _finer(images: Tensor, size: tuple[int, int]) -> Tensor:
    """Images (coils, h, w) on a finer grid of the same field of view, bilinear; n // 2 stays in the middle."""
    for axis, new in zip((-2, -1), size):
        old = images.shape[axis]
        place = old // 2 + (torch.arange(new) - new // 2) * (old / new)
        low = place.floor().long()
        share = (place - low).unsqueeze(-1) if axis == -2 else place - low
        images = images.index_select(axis, low % old) * (1 - share) + images.index_select(axis, (low + 1) % old) * share
    return images


def compress(scan: Scan, coils: int) -> Scan:
    """Fewer coils: orthonormal combinations that hold most of the calibration region's energy; white noise stays so.

    Args:
        scan: a slice.
        coils: how many to keep; no fewer than there are leaves the scan as it is.

    Raises:
        DataError: if there is no calibration region.
    """
    if coils >= len(scan.k_space):
        return scan
    kept = _strongest(calibration_data(scan), coils)
    return scan.map(lambda values: torch.tensordot(kept, values, dims=1), coils=[len(scan.k_space), coils])


def _strongest(region: Tensor, coils: int) -> Tensor:
    """Orthonormal combinations (coils, all coils) that hold most of the energy of data (all coils, h, w)."""
    data = region.flatten(1)
    return torch.linalg.eigh(data @ data.mH).eigenvectors[:, -coils:].flip(1).mH


def outside_span(scan: Scan, maps: Tensor) -> float:
    """Share of the data's energy that the maps cannot explain: 1 − ‖Cᴴ y‖²/‖y‖², y the calibration region's images.

    Pixel by pixel, coil images of low resolution are projected on the maps. Noise, signal outside of the maps'
    support, and a head that folds over or moved make it larger: 0.001 on a good scan of a head, 0.1 with its maps
    moved by 20 of 180 pixels.

    Args:
        scan: a slice.
        maps: (coils, H, W), complex, Σ_c |C_c|² = 1 or 0.

    Returns:
        a number from 0 to 1.

    Raises:
        DataError: if there is no calibration region.
    """
    height, width = scan.k_space.shape[-2:]
    region = calibration_data(scan)
    window = torch.outer(*(torch.hann_window(n + 1, periodic=False)[:-1] for n in region.shape[1:]))
    padded = resize(resize(region * window, height, -2), width, -1)
    combined = MultiCoil(maps[None]).adjoint(padded[None])
    return 1 - float(combined.norm() ** 2 / padded.norm() ** 2)
