"""The data step of posterior sampling: how an estimate meets what was observed (SPEC §6, §13).

If x is known up to an error of covariance C around x̂, and y up to white noise σ_y, then x given both is Gaussian, of
precision Aᴴ A/σ_y² + C⁻¹ with A = H T. `Proximal` takes its mean, `Draw` draws from it: the same solution of the same
equations, but for an estimate and data that noise was added to.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, Protocol

import torch
from torch import Tensor

from .conjugate_gradient import Map
from .error_covariance import ErrorModel
from .operators import Problem, Undersampling

Normal = Callable[[Tensor], Tensor]  # noise like a tensor, of unit variance per real component: an item's own stream
Step = Callable[[Tensor, float, Normal], Tensor]


class DataStep(Protocol):
    """A way to move ẑ towards y.

    Attributes:
        of_each_draw: whether the average of complex z takes it at each of its draws, as the published code does.
        draws: whether it gives a sample of z, not an estimate: then fresh noise alone leads to the next level.
    """

    of_each_draw: ClassVar[bool]
    draws: ClassVar[bool]

    def of(self, problem: Problem, error: ErrorModel = ErrorModel()) -> Step:
        """The step (ẑ, σ_t, source of noise) -> z for a problem, given what is known of the error of ẑ."""


@dataclass(frozen=True)
class GradientStep:
    """The published step ẑ − γ H⁺(H ẑ − y), the same at every σ_t. It moves measured entries only.

    Args:
        gamma: γ; published: 1.75 for images, 2 for MRI.
    """

    gamma: float
    of_each_draw: ClassVar[bool] = True
    draws: ClassVar[bool] = False

    def __post_init__(self) -> None:
        if not self.gamma > 0:
            raise ValueError(f"gamma must be above 0, got {self.gamma}")

    def of(self, problem: Problem, error: ErrorModel = ErrorModel()) -> Step:
        """The step for a problem; it takes ẑ as it is."""
        y, operator = problem.y, problem.operator
        return lambda z_hat, sigma, normal: z_hat - self.gamma * operator.A_dagger(operator.A(z_hat) - y)


@dataclass(frozen=True)
class Proximal:
    """The step that moves the estimated image towards y as far as both deserve to be trusted.

    The minimiser of ‖H T x − y‖²/σ_y² + (x − x̂)ᴴ C_t⁻¹ (x − x̂): with ẑ = T x̂ the step is

        ẑ ← ẑ + T (Tᴴ Hᴴ H T + σ_y² C_t⁻¹)⁻¹ Tᴴ Hᴴ (y − H ẑ).

    C_t is what `msm.error_covariance` assumes, also where it was measured. A few conjugate-gradient steps leave alone
    what y hardly sees.

    Args:
        iterations: conjugate-gradient steps.
        likelihood_weight: power w of p(y|z), a likelihood of noise σ_y/√w: above 1 trusts the data more, for images
            unlike those of the training.

    Raises:
        ValueError: if an argument is out of range.

    Source: the data step of DiffPIR (Zhu et al. 2023, eq. 13), in image space.
    """

    iterations: int = 6
    likelihood_weight: float = 1.0
    of_each_draw: ClassVar[bool] = False
    draws: ClassVar[bool] = False

    def __post_init__(self) -> None:
        if self.iterations < 1 or not self.likelihood_weight > 0:
            found = f"{self.iterations} and {self.likelihood_weight}"
            raise ValueError(f"iterations must be at least 1 and likelihood_weight above 0, got {found}")

    def of(self, problem: Problem, error: ErrorModel = ErrorModel()) -> Step:
        """The step for a problem; for MRI, y has the shape of z."""
        operator, transform = problem.operator, problem.transform
        noise_std = problem.noise_std / self.likelihood_weight**0.5
        covariance = (error if self.draws else error.assumed).of(problem, noise_std)

        def adjoint(residual: Tensor) -> Tensor:
            return transform.adjoint(operator.A_adjoint(residual))

        normal = _normal(problem)

        def towards(z_hat: Tensor, y: Tensor, sigma: float) -> Tensor:
            b = adjoint(y - operator.A(z_hat))
            return z_hat + transform.forward(covariance.solve(normal, b, noise_std, sigma, self.iterations))

        def drawn(z_hat: Tensor, sigma: float, noise: Normal) -> Tensor:
            x_hat = transform.adjoint(z_hat)
            x = x_hat + covariance.draw(noise(x_hat), sigma)
            return towards(transform.forward(x), problem.y + noise_std * noise(problem.y), sigma)

        return drawn if self.draws else lambda z_hat, sigma, noise: towards(z_hat, problem.y, sigma)


def _normal(problem: Problem) -> Map:
    """Tᴴ Hᴴ H T of images (B, C, H, W); of k-space that lacks whole columns, in one dimension."""
    operator, transform = problem.operator, problem.transform
    if not isinstance(operator, Undersampling):
        return lambda x: transform.adjoint(operator.A_adjoint(operator.A(transform.forward(x))))
    mask = operator.mask.to(problem.y.device)
    columns = mask[..., :1, :].expand_as(mask)  # expanded, for `MultiCoil.normal` to see whole columns
    mask = columns if torch.equal(mask, columns) else mask
    return lambda x: transform.normal(x, mask)


@dataclass(frozen=True)
class Draw(Proximal):
    """The step that draws the image from what the estimate and y together say of it (SPEC §13).

    x ~ N(mean, (Tᴴ Hᴴ H T/σ_y² + C_t⁻¹)⁻¹) by perturb and maximise: `Proximal` of an estimate x̂ + C_t^{1/2} w and of
    data y + σ_y e, w and e standard normal. For a Gaussian prior and its true C_t every step leads from the law of
    z_t given y to that of the next level exactly, however far they are apart.

    Args:
        iterations: as of `Proximal`.
        likelihood_weight: as of `Proximal`; 1 for samples that are the posterior's.

    Source: Papandreou, Yuille, NeurIPS 2010 (perturb and maximise).
    """

    draws: ClassVar[bool] = True


def preset_data_step(name: str, *, mri: bool = False) -> DataStep:
    """The data step that goes with `Sampler.preset(name, mri=mri, inverse_problem=True)`.

    Args:
        name: "paper", "published" or "best".
        mri: whether z is k-space of several coils.

    Returns:
        `GradientStep` as published, or the `Draw` that measured best here.

    Raises:
        ValueError: if there is no such preset.
    """
    if name not in ("paper", "published", "best"):
        raise ValueError(f"preset must be paper, published or best, got {name!r}")
    if name == "best":
        return Draw(20 if mri else 6)
    return GradientStep(2.0 if mri else 1.75)
