"""What the steps of the samplers do to the law, with exact denoisers of Gaussian fields (docs/studies/presets.md).

    python benchmarks/studies/steps_gaussian.py [OUT.json]

Everything is linear in z, so second moments are computed, step by step, and only masks are drawn.

* generate: the fields, masks and distances of chain_gaussian.py; "average" takes 3 covering masks a step, "exact" sees
  the whole field.
* posterior: 64 points of variance 1/16, correlation length 8, half of their directions seen in noise 0.01; the denoiser
  sees the whole field. The proximal step takes the field's own covariance ("true prior"), or one that is too rough.
"""

import argparse
import json
from itertools import pairwise
from math import log, sqrt
from pathlib import Path

import torch
from chain_gaussian import SIZE, Sampler, covariances, ddim_factors, distances, rounded, symmetric
from torch import Tensor

from msm import BoxMasks, VPSchedule
from msm.schedule import Grid
from msm.system.files import write_text

RUNS: dict[str, tuple[int, Grid, int, float]] = {  # name: steps, grid, order, eta
    "published": (200, "time", 1, 1.0),
    "time": (20, "time", 1, 1.0),
    "log": (20, "log", 1, 1.0),
    "time, order 2": (20, "time", 2, 1.0),
    "log, order 2 (best)": (20, "log", 2, 1.0),
    "log, order 2, η = 0": (20, "log", 2, 0.0),
}
POSTERIORS: tuple[tuple[int, Grid, float | None, float, bool], ...] = (  # steps, grid, start, eta, DDIM
    (200, "time", None, 0.85, False),
    (20, "time", None, 0.85, False),
    (20, "log", None, 0.85, False),
    (20, "log", 1.0, 0.85, False),
    (20, "log", 1.0, 1.0, False),
    (20, "log", 0.1, 0.85, False),
    (200, "log", 1.0, 0.85, False),
    (200, "log", 1.0, 1.0, False),
    (20, "log", 1.0, 1.0, True),
    (200, "log", 1.0, 1.0, True),
)


def levels(steps: int, grid: Grid, start: float | None = None) -> list[float]:
    schedule = VPSchedule()
    return [0.0, *schedule.alpha_bar(schedule.grid(steps, grid, start)).double().tolist()[::-1], 1.0]


def ahead(above: float, a: float, below: float) -> float:
    """Weight of ẑ − the ẑ before, as in `msm.sampling.extrapolate`."""
    if above == 0 or below == 1:
        return 0.0
    sigma = [sqrt(1 / x - 1) for x in (above, a, below)]
    return log(sigma[1] / sigma[2]) / log(sigma[0] / sigma[1]) / 2


def generated(truth: Tensor, steps: int, grid: Grid, order: int, eta: float, exact: bool) -> Tensor:
    """Covariance of what `generate` draws; at second order of the state (z, sum of the ŝ, ẑ of the step before)."""
    sampler = Sampler(truth, BoxMasks(SIZE), 1, eta, steps, 0)
    sampler.alpha_bars = alpha_bars = levels(steps, grid)
    if order == 1:
        return sampler.run(sampler.exact if exact else sampler.average)
    n = len(truth)
    state = torch.block_diag(torch.eye(n), torch.zeros(2 * n, 2 * n))
    for above, a, below in zip(alpha_bars, alpha_bars[1:], alpha_bars[2:]):
        last, masks = below == 1, torch.ones(1, 1, 1, SIZE, SIZE, dtype=torch.bool)
        change = torch.block_diag(torch.eye(n), torch.zeros(n, n), torch.eye(n))
        if exact:
            change[n : 2 * n, :n] = sampler.gains(masks[0], a)[0]
            state = change @ state @ change.mT
        else:
            u = torch.rand(1, 3, sampler.family.variates, generator=sampler.generator)
            masks = sampler.family.draw(u, covering=True)
            e, f, fresh = ddim_factors(a, a, above, eta)
            for keep, gain in zip(masks[0].flatten(1).double(), sampler.gains(masks, a)[0]):
                change[:n, :n], change[n : 2 * n, :n] = torch.diag(1 + (e - 1) * keep) + f * gain, gain
                state = change @ state @ change.mT
                state[:n, :n] += (0 if last else fresh) * torch.diag(keep)
                change[n : 2 * n, n : 2 * n] = torch.eye(n)
        e, f, fresh = ddim_factors(a, below, a, eta)
        w, mean = ahead(above, a, below), torch.diag(1 / masks.sum(1).flatten().double())
        change = torch.zeros(3 * n, 3 * n)
        change[:n] = torch.cat([e * torch.eye(n), f * (1 + w) * mean, -f * w * torch.eye(n)], 1)
        change[2 * n :, n : 2 * n] = mean
        state = change @ state @ change.mT
        state[:n, :n] += (0 if last else fresh) * torch.eye(n)
        blocks = state.unflatten(0, (3, n)).unflatten(2, (3, n)).transpose(1, 2)
        state = symmetric(blocks).transpose(1, 2).flatten(2).flatten(0, 1)
    return state[:n, :n]


class Posterior:
    """z ~ N(0, Σ) seen as y = H z + e; the law of `reconstruct`'s samples and the true one."""

    def __init__(self, n: int = 64, noise_std: float = 0.01):
        generator, points = torch.Generator().manual_seed(0), torch.arange(n)
        self.eye, self.noise_std = torch.eye(n), noise_std
        self.priors = {
            name: torch.exp(-(points[:, None] - points).abs() / length) / 16
            for name, length in (("true prior", 8.0), ("too rough prior", 2.0))
        }
        self.prior = self.priors["true prior"]
        self.h = torch.linalg.qr(torch.randn(n, n, generator=generator))[0][: n // 2]
        z = torch.linalg.cholesky(self.prior) @ torch.randn(n, generator=generator)
        self.y = self.h @ z + noise_std * torch.randn(n // 2, generator=generator)
        precision = torch.linalg.inv(self.prior) + self.h.T @ self.h / noise_std**2
        self.covariance = torch.linalg.inv(precision)
        self.mean = self.covariance @ self.h.T @ self.y / noise_std**2

    def proximal(self, prior: Tensor, sigma: float) -> Tensor:
        """P of the step ẑ ← ẑ + P (y − H ẑ)."""
        ridge = self.noise_std**2 * (torch.linalg.inv(prior) + self.eye / sigma**2)
        return torch.linalg.solve(self.h.T @ self.h + ridge, self.h.T)

    def sampled(
        self, prior: Tensor | None, steps: int, grid: Grid, start: float | None, eta: float, ddim: bool = False
    ) -> tuple[Tensor, Tensor]:
        """Mean and covariance of the samples; without a prior the step is the published one, γ = 2.

        ddim: whether an update is a DDIM step from ẑ, in place of that of SPEC §6.
        """
        alpha_bars = levels(steps, grid, start)
        mean, covariance = torch.zeros(len(self.eye)), self.eye
        if start is not None and prior is not None:
            mean = sqrt(alpha_bars[1]) * self.proximal(prior, start) @ self.y
            covariance = (1 - alpha_bars[1]) * self.eye
        for a, below in pairwise(alpha_bars[1:]):
            sigma = sqrt(1 / a - 1)
            step = 2 * self.h.T if prior is None else self.proximal(prior, sigma)
            denoise = self.prior @ torch.linalg.inv(self.prior + sigma**2 * self.eye) / sqrt(a)
            fresh = eta**2 * (1 - below) * ((1 - a / below) / (1 - a) if ddim else 1)  # variance
            old = sqrt((1 - below - fresh) / (1 - a))  # of ε̂, in units of z
            new = sqrt(below) - old * sqrt(a)  # of ẑ
            change = old * self.eye + new * (denoise - step @ self.h @ denoise)
            mean = change @ mean + new * step @ self.y
            covariance = change @ covariance @ change.T + fresh * self.eye
        return mean, covariance

    def distance(self, mean: Tensor, covariance: Tensor) -> dict[str, float]:
        """Distances of a Gaussian from the true posterior; the error of its mean in units of the posterior's spread."""
        floor = 1e-7 * self.eye  # the samples have no noise where y tells all
        truth, error = self.covariance + floor, mean - self.mean
        result = distances(covariance + floor, truth)
        result["kl"] += (error @ torch.linalg.solve(truth, error)).item() / (2 * len(error))
        return result | {"mean_error": (error.norm() / truth.trace().sqrt()).item()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("output", nargs="?", type=Path)
    options = parser.parse_args()
    torch.set_default_dtype(torch.float64)
    torch.set_num_threads(1)
    result: dict = {"generate": {}, "posterior": {}}
    for field in ("exponential, length 4 px", "power 1/f²"):
        truth = covariances()[field]
        for name, run in RUNS.items():
            law = {kind: distances(generated(truth, *run, kind == "exact"), truth) for kind in ("average", "exact")}
            result["generate"].setdefault(field, {})[name] = law
            print(field, name, json.dumps(rounded(law)), flush=True)
    posterior = Posterior()
    published = posterior.sampled(None, 200, "time", None, 0.85)
    result["posterior"]["published, 200 steps"] = posterior.distance(*published)
    for name, prior in posterior.priors.items():
        for steps, grid, start, eta, ddim in POSTERIORS:
            key = f"{name}, {steps} steps, {grid}, start {start or 'noise'}, η = {eta:g}{', DDIM' if ddim else ''}"
            result["posterior"][key] = posterior.distance(*posterior.sampled(prior, steps, grid, start, eta, ddim))
    print(json.dumps(rounded(result["posterior"]), indent=1, ensure_ascii=False))
    if options.output:
        write_text(options.output, json.dumps(rounded(result), indent=1, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
