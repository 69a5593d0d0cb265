"""Average against chain with exact partial denoisers of Gaussian fields (docs/studies/chain.md).

    python benchmarks/studies/chain_gaussian.py [OUT.json] [--masks 1] [--seed 0]

Fields of 16×16, 4×4 boxes, p = .4. Everything is linear in z, so nothing is sampled but masks: second moments are
computed.

* fixed point: N(0, J⁻¹), where −J z is the score at noise σ, in expectation over masks; the truth is Σ + σ² I.
* sampler: the covariance of what `generate` draws, step by step, E[z zᵀ] ← E_masks[A E[z zᵀ] Aᵀ] + fresh noise,
  with the schedule and the masks of the library (covering draws). The expectation over masks is a mean over `--masks`
  of them at every step, new ones at each, in all 8 mirrorings and rotations, under which fields and masks have the
  same law: unbiased for the covariance. "exact" has the whole field as its mask, one
  call a step: what is wrong with it is the doing of the 200 steps, not of the score.

Errors are relative, |C − Σ|/|Σ| in the Frobenius norm. KL/n is KL(N(0, C) ‖ N(0, Σ)) per pixel, in nats;
kl_to_exact the same to what "exact" draws instead of Σ.
"""

import argparse
import json
import time
from math import sqrt
from pathlib import Path

import torch
from torch import Tensor

from msm import BoxMasks, VPSchedule
from msm.schedule import Grid

SIZE, DROP, VARIANCE, STEPS = 16, 0.4, 0.25, 200
NOISE_LEVELS = (0.0, 0.1, 0.5, 2.0)


def covariances() -> dict[str, Tensor]:
    """Σ (n, n) of stationary fields of variance ¼: rough, smooth in white noise, and with the spectrum of photos."""
    rows, columns = torch.cartesian_prod(torch.arange(SIZE), torch.arange(SIZE)).T
    dy, dx = (axis[:, None] - axis for axis in (rows, columns))
    smooth = torch.exp(-(dy**2 + dx**2).double() / (2 * 2.0**2))
    torus = 4 * SIZE  # of which the field is a part
    frequency = torch.fft.fftfreq(torus, dtype=torch.float64)
    power = 1 / (frequency[:, None] ** 2 + frequency**2 + torus**-2)
    natural = torch.fft.ifft2(power).real
    fields = {
        "exponential, length 4 px": torch.exp(-(dy.abs() + dx.abs()).double() / 4),
        "power 1/f²": (natural / natural[0, 0])[dy % torus, dx % torus],
        "squared exponential, length 2 px, 10 % white": 0.9 * smooth + 0.1 * torch.eye(SIZE**2),
        "squared exponential, length 2 px, 1 % white": 0.99 * smooth + 0.01 * torch.eye(SIZE**2),
    }
    return {name: VARIANCE * field for name, field in fields.items()}


def inverses(covariance: Tensor, masks: Tensor) -> Tensor:
    """Sᵀ (S C Sᵀ)⁻¹ S, (…, n, n), of masks (…, 1, H, W)."""
    keep = masks.flatten(-3)
    out = covariance.new_zeros(*keep.shape, keep.shape[-1])
    for kept, inverse in zip(keep.flatten(0, -2), out.flatten(0, -3)):
        at = kept.nonzero()[:, 0]
        inverse[at[:, None], at] = torch.cholesky_inverse(torch.linalg.cholesky(covariance[at[:, None], at]))
    return out


def symmetric(matrix: Tensor) -> Tensor:
    """The mean of matrices (…, n, n) over the mirrorings and rotations of the image."""
    pixels = torch.arange(SIZE**2).view(SIZE, SIZE)
    turned = [p.rot90(k) for p in (pixels, pixels.T) for k in range(4)]
    return torch.stack([matrix[..., p.flatten()[:, None], p.flatten()] for p in turned]).mean(0)


def kl_per_pixel(covariance: Tensor, truth: Tensor) -> float:
    ratio, n = torch.linalg.solve(truth, covariance), len(truth)
    return ((ratio.trace() - n - torch.linalg.slogdet(ratio).logabsdet) / (2 * n)).item()


def distances(covariance: Tensor, truth: Tensor) -> dict[str, float]:
    error, variance = (covariance - truth).norm() / truth.norm(), covariance.trace() / truth.trace()
    return {"error": error.item(), "variance": variance.item(), "kl": kl_per_pixel(covariance, truth)}


def fixed_points(truth: Tensor, family: BoxMasks, generator: torch.Generator, number: int) -> dict[str, dict]:
    """Both fixed points at each noise level; eight windows of 10 boxes cover each of the 16 five times."""
    u = torch.rand(number, 8, family.variates, generator=generator)
    chain, windows = family.chain(u[:, 0]), family.draw(u[: number // 2], covering=True)
    out = {}
    for sigma in NOISE_LEVELS:
        noisy = truth + sigma**2 * torch.eye(len(truth))
        averaged = inverses(noisy, windows).mean((0, 1)) / family.kept
        chained = torch.einsum("c,bcij->ij", chain.weights.double() / number, inverses(noisy, chain.masks))
        precisions = {"average": symmetric(averaged), "chain": symmetric(chained)}
        out[f"σ = {sigma:g}"] = {name: distances(torch.linalg.inv(j), noisy) for name, j in precisions.items()}
    return out


class Sampler:
    """The covariance of `generate`'s iterate z_t, VP-scaled, from the first level to the last.

    Args:
        truth: Σ.
        family: masks.
        number: masks a step that stand for all of them.
        eta: share of fresh noise.
        steps: reverse steps.
        seed: of the masks.
        grid: spacing of the steps.
    """

    def __init__(
        self, truth: Tensor, family: BoxMasks, number: int, eta: float, steps: int, seed: int, grid: Grid = "time"
    ):
        self.truth, self.family, self.number, self.eta = truth, family, number, eta
        self.eye = torch.eye(len(truth))
        self.generator = torch.Generator().manual_seed(seed)
        schedule = VPSchedule()
        self.alpha_bars = [0.0, *schedule.alpha_bar(schedule.grid(steps, grid)).double().tolist()[::-1], 1.0]

    def run(self, step) -> Tensor:
        """Covariance of the last z, by one of the methods below for a step."""
        covariance, levels = self.eye, len(self.alpha_bars) - 2
        for k in range(levels):
            covariance = symmetric(step(covariance, *self.alpha_bars[k : k + 3], k == levels - 1))
        return covariance

    def gains(self, masks: Tensor, a: float) -> Tensor:
        """D with D z_t = Sᵀ E[S z | S z_t]: by Tweedie (Sᵀ S − σ² Sᵀ (S (Σ + σ²) Sᵀ)⁻¹ S) / sqrt(ᾱ)."""
        variance = (1 - a) / a
        kept = torch.diag_embed(masks.flatten(-3).double())
        return (kept - variance * inverses(self.truth + variance * self.eye, masks)) / sqrt(a)

    def exact(self, covariance, above, a, below, last):
        """One call with everything in view."""
        gain = self.gains(torch.ones(1, 1, SIZE, SIZE, dtype=torch.bool), a)
        return self.ddim(covariance, gain, a, below, last)

    def chain(self, covariance, above, a, below, last):
        """Covers and separators at the same z."""
        chain = self.family.chain(torch.rand(self.number, self.family.variates, generator=self.generator))
        gain = (chain.weights[:, None, None] * self.gains(chain.masks, a)).sum(1)
        return self.ddim(covariance, gain, a, below, last)

    def ddim(self, covariance, gain, a, below, last):
        """The step to e z + f ẑ + fresh noise, with ẑ = gain z."""
        e, f, fresh = ddim_factors(a, below, a, self.eta)
        change = e * self.eye + f * gain
        return (change @ covariance @ change.mT).mean(0) + (0 if last else fresh) * self.eye

    def average(self, covariance, above, a, below, last, draws: int = 3):
        """The covariances of z, of the sum of ŝ, and of both, through the draws (`aggregate`), then DDIM."""
        u = torch.rand(self.number, draws, self.family.variates, generator=self.generator)
        masks = self.family.draw(u, covering=True)
        zz = covariance.expand(self.number, -1, -1)
        tz, tt = torch.zeros_like(zz), torch.zeros_like(zz)
        e, f, fresh = ddim_factors(a, a, above, self.eta)
        for keep, gain in zip(masks.flatten(2).double().unbind(1), self.gains(masks, a).unbind(1)):
            b = 1 + (e - 1) * keep  # z ← b z + f gain z, total ← total + gain z
            moved, t_gain = gain @ zz, tz @ gain.mT
            square = moved @ gain.mT
            cross = b[:, None, :] * moved
            tt = tt + t_gain + t_gain.mT + square
            tz = (tz + moved) * b[:, None, :] + f * (t_gain + square)
            zz = b[:, :, None] * zz * b[:, None, :] + f * (cross + cross.mT) + f**2 * square
            zz = zz + (0 if last else fresh) * torch.diag_embed(keep)
        count = masks.sum(1).flatten(1).double()
        e, f, fresh = ddim_factors(a, below, a, self.eta)
        hz, hh = tz / count[:, :, None], tt / (count[:, :, None] * count[:, None, :])
        mean = (e**2 * zz + e * f * (hz + hz.mT) + f**2 * hh).mean(0)
        return mean + (0 if last else fresh) * self.eye


def ddim_factors(a: float, target: float, source: float, eta: float) -> tuple[float, float, float]:
    """E, f and the variance of the fresh noise of a DDIM step from ᾱ = source to target, for z_t at ᾱ = a."""
    fresh = eta**2 * (1 - target) / (1 - source) * (1 - source / target)
    e = sqrt(max(1 - target - fresh, 0) / (1 - a))
    return e, sqrt(target) - e * sqrt(a), fresh


def samplers(truth: Tensor, family: BoxMasks, number: int, seed: int) -> dict[str, dict]:
    """The samplers at 600 calls, with the exact one beside them."""
    out = {}
    grids: list[tuple[float, Grid]] = [(1.0, "time"), (0.0, "time"), (1.0, "log")]
    for eta, grid in grids:
        sampler = Sampler(truth, family, number, eta, STEPS, seed, grid)
        exact = sampler.run(sampler.exact)
        drawn = {"average": sampler.run(sampler.average), "chain": sampler.run(sampler.chain), "exact": exact}
        out[f"η = {eta:g}" + ", log" * (grid == "log")] = {
            name: distances(covariance, truth) | {"kl_to_exact": kl_per_pixel(covariance, exact)}
            for name, covariance in drawn.items()
        }
    return out


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("output", nargs="?", type=Path)
    parser.add_argument("--masks", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    torch.set_default_dtype(torch.float64)
    torch.set_num_threads(1)
    family, result, started = BoxMasks(SIZE, DROP), {}, time.process_time()
    for name, truth in covariances().items():
        generator = torch.Generator().manual_seed(options.seed)
        result[name] = {
            "fixed point": fixed_points(truth, family, generator, 24 * options.masks),
            "sampler": samplers(truth, family, options.masks, options.seed),
        }
        print(name, json.dumps(rounded(result[name]), indent=1, ensure_ascii=False), flush=True)
    print(f"{time.process_time() - started:.0f} s")
    if options.output:
        text = json.dumps(rounded(result), indent=1, ensure_ascii=False)
        options.output.write_text(text + "\n", encoding="utf-8")


def rounded(result):
    """The same with four significant digits."""
    if isinstance(result, dict):
        return {key: rounded(value) for key, value in result.items()}
    return float(f"{result:.4g}")


if __name__ == "__main__":
    main()
