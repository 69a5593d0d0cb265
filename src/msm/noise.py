"""The noise of measurements from the measurements alone: its level ρ, and the covariance of coils.

ρ is the standard deviation per real component (SPEC §1): complex noise of level ρ has E|ν|² = 2ρ².

Whole columns of k-space from several coils. At a row y of the image, after an inverse FFT along the columns, the
measured samples of all coils are b_y = A_y x_y + ν: coils × columns equations for W pixels. What lies outside the span
of A_y is noise, whatever the image is, and whether or not A_y is well conditioned. Errors of the coil maps leave
signal there too, at low frequencies as signal has, so only the outer half of k_y is counted. Where a partial echo ends,
the coils' images are no longer products of maps and one image: rows next to what was not measured do not count either.

Any other k-space. The outermost tenth of the samples, where signal is least: the median of their power.

Pixels. The highest DCT coefficients of wholly measured 8 × 8 patches, in the differences between colour channels,
where photos have least detail. Only the smoothest patches count, chosen by their other coefficients, which hold
independent noise: so the choice itself lowers nothing. What detail is left raises ρ.

Source: Kellman, McVeigh, Magn. Reson. Med. 54 (2005): noise prewhitening; Pruessmann et al., Magn. Reson. Med. 42
(1999): the SENSE equations; Ponomarenko et al., ICASSP 2007: DCT of smooth blocks.
"""

import math

import torch
from torch import Tensor
from torch.nn import functional

from .measurement import Measurement

EDGE = 0.1  # share of the k-space samples taken for the edge
PATCH = 8  # side of the patches, pixels
FINE = 12  # DCT coefficients (u, v) with u + v from here up tell the noise, those below how smooth the patch is
SMOOTHEST = 0.2  # share of the patches counted
ROWS = 4  # rows of an image solved at a time
OUTER = 0.25  # cycles a pixel from which on rows of k-space count
BESIDE_GAP = 4  # rows of k-space next to some that were not measured


def estimate_noise(measurement: Measurement) -> tuple[Tensor, Tensor]:
    """Estimate ρ of each acquisition from its own measured entries.

    Args:
        measurement: B acquisitions; their `noise_std` is not looked at.

    Returns:
        ρ (B,), and its standard error (B,): the spread that noise alone gives it. What detail of the image adds to ρ
        (photos, the edge of k-space) is not in it.

    Raises:
        ValueError: if an item measures too little for an estimate.
    """
    items = [measurement[i : i + 1] for i in range(len(measurement))]
    rho, error = zip(*map(_of_pixels if measurement.maps is None else _of_k_space, items))
    return torch.stack(rho), torch.stack(error)


def pool_noise(rho: Tensor, standard_error: Tensor) -> tuple[float, float]:
    """One ρ for acquisitions that all have the same: the median, which some bad scans do not move.

    Args:
        rho: estimates (N,).
        standard_error: their standard errors (N,).

    Returns:
        ρ and its standard error, from the spread over the scans or, if that is larger, what noise alone gives.
    """
    middle = rho.quantile(0.5)
    spread = torch.maximum((rho - middle).abs().median() / _QUARTILE, standard_error.median())
    return middle.item(), (math.sqrt(math.pi / 2 / len(rho)) * spread).item()


def noise_covariance(samples: Tensor) -> Tensor:
    """Covariance Σ = E[ν νᴴ] of the noise of coils; 2ρ² I if it is white.

    Args:
        samples: noise (coils, …), complex: a pre-scan without excitation, or `edge_samples`.

    Returns:
        Σ (coils, coils), complex, Hermitian.

    Raises:
        ValueError: if the samples are not complex and finite, or fewer than twice the coils.
    """
    noise = samples.flatten(1)
    coils, count = noise.shape
    if not samples.is_complex() or not torch.isfinite(noise.abs()).all():
        raise ValueError(f"noise samples must be complex and finite, got {samples.dtype}, perhaps with NaN or infinity")
    if count < 2 * coils:
        raise ValueError(f"{count} noise samples are too few for {coils} coils; give at least {2 * coils}")
    return noise @ noise.mH / count


def whitening(covariance: Tensor) -> Tensor:
    """W with W Σ Wᴴ = 2 I: noise that is mixed by W is white and has ρ = 1.

    Args:
        covariance: Σ (coils, coils), complex, Hermitian.

    Returns:
        W = √2 L⁻¹ (coils, coils), lower triangular, with Σ = L Lᴴ.

    Raises:
        ValueError: if Σ is not positive definite.
    """
    lower, info = torch.linalg.cholesky_ex(covariance)
    if info.item():
        raise ValueError(
            f"the covariance of {len(covariance)} coils is not positive definite; leave out a coil that measured "
            "nothing, or give more noise samples"
        )
    return math.sqrt(2) * torch.linalg.solve_triangular(lower, torch.eye(len(lower), dtype=lower.dtype), upper=False)


def edge_samples(values: Tensor, mask: Tensor, share: float = EDGE) -> Tensor:
    """The outermost samples of k-space.

    Args:
        values: k-space (coils, H, W), centred.
        mask: which samples were measured (H, W), bool.
        share: how many of these, in (0, 1].

    Returns:
        samples (coils, n), by distance to the centre in units of half of each axis.
    """
    y, x = (2 * (torch.arange(n, device=mask.device) - n // 2) / n for n in mask.shape)
    distance = (y[:, None].square() + x.square())[mask]
    order = distance.argsort(descending=True, stable=True)
    return values[:, mask][:, order[: math.ceil(share * len(order))]]


def _of_k_space(item: Measurement) -> tuple[Tensor, Tensor]:
    """ρ and its standard error, from k-space of one acquisition."""
    mask, (coils, _, width) = item.mask[0, 0], item.values.shape[1:]
    rows, columns = mask.any(1), mask.any(0)
    counted = _outer_rows(rows)
    if torch.equal(mask, rows[:, None] & columns) and coils * columns.sum() > width and counted.any():
        return _outside_the_coils(item, columns, counted)
    samples = edge_samples(item.values[0], mask)
    if samples.shape[1] < 2 * coils:
        raise ValueError(f"the edge of k-space has {samples.shape[1]} samples: too few to estimate noise from")
    variance = samples.abs().square().median(1).values.mean() / (2 * math.log(2))  # power has an exponential law
    rho = variance.sqrt()
    joint = torch.linalg.matrix_norm(noise_covariance(samples)) / coils  # coils that see the same noise count once
    return rho, joint / (4 * math.log(2) * math.sqrt(samples.shape[1])) / rho.clamp(min=1e-30)


def _outer_rows(measured: Tensor) -> Tensor:
    """Rows of k-space (H,), zero frequency first, that tell the noise: the outer ones, away from what is missing."""
    height = len(measured)
    whole = torch.fft.ifftshift(measured)
    counted = torch.stack([whole.roll(shift) for shift in range(-BESIDE_GAP, BESIDE_GAP + 1)]).all(0)
    frequency = torch.where(counted, torch.fft.fftfreq(height, device=measured.device).abs(), 0)
    return frequency >= (OUTER if measured.all() else min(OUTER, float(frequency.max()) / 2) or torch.inf)


def _outside_the_coils(item: Measurement, columns: Tensor, counted: Tensor) -> tuple[Tensor, Tensor]:
    """ρ and its standard error, from the part of columns (W,) that no image explains, in the rows counted (H,)."""
    assert item.maps is not None
    values, maps = item.values[0, :, :, columns], item.maps[0]
    height, width = maps.shape[1:]
    x = torch.arange(width, device=maps.device) - width // 2
    waves = torch.polar(torch.ones((), device=maps.device), -2 * torch.pi / width * x[columns][:, None] * x)
    b = torch.fft.fftshift(torch.fft.ifft(torch.fft.ifftshift(values, 1), dim=1, norm="ortho"), 1)
    b = b.movedim(1, 0).flatten(1)[..., None]  # (H, coils · columns, 1)
    residual = torch.empty_like(b)
    for rows in torch.arange(height).split(ROWS):
        a = (maps[:, rows].movedim(1, 0)[:, :, None] * waves).flatten(1, 2)  # (rows, coils · columns, W)
        factors, scales = torch.geqrf(a)  # W directions even where maps are zero: as many are taken off as are counted
        turned = torch.ormqr(factors, scales, b[rows], transpose=True)
        turned[:, :width] = 0
        residual[rows] = torch.ormqr(factors, scales, turned)
    free = counted.sum() * (b.shape[1] - width)  # complex components of noise that are left
    power = torch.fft.fft(residual, dim=0, norm="ortho")[counted].abs().square().sum()
    rho = (power / (2 * free)).sqrt()
    return rho, rho / (2 * free.sqrt())


def _of_pixels(item: Measurement) -> tuple[Tensor, Tensor]:
    """ρ and its standard error, from the pixels of one photo."""
    values = _differences(item.values[0])
    atoms, level = _dct(values)
    gaps = functional.conv2d((~item.mask).to(values.dtype), values.new_ones(1, 1, PATCH, PATCH))[0, 0]
    measured = gaps == 0
    if not measured.any():
        raise ValueError(f"no {PATCH} × {PATCH} patch was wholly measured: too little to estimate noise from")
    power = functional.conv2d(values[:, None], atoms).square().sum(0)  # (64, H − 7, W − 7)
    activity = torch.where(measured, power[(level > 0) & (level < FINE)].sum(0), torch.inf)
    count = math.ceil(SMOOTHEST * int(measured.sum()))
    chosen = torch.zeros_like(measured)
    chosen.view(-1)[activity.flatten().topk(count, largest=False).indices] = True
    fine = atoms[level >= FINE]
    rho = (power[level >= FINE].sum(0)[chosen].mean() / (len(fine) * len(values))).sqrt()
    # Patches overlap. The covariance of two squared coefficients is 2ρ⁴ times the squared product of their atoms.
    products = functional.conv2d(fine, fine, padding=PATCH - 1).square().sum((0, 1))[None, None]
    total = functional.conv2d(chosen.to(fine.dtype)[None, None], products, padding=PATCH - 1)[0, 0][chosen].sum()
    return rho, rho * (total / (2 * len(values))).sqrt() / (count * len(fine))


def _differences(values: Tensor) -> Tensor:
    """Orthonormal differences (C − 1, H, W) of colour channels (C, H, W): white noise keeps its ρ. Grey stays grey."""
    channels = len(values)
    if channels == 1:
        return values
    basis = torch.eye(channels, dtype=values.dtype, device=values.device)
    basis[:, 0] = 1
    return torch.einsum("ck,chw->khw", torch.linalg.qr(basis).Q[:, 1:], values)


def _dct(like: Tensor) -> tuple[Tensor, Tensor]:
    """Orthonormal DCT-II atoms (64, 1, 8, 8) of a patch, and u + v of each (64,)."""
    u = torch.arange(PATCH, dtype=like.dtype, device=like.device)
    waves = torch.cos(torch.pi / PATCH * u[:, None] * (u + 0.5))
    waves = waves / waves.norm(dim=1, keepdim=True)
    return torch.einsum("ua,vb->uvab", waves, waves).reshape(-1, 1, PATCH, PATCH), (u[:, None] + u).flatten()


_QUARTILE = 0.6745  # of the standard normal law: half of its values are closer to the middle
