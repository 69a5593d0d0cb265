"""The exact partial denoiser of a Gaussian field, and the law of what the samplers draw with it."""

from math import sqrt

import numpy as np
import torch

from msm.schedule import VPSchedule

SIZE, STEPS = 4, 8  # of the runs whose law is computed


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


class Recursion:
    """Second moments of a run's state, computed step by step from the formulas of SPEC §5 and §6, in double.

    The state x = (z, ẑ, the sum of a step's ŝ, 1) changes by a random linear map A, which depends on the masks
    only, and fresh noise: E[x xᵀ] ← E_masks[A E[x xᵀ] Aᵀ + fresh noise]. This is exact: masks do not depend on z.

    Args:
        oracle: the exact partial denoiser of a field of d pixels.
        masks: every outcome of a step's masks (N, w, 1, H, W), with its probability (N,).
        eta: share of fresh noise.
        problem: (H, H⁺, y, γ, likelihood step at each draw instead of after them) or None to generate.
        order: 2 for the extrapolated ẑ of DPM-Solver++(2M).
    """

    def __init__(self, oracle, masks, probability, eta, problem=None, order=1):
        self.oracle, self.probability, self.eta, self.order = oracle, probability, eta, order
        self.keep = masks.flatten(2).double()
        self.d = d = self.keep.shape[-1]
        self.each_draw = problem is not None and problem[4]
        self.posterior = problem is not None
        self.step, self.shift = torch.eye(d, dtype=torch.float64), torch.zeros(d, dtype=torch.float64)
        if problem is not None:
            operator, inverse, y, gamma, _ = problem
            self.step, self.shift = self.step - gamma * inverse @ operator, gamma * inverse @ y

    def run(self, steps, grid="time", start=None, z_hat=None):
        """Mean (d,) and covariance (d, d) of the last z; the first is noise, of level `start` around ẑ if given."""
        d, schedule = self.d, self.oracle.schedule
        a_of = [0.0, *schedule.alpha_bar(schedule.grid(steps, grid, start)).double().tolist()[::-1], 1.0]
        moments = torch.zeros(3 * d + 1, 3 * d + 1, dtype=torch.float64)
        moments[:d, :d] = torch.eye(d)
        moments[-1, -1] = 1
        if z_hat is not None:
            first = torch.cat([sqrt(a_of[1]) * z_hat, z_hat, torch.zeros(d), torch.ones(1)])
            moments = torch.outer(first, first)
            moments[:d, :d] += (1 - a_of[1]) * torch.eye(d)
        for k in range(steps):
            moments = self._reverse_step(moments, *a_of[k : k + 3], last=k == steps - 1)
        mean = moments[:d, -1]
        return mean, moments[:d, :d] - mean[:, None] * mean

    def _reverse_step(self, moments, above, a, below, last):
        all_moments = moments.expand(len(self.keep), -1, -1)
        for keep in self.keep.unbind(1):
            all_moments = self._draw(all_moments, keep, above, a, last)
        ahead = 0.0
        if self.order == 2 and above > 0 and not last:
            sigma = [sqrt(1 / x - 1) for x in (above, a, below)]
            ahead = np.log(sigma[1] / sigma[2]) / np.log(sigma[0] / sigma[1]) / 2
        all_moments = self._update(all_moments, self.keep.sum(1), a, below, last, ahead)
        return (self.probability[:, None, None] * all_moments).sum(0)

    def _draw(self, moments, keep, above, a, last):
        """ŝ, the re-noised entries, and the sum, for one mask of each outcome."""
        z, _, total, one = self._parts()
        diagonal = torch.diag_embed(keep)
        covariance = diagonal @ self.oracle.covariance @ diagonal
        gain = sqrt(a) * covariance @ torch.linalg.inv(a * covariance + (1 - a) * torch.eye(self.d)) @ diagonal
        shift = torch.zeros_like(keep)
        if self.each_draw:
            gain, shift = diagonal @ self.step @ gain, keep * self.shift
        fresh = self.eta**2 * (1 - a) / (1 - above) * (1 - above / a)
        eps = sqrt((1 - a - fresh) / (1 - a))
        from_s_hat = sqrt(a) * (1 - eps)
        change = torch.eye(3 * self.d + 1, dtype=torch.float64).repeat(len(keep), 1, 1)
        change[:, z, z] = from_s_hat * gain + eps * diagonal + torch.eye(self.d) - diagonal
        change[:, z, one] = from_s_hat * shift[..., None]
        change[:, total, z] = gain
        change[:, total, one] = shift[..., None]
        moments = change @ moments @ change.mT
        moments[:, z, z] += 0 if last else fresh * diagonal
        return moments

    def _update(self, moments, count, a, below, last, ahead=0.0):
        """ẑ from the sum, the likelihood step, and the next z from ẑ, or from ẑ + ahead (ẑ − the ẑ before)."""
        z, z_hat, total, one = self._parts()
        average = torch.zeros_like(moments)
        average[:, z, z] = torch.eye(self.d, dtype=torch.float64)
        average[:, z_hat, z_hat] = torch.diag_embed((count == 0).double())
        average[:, z_hat, total] = torch.diag_embed((count > 0) / count.clamp(min=1))
        average[:, -1, -1] = 1
        if self.posterior:
            fresh = self.eta**2 * (1 - below)
        else:
            fresh = self.eta**2 * (1 - below) / (1 - a) * (1 - a / below)
        eps = sqrt((1 - below - fresh) / (1 - a))
        from_z_hat = sqrt(below) - eps * sqrt(a)
        correct = (self.posterior and not self.each_draw) or None
        change = torch.eye(3 * self.d + 1, dtype=torch.float64)
        change[z, z] = eps * torch.eye(self.d)
        change[z, z_hat] = from_z_hat * (1 + ahead) * (self.step if correct else torch.eye(self.d))
        change[z, one] = from_z_hat * self.shift[:, None] if correct else 0
        change = change @ average
        change[:, z, z_hat] -= from_z_hat * ahead * torch.eye(self.d)
        moments = change @ moments @ change.mT
        moments[:, z, z] += 0 if last else fresh * torch.eye(self.d)
        return moments

    def _parts(self):
        d = self.d
        return slice(0, d), slice(d, 2 * d), slice(2 * d, 3 * d), slice(3 * d, None)


def assert_law(samples, mean, covariance):
    """Mean and covariance of samples (n, d), each to 3 standard errors of its squared distance.

    For n samples of covariance C with eigenvalues λ the squared distance of their mean has expectation tr C / n and
    standard deviation sqrt(2) |C| / n. The squared Frobenius distance of Σ (x − mean)(x − mean)ᵀ / n from C has
    expectation E|(x − mean)(x − mean)ᵀ − C|² / n, which is measured because random masks make z a mixture (for a
    Gaussian: (|C|² + (tr C)²) / n), and for a Gaussian the standard deviation 2 sqrt(Σ λ⁴ + |C|⁴) / n. So the relative
    error allowed is a few / sqrt(n).
    """
    n = len(samples)
    x = samples.double() - mean
    size, trace = covariance.norm(), covariance.trace()
    assert x.mean(0).square().sum() < (trace + 3 * sqrt(2) * size) / n
    expected = (x.square().sum(1).square() - 2 * ((x @ covariance) * x).sum(1) + size**2).mean() / n
    spread = 2 * sqrt((covariance @ covariance).norm() ** 2 + size**4) / n
    error = x.T @ x / n - covariance
    gaussian = (size**2 + trace**2) / n
    print(
        f"relative error {error.norm() / size:.4f}, expected {expected.sqrt() / size:.4f} "
        f"(Gaussian {gaussian.sqrt() / size:.4f}), allowed {(expected + 3 * spread).sqrt() / size:.4f}; "
        f"mean off by {x.mean(0).norm():.4f}, expected {(trace / n).sqrt():.4f}"
    )
    assert error.norm() ** 2 < expected + 3 * spread


def by_mask(oracle):
    """The oracle, which solves a system for every item, with one matrix for every different mask instead."""
    units = torch.eye(SIZE**2).view(-1, 1, SIZE, SIZE)

    def denoiser(z_t, mask, t, transform):
        if z_t.is_complex():
            return torch.complex(*(denoiser(part, mask, t, transform) for part in (z_t.real, z_t.imag)))
        code = (mask.flatten(1).long() << torch.arange(SIZE**2)).sum(1)
        different, which = code.unique(return_inverse=True)
        masks = (different[:, None] >> torch.arange(SIZE**2) & 1).bool().view(-1, 1, 1, SIZE, SIZE)
        gains = torch.stack([oracle(units, m.expand(len(units), -1, -1, -1), t).flatten(1).T for m in masks])
        return (gains[which] @ z_t.flatten(1)[..., None]).view_as(z_t)

    denoiser.schedule = oracle.schedule
    return denoiser


class Dense:
    """H as a matrix on flattened z, real or complex."""

    def __init__(self, matrix):
        self.matrix, self.inverse = matrix.float(), torch.linalg.pinv(matrix).float()

    def A(self, z):
        return z.flatten(1) @ self.matrix.to(z.dtype).T

    def A_adjoint(self, y):
        return (y @ self.matrix.to(y.dtype)).view(len(y), 1, SIZE, SIZE)

    def A_dagger(self, y):
        return (y @ self.inverse.to(y.dtype).T).view(len(y), 1, SIZE, SIZE)
