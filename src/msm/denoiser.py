"""The partial denoiser D_θ(s_t; σ_t, S) = E[S z | s_t, S] (SPEC §2).

The network always works in image space, so that one U-Net serves every T:

    u = Tᴴ Sᵀ s_t        x̂ = estimate of the image from u by the network        ŝ = S T x̂

How the network's output becomes x̂, and how the loss is weighted so that the network's task has the same size at
every noise level, is the *parametrisation*: a small object that can be replaced.
"""

from collections.abc import Callable
from typing import Protocol

import torch
from torch import Tensor, nn

from .schedule import VPSchedule
from .transforms import Transform

Network = Callable[[Tensor, Tensor], Tensor]


class Denoiser(Protocol):
    """Anything that maps (z_t, mask, t, transform) to an estimate of S z, zero off the mask."""

    def __call__(self, z_t: Tensor, mask: Tensor, t: Tensor, transform: Transform) -> Tensor:
        """Estimate S z (B, C or coils, H, W)."""


class Epsilon:
    """The published parametrisation: the network predicts the noise in u, x̂ = (u − sqrt(1−ᾱ) ε̂) / sqrt(ᾱ)."""

    def estimate(
        self, network: Network, z_t: Tensor, mask: Tensor, t: Tensor, sigma: Tensor, transform: Transform
    ) -> Tensor:
        """Estimate of the image (B, C, H, W) from the measured entries of z_t; t (B,), sigma (B, 1, 1, 1)."""
        root_alpha_bar = (1 + sigma**2).rsqrt()
        u = transform.adjoint(torch.where(mask, z_t, 0))
        eps = run_network(network, u, t)
        return u / root_alpha_bar - sigma * eps

    def loss_weight(self, sigma: Tensor) -> Tensor:
        """ᾱ/(1−ᾱ): for T = I the loss is then the mean squared error of ε̂ on the measured entries."""
        return sigma**-2


class Sense:
    """For several coils: the network corrects a regularised SENSE estimate instead of the adjoint.

    S T Tᴴ Sᵀ is no identity, so u keeps aliasing however small the noise is and ε̂ would have to be aliasing/σ_t
    (SPEC §3). A few conjugate-gradient steps give the linear estimate for a white prior of variance σ_x²,

        x_0 = (Tᴴ Sᵀ S T + λ I)⁻¹ Tᴴ Sᵀ s_t / sqrt(ᾱ),    λ = σ_t² / σ_x²,
        x̂ = x_0 + c U(x_0 / sqrt(E|x_0|²), t),            c = the size of what is left to correct.

    The minimiser of the loss is the same conditional expectation for every parametrisation.

    Args:
        prior_std: σ_x, root-mean-square of the image.
        floor: noise level below which x_0 gets no better, because too few columns are measured.
        iterations: conjugate-gradient steps.
    """

    def __init__(self, prior_std: float = 0.25, floor: float = 0.1, iterations: int = 6):
        self.prior_std, self.floor, self.iterations = prior_std, floor, iterations

    def estimate(
        self, network: Network, z_t: Tensor, mask: Tensor, t: Tensor, sigma: Tensor, transform: Transform
    ) -> Tensor:
        """Estimate of the image (B, C, H, W) from the measured entries of z_t; t (B,), sigma (B, 1, 1, 1)."""
        s = torch.where(mask, z_t, 0) * (1 + sigma**2).sqrt()
        ridge = (sigma**2 + self.floor**2) / self.prior_std**2
        x_0 = regularised_least_squares(s, mask, transform, ridge, self.iterations)
        scale = (1 + sigma**2 / self.prior_std**2).sqrt() / self.prior_std
        return x_0 + self._correction_size(sigma) * run_network(network, x_0 * scale, t)

    def _correction_size(self, sigma: Tensor) -> Tensor:
        """Posterior standard deviation of one pixel under the white prior, for a noise level above the floor."""
        variance = sigma**2 + self.floor**2
        return (variance / (1 + variance / self.prior_std**2)).sqrt()

    def loss_weight(self, sigma: Tensor) -> Tensor:
        """One over the squared size of the correction: the network's own squared error counts at every σ_t."""
        return self._correction_size(sigma) ** -2


PARAMETRISATIONS = {"epsilon": Epsilon, "sense": Sense}


class PartialDenoiser(nn.Module):
    """D_θ: from the measured entries of a noisy iterate to their conditional mean (SPEC §2).

    Args:
        network: U_θ(u, t) -> same shape as u, real; complex images enter as two channels (real, imaginary).
        schedule: noise schedule.
        parametrisation: "epsilon" (published) or "sense" (several coils).

    Raises:
        ValueError: if the parametrisation is unknown.
    """

    def __init__(self, network: nn.Module, schedule: VPSchedule, parametrisation: str = "epsilon"):
        super().__init__()
        if parametrisation not in PARAMETRISATIONS:
            raise ValueError(f"parametrisation must be one of {', '.join(PARAMETRISATIONS)}, got {parametrisation!r}")
        self.network, self.schedule = network, schedule
        self.parametrisation = PARAMETRISATIONS[parametrisation]()

    def forward(self, z_t: Tensor, mask: Tensor, t: Tensor, transform: Transform) -> Tensor:
        """Estimate the measured entries of the clean full measurement.

        Args:
            z_t: noisy iterate sqrt(ᾱ) z + sqrt(1−ᾱ) n, (B, C or coils, H, W); entries off the mask are not used.
            mask: S, (B, 1, H, W), bool.
            t: times on the 0…999 scale, scalar or (B,).
            transform: T.

        Returns:
            ŝ = S T x̂, (B, C or coils, H, W), zero off the mask.
        """
        t = t.expand(len(z_t))
        sigma = self.schedule.sigma(t)[:, None, None, None]
        x_hat = self.parametrisation.estimate(self.network, z_t, mask, t, sigma, transform)
        return torch.where(mask, transform.forward(x_hat), 0)

    def score(self, z_t: Tensor, mask: Tensor, t: Tensor, transform: Transform) -> Tensor:
        """Score of the measured entries of z_t / sqrt(ᾱ) by Tweedie's formula: (ŝ − s_t)/σ_t² (SPEC §2)."""
        sigma = self.schedule.sigma(t.expand(len(z_t)))[:, None, None, None]
        s_t = torch.where(mask, z_t, 0) * (1 + sigma**2).sqrt()
        return (self(z_t, mask, t, transform) - s_t) / sigma**2

    def loss_weight(self, t: Tensor) -> Tensor:
        """Weight of the squared error at times t (B,)."""
        return self.parametrisation.loss_weight(self.schedule.sigma(t))


def run_network(network: Network, u: Tensor, t: Tensor) -> Tensor:
    """Run a real network on a real or complex image (B, C, H, W): complex channels count as two real ones."""
    if not u.is_complex():
        return network(u, t)
    pairs = torch.view_as_real(u).movedim(-1, 2).flatten(1, 2)
    out = network(pairs, t).float()
    return torch.view_as_complex(out.unflatten(1, (u.shape[1], 2)).movedim(2, -1).contiguous())


def regularised_least_squares(s: Tensor, mask: Tensor, transform: Transform, ridge: Tensor, iterations: int) -> Tensor:
    """Minimise ‖S T x − s‖² + ridge ‖x‖² by a fixed number of conjugate-gradient steps, each item by itself.

    Args:
        s: measured entries (B, coils, H, W), zero off the mask.
        mask: S, (B, 1, H, W), bool.
        transform: T.
        ridge: (B, 1, 1, 1), positive.
        iterations: number of steps.

    Returns:
        x (B, C, H, W).
    """

    def squared_norm(x: Tensor) -> Tensor:
        return torch.view_as_real(x).square().sum((1, 2, 3, 4))[:, None, None, None]

    residual = transform.adjoint(s)
    x, direction, power = torch.zeros_like(residual), residual, squared_norm(residual)
    for _ in range(iterations):
        image = transform.adjoint(torch.where(mask, transform.forward(direction), 0)) + ridge * direction
        curvature = (torch.view_as_real(direction) * torch.view_as_real(image)).sum((1, 2, 3, 4))
        step = power / curvature[:, None, None, None].clamp(min=1e-30)
        x, residual = x + step * direction, residual - step * image
        previous, power = power, squared_norm(residual)
        direction = residual + (power / previous.clamp(min=1e-30)) * direction
    return x
