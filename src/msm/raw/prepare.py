"""From a scan to what a sampler or a store takes: white noise, fewer coils, one size, coil maps, noise level."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from ..errors import DataError
from ..measurement import Measurement
from ..noise import estimate_noise, noise_covariance, whitening
from .coil_maps import calibration_region, compress, espirit_maps, outside_span, unit
from .scan import Scan, fft1c, fit, ifft1c, normalise, resize

HIGH_RESIDUAL = 0.05  # share of the calibration region's energy outside of the maps' span that is worth a warning
NOISE_ROWS = 16  # rows of the image that the noise level is estimated from
PARTIAL_NOISE_ROWS = 48  # likewise, of partial echoes


@dataclass(frozen=True)
class Prepared:
    """A scan on a network's grid with all that its reconstruction takes.

    Args:
        scan: the slice, fitted to a size; `msm.raw.scan.unfit` and `provenance["scale"]` lead back.
        maps: coil maps (coils, H, W), complex64.
        noise_std: ρ per real component, estimated from the measured entries.
        residual: share of the calibration region's energy that the maps do not explain, 0 to 1; NaN if it has none.
    """

    scan: Scan
    maps: Tensor
    noise_std: float
    residual: float

    @property
    def warning(self) -> str | None:
        """A line to show if the maps explain the data badly."""
        if not self.residual > HIGH_RESIDUAL:
            return None
        return (
            f"{self.scan.name}: {self.residual:.0%} of the calibration region's energy lies outside the span of the "
            "coil maps: noise, motion, or a head that folds over; one set of maps cannot explain it, distrust the image"
        )


def prepare(scan: Scan, size: tuple[int, int], coils: int | None = None) -> Prepared:
    """Whiten, compress, fit to a size, estimate coil maps (ESPIRiT) if none are given, and the noise level.

    Args:
        scan: a slice from `msm.raw.readers.import_scans`.
        size: height and width wanted, for example `padded_size(scan, multiple)`.
        coils: compress to so many; None keeps all.

    Raises:
        DataError: if there is no calibration region, or too little was measured for an estimate of the noise.
    """
    scan = prewhiten(scan)
    scan = fit(scan if coils is None else compress(scan, coils), size)
    maps = espirit_maps(scan) if scan.maps is None else unit(scan.maps)
    return Prepared(scan, maps, noise_level(scan, maps), _residual(scan, maps))


def _residual(scan: Scan, maps: Tensor) -> float:
    """What the maps do not explain; NaN if given maps cannot be judged, for want of a calibration region."""
    if len(maps) == 1:
        return 0.0
    try:
        return outside_span(scan, maps)
    except DataError:
        return math.nan


def noise_level(scan: Scan, maps: Tensor) -> float:
    """ρ per real component of a scan's k-space, from its own measured entries (`msm.noise.estimate_noise`).

    Where columns were measured, whole or cut off by a partial echo, the middle rows of the image, and as many columns
    as give two equations a pixel, are enough for an error of about 1 %, in a fraction of the time.

    Args:
        scan: a slice.
        maps: its coil maps (coils, H, W).

    Raises:
        DataError: if too little was measured.
    """
    k_space, mask = scan.k_space, scan.mask
    lines, columns = mask[0].any(1), mask[0].any(0)
    is_grid = torch.equal(mask[0], lines[:, None] & columns)
    if is_grid and _has_gaps(lines) and not _has_gaps(columns):  # the readout lies along the other axis
        k_space, mask, maps, lines, columns = k_space.mT, mask.mT, maps.mT, columns, lines
    coils, height, width = k_space.shape
    if is_grid and (lines.all() or (not _has_gaps(lines) and coils * columns.sum() > width)):
        rows = min(height, NOISE_ROWS if lines.all() else PARTIAL_NOISE_ROWS)
        step = max(1, int(columns.sum()) * coils // (2 * width))
        few = columns.nonzero()[::step, 0]
        middle = resize(ifft1c(k_space[..., few], -2), rows, -2)
        if not lines.all():  # no signal may leak from the echo's cut to other frequencies
            taper = torch.hann_window(rows)[:, None]
            middle = middle * (taper / taper.square().mean().sqrt())
        k_space, chosen = k_space.new_zeros(coils, rows, width), torch.zeros_like(columns)
        k_space[..., few], chosen[few] = fft1c(middle, -2), True
        same = height // 2 + (torch.arange(rows) - rows // 2) * height // rows  # of the same frequency
        maps, mask = resize(maps, rows, -2), (lines[same, None] & chosen)[None]
    try:
        rho, _ = estimate_noise(Measurement(k_space[None], mask[None], maps[None]))
    except ValueError as error:
        raise DataError(f"{scan.name}: {error}; leave this slice out") from None
    return float(rho)


def _has_gaps(measured: Tensor) -> bool:
    """Whether some lines are missing between others."""
    kept = measured.nonzero()[:, 0]
    return bool(kept[-1] - kept[0] + 1 > len(kept))


def prewhiten(scan: Scan) -> Scan:
    """Mix the coils so that their noise is white, by the noise scan; without one the scan stays as it is.

    The units change: dividing by `provenance["scale"]` then leads to data whose noise scan has ρ = 1.

    Args:
        scan: a slice.

    Raises:
        DataError: if the noise scan is too short, or a coil measured nothing.
    """
    if scan.noise is None:
        return scan
    scale = scan.provenance.get("scale", 1.0)
    try:
        matrix = whitening(noise_covariance(scan.noise / scale))
    except ValueError as error:
        raise DataError(f"{scan.name}: the noise scan cannot be used: {error}") from None
    return normalise(scan.map(lambda values: torch.tensordot(matrix, values / scale, dims=1), whitened=True))


def check_calibration(scan: Scan) -> None:
    """Raise DataError if coil maps are needed and cannot be estimated."""
    if len(scan.k_space) > 1 and scan.maps is None:
        calibration_region(scan)
