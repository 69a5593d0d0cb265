"""Training losses on measurements only (SPEC §3, §4). Nothing here can reach a clean image."""

import torch
from torch import Generator, Tensor

from .denoiser import Denoiser, PartialDenoiser
from .measurement import Measurement, standard_normal
from .schedule import VPSchedule


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
    noise = standard_normal(s, generator) if noise is None else noise
    sigma = denoiser.schedule.sigma(t)[:, None, None, None]
    s_t = torch.where(mask, (s + sigma * noise) * (1 + sigma**2).rsqrt(), 0)
    s_hat = denoiser(s_t, mask, t, measurement.transform)
    return denoiser.loss_weight(t) * mean_square(s - s_hat)


def noisy_loss(
    denoiser: PartialDenoiser,
    measurement: Measurement,
    t: Tensor,
    generator: Generator | None = None,
    *,
    noise: Tensor | None = None,
    probe: Tensor | None = None,
    sure_weight: float | Tensor = 0.05,
    sure_tau: float = 0.005,
    target_denoiser: Denoiser | None = None,
    target_steps: int = 0,
) -> Tensor:
    """Denoising loss for measurements with noise ρ, above and below ρ, plus λ·SURE at ρ (SPEC §4).

    An item with σ_t ≤ ρ is replaced by its pseudo-clean estimate. One with σ_t > ρ is topped up to σ_t, and s compared
    with E[s | s_t]. Without noise this is `noiseless_loss`, bit for bit.

    Args:
        denoiser: D_θ.
        measurement: acquisitions s with their masks and noise, which may differ between items.
        t: times on the 0…999 scale (B,).
        generator: source of the diffusion noise, then of SURE's probe b.
        noise: as in `noiseless_loss`.
        probe: b itself.
        sure_weight: λ, in units of the loss at level ρ, or one for each item (B,); 0 spares it two network passes.
        sure_tau: τ, size of the probe, in units of s.
        target_denoiser: of `pseudo_clean`, for example D_θ with averaged weights; None: D_θ.
        target_steps: of `pseudo_clean`; 0 is the published rule.

    Returns:
        loss of each item (B,), as `noiseless_loss`.
    """
    s, schedule = measurement.values, denoiser.schedule
    noise = standard_normal(s, generator) if noise is None else noise
    rho = noise_levels(measurement)
    low = schedule.sigma(t) <= rho
    if len(rows := low.nonzero()[:, 0]):
        target = pseudo_clean(target_denoiser or denoiser, schedule, pick(measurement, rows), target_steps)
        s = s.index_copy(0, rows, target)
    loss = _topped_up_loss(denoiser, measurement, s, torch.where(low, 0, rho), t, noise)
    # No iterate has less noise than σ_0: there SURE would teach nothing that is used.
    weight = torch.as_tensor(sure_weight, dtype=loss.dtype, device=loss.device).expand(len(s))
    rows = ((weight > 0) & (rho >= schedule.sigma(torch.zeros_like(rho)))).nonzero()[:, 0]
    if len(rows):
        b = standard_normal(s, generator) if probe is None else probe
        # Times the loss weight at ρ, SURE is of order one like the rest, at every ρ and whatever t is.
        weight = weight[rows] * denoiser.loss_weight(schedule.time(rho[rows]))
        loss = loss.index_add(0, rows, weight * sure(denoiser, pick(measurement, rows), probe=b[rows], tau=sure_tau))
    return loss


def _topped_up_loss(
    denoiser: PartialDenoiser, measurement: Measurement, s: Tensor, rho: Tensor, t: Tensor, noise: Tensor
) -> Tensor:
    """Loss (B,) of references s that hold noise rho (B,) < σ_t, topped up to σ_t (SPEC §4, first case)."""
    mask, sigma, w = measurement.mask, denoiser.schedule.sigma(t), denoiser.loss_weight(t)
    added = (sigma - rho) * (sigma + rho)  # variance on top
    kept = added / sigma**2
    s_t = torch.where(mask, s + _per_item(added.sqrt()) * noise, 0)
    s_hat = denoiser(s_t * _per_item((1 + sigma**2).rsqrt()), mask, t, measurement.transform)
    estimate = _per_item(kept) * s_hat + _per_item(1 - kept) * s_t  # E[s | s_t], both terms on the scale of s
    # E|s − E[s|s_t]|² = kept²·E|Sz − ŝ|² + kept·ρ² on each entry. The weight is one over that, with 1/w for
    # E|Sz − ŝ|², as w means it. So the loss is of order one at every t: undivided, it would vanish as σ_t → ρ;
    # over kept², it would be noise of variance ρ²/kept. The minimiser is that of any positive weight.
    return w / (kept * (kept + w * rho**2)) * mean_square(s - estimate)


def sure(
    denoiser: PartialDenoiser,
    measurement: Measurement,
    generator: Generator | None = None,
    *,
    probe: Tensor | None = None,
    tau: float = 0.005,
) -> Tensor:
    """Stein's unbiased estimate of the mean squared error of D(s; ρ), from s alone (SPEC §4).

        SURE = ‖D(s;ρ) − s‖²/m − ρ² + (2ρ²/(τm)) bᵀ(D(s + τb; ρ) − D(s; ρ))

    Args:
        denoiser: D_θ.
        measurement: acquisitions s with their masks and noise ρ.
        generator: source of the probe b.
        probe: b itself (B, C or coils, H, W) of unit variance per real component, instead of `generator`.
        tau: τ, in units of s.

    Returns:
        estimate of each item (B,), per measured real component: a complex entry has two.

    Source:
        Ramani, Blu, Unser, Monte-Carlo SURE, IEEE TIP 2008.
    """
    s, mask, rho = measurement.values, measurement.mask, noise_levels(measurement)
    b = torch.where(mask, standard_normal(s, generator) if probe is None else probe, 0)
    t = denoiser.schedule.time(rho)
    first = denoise(denoiser, denoiser.schedule, measurement, s, t)
    second = denoise(denoiser, denoiser.schedule, measurement, s + tau * b, t)
    # m = share · number of real components, which the means divide by; an item that measured nothing divides by 1
    share = mask.float().mean((1, 2, 3)).clamp(min=1 / mask[0].numel())
    divergence = mean_product(b, second - first) / tau
    return (mean_square(first - s) + 2 * rho**2 * divergence) / share - rho**2


@torch.no_grad()
def pseudo_clean(denoiser: Denoiser, schedule: VPSchedule, measurement: Measurement, steps: int = 0) -> Tensor:
    """References for σ_t ≤ ρ, where no noise can be added: estimates of S z, without gradient (SPEC §4).

    The published rule takes the conditional mean E[S z | s]. Its law is narrower than that of S z (a Gaussian
    component of variance v keeps v/(v + ρ²) of it), and D_θ learns that law. What should be had is a sample of S z:
    the probability-flow ODE dx/dσ = (x − D(x; σ))/σ takes s at ρ to one at 0. One midpoint step,
    2 D((s + ŝ)/2; ρ/2) − ŝ, keeps .98 where the mean keeps .50 (v = ρ²), and .9993 for .80 (v = 4ρ²).

    Args:
        denoiser: D.
        schedule: noise schedule of D.
        measurement: acquisitions s with their masks and noise ρ.
        steps: 0: conditional mean; n: n midpoint steps of the ODE, 2n passes through D.

    Returns:
        estimates (B, C or coils, H, W), zero off the mask.
    """
    x, rho = measurement.values, noise_levels(measurement)

    def slope(x: Tensor, level: float) -> Tensor:
        """ρ dx/dσ at σ = level · ρ."""
        return (x - denoise(denoiser, schedule, measurement, x, schedule.time(level * rho))) / level

    if steps == 0:
        return x - slope(x, 1.0)
    for level in (1 - k / steps for k in range(steps)):
        middle = x - slope(x, level) / (2 * steps)
        x = x - slope(middle, level - 0.5 / steps) / steps
    return x


def denoise(denoiser: Denoiser, schedule: VPSchedule, measurement: Measurement, s: Tensor, t: Tensor) -> Tensor:
    """D of values s on the scale of measurements (B, C or coils, H, W), whose noise is σ_t (t is (B,))."""
    scale = _per_item(schedule.alpha_bar(t).sqrt())
    return denoiser(s * scale, measurement.mask, t, measurement.transform)


def noise_levels(measurement: Measurement) -> Tensor:
    """ρ of each item (B,)."""
    rho = torch.as_tensor(measurement.noise_std, dtype=torch.float32, device=measurement.values.device)
    return rho.expand(len(measurement))


def pick(measurement: Measurement, rows: Tensor) -> Measurement:
    """The acquisitions with these numbers (n,); all of them are not copied."""
    return measurement if len(rows) == len(measurement) else measurement[rows]  # type: ignore[index]


def mean_square(residual: Tensor) -> Tensor:
    """Mean of squares over all real components of each item (B,)."""
    parts = torch.view_as_real(residual) if residual.is_complex() else residual
    return parts.square().flatten(1).mean(1)


def mean_product(a: Tensor, b: Tensor) -> Tensor:
    """Mean of products over all real components of each item (B,)."""
    if a.is_complex():
        a, b = torch.view_as_real(a), torch.view_as_real(b)
    return (a * b).flatten(1).mean(1)


def _per_item(x: Tensor) -> Tensor:
    """(B,) -> (B, 1, 1, 1)."""
    return x[:, None, None, None]
