"""The likelihood step of posterior sampling: how an estimate is moved towards what was observed (SPEC §6)."""

from collections.abc import Callable
from typing import Protocol

from torch import Tensor

from .conjugate_gradient import conjugate_gradient
from .mri_prior import ImagePrior, solve
from .transforms import Transform

PROXIMAL_ITERATIONS = 6


class Operator(Protocol):
    """H of an inverse problem y = H z + e, under deepinv's names."""

    def A(self, z: Tensor) -> Tensor:
        """H z."""

    def A_adjoint(self, y: Tensor) -> Tensor:
        """Hᴴ y."""

    def A_dagger(self, y: Tensor) -> Tensor:
        """H⁺ y."""


Step = Callable[[Tensor, float], Tensor]


def gradient_step(y: Tensor, operator: Operator, step_size: float) -> Step:
    """The published step (ẑ, σ_t) -> ẑ − γ H⁺(H ẑ − y), the same at every σ_t.

    Args:
        y: observations (B, …).
        operator: H.
        step_size: γ.
    """

    def step(z_hat: Tensor, sigma: float) -> Tensor:
        return z_hat - step_size * operator.A_dagger(operator.A(z_hat) - y)

    return step


def proximal_step(
    y: Tensor,
    operator: Operator,
    transform: Transform,
    noise_std: float,
    prior: ImagePrior = ImagePrior(),
    iterations: int = PROXIMAL_ITERATIONS,
) -> Step:
    """The step (ẑ, σ_t) -> ẑ that moves the estimated image towards y as far as both deserve to be trusted.

    If x is known up to an error of covariance C around x̂, and y up to white noise σ_y, its best estimate is the
    minimiser of ‖H T x − y‖²/σ_y² + (x − x̂)ᴴ C⁻¹ (x − x̂): with ẑ = T x̂ the step is

        ẑ ← ẑ + T (Tᴴ Hᴴ H T + σ_y² C⁻¹)⁻¹ Tᴴ Hᴴ (y − H ẑ).

    Photos: C = σ_t² I. MRI: C⁻¹ = 1/σ_t² + (prior covariance)⁻¹, a smooth phase and a natural spectrum
    (`msm.mri_prior`). A few conjugate-gradient steps leave alone what y hardly sees.

    Args:
        y: observations (B, …); for MRI, of the shape of z.
        operator: H.
        transform: T.
        noise_std: σ_y.
        prior: MRI: phase and spectrum of the images.
        iterations: conjugate-gradient steps.

    Source: the data step of DiffPIR (Zhu et al. 2023, eq. 13), in image space.
    """

    def forward(x: Tensor) -> Tensor:
        return operator.A(transform.forward(x))

    def adjoint(residual: Tensor) -> Tensor:
        return transform.adjoint(operator.A_adjoint(residual))

    def white(z_hat: Tensor, sigma: float) -> Tensor:
        ridge, b = (noise_std / sigma) ** 2, adjoint(y - operator.A(z_hat))
        x = conjugate_gradient(lambda x: adjoint(forward(x)) + ridge * x, b, iterations)
        return z_hat + transform.forward(x)

    if not y.is_complex():
        return white
    phase = prior.phase(operator.A_adjoint(y), transform, noise_std)
    precision = prior.precision(y.shape[-2:], prior.phase_residual, y.device)

    def smooth_phase(z_hat: Tensor, sigma: float) -> Tensor:
        ridges = (precision + sigma**-2) * noise_std**2
        b = adjoint(y - operator.A(z_hat))
        m = solve(lambda x: adjoint(forward(x)), b, phase, ridges, 1.0, iterations)
        return z_hat + transform.forward(phase * m)

    return smooth_phase
