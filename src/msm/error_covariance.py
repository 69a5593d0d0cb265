"""C_t, the covariance of the error of an estimate x̂ at noise level σ_t: what a data step weighs y against (SPEC §13).

It is diagonal in the spatial frequencies of the image's parts. MRI: real and imaginary part of e^{−iφ} x with the phase
φ of `msm.mri_prior`. Photos: grey, and the differences of colours.

Assumed, as long as nothing was measured: σ_t² for photos; (σ_t⁻² + P⁻¹)⁻¹ for MRI, P the spectrum of the images.
Measured (`msm.measure_error`): a table of the error's power by noise level and frequency. Of MRI it tells the sum over
both parts, their proportion is that of what is assumed.
"""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import lru_cache
from math import log, pi
from typing import Protocol

import torch
from torch import Tensor

from .conjugate_gradient import Map, Parts, conjugate_gradient, filtered, solve_penalised
from .mri_prior import ImagePrior, PhasedParts
from .operators import Problem

AIR = 0.05  # variance of the error in the air around an object, relative to that inside
EDGE = 0.35  # of the largest magnitude at low resolution: the edge of the object


class ErrorCovariance(Protocol):
    """C_t for the images (B, C, H, W) of one problem."""

    def draw(self, white: Tensor, sigma: float) -> Tensor:
        """C_t^{1/2} w at σ_t = sigma for white noise w like the images, of unit variance per real component."""

    def solve(self, normal: Map, b: Tensor, noise_std: float, sigma: float, iterations: int) -> Tensor:
        """(N + σ_y² C_t⁻¹)⁻¹ b by conjugate gradients, for a symmetric map N of images."""


@dataclass(frozen=True)
class White:
    """C_t = σ_t² I: what is assumed of photos."""

    def draw(self, white: Tensor, sigma: float) -> Tensor:
        """σ_t w."""
        return sigma * white

    def solve(self, normal: Map, b: Tensor, noise_std: float, sigma: float, iterations: int) -> Tensor:
        """(N + σ_y²/σ_t²)⁻¹ b."""
        ridge = (noise_std / sigma) ** 2
        return conjugate_gradient(lambda x: normal(x) + ridge * x, b, iterations)


@dataclass(frozen=True)
class Stationary:
    """C_t that is diagonal in the frequencies of the images' parts.

    Args:
        parts: of an image.
        precision: σ_t -> the inverse of the error's power (1 or B, P, H, W // 2 + 1), per real component and in the
            order of `torch.fft.rfft2`.
    """

    parts: Parts
    precision: Callable[[float], Tensor]
    envelope: Tensor | float = 1.0

    def draw(self, white: Tensor, sigma: float) -> Tensor:
        """C_t^{1/2} w."""
        m = filtered(self.parts.apart(white), self.precision(sigma).rsqrt())
        return self.envelope * self.parts.together(m)

    def solve(self, normal: Map, b: Tensor, noise_std: float, sigma: float, iterations: int) -> Tensor:
        """(N + σ_y² C_t⁻¹)⁻¹ b."""
        ridges = self.precision(sigma) * noise_std**2
        of_m = normal if isinstance(self.envelope, float) else lambda x: self.envelope * normal(self.envelope * x)
        m = solve_penalised(of_m, self.envelope * b, self.parts, ridges, 1.0, iterations)
        return self.envelope * self.parts.together(m)


class ColourParts:
    """Grey and the differences of colours: the orthonormal DCT along the channels (B, C, H, W)."""

    def __init__(self, channels: int, device: torch.device):
        k = torch.arange(channels, device=device)
        waves = torch.cos(pi / channels * k[:, None] * (k + 0.5))
        self.basis = waves / waves.norm(dim=1, keepdim=True)

    def apart(self, x: Tensor) -> Tensor:
        """The parts (B, C, H, W) of x."""
        return (self.basis[:, :, None, None] * x[:, None]).sum(2)  # no matrix product: autocast would round it

    def together(self, m: Tensor) -> Tensor:
        """The image of the parts."""
        return (self.basis.T[:, :, None, None] * m[:, None]).sum(2)


@dataclass(frozen=True)
class ErrorSpectrum:
    """Power of an estimate's error by noise level and spatial frequency, per real component.

    Args:
        sigmas: noise levels (L,), ascending.
        frequencies: (F,), F > 1, in cycles per pixel, ascending from 0.
        power: (L, P, F), above 0; for each of the P parts of photos, or P = 1, the mean over both parts of MR images.

    Raises:
        ValueError: shapes or values that do not go together.
    """

    sigmas: Tensor
    frequencies: Tensor
    power: Tensor

    def __post_init__(self) -> None:
        levels, places, power = self.sigmas, self.frequencies, self.power
        if (
            power.ndim != 3
            or (len(power), power.shape[2]) != (len(levels), len(places))
            or power.shape[1] not in (1, 3)
        ):
            raise ValueError(f"power must be ({len(levels)}, 1 or 3, {len(places)}), got {tuple(power.shape)}")
        if not ((power > 0) & power.isfinite()).all():
            raise ValueError("power must be finite and above 0")
        if len(places) < 2 or places[0] != 0 or not all((v.diff() > 0).all() for v in (levels, places)):
            raise ValueError("sigmas and frequencies must ascend, frequencies from 0")

    def on(self, size: tuple[int, int], device: torch.device) -> Callable[[float], Tensor]:
        """The power of images of a size by level: σ_t -> (P, H, W // 2 + 1) in the order of `torch.fft.rfft2`.

        It is linear in all logarithms. What does not depend on the level is made and brought to the device here.
        """
        levels, power = self.sigmas.log(), self.power.log().to(device)
        zero = self.frequencies[1] / 2  # where frequency 0 stands on the logarithmic axis
        radius = torch.hypot(torch.fft.fftfreq(size[0])[:, None], torch.fft.rfftfreq(size[1])[None])
        above, share = _between(radius.clamp(min=zero).log(), self.frequencies.clamp(min=zero).log())
        above, share = above.to(device), share.to(device)

        def at(sigma: float) -> Tensor:
            level, weight = (place.item() for place in _between(torch.tensor(log(sigma)), levels))
            at_level = torch.lerp(power[int(level) - 1], power[int(level)], weight)
            return torch.lerp(at_level[:, above - 1], at_level[:, above], share).exp()

        return at


@dataclass(frozen=True)
class ErrorModel:
    """What is known of the error of a denoiser's estimates.

    Args:
        prior: of MR images.
        measured: its power; None: not measured.
    """

    prior: ImagePrior = field(default_factory=ImagePrior)
    measured: ErrorSpectrum | None = None

    @property
    def assumed(self) -> "ErrorModel":
        """The same as if nothing had been measured."""
        return replace(self, measured=None)

    def of(self, problem: Problem, noise_std: float) -> ErrorCovariance:
        """C_t for a problem; for MRI, y has the shape of z, and tells the phase as well as noise of noise_std lets it.

        Raises:
            ValueError: if the error was measured on images of another kind.
        """
        y, measured = problem.y, self.measured
        size, device = (problem.shape[-2], problem.shape[-1]), y.device
        if measured is not None and measured.power.shape[1] != (1 if y.is_complex() else problem.shape[0]):
            raise ValueError(
                f"the error was measured on {measured.power.shape[1]} parts, images are of {problem.shape}"
            )
        if not y.is_complex():
            if measured is None:
                return White()
            of_photos = measured.on(size, device)
            inverse = lru_cache(maxsize=1)(lambda sigma: 1 / of_photos(sigma))  # a draw asks twice a level
            return Stationary(ColourParts(problem.shape[0], device), inverse)
        low = self.prior.low_pass(problem.operator.A_adjoint(y), problem.transform, noise_std)
        parts = PhasedParts(torch.sgn(low))
        of_images = self.prior.precision(y.shape[-2:], self.prior.phase_residual, device)

        def assumed(sigma: float) -> Tensor:
            return of_images + sigma**-2

        if measured is None:
            return Stationary(parts, assumed)
        of_both = measured.on(size, device)

        def precision(sigma: float) -> Tensor:
            alone = assumed(sigma)
            return alone * ((1 / alone).mean(1, keepdim=True) / of_both(sigma))

        return Stationary(parts, lru_cache(maxsize=1)(precision), _object(low))


def _object(low: Tensor) -> Tensor:
    """Where the error of an MR image is, given its low frequencies (B, 1, H, W): its relative standard deviation."""
    largest = low.abs().amax((1, 2, 3), keepdim=True).clamp(min=torch.finfo(low.dtype).tiny)
    share = (low.abs() / largest) ** 4
    variance = AIR + share / (share + EDGE**4)
    return (variance / variance.mean((1, 2, 3), keepdim=True)).sqrt()


def _between(x: Tensor, nodes: Tensor) -> tuple[Tensor, Tensor]:
    """The node (ascending) at or above each x, of the first on, and how far x is from the one before it, 0 … 1."""
    above = torch.searchsorted(nodes, x.contiguous()).clamp(1, len(nodes) - 1)
    return above, ((x - nodes[above - 1]) / (nodes[above] - nodes[above - 1])).clamp(0, 1)
