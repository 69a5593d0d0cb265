"""What MSM is compared with, on multi-coil MRI and photos: each method's formula, around the network of MSM.

    oracle      a diffusion model of clean images, sampled with
                DPS       x₋ = DDIM(x_t, x̂) − ζ ∇‖y − A x̂‖                              (Chung et al. 2023, alg. 1)
                DDNM      x̂ ← x̂ + A⁺(y − A x̂)                                           (Wang et al. 2023, alg. 1)
                DiffPIR   x̂ ← argmin ‖y − A x‖² + λ (σ_y/σ_t)² ‖x − x̂‖²                 (Zhu et al. 2023, alg. 1)
    Ambient     x̂ from a further-corrupted measurement, loss on all that was acquired   (Daras et al. 2023, eq. 4)
                A-DPS     DPS with that network and one fixed further-corrupted mask    (Aali et al. 2024, alg. 1)
    SSDU        part of the acquired points is the input, the other part the loss       (Yaman et al. 2020, eq. 6)

deepinv's DPS and DiffPIR take real images in [0, 1] and ones of a batch that share their noise; here each has its own,
and of MRI images are complex and A has the coils in it. Its splitting loss draws the held-out points of a real image.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from torch import Generator, Tensor

from msm import EDM, Identity, Masks, Measurement, PartialDenoiser, Sense
from msm.conjugate_gradient import conjugate_gradient
from msm.denoiser import Network
from msm.losses import mean_square
from msm.operators import Operator
from msm.sampling import Level, ddim, posterior_update
from msm.transforms import Transform

Mean = Callable[[Tensor, Level], Tensor]  # x_t (B, C, H, W), level -> E[x | x_t]
Loss = Callable[..., Tensor]
Steps = Iterable[tuple[Level, object, Tensor]]  # msm.sampling.ReverseProcess

DATA_ITERATIONS = 10  # conjugate-gradient steps of A⁺ and of the proximal map
DATA_WEIGHT = 0.05  # SSDU: λ of its data consistency


class Bounded(Sense):
    """Sense for losses that reach beyond what the network is given.

    There the error of the linear start does not vanish with σ_t: aliasing stays. Correction and loss keep the size
    that they have at a noise level whose error is as large.
    """

    floor = 0.05

    def loss_weight(self, sigma: Tensor) -> Tensor:
        """1/c², with σ_t raised to the floor."""
        return super().loss_weight(sigma.clamp(min=self.floor))

    def error_weight(self, sigma: Tensor, given: Tensor) -> Tensor:
        """The same for all entries: aliasing is everywhere."""
        return self.loss_weight(sigma)


class Inpainting(EDM):
    """EDM for losses that reach beyond what the network is given: an entry that is not given has infinite noise."""

    def estimate(
        self, network: Network, z_t: Tensor, mask: Tensor, t: Tensor, sigma: Tensor, transform: Transform
    ) -> Tensor:
        """Estimate of the image (B, C, H, W), on the mask and off it."""
        larger = (
            self.loss_weight(sigma) / self.error_weight(sigma, mask)
        ).sqrt()  # c of each entry over c of the given
        return larger * super().estimate(network, z_t, mask, t, sigma, transform)

    def error_weight(self, sigma: Tensor, given: Tensor) -> Tensor:
        """1/c² of each entry."""
        return self.loss_weight(torch.where(given, sigma, torch.inf))


@dataclass(frozen=True)
class Physics:
    """A = H T, from image to observation."""

    operator: Operator
    transform: Transform

    def forward(self, x: Tensor) -> Tensor:
        """A x."""
        return self.operator.A(self.transform.forward(x))

    def adjoint(self, y: Tensor) -> Tensor:
        """Aᴴ y."""
        return self.transform.adjoint(self.operator.A_adjoint(y))

    def towards(self, x: Tensor, y: Tensor, ridge: float) -> Tensor:
        """The argmin of ‖y − A x'‖² + ridge ‖x' − x‖² over x'; with ridge 0, x + A⁺(y − A x)."""
        b = self.adjoint(y - self.forward(x))
        return x + conjugate_gradient(lambda v: self.adjoint(self.forward(v)) + ridge * v, b, DATA_ITERATIONS)


def image(denoiser: PartialDenoiser, z_t: Tensor, mask: Tensor, t: Tensor, transform: Transform) -> Tensor:
    """The network's estimate of the image (B, 1, H, W) from the entries of z_t on the mask, at times t (B,)."""
    sigma = denoiser.schedule.sigma(t)[:, None, None, None]
    return denoiser.parametrisation.estimate(denoiser.network, z_t, mask, t, sigma, transform)


def image_mean(denoiser: PartialDenoiser, mask: Tensor, transform: Transform) -> Mean:
    """E[x | S T x_t] for a fixed mask S (B, 1, H, W): all ones for the oracle, a further-corrupted one for Ambient."""
    return lambda x_t, level: image(denoiser, transform.forward(x_t), mask, level.t.expand(len(x_t)), transform)


def ambient_loss(masks: Masks, keep: float, generator: Generator) -> Loss:
    """Ambient diffusion's training loss: predict the image from a sub-mask, compare on all that was acquired.

    The diffusion noise is white in the image, as it will be in the sampler. Measurements count as clean whether they
    are or not: noise in them is taken for image, and SURE's probe, which comes with noisy ones, is not used.

    Args:
        masks: family of the acquired masks.
        keep: share of the acquired boxes, or of the acquired columns off the centre, that stays.
        generator: source of the sub-masks.
    """

    def loss(
        denoiser: PartialDenoiser, measurement: Measurement, t: Tensor, *, noise: Tensor, **of_sure: Tensor
    ) -> Tensor:
        s, mask, transform = measurement.values, measurement.mask, measurement.transform
        sub = masks.submask(mask, torch.full((len(s),), keep), generator)
        sigma = denoiser.schedule.sigma(t)[:, None, None, None]
        white = noise if isinstance(transform, Identity) else noise[:, :1]  # in the image, of one channel for MRI
        z_t = (s + sigma * transform.forward(white)) * (1 + sigma**2).rsqrt()
        x_hat = image(denoiser, z_t, sub, t, transform)
        assert isinstance(denoiser.parametrisation, Bounded | Inpainting)
        weight = denoiser.parametrisation.error_weight(sigma, sub)
        return mean_square(torch.where(mask, s - transform.forward(x_hat), 0) * weight.sqrt())

    return loss


def ssdu_loss(share: float, generator: Generator) -> Loss:
    """SSDU's training loss: relative 2-norm plus relative 1-norm of the error on held-out acquired points.

    Args:
        share: of the acquired points that are held out (ρ = 0.4 in the paper).
        generator: source of the held-out points.
    """

    def loss(
        denoiser: PartialDenoiser, measurement: Measurement, t: Tensor, *, noise: Tensor, **of_sure: Tensor
    ) -> Tensor:
        s, transform = measurement.values, measurement.transform
        held = hold_out(measurement.mask, share, generator)
        x_hat = ssdu_image(denoiser, s, measurement.mask & ~held, transform)
        wanted, error = torch.where(held, s, 0), torch.where(held, s - transform.forward(x_hat), 0)
        return sum(error.flatten(1).norm(p, 1) / wanted.flatten(1).norm(p, 1) for p in (1, 2))

    return loss


def hold_out(mask: Tensor, share: float, generator: Generator) -> Tensor:
    """Acquired points (B, 1, H, W) that SSDU holds out: denser towards the centre, but not the 4 × 4 in the middle.

    Args:
        mask: acquired points (B, 1, H, W).
        share: how many of them.
        generator: source of randomness.
    """
    rows, columns = (torch.arange(n) - n // 2 for n in mask.shape[-2:])
    log_density = -8 * ((rows / len(rows))[:, None] ** 2 + (columns / len(columns)) ** 2)  # std a quarter of the side
    middle = (rows.abs() < 2)[:, None] & (columns.abs() < 2)
    gumbel = -torch.rand(mask.shape, generator=generator).clamp(min=1e-20).log().neg().log()
    order = (log_density + gumbel).masked_fill(~mask | middle, -torch.inf).flatten(1).argsort(1, descending=True)
    number = (share * mask.flatten(1).sum(1, keepdim=True)).round()
    held = torch.zeros_like(order, dtype=torch.bool).scatter_(1, order, torch.arange(order.shape[1]) < number)
    return held.view_as(mask)


def ssdu_image(denoiser: PartialDenoiser, s: Tensor, mask: Tensor, transform: Transform) -> Tensor:
    """SSDU's reconstruction (B, 1, H, W) by one network call: linear start, network, data consistency."""
    t = torch.zeros(len(s))
    s = torch.where(mask, s, 0)
    x_hat = image(denoiser, s * denoiser.schedule.alpha_bar(t)[:, None, None, None].sqrt(), mask, t, transform)
    b = transform.adjoint(torch.where(mask, s - transform.forward(x_hat), 0))
    return x_hat + conjugate_gradient(lambda x: transform.normal(x, mask) + DATA_WEIGHT * x, b, DATA_ITERATIONS)


def dps(mean: Mean, y: Tensor, physics: Physics, x: Tensor, steps: Steps, zeta: float) -> Tensor:
    """Diffusion posterior sampling: an ancestral step, then one down the gradient of ‖y − A x̂(x_t)‖ in x_t.

    Args:
        mean: E[x | x_t], differentiable.
        y: observations.
        physics: A.
        x: start x_T (B, C, H, W).
        steps: levels and noise.
        zeta: ζ.
    """
    for level, _, noise in steps:
        x.requires_grad_()
        x_hat = mean(x, level)
        distance = (y - physics.forward(x_hat)).flatten(1).norm(dim=1).sum()
        (gradient,) = torch.autograd.grad(distance, x)
        x = ddim(x.detach(), x_hat.detach(), level, 1.0, noise[:, -1]) - zeta * gradient
    return x


@torch.no_grad()
def ddnm(mean: Mean, y: Tensor, physics: Physics, x: Tensor, steps: Steps, eta: float = 0.85) -> Tensor:
    """Null-space sampling: the estimate's seen part is replaced. Arguments as in `dps`; eta: share of fresh noise."""
    for level, _, noise in steps:
        x_hat = physics.towards(mean(x, level), y, 0.0)
        x = posterior_update(x, x_hat, level, eta, noise[:, -1])
    return x


@torch.no_grad()
def diffpir(
    mean: Mean, y: Tensor, physics: Physics, x: Tensor, steps: Steps, weight: float, zeta: float, noise_std: float
) -> Tensor:
    """Plug-and-play sampling. Arguments as in `dps`; weight: λ, zeta: ζ of the paper, noise_std: σ_y."""
    for level, _, noise in steps:
        x_hat = physics.towards(mean(x, level), y, weight * (noise_std / level.sigma) ** 2)
        x = posterior_update(x, x_hat, level, zeta**0.5, noise[:, -1])
    return x
