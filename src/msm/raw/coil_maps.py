"""Coil maps from the calibration region of a scan: the fully sampled middle of k-space (ESPIRiT).

Source: Uecker et al., Magn. Reson. Med. 71 (2014); coil compression: Buehrer et al., Magn. Reson.
Med. 57 (2007).
"""

import math

import numpy as np
import torch
from torch import Tensor

from ..errors import DataError
from ..transforms import MultiCoil
from .scan import Scan, interpolated, resize, sum_of_squares

KERNEL_WIDTH = 6  # of ESPIRiT's k-space kernels; half of a calibration region that is narrower than two of them
SMALLEST = 6  # rows and columns of a calibration region: narrower kernels than 3 make poor maps
CALIBRATION_WIDTH = 24  # more costs time and adds little: the maps are smooth
GRID = 96  # pixels a side on which ESPIRiT is solved: products of two kernels have only 11 frequencies along an axis
SQUARINGS = 8  # leave (λ₂/λ₁)^256 of the second eigenvector: 2e-6 where that is .95
CHUNK_BYTES = 2**22  # of the matrices of pixels that are worked on at a time, or one row of the grid
GIVE_MAPS = "give maps of your own (setting.coil_maps=FILE; msm acquire --maps FILE)"


def calibration_region(scan: Scan) -> tuple[slice, slice]:
    """Rows and columns of the largest fully sampled rectangle that holds the centre of k-space, in its middle or not.

    Args:
        scan: a slice; its calibration lines count, if it has any.

    Raises:
        DataError: if it has fewer than 6 rows or columns.
    """
    mask = (scan.calibration or scan).mask[0].cpu().numpy()
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
    """
    coils, height, width = scan.k_space.shape
    if coils == 1:
        return scan.k_space.new_ones(1, height, width)
    region, grid = calibration_data(scan), (min(height, GRID), min(width, GRID))
    rows, columns = calibration_part(scan)
    kernels = _kernels((scan.calibration or scan).k_space[:, rows, columns], threshold)
    coarse, eigenvalue = _strongest_eigenvectors(kernels, grid)
    reference = torch.tensordot(_strongest(region, 1), coarse, dims=1)  # its phase does not turn fast inside the head
    maps = _finer(coarse * torch.polar(torch.ones_like(eigenvalue), -reference.angle()), (height, width))
    norm = sum_of_squares(maps).sqrt()
    seen = (norm > 0) & (_finer(eigenvalue[None], (height, width))[0] > crop)
    maps *= torch.polar(torch.where(seen, 1 / norm.clamp(min=1e-6), 0), -maps[0].angle())
    if not seen.any():
        h, w = region.shape[1:]
        raise DataError(
            f"{scan.name}: the coil maps are empty: the {h} × {w} points in the middle of k-space fit no image seen by "
            f"{coils} coils; leave this slice out, or {GIVE_MAPS}"
        )
    return maps


def _kernels(region: Tensor, threshold: float) -> Tensor:
    """Orthonormal kernels of which every small block of k-space is a sum, but for noise.

    They are right singular vectors of the calibration matrix, found from its smaller Gram matrix: a fraction of the
    work, and in double precision as good.

    Args:
        region: k-space (coils, h, w).
        threshold: as of `espirit_maps`.

    Returns:
        (kernels, coils, at most 6, at most 6), complex64.
    """
    size = [min(KERNEL_WIDTH, side // 2) for side in region.shape[1:]]
    blocks = region.unfold(1, size[0], 1).unfold(2, size[1], 1)  # (coils, places, places, kernel, kernel)
    matrix = blocks.flatten(3).permute(1, 2, 0, 3).flatten(0, 1).flatten(1).to(torch.complex128)
    is_wide = matrix.shape[0] < matrix.shape[1]
    power, vectors = torch.linalg.eigh(matrix @ matrix.mH if is_wide else matrix.mH @ matrix)
    kept = power > threshold**2 * power[-1]
    rows = vectors[:, kept].mH
    rows = (rows @ matrix) / power[kept, None].sqrt() if is_wide else rows
    return rows.to(region.dtype).reshape(-1, len(region), *size)


def _strongest_eigenvectors(kernels: Tensor, grid: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Of each pixel's G = Σ_n F_n F_nᴴ / size of a kernel, F_n the image of kernel n: the maps, and how far they fit.

    Products of two kernels of width k have 2 k − 1 frequencies along an axis: G is computed on so many points, and
    interpolated without error. Memory: some 20 kB · coils² and a few times CHUNK_BYTES, whatever the grid.

    Args:
        kernels: (kernels, coils, h, w).
        grid: H and W of the maps.

    Returns:
        maps (coils, H, W) of any phase, Σ_c |C_c|² = 1, and the largest eigenvalue (H, W), 0 to 1.
    """
    coils, *size = kernels.shape[1:]
    device = kernels.device
    for width in size:
        turns = torch.outer(torch.arange(2 * width - 1), torch.arange(width)) / (2 * width - 1)
        waves = torch.polar(torch.ones_like(turns), 2 * torch.pi * turns).to(device)
        kernels = torch.tensordot(kernels, waves, dims=([2], [1]))  # the axes change places twice
    images = kernels.permute(2, 3, 1, 0)  # (points, points, coils, kernels)
    gram = images @ images.mH / math.prod(size)
    down, across = (_trigonometric(2 * width - 1, n).to(device) for width, n in zip(size, grid))
    lines = across @ torch.view_as_real(gram).flatten(2)  # (points, W, coils · coils · 2)
    found = []
    for rows in down.split(max(1, CHUNK_BYTES // (8 * coils**2 * grid[1]))):
        pixels = (rows @ lines.flatten(1)).view(-1, coils, coils, 2)
        found.append(_strongest_eigenvector(torch.view_as_complex(pixels)))
    maps, eigenvalue = (torch.cat(parts, -1).unflatten(-1, grid) for parts in zip(*found))
    return maps, eigenvalue


def _strongest_eigenvector(matrices: Tensor) -> tuple[Tensor, Tensor]:
    """Unit vectors (coils, pixels) and eigenvalues (pixels,) of positive semi-definite matrices (pixels, coils, coils).

    Squared SQUARINGS times, a matrix is a multiple of v vᴴ: what power iteration takes 2^SQUARINGS steps for.
    """
    power, tiny = matrices, torch.finfo(torch.float32).tiny
    for _ in range(SQUARINGS):
        power = power @ power
        trace = power.diagonal(dim1=1, dim2=2).real.sum(1).clamp(min=tiny)
        power *= (1 / trace)[:, None, None]
    largest = power.diagonal(dim1=1, dim2=2).real.argmax(1)
    vectors = power.gather(2, largest[:, None, None].expand(-1, power.shape[1], 1))
    vectors = vectors / torch.linalg.vector_norm(vectors, dim=1, keepdim=True).clamp(min=tiny)
    return vectors[..., 0].T, (vectors.mH @ (matrices @ vectors))[:, 0, 0].real


def _trigonometric(count: int, size: int) -> Tensor:
    """Weights (size, count) that bring an odd number of frequencies to pixels; the centre is at size // 2."""
    half = torch.arange(1, count // 2 + 1)
    place = (torch.arange(size) - size // 2)[:, None] / size - torch.arange(count) / count
    return (1 + 2 * torch.cos(2 * torch.pi * half * place[..., None]).sum(-1)) / count


def _finer(images: Tensor, size: tuple[int, int]) -> Tensor:
    """Images (coils, h, w) on a finer grid of the same field of view, bilinear."""
    return interpolated(interpolated(images, size[1], -1), size[0], -2)


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
    norm = sum_of_squares(maps).sqrt()
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
    region = region * window
    combined = MultiCoil(maps[None]).adjoint(resize(resize(region, height, -2), width, -1)[None])
    return 1 - float(sum_of_squares(combined[0]).sum() / sum_of_squares(region).sum())
