"""Training losses on measurements only (SPEC §3). Nothing here can reach a clean image."""

import torch
from torch import Generator, Tensor

from .denoiser import PartialDenoiser
from .measurement import Measurement


def noiseless_loss(
    denoiser: PartialDenoiser,
    measurement: Measurement,
    t: Tensor,
    generator: Generator | None = None,
    *,
    noise: Tensor | None = None,
) -> Tensor:
    """Denoising loss for measurements without noise, weight · mean over all entries of |s − ŝ|² (SPEC §3).

    Args:
        denoiser: D_θ.
        measurement: acquisitions s with their masks; entries that were not measured count as zero error.
        t: times on the 0…999 scale (B,).
        generator: source of the diffusion noise.
        noise: the diffusion noise itself (B, C or coils, H, W) of unit variance per real component, instead of
            `generator`.

    Returns:
        loss of each item (B,): a complex entry counts as two real ones in the mean.
    """
    s, mask = measurement.values, measurement.mask
    if noise is None:
        noise = standard_normal(s, generator)
    sigma = denoiser.schedule.sigma(t)[:, None, None, None]
    s_t = torch.where(mask, (s + sigma * noise) * (1 + sigma**2).rsqrt(), 0)
    s_hat = denoiser(s_t, mask, t, measurement.transform)
    return denoiser.loss_weight(t) * mean_square(s - s_hat)


def standard_normal(like: Tensor, generator: Generator | None = None) -> Tensor:
    """Normal noise of unit variance per real component, shaped like a real or complex tensor."""
    real = torch.view_as_real(like) if like.is_complex() else like
    noise = torch.randn(real.shape, generator=generator, dtype=real.dtype, device=real.device)
    return torch.view_as_complex(noise) if like.is_complex() else noise


def mean_square(residual: Tensor) -> Tensor:
    """Mean of squares over all real components of each item (B,)."""
    if residual.is_complex():
        residual = torch.view_as_real(residual)
    return residual.square().flatten(1).mean(1)
