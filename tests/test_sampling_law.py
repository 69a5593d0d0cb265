"""The law of what the samplers draw, on a Gaussian field whose exact partial denoiser is known.

Every tolerance is a number of standard errors of the estimate that is checked; none is set by trial.
"""

from itertools import combinations, permutations, product
from math import sqrt

import numpy as np
import pytest
import torch
from oracle import SIZE, STEPS, Dense, GaussianOracle, Recursion, assert_law, by_mask

from msm.data_step import GradientStep
from msm.masks import BoxMasks, CartesianMasks, EmpiricalMasks
from msm.operators import Problem
from msm.sampling import Level, Sampler, aggregate, generate, reconstruct
from msm.transforms import Identity, MultiCoil

# All masks of a family, written down without its code


def box_masks(size, grid, kept, draws=1):
    """Every outcome of `draws` covering box masks, each equally likely: (N, draws, 1, size, size)."""
    side, boxes, out = size // grid, grid**2, []
    # one draw: any `kept` boxes. More: windows that follow one another round a random order of the boxes.
    orders = combinations(range(boxes), kept) if draws == 1 else permutations(range(boxes))
    for order, dy, dx in product(orders, range(side), range(side)):
        windows = []
        for k in range(draws):
            chosen = torch.zeros(boxes, dtype=torch.bool)
            chosen[[order[(k * kept + j) % len(order)] for j in range(kept)]] = True
            pixels = chosen.view(grid, grid).repeat_interleave(side, 0).repeat_interleave(side, 1)
            windows.append(pixels.roll((dy, dx), (0, 1)))
        out.append(torch.stack(windows)[:, None])
    return torch.stack(out), torch.full((len(out),), 1 / len(out), dtype=torch.float64)


def column_masks(size, acceleration, center):
    """Every mask of the random Cartesian family, (N, 1, 1, size, size), and its probability."""
    middle = set(range((size - center + 1) // 2, (size - center + 1) // 2 + center))
    masks, probabilities = [], []
    for columns in product([False, True], repeat=size):
        if all(columns[k] for k in middle):
            others = [columns[k] for k in range(size) if k not in middle]
            masks.append(torch.tensor(columns).expand(1, 1, size, size))
            probabilities.append(np.prod([1 / acceleration if on else 1 - 1 / acceleration for on in others]))
    return torch.stack(masks), torch.tensor(probabilities, dtype=torch.float64)


# (a) the aggregate of w masks


class Table:
    """The exact partial denoiser at one z under every mask of a family, each entry's moments, and look-up."""

    def __init__(self, oracle, z, t, masks, probability):
        s_hat = [oracle(z.expand(len(part), -1, -1, -1), part, t) for part in masks[:, 0].split(200)]
        self.codes, order = self._code(masks[:, 0]).sort()
        self.s_hat = torch.cat(s_hat)[order]
        weight = probability[:, None, None] * masks[:, 0, 0]
        values = torch.cat(s_hat)[:, 0].double()
        self.covered = weight.sum(0)
        self.mean = (weight * values).sum(0) / self.covered
        self.variance = (weight * (values - self.mean) ** 2).sum(0) / self.covered

    @staticmethod
    def _code(mask):
        return (mask.flatten(1).long() << torch.arange(64)).sum(1)

    def __call__(self, z_t, mask, t, transform):
        code = self._code(mask)
        place = torch.searchsorted(self.codes, code)
        assert torch.equal(self.codes[place], code)  # no mask is drawn that was not enumerated
        return self.s_hat[place]


def mean_inverse_count(covered, w):
    """E[1/k; k ≥ 1] of k ~ Binomial(w, covered), for every entry."""
    k = torch.arange(1, w + 1, dtype=torch.float64)[:, None, None]
    binomial = torch.distributions.Binomial(w, covered.clamp(max=1 - 1e-15))
    return (binomial.log_prob(k).exp() / k).sum(0)


FAMILIES = {
    "boxes of 2 by 2": (BoxMasks(8, 0.5, 2), lambda: box_masks(8, 2, 2)),
    "boxes of 4 by 4": (BoxMasks(8, 0.4, 4), lambda: box_masks(8, 4, 10)),
    "columns": (CartesianMasks(8, 4, 2), lambda: column_masks(8, 4, 2)),
}


def noisy_field(oracle, generator):
    """A middle noise level, and a z_t of it."""
    t = torch.tensor(400.0)
    a = oracle.schedule.alpha_bar(t).item()
    z = sqrt(a) * oracle.sample(1, generator) + sqrt(1 - a) * torch.randn(1, 1, 8, 8, generator=generator)
    return Level(80, t, a, 0.9 * a, 1.1 * a), z


@pytest.mark.parametrize("family", list(FAMILIES))
def test_aggregate_converges_to_the_enumerated_expectation(family):
    """The mean square of ẑ − E[ŝ | covered] over w i.i.d. masks is Σ_j var_j E[1/k_j], and falls as 1/w.

    Replacement moves z from draw to draw; here the denoiser answers at the first z throughout, so that only the
    aggregation is under test. Given that k ≥ 1 masks cover an entry, ẑ is the mean of k i.i.d. draws from the masks
    that cover it: unbiased, with variance var/k. Where none does, ẑ keeps the estimate before, here the expectation
    itself. So the error is known exactly for every w, and the measured one, a mean over independent aggregates, may
    miss it by 3 standard errors (std / sqrt(repeats)).
    """
    masks, enumerate_all = FAMILIES[family]
    repeats, widths = 1000, np.array([4, 16, 64, 256])
    oracle, generator = GaussianOracle(), torch.Generator().manual_seed(0)
    level, z = noisy_field(oracle, generator)
    table = Table(oracle, z, level.t, *enumerate_all())
    start, before = z.expand(repeats, -1, -1, -1), table.mean.float().expand(repeats, 1, -1, -1)
    noise = torch.zeros(1, 1, 1, 8, 8)
    errors, expected, standard_errors = [], [], []
    for w in widths:
        drawn = masks.draw(torch.rand(repeats, w, masks.variates, generator=generator))
        _, z_hat = aggregate(table, start, before, drawn, noise.expand(repeats, w, -1, -1, -1), Identity(), level, 1.0)
        off = z_hat[:, 0].double() - table.mean
        squares = off.square().sum((1, 2))
        errors.append(squares.mean().item())
        standard_errors.append((squares.std() / sqrt(repeats)).item())
        expected.append((table.variance * mean_inverse_count(table.covered, int(w))).sum().item())
        # Unbiased: the mean over repeats has 1/repeats of the mean square, or 9 times that (3 standard errors) if
        # one direction of the field had all of the variance.
        assert off.mean(0).square().sum().item() < 9 * expected[-1] / repeats
    errors, expected, standard_errors = map(np.array, (errors, expected, standard_errors))
    assert (abs(errors - expected) < 3 * standard_errors).all()
    # Slope of the error from w = 16 to 256, to 3 of its standard errors (at most 0.016). The exact one is steeper than
    # −0.5 because E[1/k] ≈ (1 + (1 − covered)/(covered w)) / (covered w): by 0.034 where a quarter of the masks cover.
    steps = np.log(widths[-1] / widths[1])
    slope, exact = (0.5 * np.log(e[-1] / e[1]) / steps for e in (errors, expected))
    tolerance = 3 * 0.5 * np.hypot(*(standard_errors / errors)[[1, -1]]) / steps
    print(f"{family}: error {errors**0.5}, expected {expected**0.5}")
    print(f"slope {slope:.4f}, exact {exact:.4f} ± {tolerance:.4f}")
    assert abs(slope - exact) < tolerance
    assert abs(slope + 0.5) < 0.05


# (b) the law of a whole run


NUMBER = 20_000
ONE_MASK = torch.tensor([[1, 1, 1, 0], [1, 1, 1, 1], [0, 1, 1, 1], [1, 1, 0, 1]]).bool()[None, None]


def pairs(masks, probability):
    """Every outcome of two independent masks."""
    i, j = torch.cartesian_prod(torch.arange(len(masks)), torch.arange(len(masks))).T
    return torch.cat([masks[i], masks[j]], 1), probability[i] * probability[j]


LAWS = {  # masks, covering, every outcome
    "one fixed mask twice": (
        EmpiricalMasks(ONE_MASK),
        False,
        lambda: (ONE_MASK.expand(1, 2, 1, 4, 4), torch.ones(1).double()),
    ),
    "two covering box masks": (BoxMasks(SIZE, 0.5, 2), True, lambda: box_masks(SIZE, 2, 2, draws=2)),
    "two independent box masks": (BoxMasks(SIZE, 0.5, 2), False, lambda: pairs(*box_masks(SIZE, 2, 2))),
}


@pytest.mark.parametrize("law", list(LAWS))
def test_generated_samples_have_the_covariance_of_the_recursion(law):
    masks, covering, outcomes = LAWS[law]
    oracle = GaussianOracle((SIZE, SIZE))
    sampler = Sampler(steps=STEPS, draws=2, covering=covering)
    z = generate(by_mask(oracle), (1, SIZE, SIZE), seeds=range(NUMBER), masks=masks, sampler=sampler)
    mean, covariance = Recursion(oracle, *outcomes(), eta=1.0).run(STEPS)
    assert not mean.any()
    assert_law(z.flatten(1), mean, covariance)


@pytest.mark.parametrize("is_complex", [False, True], ids=["real", "complex"])
@pytest.mark.parametrize("law", list(LAWS))
def test_posterior_samples_have_the_moments_of_the_recursion(law, is_complex):
    """H sees 6 sums of pixels (real z), or 6 of the pixels (complex z, whose real and imaginary part are alike)."""
    masks, covering, outcomes = LAWS[law]
    oracle, generator = GaussianOracle((SIZE, SIZE)), torch.Generator().manual_seed(1)
    matrix = torch.eye(SIZE**2, dtype=torch.float64)[::3]
    if not is_complex:
        matrix = torch.randn(6, SIZE**2, dtype=torch.float64, generator=generator) / 4
    y = (oracle.sample(1, generator).flatten(1).double() @ matrix.T).float()
    transform, number = Identity(), NUMBER
    if is_complex:
        transform, number = MultiCoil(torch.ones(1, 1, SIZE, SIZE, dtype=torch.complex64)), NUMBER // 2
    seen = (torch.complex(y, y) if is_complex else y).expand(number, -1)
    sampler = Sampler(steps=STEPS, draws=2, eta=0.85, covering=covering)
    how = {"masks": masks, "sampler": sampler, "data_step": GradientStep(1.5)}
    z = reconstruct(by_mask(oracle), Problem(seen, Dense(matrix), transform), seeds=range(number), **how)
    problem = (matrix, torch.linalg.pinv(matrix), y[0].double(), 1.5, is_complex)
    samples = torch.view_as_real(z).movedim(-1, 0).flatten(0, 1) if is_complex else z
    assert_law(samples.flatten(1), *Recursion(oracle, *outcomes(), eta=0.85, problem=problem).run(STEPS))


# (c) other steps


@pytest.mark.parametrize("law", list(LAWS))
def test_second_order_samples_on_the_log_grid_have_the_covariance_of_the_recursion(law):
    masks, covering, outcomes = LAWS[law]
    oracle = GaussianOracle((SIZE, SIZE))
    sampler = Sampler(steps=STEPS, draws=2, eta=0.5, covering=covering, grid="log", order=2)
    z = generate(by_mask(oracle), (1, SIZE, SIZE), seeds=range(NUMBER), masks=masks, sampler=sampler)
    mean, covariance = Recursion(oracle, *outcomes(), eta=0.5, order=2).run(STEPS, "log")
    assert not mean.any()
    assert_law(z.flatten(1), mean, covariance)


def test_warm_samples_have_the_moments_of_the_recursion():
    """Six sums of pixels seen in noise; the start is ẑ = (HᵀH + σ_y²/σ²)⁻¹ Hᵀ y and noise of level σ."""
    masks, covering, outcomes = LAWS["two covering box masks"]
    oracle, generator = GaussianOracle((SIZE, SIZE)), torch.Generator().manual_seed(1)
    matrix = torch.randn(6, SIZE**2, dtype=torch.float64, generator=generator) / 4
    noise_std, start = 0.1, 0.5
    y = (oracle.sample(1, generator).flatten(1).double() @ matrix.T).float()
    sampler = Sampler(steps=STEPS, draws=2, covering=covering, grid="log", warm_start=start)
    problem = Problem(y.expand(NUMBER, -1), Dense(matrix), noise_std=noise_std)
    how = {"masks": masks, "sampler": sampler, "data_step": GradientStep(1.5)}
    z = reconstruct(by_mask(oracle), problem, seeds=range(NUMBER), **how)
    ridge = (noise_std / start) ** 2 * torch.eye(SIZE**2, dtype=torch.float64)
    z_hat = torch.linalg.solve(matrix.T @ matrix + ridge, matrix.T @ y[0].double())
    problem = (matrix, torch.linalg.pinv(matrix), y[0].double(), 1.5, False)
    moments = Recursion(oracle, *outcomes(), eta=0.85, problem=problem).run(STEPS, "log", start, z_hat)
    assert_law(z.flatten(1), *moments)


def divergence(covariance, truth):
    """KL(N(0, covariance) ‖ N(0, truth)) in nats."""
    ratio = torch.linalg.solve(truth, covariance)
    return (ratio.trace() - len(truth) - torch.linalg.slogdet(ratio).logabsdet).item() / 2


def test_second_order_on_the_log_grid_is_nearer_to_the_truth_than_ten_times_as_many_published_steps():
    """With the exact score of the whole field only the steps are wrong, here by known amounts."""
    oracle = GaussianOracle((SIZE, SIZE))
    everything = torch.ones(1, 1, 1, SIZE, SIZE, dtype=torch.bool), torch.ones(1, dtype=torch.float64)
    runs = {"published": (1, 200, "time"), "log": (1, 20, "log"), "second": (2, 20, "time"), "both": (2, 20, "log")}
    kl = {
        name: divergence(Recursion(oracle, *everything, eta=1.0, order=order).run(steps, grid)[1], oracle.covariance)
        for name, (order, steps, grid) in runs.items()
    }
    print(kl)
    assert kl["both"] < kl["published"]
    assert kl["both"] < min(kl["log"], kl["second"]) / 5
