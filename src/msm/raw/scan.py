"""A raw scan: one slice of measured k-space, whatever file it comes from, put on the grid and scale of SPEC §1.

`msm.raw.readers` yield `Scan`s in the file's own units. `normalise` brings the image's magnitude to about 1, `fit`
the grid to a network's size; what both write into the provenance leads back.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..errors import DataError

BRIGHT = 0.9995  # this quantile of the magnitude is taken for its maximum: spikes and a few wild pixels do not count
BRIGHT_LEVEL = 0.9  # and is put here, which leaves room for the pixels above it
CHUNK_BYTES = 2**28  # of the slices of a volume that are held at a time


@dataclass(frozen=True)
class Scan:
    """One slice of raw data.

    Args:
        name: identity of the slice.
        k_space: (coils, H, W) complex64, low frequencies in the middle (index n // 2), zero where not measured.
        mask: the file's own measured points (1, H, W), bool.
        provenance: where it comes from and what was done to it, JSON-friendly.
        noise: samples of a noise scan (coils, samples), complex64, in the units of `k_space`; None if there is none.
        voxel_mm: size of a pixel along H and W and the thickness of the slice, mm; None if the file does not say.
        directions: unit vectors of the axes H, W and across the slice, in the patient's coordinates; None likewise.
        calibration: lines acquired for the coil maps only, on the same grid; None if there are none.
        maps: coil maps given for it (coils, H, W), complex64; None: they are estimated.
    """

    name: str
    k_space: Tensor
    mask: Tensor
    provenance: dict[str, Any]
    noise: Tensor | None = None
    voxel_mm: tuple[float, float, float] | None = None
    directions: tuple[tuple[float, float, float], ...] | None = None
    calibration: "Scan | None" = None
    maps: Tensor | None = None

    def map(self, change: Callable[[Tensor], Tensor], **note: Any) -> "Scan":
        """The scan with a linear change made to all samples.

        Args:
            change: takes k-space and maps (coils, H, W), and noise (coils, samples).
            note: what to add to the provenance.
        """
        return replace(
            self,
            k_space=change(self.k_space),
            provenance=self.provenance | note,
            noise=None if self.noise is None else change(self.noise),
            calibration=self.calibration and self.calibration.map(change, **note),
            maps=None if self.maps is None else change(self.maps),
        )


def normalise(scan: Scan) -> Scan:
    """Scale a scan so that the image's magnitude is at most about 1; `provenance["scale"]` is the factor.

    The 99.95th percentile of the zero-filled root-sum-of-squares image goes to 0.9. Divide by the factor to be
    back in the file's units.

    Args:
        scan: k-space in the file's units.

    Raises:
        DataError: if the image is black, or too bright to be computed with.
    """
    # Where its pixels lie does not matter.
    magnitude = sum_of_squares(torch.fft.ifft2(scan.k_space, norm="ortho")).sqrt()
    if not magnitude.isfinite().all():
        raise DataError(f"{scan.name}: its values, squared, are too large for single precision; scale them down")
    bright = float(np.quantile(magnitude.numpy(), BRIGHT))
    if not bright > 0:
        raise DataError(f"{scan.name}: the image is black, all that was measured is zero; leave this slice out")
    scale = BRIGHT_LEVEL / bright
    return scan.map(lambda values: values * scale, scale=scale)


def sum_of_squares(values: Tensor) -> Tensor:
    """Σ_c |v_c|² (H, W) of complex values (coils, H, W); a quarter of the time of `abs`, and no copy."""
    parts = torch.view_as_real(values).flatten(1).square().sum(0).view(*values.shape[1:], 2)
    return parts[..., 0] + parts[..., 1]


def centred(scan: Scan) -> Scan:
    """A scan whose array ends unevenly around the centre of k-space, padded by what was not measured until it is there.

    Partial Fourier and partial echoes are often saved so. Nothing that was measured changes; the pixels get smaller.

    Args:
        scan: a slice with the `centre` that its reader found.
    """
    centre, old = scan.provenance["centre"], list(scan.mask.shape[1:])
    if centre == [n // 2 for n in old]:
        return scan
    size = [n if c == n // 2 else 2 * max(c, n - c) for c, n in zip(centre, old)]
    before = [new // 2 - c for new, c in zip(size, centre)]
    pad = [before[1], size[1] - old[1] - before[1], before[0], size[0] - old[0] - before[0]]
    k_space, mask = (torch.nn.functional.pad(array, pad) for array in (scan.k_space, scan.mask))
    return replace(scan, k_space=k_space, mask=mask, provenance=scan.provenance | {"ends_unevenly": old})


def padded_size(scan: Scan, multiple: int) -> tuple[int, int]:
    """The smallest size, in multiples of what a network's down-sampling needs, that holds the scan's grid."""
    height, width = (-(-n // multiple) * multiple for n in scan.k_space.shape[-2:])
    return height, width


def fit(scan: Scan, size: tuple[int, int]) -> Scan:
    """Pad or crop a scan to a size, axis by axis; `unfit` leads back, and `provenance["fit"]` says what was done.

    Along an axis whose lines were measured whole or not at all (the readout), the *image* is padded or cropped: the
    field of view changes, the pixels stay. Along any other axis that cannot be done, since the image is not known:
    there *k-space* is padded with entries that were not measured, or cropped: the data stay what they are and the
    pixels change, as does the factor sqrt(new/old) that keeps the image's values under an orthonormal transform.

    Args:
        scan: a slice.
        size: height and width wanted.

    Returns:
        the slice on the new grid, image values as before.
    """
    mask = scan.mask[0]
    by = ["image" if torch.equal(mask.all(i), mask.any(i)) else "k-space" for i in (0, 1)]
    factor = math.prod((new / old) ** 0.5 for old, new, kind in zip(mask.shape, size, by) if kind == "k-space")
    done = {"fit": {"from": list(mask.shape), "by": by}}
    if mask.shape == tuple(size):
        return scan.map(lambda values: values, **done)
    return _resized(scan, size, by).map(lambda values: values * factor, **done)


def _resized(scan: Scan, size: tuple[int, int], by: list[str]) -> Scan:
    """The arrays and voxels of `fit`, without its factor."""
    k_space, mask, maps, voxel, stretch = scan.k_space, scan.mask, scan.maps, scan.voxel_mm, [1.0, 1.0]
    for axis, kind in zip((-2, -1), by):
        if k_space.shape[axis] == size[axis]:
            continue
        if kind == "image":
            k_space = resize_image(k_space, size[axis], axis)
            maps = maps if maps is None else resize(maps, size[axis], axis)
            mask = mask.any(axis, keepdim=True).expand_as(k_space[:1])
        else:
            stretch[axis] = k_space.shape[axis] / size[axis]
            maps = maps if maps is None else interpolated(maps, size[axis], axis)
            k_space, mask = resize(k_space, size[axis], axis), resize(mask, size[axis], axis)
    return replace(
        scan,
        k_space=torch.where(mask, k_space, 0),
        mask=mask.contiguous(),
        voxel_mm=voxel and (voxel[0] * stretch[0], voxel[1] * stretch[1], voxel[2]),
        calibration=scan.calibration and _resized(scan.calibration, size, by),
        maps=maps,
    )


def unfit(image: Tensor, scan: Scan) -> Tensor:
    """An image on the grid that `fit` made, brought back to the grid of the file.

    What was padded is cut off again: exactly the image before. What was cropped is zero: outside the smaller field
    of view, or at the higher frequencies.

    Args:
        image: (..., H, W), complex.
        scan: what `fit` returned.

    Returns:
        (..., H, W) on the file's grid, the same values.
    """
    done = scan.provenance["fit"]
    for axis, kind, old in zip((-2, -1), done["by"], done["from"]):
        if kind == "image":
            image = resize(image, old, axis)
        else:
            factor = (old / image.shape[axis]) ** 0.5
            image = ifft1c(resize(fft1c(image, axis), old, axis), axis) * factor
    return image


def resize(array: Tensor, size: int, axis: int) -> Tensor:
    """Crop an axis, or pad it with zeros (false), with the entry at n // 2 kept at the new n // 2."""
    old, behind = array.shape[axis], array.ndim - 1 - axis % array.ndim  # axes behind this one
    before = size // 2 - old // 2
    return torch.nn.functional.pad(array, [0, 0] * behind + [before, size - old - before])


def resize_image(k_space: Tensor, size: int, axis: int) -> Tensor:
    """Crop or pad the image, whatever its k-space, along one axis; white noise stays white, of the same level."""
    return fft1c(resize(ifft1c(k_space, axis), size, axis), axis)


def interpolated(images: Tensor, size: int, axis: int) -> Tensor:
    """Images (coils, H, W) on a grid of another size along axis -2 or -1, same field of view; n // 2 stays there."""
    old, parts = images.shape[axis], torch.view_as_real(images) if images.is_complex() else images[..., None]
    place = old // 2 + (torch.arange(size, device=images.device) - size // 2) * (old / size)
    low, axis = place.floor().long(), axis - 1
    share = (place - low)[(...,) + (None,) * (-1 - axis)]
    parts = torch.lerp(parts.index_select(axis, low % old), parts.index_select(axis, (low + 1) % old), share)
    return torch.view_as_complex(parts) if images.is_complex() else parts[..., 0]


def fft1c(x: Tensor, axis: int) -> Tensor:
    """Centred orthonormal FFT along one axis."""
    return torch.fft.fftshift(torch.fft.fft(torch.fft.ifftshift(x, axis), dim=axis, norm="ortho"), axis)


def ifft1c(k: Tensor, axis: int) -> Tensor:
    """Inverse of `fft1c`."""
    return torch.fft.fftshift(torch.fft.ifft(torch.fft.ifftshift(k, axis), dim=axis, norm="ortho"), axis)


def split_axis(rows: np.ndarray, lines: np.ndarray) -> int | None:
    """The axis of a volume along which it can be split into slices by an inverse FFT: one that was measured whole.

    Args:
        rows: which samples of a readout were measured (nx,), bool.
        lines: which lines were (ny, nz), bool.

    Returns:
        2 (z) if each y was measured at all z or none, else 1 (x) if the readouts are whole, else None.
    """
    if (lines.all(1) == lines.any(1)).all():
        return 2
    return 1 if rows.all() else None


def split_volume(
    plane: Callable[[int], Tensor], rows: np.ndarray, lines: np.ndarray, coils: int, axis: int
) -> Iterator[tuple[Tensor, Tensor]]:
    """Slices of a volume: an inverse FFT along one axis, for some slices at a time, so that memory is bounded.

    The data are gone through once for each chunk of slices of `CHUNK_BYTES`.

    Args:
        plane: gives all lines of one y, (coils, nx, nz), zero where not measured.
        rows: which samples of a readout were measured (nx,), bool.
        lines: which lines were (ny, nz), bool.
        coils: number of coils.
        axis: of the plane: 2 gives a slice (nx, ny) for each z, 1 a slice (nz, ny) for each x.

    Yields:
        k-space (coils, H, W) and mask (1, H, W) of each slice.
    """
    grid = rows[:, None] & lines.any(1) if axis == 2 else lines.T
    mask = torch.from_numpy(np.ascontiguousarray(grid))[None]
    count = lines.shape[1] if axis == 2 else len(rows)
    step = max(1, CHUNK_BYTES // (8 * coils * mask.numel()))
    for start in range(0, count, step):
        length = min(step, count - start)
        chunk = torch.zeros(length, coils, *mask.shape[1:], dtype=torch.complex64)
        for y in np.flatnonzero(lines.any(1)):
            chunk[..., y] = ifft1c(plane(int(y)), axis).movedim(axis, 0)[start : start + length]
        for k_space in chunk:
            yield torch.where(mask, k_space, 0), mask
