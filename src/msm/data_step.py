"""The data step of posterior sampling: how an estimate is moved towards what was observed (SPEC §6)."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, Protocol

from torch import Tensor

from .conjugate_gradient import conjugate_gradient
from .mri_prior import ImagePrior, solve
from .operators import Problem

Step = Callable[[Tensor, float], Tensor]


class DataStep(Protocol):
    """A way to move ẑ towards y.

    Attributes:
        of_each_draw: whether the average of complex z takes it at each of its draws, as the published code does.
    """

    of_each_draw: ClassVar[bool]

    def of(self, problem: Problem, prior: ImagePrior | None = None) -> Step:
        """The step (ẑ, σ_t) -> ẑ for a problem; the prior is of MR images, None: what most are like."""


@dataclass(frozen=True)
class GradientStep:
    """The published step ẑ − γ H⁺(H ẑ − y), the same at every σ_t. It moves measured entries only.

    Args:
        gamma: γ; published: 1.75 for images, 2 for MRI.
    """

    gamma: float
    of_each_draw: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if not self.gamma > 0:
            raise ValueError(f"gamma must be above 0, got {self.gamma}")

    def of(self, problem: Problem, prior: ImagePrior | None = None) -> Step:
        """The step (ẑ, σ_t) -> ẑ for a problem; it needs no prior."""
        y, operator = problem.y, problem.operator
        return lambda z_hat, sigma: z_hat - self.gamma * operator.A_dagger(operator.A(z_hat) - y)


@dataclass(frozen=True)
class Proximal:
    """The step that moves the estimated image towards y as far as both deserve to be trusted.

    If x is known up to an error of covariance C around x̂, and y up to white noise σ_y, its best estimate is the
    minimiser of ‖H T x − y‖²/σ_y² + (x − x̂)ᴴ C⁻¹ (x − x̂): with ẑ = T x̂ the step is

        ẑ ← ẑ + T (Tᴴ Hᴴ H T + σ_y² C⁻¹)⁻¹ Tᴴ Hᴴ (y − H ẑ).

    Photos: C = σ_t² I. MRI: C⁻¹ = 1/σ_t² + (prior covariance)⁻¹, a smooth phase and a natural spectrum
    (`msm.mri_prior`). A few conjugate-gradient steps leave alone what y hardly sees.

    Args:
        iterations: conjugate-gradient steps.
        likelihood_weight: power w of p(y|z), a likelihood of noise σ_y/√w: above 1 trusts the data more, for images
            unlike those of the training.

    Source: the data step of DiffPIR (Zhu et al. 2023, eq. 13), in image space.
    """

    iterations: int = 6
    likelihood_weight: float = 1.0
    of_each_draw: ClassVar[bool] = False

    def __post_init__(self) -> None:
        if self.iterations < 1 or not self.likelihood_weight > 0:
            found = f"{self.iterations} and {self.likelihood_weight}"
            raise ValueError(f"iterations must be at least 1 and likelihood_weight above 0, got {found}")

    def of(self, problem: Problem, prior: ImagePrior | None = None) -> Step:
        """The step (ẑ, σ_t) -> ẑ for a problem; for MRI, y has the shape of z, and the prior is of the images."""
        y, operator, transform = problem.y, problem.operator, problem.transform
        noise_std = problem.noise_std / self.likelihood_weight**0.5

        def adjoint(residual: Tensor) -> Tensor:
            return transform.adjoint(operator.A_adjoint(residual))

        def normal(x: Tensor) -> Tensor:
            return adjoint(operator.A(transform.forward(x)))

        def white(z_hat: Tensor, sigma: float) -> Tensor:
            ridge, b = (noise_std / sigma) ** 2, adjoint(y - operator.A(z_hat))
            return z_hat + transform.forward(conjugate_gradient(lambda x: normal(x) + ridge * x, b, self.iterations))

        if not y.is_complex():
            return white
        prior = prior or ImagePrior()
        phase = prior.phase(operator.A_adjoint(y), transform, noise_std)
        precision = prior.precision(y.shape[-2:], prior.phase_residual, y.device)

        def smooth_phase(z_hat: Tensor, sigma: float) -> Tensor:
            ridges, b = (precision + sigma**-2) * noise_std**2, adjoint(y - operator.A(z_hat))
            return z_hat + transform.forward(phase * solve(normal, b, phase, ridges, 1.0, self.iterations))

        return smooth_phase


def preset_data_step(name: str, *, mri: bool = False) -> DataStep:
    """The data step that goes with `Sampler.preset(name, mri=mri, inverse_problem=True)`.

    Raises:
        ValueError: if there is no such preset.
    """
    if name not in ("paper", "published", "best"):
        raise ValueError(f"preset must be paper, published or best, got {name!r}")
    if name == "best":
        return Proximal(20 if mri else 6)
    return GradientStep(2.0 if mri else 1.75)
