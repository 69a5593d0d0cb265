"""Coverage is exact where samples are exact, and off by the right amount where they are not."""

import pytest
import torch
from helpers import scheduled
from oracle import GaussianOracle
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from msm.evaluate.calibration import (
    central,
    errors_by_spread,
    foreground,
    intervals,
    rank_counts,
    residual_ratio,
    spread_and_error,
)
from msm.masks import FullMask
from msm.operators import Undersampling
from msm.sampling import Sampler, generate
from msm.transforms import Identity

NOISE = 0.1


def at_levels(counts):
    """The intervals of 50, 80, 90 and 95 % that K samples have."""
    return [c for c in intervals(counts.tolist()) if round(c.expected, 9) in (0.5, 0.8, 0.9, 0.95)]


def posterior(oracle, mask, y, number, generator, scale=1.0):
    """K exact samples of a Gaussian field given y = M (z + NOISE · n), their deviations times a scale."""
    keep = mask.flatten()
    cov = oracle.covariance
    gain = torch.linalg.solve(cov[keep][:, keep] + NOISE**2 * torch.eye(int(keep.sum())).double(), cov[keep]).T
    mean = y.flatten(1).double()[:, keep] @ gain.T
    root = torch.linalg.cholesky(cov - gain @ cov[keep] + 1e-9 * torch.eye(len(cov)))
    white = torch.randn(len(y), number, len(cov), dtype=torch.float64, generator=generator)
    return (mean[:, None] + scale * white @ root.T).view(len(y), number, 1, *oracle.size)


def observed(scale, number, batch=600):
    """Truth, samples, y and mask of a field half of which was measured."""
    oracle, generator = GaussianOracle((6, 6)), torch.Generator().manual_seed(3)
    mask = torch.rand(1, 1, 6, 6, generator=generator) < 0.5
    z = oracle.sample(batch, generator).double()
    y = torch.where(mask, z + NOISE * torch.randn(z.shape, dtype=z.dtype, generator=generator), 0)
    return z, posterior(oracle, mask, y, number, generator, scale), y, mask


@pytest.mark.parametrize(("number", "levels"), [(19, [0.9, 0.8, 0.5]), (39, [0.95, 0.9, 0.8, 0.5])])
def test_the_coverage_of_exact_samples_is_exact(number, levels):
    z, samples, *_ = observed(1.0, number)
    found = at_levels(rank_counts(samples, z).sum(0))
    assert [c.expected for c in found] == pytest.approx(levels)
    # 600 fields of some 10 independent pixels each: a standard error of 0.6 % at most
    assert [c.observed for c in found] == pytest.approx(levels, abs=0.02)


def test_samples_that_spread_too_little_cover_too_little():
    z, samples, *_ = observed(0.5, 39)
    (widest, *_) = at_levels(rank_counts(samples, z).sum(0))
    normal = torch.distributions.Normal(0.0, 1.0)
    # truth within ± scale · q(95 %) standard deviations, the quantile being that of 40 exchangeable draws
    assert widest.expected == 0.95
    assert widest.observed == pytest.approx(2 * normal.cdf(0.5 * normal.icdf(torch.tensor(0.978))).item() - 1, abs=0.03)
    announced, actual = zip(*spread_and_error(samples, z))
    mean_square = [sum(v**2 for v in values) / len(values) for values in (announced, actual)]
    assert (mean_square[0] / mean_square[1]) ** 0.5 == pytest.approx(0.5, abs=0.02)


def test_spread_and_residual_of_exact_samples():
    z, samples, y, mask = observed(1.0, 4)
    announced, actual = zip(*spread_and_error(samples, z))
    mean_square = [sum(v**2 for v in values) / len(values) for values in (announced, actual)]
    assert mean_square[0] == pytest.approx(mean_square[1], rel=0.03)
    ratios = residual_ratio(samples[:, 0], y, Undersampling(mask), Identity(), NOISE, mask)
    assert (sum(r**2 for r in ratios) / len(ratios)) ** 0.5 == pytest.approx(1, abs=0.02)
    of_truth = residual_ratio(z, y, Undersampling(mask), Identity(), NOISE, mask)
    assert (sum(r**2 for r in of_truth) / len(of_truth)) ** 0.5 == pytest.approx(1, abs=0.02)


def test_the_sampler_with_the_exact_denoiser_is_calibrated():
    """Everything is one mask: the sampler's law is then the field's, but for its 200 steps."""
    oracle = GaussianOracle((4, 4))
    powers, modes = (part.float() for part in torch.linalg.eigh(oracle.covariance))

    @scheduled
    def denoiser(z_t, mask, t, transform):
        a = oracle.schedule.alpha_bar(t)
        gain = modes * (a.sqrt() * powers / (a * powers + 1 - a)) @ modes.T
        return (z_t.flatten(1) @ gain).view_as(z_t)

    truth = oracle.sample(100, torch.Generator().manual_seed(1))
    z = generate(denoiser, (1, 4, 4), seeds=range(100 * 19), masks=FullMask(4), sampler=Sampler(steps=200, draws=1))
    found = at_levels(rank_counts(z.unflatten(0, (100, 19)), truth).sum(0))
    # 100 fields of some 4 independent pixels: a standard error of 2.5 % at most
    assert [c.observed for c in found] == pytest.approx([0.9, 0.8, 0.5], abs=0.05)


def test_ranks_by_hand():
    samples = torch.tensor([1.0, 2.0, 3.0]).view(1, 3, 1, 1, 1).expand(1, 3, 1, 1, 4)
    truth = torch.tensor([[0.0, 2.5, 2.0, 9.0]]).view(1, 1, 1, 4)
    assert rank_counts(samples, truth).tolist() == [[1, 0.5, 1.5, 1]]  # 2.0 ties with one: ranks 1 and 2
    where = torch.tensor([True, True, False, False]).view(1, 1, 1, 4)
    assert rank_counts(samples, truth, where).tolist() == [[1, 0, 1, 0]]
    assert rank_counts(1j * samples, -truth + 0j).tolist() == [[1, 0.5, 1.5, 1]]
    (only,) = intervals([1, 0.5, 1.5, 1])
    assert (only.expected, only.observed) == (0.5, 0.5)


def test_the_intervals_nearest_to_what_is_asked_for():
    def levels(number):
        found = intervals([1.0] * (number + 1))
        return [found[r - 1].expected for r in central(number)]

    assert levels(39) == pytest.approx([0.95, 0.9, 0.8, 0.5]) and central(39) == [1, 2, 4, 10]
    assert levels(19) == pytest.approx([0.9, 0.8, 0.5])
    assert levels(7) == pytest.approx([0.75, 0.5])
    assert levels(2) == pytest.approx([1 / 3]) and central(1) == []
    # draws of 40 numbers, any of which may be the truth
    draws = torch.randn(100_000, 40, generator=torch.Generator().manual_seed(0))
    ordered, truth = draws[:, 1:].sort(1).values, draws[:, 0]
    for r, level in zip(central(39), (0.95, 0.9, 0.8, 0.5)):
        held = ((ordered[:, r - 1] < truth) & (truth < ordered[:, 39 - r])).float().mean().item()
        assert held == pytest.approx(level, abs=0.005)


def test_exact_samples_announce_their_error_in_every_group_of_pixels():
    """Of pixels that are equally doubtful too, where the spread of few samples differs by chance alone."""
    generator = torch.Generator().manual_seed(0)
    doubt = torch.linspace(0.5, 2, 400).view(1, 1, 1, 20, 20)
    for scale in (doubt, torch.ones_like(doubt)):
        z = scale[:, 0] * torch.randn(200, 1, 20, 20, generator=generator)
        samples = scale * torch.randn(200, 8, 1, 20, 20, generator=generator)
        pairs = torch.tensor(errors_by_spread(samples, z)).square().mean(0).sqrt()
        assert pairs[:, 0] == pytest.approx(pairs[:, 1], rel=0.03)
        assert pairs.shape == (5, 2)
    where = torch.zeros(200, 1, 20, 20, dtype=torch.bool)
    assert errors_by_spread(samples, z, where) == [()] * 200
    assert errors_by_spread(samples[:, :3], z) == [()] * 200


class Largest(TorchDispatchMode):
    """Bytes of the largest tensor that an operation gave."""

    bytes = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        given = [x for x in tree_leaves(result) if isinstance(x, torch.Tensor)]
        self.bytes = max([self.bytes, *(x.numel() * x.element_size() for x in given)])
        return result


def test_ranks_take_no_memory_for_each_sample_or_rank():
    samples, truth = torch.zeros(1, 100, 1, 64, 64), torch.zeros(1, 1, 64, 64)
    samples[:, ::2] = 1.0
    with Largest() as largest:
        counts = rank_counts(samples, truth)
    assert largest.bytes <= 64 * 64 * 8  # of one image in float64
    assert counts[0, :51].tolist() == pytest.approx([4096 / 51] * 51, abs=1e-5) and counts[0, 51:].sum() == 0


def test_the_residual_of_complex_data_counts_two_parts_and_measured_entries_only():
    mask = torch.tensor([True, False]).view(1, 1, 1, 2)
    y = torch.tensor([3 + 4j, 7.0]).view(1, 1, 1, 2)
    assert residual_ratio(0 * y, y, Undersampling(mask), Identity(), 0.5, mask) == pytest.approx([5 / 2**0.5 / 0.5])


def test_the_foreground_follows_from_the_input():
    assert foreground(torch.tensor([[[[1j, 0.2, 0.05]]]])).tolist() == [[[[True, True, False]]]]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: rank_counts(torch.zeros(2, 1, 3, 3), torch.zeros(2, 1, 3, 3)), "must be"),
        (lambda: intervals([0.0, 0.0, 0.0]), "no pixels"),
        (lambda: spread_and_error(torch.zeros(1, 1, 1, 2, 2), torch.zeros(1, 1, 2, 2)), "single sample"),
        (lambda: residual_ratio(torch.zeros(1), torch.zeros(1), None, Identity(), 0.0), "without noise"),
    ],
)
def test_errors_are_one_line(call, message):
    with pytest.raises(ValueError, match=message):
        call()
