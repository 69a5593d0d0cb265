"""Phase-constrained SENSE: linear reconstruction of an image with a smooth phase and a natural power spectrum.

An MR image is x = e^{iφ} m with a smooth phase φ, that of its low frequencies, and a nearly real m. The real part
of m has the spectrum P, the imaginary part, what the phase leaves over, κ P:

    P(k) = N q / (π (k² + k_0²)),

the same variance q in every interval of log k², as natural images have (N pixels, k in cycles per field of view).

Source: Pruessmann et al., Magn. Reson. Med. 42 (1999) and 46 (2001): SENSE; Noll, Nishimura, Macovski, IEEE TMI 10
(1991), Bydder, Robson, Magn. Reson. Med. 53 (2005): phase constraints.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from .transforms import Transform


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
        """e^{iφ} (B, 1, H, W), 0 where no coil sees, of k-space s (B, coils, H, W); the larger sigma, the smoother."""
        return torch.sgn(self.low_pass(s, transform, sigma))

    def low_pass(self, s: Tensor, transform: Transform, sigma: Tensor | float) -> Tensor:
        """The image (B, 1, H, W) of the low frequencies of k-space s (B, coils, H, W) that noise sigma leaves."""
        power = self.spectrum(s.shape[-2:], s.device)
        low_pass = torch.exp(-_squared_frequencies(s.shape[-2:], s.device) / (2 * self.phase_width**2))
        return transform.adjoint(s * (low_pass * power / (power + 8 * sigma**2)))

    def precision(self, size: torch.Size, kappa: Tensor | float, device: torch.device) -> Tensor:
        """Inverse of the spectrum of the real and the imaginary part of m, as `solve_penalised` takes it.

        Args:
            size: (H, W).
            kappa: κ, a number or (B, 1, 1, 1).
            device: where the result shall be.

        Returns:
            1/P and 1/(κP), (1 or B, 2, H, W // 2 + 1).
        """
        power = torch.fft.ifftshift(self.spectrum(size, device), (-2, -1))[None, None, :, : size[-1] // 2 + 1]
        return torch.cat([(1 / power).expand(len(power / kappa), -1, -1, -1), 1 / (power * kappa)], 1)

    def kappa(self, sigma: Tensor) -> Tensor:
        """Share κ of the power that the phase of a measurement with noise sigma leaves in the imaginary part."""
        wrong = 0.2 * sigma**2
        return (self.phase_residual + wrong) / (1 + wrong)


@dataclass(frozen=True)
class PhasedParts:
    """The real and the imaginary part of m in x = e^{iφ} m, as two channels.

    Args:
        phase: e^{iφ} (B, 1, H, W), complex; 0 where no coil sees.
    """

    phase: Tensor

    def apart(self, x: Tensor) -> Tensor:
        """Re m and Im m (B, 2, H, W) of an image (B, 1, H, W)."""
        m = self.phase.conj() * x
        return torch.cat([m.real, m.imag], 1)

    def together(self, m: Tensor) -> Tensor:
        """The image (B, 1, H, W) of its parts (B, 2, H, W)."""
        return self.phase * torch.complex(m[:, :1], m[:, 1:])


def _squared_frequencies(size: torch.Size, device: torch.device) -> Tensor:
    """k² (H, W), in (cycles per field of view)², low frequencies in the middle."""
    rows, columns = (torch.arange(n, device=device) - n // 2 for n in size)
    return rows[:, None] ** 2 + columns**2
