"""Expectation-maximisation on a Gaussian field, where all is known: it converges to the likeliest covariance."""

import numpy as np
import pytest
import torch

from msm import Draw, Proximal, Sampler, VPSchedule
from msm.masks import FullMask
from msm.measurement import Measurement
from msm.sample.complete import complete
from msm.sample.kept_batches import Parts

SIZE, COUNT = (2, 3), 3000
PIXELS = SIZE[0] * SIZE[1]


class Field:
    """The exact full denoiser of z ~ N(0, Σ), which knows the covariance of its error: (Σ⁻¹ + σ_t⁻²)⁻¹."""

    def __init__(self, covariance):
        self.schedule, self.masks, self.covariance = VPSchedule(), FullMask(SIZE), covariance
        self.error = self.assumed = self.measured_error = self

    def tensors(self):
        return [self.covariance]

    def __call__(self, z_t, mask, t, transform=None):
        a = self.schedule.alpha_bar(t).double().flatten()[0]
        noisy = a * self.covariance + (1 - a) * torch.eye(PIXELS, dtype=torch.float64)
        gain = a.sqrt() * torch.linalg.solve(noisy, self.covariance)
        return (z_t.flatten(1).double() @ gain).view_as(z_t).float()

    def of(self, problem, noise_std):
        return self

    def _error(self, sigma):
        return torch.linalg.inv(torch.linalg.inv(self.covariance) + torch.eye(PIXELS, dtype=torch.float64) / sigma**2)

    def draw(self, white, sigma):
        return (white.flatten(1).double() @ torch.linalg.cholesky(self._error(sigma)).T).view_as(white).float()

    def solve(self, normal, b, noise_std, sigma, iterations):
        units = torch.eye(PIXELS).view(PIXELS, 1, 1, *SIZE)
        rows = torch.stack([normal(unit.expand_as(b)).flatten(1) for unit in units], 1).double()
        rho = torch.as_tensor(noise_std).expand(len(b), 1, 1, 1)[:, 0].double()
        system = rows + rho**2 * torch.linalg.inv(self._error(sigma))
        return torch.linalg.solve(system, b.flatten(1).double()).view_as(b).float()


class Masked:
    """Half of the pixels of each item, in noise 0.1."""

    largest_noise_std = 0.1

    def __init__(self, covariance):
        g = torch.Generator().manual_seed(0)
        z = torch.randn(COUNT, PIXELS, generator=g, dtype=torch.float64) @ torch.linalg.cholesky(covariance).T
        noise = 0.1 * torch.randn(COUNT, PIXELS, generator=g)
        mask = torch.rand(COUNT, PIXELS, generator=g) < 0.5
        mask[:, 0] |= ~mask.any(1)
        self.s, self.keep = torch.where(mask, z + noise, 0).double(), mask
        self.values, self.mask = (part.view(COUNT, 1, *SIZE) for part in (self.s.float(), mask))

    def __len__(self):
        return COUNT

    def batch(self, indices, epochs):
        return Measurement(self.values[list(indices)], self.mask[list(indices)], None, 0.1)

    def likeliest(self, rounds=400):
        """The covariance that makes the measurements likeliest, by exact expectation-maximisation."""
        keep = self.keep.double()
        covariance, unit = 0.25 * torch.eye(PIXELS, dtype=torch.float64), torch.eye(PIXELS, dtype=torch.float64)
        for _ in range(rounds):
            cross = covariance * keep[:, None, :]
            inner = keep[:, :, None] * cross + torch.diag_embed(1 - keep) + 0.01 * torch.diag_embed(keep)
            gain = torch.linalg.solve(inner, cross.mT).mT
            mean = (gain @ self.s[..., None])[..., 0]
            left = covariance - gain @ (keep[:, :, None] * covariance)
            covariance = left.mean(0) + mean.T @ mean / COUNT
            covariance = (covariance + covariance.T) / 2 + 1e-9 * unit
        return covariance


@pytest.fixture(scope="module")
def data():
    points = torch.cartesian_prod(*(torch.arange(n, dtype=torch.float64) for n in SIZE))
    return Masked(0.25 * torch.exp(-torch.cdist(points, points) / 2))


def refined(data, folder, start, rounds, sampler, data_step):
    """Covariance after rounds of E-step by a sampler, and M-step by what minimises the loss of a linear denoiser."""
    covariance, found = start, []
    for number in range(rounds):
        field, path = Field(covariance), folder / "samples.npy"
        complete(
            field,
            data,
            path,
            sampler=sampler,
            data_step=data_step,
            samples=1,
            seed=number * COUNT,
            batch_size=COUNT,
            parts=Parts(folder, str(number)),
        )
        x = torch.from_numpy(np.load(path)).flatten(1).double()
        covariance = x.T @ x / COUNT
        found.append(covariance)
    return torch.stack(found[rounds // 2 :]).mean(0)


def test_draws_converge_to_the_likeliest_covariance(data, tmp_path):
    best = data.likeliest()
    found = refined(
        data, tmp_path, 0.25 * torch.eye(PIXELS).double(), 40, Sampler(steps=3, draws=1, grid="log"), Draw()
    )
    assert (found - best).norm() < 0.04 * best.norm()
    assert found.trace() / best.trace() == pytest.approx(1, abs=0.02)


def test_samples_that_are_too_alike_shrink_it(data, tmp_path):
    best = data.likeliest()
    how = Sampler(steps=20, draws=1, grid="log"), Proximal()
    first, last = (refined(data, tmp_path, best, rounds, *how).trace() / best.trace() for rounds in (1, 20))
    assert first < 0.9 and last < 0.9  # at once, and for good; it does not go on from round to round
