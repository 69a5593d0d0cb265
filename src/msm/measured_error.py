"""How wrong a denoiser's estimates are, measured on the training measurements themselves (SPEC §13).

A measurement s is noised to a level σ_t, the denoiser makes ŝ of it, and what was measured shows the error s − ŝ.

MRI. k-space is measured entry by entry: the power of the image's error at a frequency is the mean of Σ_coils |s − ŝ|²/2
where it was measured.
Photos. Pixels are missing: the autocovariance of the error at a distance is the mean product over the pairs of pixels
that were both measured; its Fourier transform is the power.

Noise ρ in s is taken off. With q = ρ²/σ_t² the expectation of s given z and s_t is (1 − q) z + q s_t, so that
s − (1 − q) ŝ − q s_t = (1 − q)(z − ŝ) + ε, where ε, of variance ρ² (1 − q), knows nothing of z − ŝ. Below σ_t = √2 ρ
that tells little: there the error keeps its proportion to σ_t².
"""

from collections.abc import Callable, Iterable

import torch
from torch import Generator, Tensor

from .denoiser import Denoiser
from .error_covariance import ColourParts, ErrorSpectrum
from .losses import noise_levels
from .measurement import Measurement, standard_normal

LEVELS = 16
BANDS_PER_OCTAVE = 2  # of frequency
LEAST_POWER = 1e-3  # of the mean over the frequencies


@torch.no_grad()
def measure_error(
    denoiser: Denoiser,
    batches: Iterable[Measurement],
    generator: Generator,
    levels: int = LEVELS,
    advance: Callable[[int], None] = lambda n: None,
) -> ErrorSpectrum:
    """Measure the power of the error of ŝ by noise level and frequency.

    Args:
        denoiser: partial denoiser.
        batches: training measurements of one size, photos or k-space with coil maps.
        generator: source of the diffusion noise.
        levels: how many noise levels, even in log σ over the schedule.
        advance: told how many measurements were done, each at all levels.

    Returns:
        the power, per real component.

    Raises:
        ValueError: if there are no measurements, or their noise hides all levels.
    """
    sigmas = denoiser.schedule.sigma(denoiser.schedule.grid(levels, "log"))
    energy, count, is_photo = torch.zeros(()), torch.zeros(()), True
    for batch in batches:
        is_photo = batch.maps is None
        sums = [_energy(denoiser, batch, sigma, generator) for sigma in sigmas.tolist()]
        energies, counts = (torch.stack(each) for each in zip(*sums))
        energy, count = energies + energy, counts + count
        advance(len(batch))
    seen = count.flatten(1).any(1) if count.ndim else count
    if not seen.any():
        raise ValueError("the error of estimates was not measured: no measurements, or noise that hides every level")
    mean = energy / count.clamp(min=1)  # by lag or frequency (levels, P, H, W)
    power = torch.fft.fft2(mean).real if is_photo else torch.fft.ifftshift(mean, (-2, -1))
    weight = torch.ones_like(count) if is_photo else torch.fft.ifftshift(count, (-2, -1))
    frequencies, bands = _by_band(power, weight)
    bands = torch.maximum(bands, LEAST_POWER * bands.mean(2, keepdim=True))
    lowest = int(seen.nonzero()[0])
    proportion = (sigmas[:lowest] / sigmas[lowest]).square().cpu()
    bands[:lowest] = proportion[:, None, None] * bands[lowest]
    return ErrorSpectrum(sigmas.cpu(), frequencies, bands)


def _energy(denoiser: Denoiser, batch: Measurement, sigma: float, generator: Generator) -> tuple[Tensor, Tensor]:
    """Sums of the error's products over a batch, by lag or frequency (P, H, W), and of how many (1, H, W)."""
    rho = noise_levels(batch)[:, None, None, None]
    shown = sigma**2 >= 2 * rho**2  # items that this level tells something about
    q = torch.where(shown, rho / sigma, 0) ** 2
    s, mask, transform = batch.values, batch.mask & shown, batch.transform
    noise = standard_normal(s, generator) * (sigma * (1 - q).sqrt())
    s_t = torch.where(mask, s + noise, 0)
    t = denoiser.schedule.time(sigma)
    s_hat = denoiser(s_t * (1 + sigma**2) ** -0.5, mask, t, transform)
    error = torch.where(mask, (s - q * s_t) / (1 - q) - s_hat, 0)
    variance = rho**2 / (1 - q)  # of what is no error
    if batch.maps is not None:
        power = error.abs().square().sum(1, keepdim=True) / 2 - error.shape[1] * variance
        return torch.where(mask, power, 0).sum(0), mask.sum(0).to(power.dtype)
    parts = ColourParts(error.shape[1], error.device).apart(error)
    lags, pairs = (_autocorrelation(x).sum(0) for x in (parts, mask.to(parts.dtype)))
    pairs = pairs.round()  # whole numbers
    lags[:, 0, 0] -= (variance * mask).sum()
    return lags, pairs


def _autocorrelation(x: Tensor) -> Tensor:
    """Σ_p x(p) x(p + d) for every circular lag d, (B, P, H, W)."""
    return torch.fft.irfft2(torch.fft.rfft2(x).abs().square(), s=x.shape[-2:])


def _by_band(power: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    """Frequencies (F,) and the weighted mean of power (levels, P, H, W) in a band around each: (levels, P, F)."""
    height, width = power.shape[-2:]
    radius = torch.hypot(torch.fft.fftfreq(height)[:, None], torch.fft.fftfreq(width)[None])
    lowest = 1 / max(height, width)
    band = 1 + (BANDS_PER_OCTAVE * (radius.clamp(min=lowest) / lowest).log2()).round().long()
    band[0, 0] = 0
    band = band.unique(return_inverse=True)[1]
    place, bands = band.flatten().to(power.device), int(band.max()) + 1
    sums, total = (
        torch.zeros(*power.shape[:2], bands, device=power.device).index_add_(2, place, (x * weight).flatten(2))
        for x in (power, torch.ones_like(power))
    )
    frequencies = torch.zeros(bands).index_add_(0, band.flatten(), radius.flatten()) / band.flatten().bincount()
    return frequencies, (sums / total.clamp(min=1)).cpu()
