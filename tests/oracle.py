"""The exact partial denoiser of a Gaussian field, to test the samplers without a network."""

import torch

from msm.schedule import VPSchedule


class GaussianOracle:
    """D(z_t, S, t) = E[S z | S z_t] for real z ~ N(0, Σ) of one channel.

    With a = ᾱ_t it is sqrt(a) Σ_SS (a Σ_SS + (1 − a) I)⁻¹ S z_t; each item of a batch has its own mask.

    Args:
        size: height and width.
        length: correlation length in pixels.
        std: standard deviation of a pixel.
    """

    def __init__(self, size=(8, 8), length=2.0, std=0.5):
        self.schedule, self.size = VPSchedule(), size
        points = torch.cartesian_prod(*(torch.arange(n, dtype=torch.float64) for n in size))
        self.covariance = std**2 * torch.exp(-torch.cdist(points, points) / length)

    def __call__(self, z_t, mask, t, transform=None):
        keep = mask.flatten(1).double()
        a = self.schedule.alpha_bar(t).double().expand(len(z_t))[:, None, None]
        cov = keep[:, :, None] * self.covariance * keep[:, None, :]
        noisy = a * cov + (1 - a) * torch.eye(len(self.covariance), dtype=torch.float64)
        s_t = torch.where(mask, z_t, 0).flatten(1).double()[..., None]
        return (a.sqrt() * cov @ torch.linalg.solve(noisy, s_t)).view_as(z_t).to(z_t.dtype)

    def sample(self, batch, generator=None):
        """z (batch, 1, H, W)."""
        white = torch.randn(batch, len(self.covariance), dtype=torch.float64, generator=generator)
        return (white @ torch.linalg.cholesky(self.covariance).T).float().view(batch, 1, *self.size)
