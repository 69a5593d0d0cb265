"""Coil maps from the calibration region of a scan: the fully sampled middle of k-space (ESPIRiT).

Source: Uecker et al., Magn. Reson. Med. 71 (2014), as in sigpy; coil compression: Buehrer et al., Magn. Reson.
Med. 57 (2007).
"""

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..errors import DataError, optional
from ..transforms import MultiCoil, ifft2c
from .scan import Scan, interpolated, resize

KERNEL_WIDTH = 6  # of ESPIRiT's k-space kernels; half of a calibration region that is narrower than two of them
SMALLEST = 6  # rows and columns of a calibration region: narrower kernels than 3 make poor maps
CALIBRATION_WIDTH = 24  # more costs time and adds little: the maps are smooth
GRID = 96  # pixels a side on which ESPIRiT is solved: products of two kernels have only 11 frequencies along an axis
GIVE_MAPS = "give maps of your own (setting.coil_maps=FILE; msm acquire --maps FILE)"


def calibration_region(scan: Scan) -> tuple[slice, slice]:
    """Rows and columns of the largest fully sampled rectangle that holds the centre of k-space, in its middle or not.

    Args:
        scan: a slice; its calibration lines count, if it has any.

    Raises:
        DataError: if it has fewer than 6 rows or columns.
    """
    mask = (scan.calibration or scan).mask[0].numpy()
    row, column = (n // 2 for n in mask.shape)
    behind, before = (_run(part) for part in (mask[:, column:], mask[:, column::-1]))  # columns measured without a gap
    down, up = slice(row, None), slice(row, None, -1)
    right, left = (np.minimum.outer(*(np.minimum.accumulate(n[way]) for way in (down, up))) for n in (behind, before))
    heights = 1 + np.add.outer(np.arange(right.shape[0]), np.arange(right.shape[1]))
    widths = np.where(right > 0, right + left - 1, 0)
    area = heights * widths
    usable = (heights >= SMALLEST) & (widths >= SMALLEST)
    below, above = np.unravel_index(np.where(usable, area, 0).argmax() if usable.any() else area.argmax(), area.shape)
    if not usable.any():
        found = f"{heights[below, above]} × {widths[below, above]}" if area.any() else "0"
        raise DataError(
            f"{scan.name}: around its centre (row {row}, column {column}) k-space is fully sampled on {found} points, "
            f"coil maps need {SMALLEST} × {SMALLEST}; acquire {SMALLEST} lines or more without a gap, or {GIVE_MAPS}"
        )
    first = column + 1 - int(left[below, above])
    return slice(row - int(above), row + int(below) + 1), slice(first, first + int(widths[below, above]))


def _run(mask: np.ndarray) -> np.ndarray:
    """How many entries of each row are true before the first that is not."""
    return np.where(mask.all(1), mask.shape[1], mask.argmin(1))


def calibration_part(scan: Scan) -> tuple[slice, slice]:
    """Rows and columns of the calibration region that the maps are made of: those nearest to the centre of k-space."""
    region = calibration_region(scan)
    short = min(part.stop - part.start for part in region)
    most = min(short, CALIBRATION_WIDTH) if short >= 2 * KERNEL_WIDTH else CALIBRATION_WIDTH**2 // short
    parts = []
    for part, size in zip(region, scan.mask.shape[1:]):
        length = min(most, part.stop - part.start)
        first = min(max(size // 2 - length // 2, part.start), part.stop - length)
        parts.append(slice(first, first + length))
    return parts[0], parts[1]


def calibration_data(scan: Scan) -> Tensor:
    """K-space of the calibration region (coils, h, w), complex64."""
    rows, columns = calibration_region(scan)
    return (scan.calibration or scan).k_space[:, rows, columns]


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
        DataError: if there is no calibration region, or no signal in it.
        MissingPackage: if sigpy is missing.
    """
    coils, height, width = scan.k_space.shape
    if coils == 1:
        return torch.ones(1, height, width, dtype=torch.complex64)
    region, grid = calibration_data(scan), (min(height, GRID), min(width, GRID))
    rows, columns = calibration_part(scan)
    part = (scan.calibration or scan).k_space[:, rows, columns]
    if min(part.shape[1:]) < 2 * KERNEL_WIDTH:
        coarse, eigenvalue = _from_few_lines(part, grid, threshold)
    else:
        side, padded = part.shape[1], resize(resize(part, grid[0], -2), grid[1], -1).numpy()
        with np.errstate(divide="ignore", invalid="ignore"):  # where the first coil sees nothing its phase is 0/0
            app = espirit_app()(padded, side, threshold, KERNEL_WIDTH, 0, output_eigenvalue=True, show_pbar=False)
            coarse, eigenvalue = (torch.from_numpy(np.ascontiguousarray(array)) for array in app.run())
    coarse = torch.where(torch.isfinite(coarse.abs()).all(0), coarse, 0).to(torch.complex64)
    reference = torch.tensordot(_strongest(region, 1), coarse, dims=1)  # its phase does not turn fast inside the head
    coarse = coarse * torch.polar(torch.ones_like(reference.real), -reference.angle())
    maps = _finer(coarse, (height, width))
    norm = maps.abs().square().sum(0).sqrt()
    maps = maps / norm.clamp(min=1e-6) * torch.polar(torch.ones(height, width), -maps[0].angle())
    maps = torch.where((norm > 0) & (_finer(eigenvalue[None].float(), (height, width))[0] > crop), maps, 0)
    if not maps.any():
        h, w = region.shape[1:]
        raise DataError(
            f"{scan.name}: the coil maps are empty: the {h} × {w} points in the middle of k-space fit no image seen by "
            f"{coils} coils; leave this slice out, or {GIVE_MAPS}"
        )
    return maps


def _from_few_lines(region: Tensor, grid: tuple[int, int], threshold: float) -> tuple[Tensor, Tensor]:
    """ESPIRiT of a region whose short side takes narrow kernels only: sigpy's regions and kernels are squares.

    Args:
        region: k-space (coils, h, w).
        grid: H and W of the maps.
        threshold: as of `espirit_maps`.

    Returns:
        maps (coils, H, W) of any phase, and the largest eigenvalue (H, W).
    """
    coils, *sides = region.shape
    kernel = [min(KERNEL_WIDTH, side // 2) for side in sides]
    blocks = region.unfold(1, kernel[0], 1).unfold(2, kernel[1], 1)  # (coils, places, places, kernel, kernel)
    _, singular, rows = torch.linalg.svd(blocks.flatten(3).permute(1, 2, 0, 3).flatten(0, 1).flatten(1), False)
    kernels = rows[singular > threshold * singular[0]].reshape(-1, coils, *kernel)
    gram = torch.zeros(*grid, coils, coils, dtype=region.dtype)
    for part in kernels.split(16):  # so many images at a time
        images = ifft2c(resize(resize(part, grid[0], -2), grid[1], -1))
        gram += torch.einsum("nchw,ndhw->hwcd", images, images.conj())
    eigenvalues, vectors = torch.linalg.eigh(gram * (math.prod(grid) / math.prod(kernel)))
    return vectors[..., -1].movedim(-1, 0), eigenvalues[..., -1]


def _finer(images: Tensor, size: tuple[int, int]) -> Tensor:
    """Images (coils, h, w) on a finer grid of the same field of view, bilinear."""
    return interpolated(interpolated(images, size[0], -2), size[1], -1)


def compress(scan: Scan, coils: int) -> Scan:
    """Fewer coils: orthonormal combinations that hold most of the calibration region's energy; white noise stays so.

    Of a scan with given maps all that was measured counts: it need not have a calibration region.

    Args:
        scan: a slice.
        coils: how many to keep; no fewer than there are leaves the scan as it is.

    Raises:
        DataError: if there is no calibration region.
    """
    if coils >= len(scan.k_space):
        return scan
    kept = _strongest(calibration_data(scan) if scan.maps is None else scan.k_space, coils)
    return scan.map(lambda values: torch.tensordot(kept, values, dims=1), coils=[len(scan.k_space), coils])


def _strongest(region: Tensor, coils: int) -> Tensor:
    """Orthonormal combinations (coils, all coils) that hold most of the energy of data (all coils, h, w)."""
    data = region.flatten(1)
    return torch.linalg.eigh(data @ data.mH).eigenvectors[:, -coils:].flip(1).mH


def unit(maps: Tensor) -> Tensor:
    """Maps (coils, H, W) scaled to Σ_c |C_c|² = 1; zero where they are below a thousandth of their largest."""
    norm = maps.abs().square().sum(0).sqrt()
    return torch.where(norm > 1e-3 * norm.max(), maps / norm.clamp(min=1e-30), 0)


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
