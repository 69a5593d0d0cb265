"""Posterior samplers on sparse signals, whose posterior a long Gibbs chain knows. Writes JSON.

    python benchmarks/studies/draws_sparse.py OUT.json

64 independent entries of a Laplace, a Bernoulli-Laplace (nine in ten are 0) or a Student law (3 degrees of freedom), of
unit scale, seen through 32 random directions in noise .1. The denoiser is exact, by quadrature, so what differs is the
sampler: `Draw` with measured C_t; SPEC §6 (γ, η = .85); DiffPIR (λ and ζ) and DPS (its step) as published, log grid, 60
calls each. What a rival leaves to be tuned is tuned on other problems, by the distance of the mean.
Reported over 32 problems: how often intervals of 39 samples hold the truth, with bootstrap intervals over problems, and
the root-mean-square distance of the samples' mean from the Gibbs mean, in units of the posterior's deviation.
"""

import argparse
import itertools
import json
import math
from functools import partial
from math import sqrt
from pathlib import Path

import torch
from torch import Tensor

from msm import (
    Draw,
    FullMask,
    GradientStep,
    Measurement,
    Problem,
    Proximal,
    Sampler,
    VPSchedule,
    measure_error,
    reconstruct,
)
from msm.error_covariance import ErrorModel
from msm.evaluate import bootstrap
from msm.system.files import write_text

D, SEEN, NOISE = 64, 32, 0.1
PROBLEMS, TUNING, SAMPLES = 32, 8, 39
SWEEPS, BURN = 4900, 1000
RANKS = {0.5: 10, 0.8: 4, 0.9: 2, 0.95: 1}  # interval between the r-th smallest and largest of 39 samples
CALLS = (60,)
NODES = 128  # of the quadrature over variances


class Law:
    """Independent entries: a share of zeros, the rest Gaussian of a random variance."""

    def __init__(self, name):
        self.name, self.kept = name, 0.1 if name == "Bernoulli-Laplace" else 1.0

    def variances(self, x, generator):
        """Draw v given x of an entry that is not zero: the Gibbs step."""
        if self.name == "Student":
            shape = torch.full_like(x, 2.0)  # (ν + 1)/2
            return (3 + x**2) / 2 / torch._standard_gamma(shape, generator=generator)
        return 1 / _inverse_gaussian(1 / x.abs().clamp(min=1e-8), torch.ones_like(x), generator)

    def sample(self, shape, generator):
        """Entries of the law."""
        white = torch.randn(shape, generator=generator, dtype=torch.float64)
        if self.name == "Student":
            return white / torch.sqrt(
                torch._standard_gamma(torch.full(shape, 1.5, dtype=torch.float64), generator=generator) / 1.5
            )
        uniform = torch.rand(2, *shape, generator=generator, dtype=torch.float64)
        laplace = -torch.log(uniform[0]) * torch.sign(white)
        return torch.where(uniform[1] < self.kept, laplace, 0)

    def prior_variances(self, shape, generator):
        """Variances of entries that are not zero."""
        if self.name == "Student":
            return 1.5 / torch._standard_gamma(torch.full(shape, 1.5, dtype=torch.float64), generator=generator)
        return -2 * torch.log(torch.rand(shape, generator=generator, dtype=torch.float64))

    def nodes(self):
        """Variances that the mixture is summed over, and their weights, for the denoiser."""
        u = (torch.arange(NODES, dtype=torch.float64) + 0.5) / NODES
        if self.name == "Student":
            from scipy.stats import invgamma

            return torch.from_numpy(invgamma.ppf(u.numpy(), 1.5, scale=1.5)), torch.full_like(u, 1 / NODES)
        return -2 * torch.log(1 - u), torch.full_like(u, 1 / NODES)


def _inverse_gaussian(mean, shape, generator):
    """Michael, Schucany and Haas 1976."""
    y = torch.randn(mean.shape, generator=generator, dtype=mean.dtype) ** 2
    x = mean + mean**2 * y / (2 * shape) - mean / (2 * shape) * torch.sqrt(4 * mean * shape * y + (mean * y) ** 2)
    x = x.clamp(min=1e-12)
    return torch.where(
        torch.rand(mean.shape, generator=generator, dtype=mean.dtype) <= mean / (mean + x), x, mean**2 / x
    )


class Exact:
    """E[x | x + σ n], entry by entry; with its slope for DPS."""

    def __init__(self, law):
        self.schedule, self.masks = VPSchedule(), FullMask((1, D))
        self.kept, (self.v, self.w) = law.kept, law.nodes()
        self.error = ErrorModel()

    def estimate(self, x, sigma):
        """E[x | x + σ n] for the noisy x."""
        total = self.v + sigma**2
        x = x.double()[..., None]
        log_slab = self.w.log() - 0.5 * total.log() - 0.5 * x**2 / total
        if self.kept < 1:
            log_zero = (
                torch.log(torch.tensor(1 - self.kept)) - 0.5 * torch.log(torch.tensor(sigma**2)) - 0.5 * x**2 / sigma**2
            )
            log_slab = torch.cat([log_slab + torch.log(torch.tensor(self.kept)), log_zero], -1)
        weights = log_slab.softmax(-1)
        means = self.v / total * x
        return (weights[..., : len(self.v)] * means).sum(-1)

    def __call__(self, z_t, mask, t, transform=None):
        """ẑ of z_t under the full mask."""
        sigma = self.schedule.sigma(t).item()
        return self.estimate(z_t * sqrt(1 + sigma**2), sigma).to(z_t.dtype)


class Directions:
    """H as a matrix (32, 64)."""

    def __init__(self, matrix):
        self.matrix, self.inverse = matrix, torch.linalg.pinv(matrix)

    def A(self, z):
        """H z."""
        return z.flatten(1) @ self.matrix.T.to(z.dtype)

    def A_adjoint(self, y):
        """Hᴴ y."""
        return (y @ self.matrix.to(y.dtype)).view(len(y), 1, 1, D)

    def A_dagger(self, y):
        """H⁺ y."""
        return (y @ self.inverse.T.to(y.dtype)).view(len(y), 1, 1, D)


def gibbs(law, matrix, y, generator):
    """Mean and deviation (P, D) of x given y (P, 32), by a chain a problem, and 39 of its states.

    x is drawn as a whole given the variances; where entries may be 0, first entry by entry with its indicator.
    """
    count = len(y)
    x, v = torch.zeros(count, D, dtype=torch.float64), law.prior_variances((count, D), generator)
    total, squares = torch.zeros_like(x), torch.zeros_like(x)
    states: list[Tensor] = []
    for sweep in range(SWEEPS):
        if law.kept < 1:
            _by_entry(law, matrix, y, x, v, generator)
        spread = v if law.kept == 1 else torch.where(x == 0, 0, v)
        x = _whole(matrix, y, spread, generator)
        v = law.variances(x, generator)
        if law.kept < 1:
            v = torch.where(x == 0, law.prior_variances((count, D), generator), v)
        if sweep >= BURN:
            total, squares = total + x, squares + x**2
            if (sweep - BURN) % ((SWEEPS - BURN) // SAMPLES) == 0 and len(states) < SAMPLES:
                states.append(x)
    mean = total / (SWEEPS - BURN)
    return mean, (squares / (SWEEPS - BURN) - mean**2).clamp(min=0).sqrt(), torch.stack(states, 1)


def _whole(matrix, y, v, generator):
    """Draw x given v and y, which is Gaussian, by conditioning a draw of the prior."""
    normal = partial(torch.randn, generator=generator, dtype=torch.float64)
    x = v.sqrt() * normal(*v.shape)
    gram = (matrix * v[:, None]) @ matrix.T + NOISE**2 * torch.eye(SEEN, dtype=torch.float64)
    off = y - x @ matrix.T - NOISE * normal(*y.shape)
    return x + v * (torch.linalg.solve(gram, off[..., None])[..., 0] @ matrix)


def _by_entry(law, matrix, y, x, v, generator):
    """Each entry and whether it is 0, in turn, given the others; x changes in place."""
    noise = torch.randn(x.shape, generator=generator, dtype=torch.float64)
    uniform = torch.rand(x.shape, generator=generator, dtype=torch.float64)
    norms, residual = matrix.square().sum(0), y - x @ matrix.T
    for i in range(D):
        residual += matrix[:, i] * x[:, i, None]
        precision = norms[i] / NOISE**2 + 1 / v[:, i]
        mean = residual @ matrix[:, i] / NOISE**2 / precision
        odds = math.log(law.kept / (1 - law.kept)) - 0.5 * torch.log(v[:, i] * precision) + 0.5 * mean**2 * precision
        value = torch.where(uniform[:, i] < torch.sigmoid(odds), mean + noise[:, i] / precision.sqrt(), 0)
        x[:, i] = value
        residual -= matrix[:, i] * value[:, None]


def dps(denoiser, y, operator, steps, step_size, generator):
    """Chung et al. 2023, algorithm 1, on the log grid: ancestral steps and a step down the gradient of the residual."""
    alpha_bars = [*denoiser.schedule.alpha_bar(denoiser.schedule.grid(steps, "log")).tolist()[::-1], 1.0]
    z = torch.randn(len(y), 1, 1, D, generator=generator, dtype=torch.float64)
    for a, below in itertools.pairwise(alpha_bars):
        sigma = sqrt((1 - a) / a)
        z = z.detach().requires_grad_()
        x_hat = denoiser.estimate(z / sqrt(a), sigma)
        distance = (y - operator.A(x_hat)).norm(dim=1)
        (gradient,) = torch.autograd.grad(distance.sum(), z)
        with torch.no_grad():
            fresh = (1 - below) / (1 - a) * (1 - a / below)
            eps = (z - sqrt(a) * x_hat) / sqrt(1 - a)
            z = sqrt(below) * x_hat + sqrt(max(1 - below - fresh, 0)) * eps
            z = z + sqrt(fresh) * torch.randn(z.shape, generator=generator, dtype=z.dtype) - step_size * gradient
    return z.detach()


def ours(denoiser, y, operator, steps, data_step, eta, seed):
    sampler = Sampler(steps=steps, draws=1, grid="log", eta=eta)
    problem = Problem(y.float(), operator, noise_std=NOISE)
    seeds = [seed + n for n in range(len(y))]
    return reconstruct(denoiser, problem, seeds=seeds, sampler=sampler, data_step=data_step).double()


def methods():
    """Name -> what of it is tuned: (settings, sampler of (denoiser, y, operator, steps, setting, seed))."""
    etas = [sqrt(zeta) for zeta in (0.3, 0.6, 1.0)]
    return {
        "draw": ([None], lambda d, y, h, n, s, seed: ours(d, y, h, n, Draw(64), None, seed)),
        "SPEC §6": ([0.5, 1.0, 1.75], lambda d, y, h, n, s, seed: ours(d, y, h, n, GradientStep(s), 0.85, seed)),
        "DiffPIR": (
            list(itertools.product((0.3, 1.0, 3.0), etas)),
            lambda d, y, h, n, s, seed: ours(d, y, h, n, Proximal(64, s[0]), s[1], seed),
        ),
        "DPS": (
            [0.03, 0.1, 0.3, 0.6, 1.0],
            lambda d, y, h, n, s, seed: dps(d, y, h, n, s, torch.Generator().manual_seed(seed)),
        ),
    }


def distance(samples, mean, deviation):
    """Root-mean-square distance of the samples' mean from the true one, in units of the deviation, a problem each."""
    return ((samples.mean(1) - mean).square().sum(1) / deviation.square().sum(1)).sqrt()


def coverage(samples, truth):
    """Share of entries (P,) held by the intervals; ties are broken by chance, which zeros need."""
    jitter = torch.Generator().manual_seed(0)
    samples, truth = (x + 1e-9 * torch.randn(x.shape, generator=jitter, dtype=x.dtype) for x in (samples, truth))
    ordered = samples.sort(1).values
    return {p: ((truth > ordered[:, r - 1]) & (truth < ordered[:, -r])).double().mean(1) for p, r in RANKS.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    out = parser.parse_args().out
    torch.set_num_threads(1)
    results = {}
    for name in ("Laplace", "Bernoulli-Laplace", "Student"):
        law, generator = Law(name), torch.Generator().manual_seed(0)
        matrix = torch.randn(SEEN, D, generator=generator, dtype=torch.float64) / sqrt(D)
        x = law.sample((PROBLEMS + TUNING, D), generator)
        y = x @ matrix.T + NOISE * torch.randn(len(x), SEEN, generator=generator, dtype=torch.float64)
        mean, deviation, states = gibbs(law, matrix, y, generator)
        denoiser, operator = Exact(law), Directions(matrix)
        fields = law.sample((512, 1, 1, D), generator).float()
        everything = Measurement(fields, torch.ones(512, 1, 1, D, dtype=torch.bool))
        denoiser.error = ErrorModel(measured=measure_error(denoiser, [everything], generator))
        report = results[name] = {"Gibbs": row(states[:PROBLEMS], x[:PROBLEMS], mean[:PROBLEMS], deviation[:PROBLEMS])}
        print(name, "Gibbs", report["Gibbs"], flush=True)
        for method, (settings, run) in methods().items():
            for calls in CALLS:

                def drawn(rows, setting, seed, run=partial(run, denoiser), y=y, operator=operator, calls=calls):
                    z = run(y[rows].repeat_interleave(SAMPLES, 0), operator, calls, setting, seed)
                    return z.view(-1, SAMPLES, D)

                apart = slice(PROBLEMS, None)
                tried = {}
                for setting in settings if len(settings) > 1 else ():
                    far = distance(drawn(apart, setting, 10**6), mean[apart], deviation[apart]).mean().item()
                    tried[setting] = far if far == far else float("inf")
                best = min(tried, key=tried.__getitem__) if tried else settings[0]
                samples = drawn(slice(0, PROBLEMS), best, 0)
                found = row(samples, x[:PROBLEMS], mean[:PROBLEMS], deviation[:PROBLEMS])
                report[f"{method}, {calls} calls"] = {"setting": best, **found}
                print(name, method, calls, report[f"{method}, {calls} calls"], flush=True)
                write_text(out, json.dumps(results, indent=1) + "\n")


def row(samples, truth, mean, deviation):
    """What is reported of samples (P, 39, D)."""
    held = {}
    for nominal, shares in coverage(samples, truth).items():
        estimate = bootstrap.mean(shares.tolist())
        held[nominal] = [round(v, 3) for v in (estimate.value, *estimate.bounds)]
    far = distance(samples, mean, deviation)
    return {"held": held, "distance": round(far.square().mean().sqrt().item(), 3)}


if __name__ == "__main__":
    main()
