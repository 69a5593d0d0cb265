"""Exact law of posterior sampling by `Draw` and by the update of SPEC §6, with the exact denoiser of a field. JSON.

    python benchmarks/studies/draws_gaussian.py OUT.json

Fields: 64 points of an AR(1) process, and 16 × 16 points with the same covariance in two dimensions. Seen through a
mask of half of the points or a Gaussian blur, in noise .01 or .1. Every step is affine for a Gaussian field: its matrix
is read off the data step itself, one unit vector at a time, and mean and covariance are propagated in double precision
through the levels of the log grid. Reported: KL divergence from the true posterior in nats a point, and the ratio of
total variances. C_t: true; measured by `measure_error` on samples of the field; assumed, σ_t².
"""

import argparse
import json
from itertools import pairwise
from math import sqrt
from pathlib import Path

import torch
from torch import Tensor

from msm import Draw, Measurement, Problem, Proximal, VPSchedule, measure_error
from msm.error_covariance import ErrorModel
from msm.operators import Convolution, Undersampling
from msm.system.files import write_text

LEVELS = (10, 20, 60)
ITERATIONS = 64
ETA = 0.85
MEASURED = 512  # samples of the field that the error is measured on


class Field:
    """z ~ N(0, Σ) of one channel, its exact denoiser, and its true C_t."""

    def __init__(self, size, length, std=0.5):
        self.schedule, self.size, self.masks, self.assumed = VPSchedule(), size, None, self
        points = torch.cartesian_prod(*(torch.arange(n, dtype=torch.float64) for n in size)).view(-1, 2)
        self.covariance = std**2 * torch.exp(-torch.cdist(points, points) / length)
        self.values, self.vectors = torch.linalg.eigh(self.covariance)

    def gain(self, alpha_bar):
        """ẑ = gain z_t."""
        return self._function(sqrt(alpha_bar) * self.values / (alpha_bar * self.values + 1 - alpha_bar))

    def __call__(self, z_t, mask, t, transform=None):
        """ẑ of z_t under the full mask."""
        assert mask.all()
        alpha_bar = self.schedule.alpha_bar(t).double().item()
        return (z_t.flatten(1).double() @ self.gain(alpha_bar)).view_as(z_t).to(z_t.dtype)

    def sample(self, count, generator):
        """Z (count, 1, H, W)."""
        white = torch.randn(count, len(self.values), dtype=torch.float64, generator=generator)
        return (white @ self._function(self.values.sqrt())).float().view(count, 1, *self.size)

    def of(self, problem, noise_std):
        """The true C_t, the same for every problem: it plays the part of an `ErrorModel`."""
        return self

    def error(self, sigma):
        """Eigenvalues of C_t."""
        return 1 / (1 / self.values + sigma**-2)

    def draw(self, white, sigma):
        """C_t^{1/2} w."""
        return (white.flatten(1) @ self._function(self.error(sigma).sqrt())).view_as(white)

    def solve(self, normal, b, noise_std, sigma, iterations):
        """(N + σ_y² C_t⁻¹)⁻¹ b, exactly."""
        images = torch.eye(len(self.values), dtype=torch.float64).view(-1, 1, *self.size)
        matrix = normal(images).flatten(1) + noise_std**2 * self._function(1 / self.error(sigma))
        return torch.linalg.solve(matrix, b.flatten(1).T).T.view_as(b)

    def _function(self, of_values):
        return (self.vectors * of_values) @ self.vectors.T


def operators(size, generator):
    """The two H of a field."""
    order = torch.rand(size[0] * size[1], generator=generator).argsort()
    mask = torch.zeros(len(order), dtype=torch.bool)
    mask[order[: len(order) // 2]] = True
    y, x = (torch.minimum(torch.arange(n), n - torch.arange(n)).double() for n in size)
    kernel = torch.exp(-(y[:, None] ** 2 + x**2) / (2 * 1.5**2))
    return {"mask": Undersampling(mask.view(1, 1, *size)), "blur": Convolution((kernel / kernel.sum())[None, None])}


def law(field, operator, noise_std, y, steps, data_step, error) -> tuple[Tensor, Tensor]:
    """Mean (d,) and covariance of the samples that `steps` levels give."""
    d = len(field.values)
    units = torch.eye(d, dtype=torch.float64).view(-1, 1, *field.size)
    alpha_bars = [*field.schedule.alpha_bar(field.schedule.grid(steps, "log")).double().tolist()[::-1], 1.0]
    mean, covariance = torch.zeros(d, dtype=torch.float64), torch.eye(d, dtype=torch.float64)
    for a, below in pairwise(alpha_bars):
        sigma = sqrt((1 - a) / a)

        def of(z_hat, noises=(), y=y, sigma=sigma):
            """The step, for ẑ and the noises that it asks for."""
            problem = Problem(y.expand(len(z_hat), -1, -1, -1), operator, noise_std=noise_std)
            given = iter(noises)
            return data_step.of(problem, error)(z_hat, sigma, lambda like: next(given)).flatten(1)

        nothing = torch.zeros_like(units)
        shift = of(nothing[:1], (nothing[:1], nothing[:1]))
        step = (of(units, (nothing, nothing)) - shift).T @ field.gain(a)
        added = []
        if data_step.draws:
            added = [of(nothing, (units, nothing)) - shift, of(nothing, (nothing, units)) - shift]
        eta = 1.0 if data_step.draws else ETA
        of_eps = sqrt(1 - below) * sqrt(1 - eta**2) / sqrt(1 - a)
        of_x = sqrt(below) - of_eps * sqrt(a)
        change = of_x * step + of_eps * torch.eye(d)
        mean = change @ mean + of_x * shift[0]
        covariance = change @ covariance @ change.T + eta**2 * (1 - below) * torch.eye(d)
        covariance += sum(of_x**2 * m.T @ m for m in added)
    return mean, covariance


def compared(mean, covariance, true_mean, true_covariance):
    """KL in nats a point, and the share of the variance."""
    d, ratio = len(mean), torch.linalg.solve(true_covariance, covariance)
    off = mean - true_mean
    kl = (
        ratio.trace() - d - torch.linalg.slogdet(ratio).logabsdet + off @ torch.linalg.solve(true_covariance, off)
    ) / 2
    return {
        "kl": float(f"{kl.item() / d:.3g}"),
        "variance": round((covariance.trace() / true_covariance.trace()).item(), 4),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    out = parser.parse_args().out
    results: dict[str, dict[str, dict]] = {}
    for name, size, length in (("AR(1), 64", (1, 64), 8.0), ("16 x 16", (16, 16), 3.0)):
        field, generator = Field(size, length), torch.Generator().manual_seed(0)
        samples = field.sample(MEASURED, generator)
        everything = Measurement(samples, torch.ones(MEASURED, 1, *size, dtype=torch.bool))
        measured = ErrorModel(measured=measure_error(field, [everything], generator))
        z = field.sample(1, generator)
        for of_name, operator in operators(size, generator).items():
            matrix = operator.A(torch.eye(z.numel(), dtype=torch.float64).view(-1, 1, *size)).flatten(1).T
            for noise_std in (0.01, 0.1):
                y = operator.A(z.double()) + noise_std * operator.A(torch.randn(z.shape, generator=generator).double())
                precision = matrix.T @ matrix / noise_std**2 + torch.linalg.inv(field.covariance)
                covariance = torch.linalg.inv(precision)
                truth = covariance @ (matrix.T @ y.flatten()) / noise_std**2, covariance
                rows = {
                    "draw, true": (Draw(ITERATIONS), field),
                    "draw, measured": (Draw(ITERATIONS), measured),
                    "draw, assumed": (Draw(ITERATIONS), ErrorModel()),
                    "SPEC §6": (Proximal(ITERATIONS), ErrorModel()),
                }
                for row, (step, error) in rows.items():
                    found = {n: compared(*law(field, operator, noise_std, y, n, step, error), *truth) for n in LEVELS}
                    results.setdefault(name, {}).setdefault(f"{of_name}, noise {noise_std}", {})[row] = found
                    print(name, of_name, noise_std, row, found, flush=True)
    write_text(out, json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
