"""Phase-constrained SENSE: linear reconstruction of an image with a smooth phase and a natural power spectrum.

An MR image is x = e^{iφ} m with a smooth phase φ, that of its low frequencies, and a nearly real m. The real part
of m has the spectrum P, the imaginary part, what the phase leaves over, κ P:

    P(k) = N q / (π (k² + k_0²)),

the same variance q in every interval of log k², as natural images have (N pixels, k in cycles per field of view).

Source: Pruessmann et al., Magn. Reson. Med. 42 (1999) and 46 (2001): SENSE; Noll, Nishimura, Macovski, IEEE TMI 10
(1991), Bydder, Robson, Magn. Reson. Med. 53 (2005): phase constraints.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from .linear import conjugate_gradient
from .transforms import Transform, fft2c, ifft2c


@dataclass(frozen=True)
class ImagePrior:
    """What is taken to be known of an MR image of magnitude at most 1.

    Args:
        band_variance: q.
        corner: k_0, in cycles per field of view.
        phase_width: standard deviation, in cycles per field of view, of the low-pass filter that gives φ.
        phase_residual: κ, if the phase is known as well as a nearly noiseless measurement tells.
    """

    band_variance: float = 0.0042
    corner: float = 0.25
    phase_width: float = 2.0
    phase_residual: float = 0.02

    def spectrum(self, size: torch.Size, device: torch.device) -> Tensor:
        """P (H, W), low frequencies in the middle."""
        k_squared = _squared_frequencies(size, device)
        return k_squared.numel() * self.band_variance / (torch.pi * (k_squared + self.corner**2))

    def phase(self, s: Tensor, transform: Transform, sigma: Tensor | float) -> Tensor:
        """e^{iφ} (B, 1, H, W) of measured k-space s (B, coils, H, W) with noise sigma; the noisier, the smoother."""
        power = self.spectrum(s.shape[-2:], s.device)
        low_pass = torch.exp(-_squared_frequencies(s.shape[-2:], s.device) / (2 * self.phase_width**2))
        low = transform.adjoint(s * low_pass * power / (power + 8 * sigma**2))
        return torch.polar(torch.ones_like(low.real), low.angle())

    def kappa(self, sigma: Tensor) -> Tensor:
        """Share κ of the power that the phase of a measurement with noise sigma leaves in the imaginary part."""
        wrong = 0.2 * sigma**2
        return (self.phase_residual + wrong) / (1 + wrong)


def solve(
    forward: Callable[[Tensor], Tensor],
    adjoint: Callable[[Tensor], Tensor],
    s: Tensor,
    phase: Tensor,
    ridges: tuple[Tensor, Tensor],
    density: Tensor | float,
    iterations: int,
) -> Tensor:
    """Minimise ‖A e^{iφ} m − s‖² + (Re m)ᵀ Fᴴ ridges[0] F (Re m) + (Im m)ᵀ Fᴴ ridges[1] F (Im m) over m.

    Args:
        forward: A, from images (B, 1, H, W) to measured entries.
        adjoint: Aᴴ.
        s: measured entries, as `forward` gives them.
        phase: e^{iφ} (B, 1, H, W).
        ridges: weights of the penalties, per frequency, broadcastable to (B, 1, H, W).
        density: rough size of Aᴴ A, the share of entries measured, for the preconditioner.
        iterations: preconditioned conjugate-gradient steps.

    Returns:
        m (B, 1, H, W), complex.
    """
    ridge, ridge_imaginary = ridges

    def per_part(m: Tensor, real: Tensor, imaginary: Tensor) -> Tensor:
        """Filter real and imaginary part, each by its own symmetric filter."""
        parts = real * fft2c(m.real), imaginary * fft2c(m.imag)
        return torch.complex(*(ifft2c(part).real for part in parts))

    def normal(m: Tensor) -> Tensor:
        return phase.conj() * adjoint(forward(phase * m)) + per_part(m, ridge, ridge_imaginary)

    def precondition(m: Tensor) -> Tensor:
        return per_part(m, 1 / (density + ridge), 1 / (density + ridge_imaginary))

    return conjugate_gradient(normal, phase.conj() * adjoint(s), iterations, precondition)


def _squared_frequencies(size: torch.Size, device: torch.device) -> Tensor:
    """k² (H, W), in (cycles per field of view)², low frequencies in the middle."""
    rows, columns = (torch.arange(n, device=device) - n // 2 for n in size)
    return rows[:, None] ** 2 + columns**2
