"""The law of the variable-density masks of 2-D k-space."""

import pytest
import torch
from torch.testing import assert_close

from msm.masks import VariableDensityMasks

SIZE = (24, 20)
PATTERNS = ["poisson", "random"]


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def masks(pattern="poisson", corners=True, acceleration=4, center=4):
    return VariableDensityMasks(SIZE, acceleration, center, pattern, corners)


def nearest(mask):
    """Distance (points,) from each point of a mask (H, W) to the nearest other one, across the edges too."""
    points = mask.nonzero().double()
    apart = (points[:, None] - points).abs()
    apart = torch.minimum(apart, torch.tensor(mask.shape) - apart)
    return (apart.square().sum(-1).sqrt() + torch.eye(len(points)) * 1e9).amin(1)


@pytest.mark.parametrize("corners", [True, False])
@pytest.mark.parametrize("pattern", PATTERNS)
def test_density_is_the_stated_one(pattern, corners):
    family = masks(pattern, corners)
    outside = ~family.middle
    assert family.probability[outside].mean().item() == pytest.approx(1 / 4, abs=1e-9)
    assert family.middle.sum() == 16 and (family.probability[family.middle] == 1).all()
    y, x = (torch.arange(n).double() - n // 2 for n in SIZE)
    radius = ((y[:, None] / 12) ** 2 + (x / 10) ** 2).sqrt()
    measured = outside & (radius <= 1 if not corners else radius >= 0)
    slope = (family.probability[measured].rsqrt() - 1) / radius[measured]
    assert_close(slope, slope[:1].expand_as(slope))
    assert corners or not family.probability[radius > 1].any()


@pytest.mark.parametrize("covering", [False, True])
@pytest.mark.parametrize("draw", [0, 2])
@pytest.mark.parametrize("pattern", PATTERNS)
def test_every_draw_has_the_stated_inclusion_frequencies(pattern, draw, covering):
    family = masks(pattern, corners=False)
    drawn = family.draw(torch.rand(20_000, 3, 3, generator=generator()), covering)[:, draw, 0]
    assert drawn.dtype == torch.bool
    expected = family.probability
    deviation = (drawn.double().mean(0) - expected) / (expected * (1 - expected) / 20_000).sqrt().clamp(min=1e-9)
    assert deviation.abs().max() < 4.5  # of 480 normal deviates
    assert deviation.square().mean().item() == pytest.approx((expected % 1 > 0).double().mean().item(), abs=0.2)


@pytest.mark.parametrize("pattern", PATTERNS)
def test_covering_draws_follow_one_another_without_overlap(pattern):
    family = masks(pattern)
    drawn = family.draw(torch.rand(50, 3, 3, generator=generator()), covering=True)[:, :, 0]
    times = drawn.sum(1)
    expected = 3 * family.probability
    assert ((times >= expected.floor()) & (times <= expected.ceil())).all()


@pytest.mark.parametrize("pattern", PATTERNS)
def test_covers_hold_all_that_is_ever_measured_and_are_trained_densities(pattern):
    family = masks(pattern, corners=False)
    chain = family.chain(torch.rand(20, 3, generator=generator()))
    covers = family.covers(torch.rand(20, 3, generator=generator()))
    assert torch.equal(covers.any(1)[:, 0], (family.probability > 0).expand(20, *SIZE))
    least = family.probability[family.probability > 0].min().item()
    assert covers.shape[1] == -(-1 // least)
    count = (chain.weights[:, None, None, None] * chain.masks).sum(1)[:, 0]
    assert_close(count, (family.probability > 0).float().expand(20, *SIZE))
    many = family.covers(torch.rand(4000, 3, generator=generator()))[:, 1, 0].double().mean(0)
    expected = torch.where(family.probability > 0, family.probability.clamp(min=1 / covers.shape[1]), 0)
    assert_close(many, expected, rtol=0, atol=0.04)


def test_poisson_points_keep_apart():
    """One point in nine: more than half of white noise has another point within 1.5 pixels, little of blue noise."""
    size = (72, 72)

    def close(pattern):
        family = VariableDensityMasks(size, 9, 0, pattern)
        flat = torch.full(size, 1 / 9)
        family.probability = flat  # one density everywhere: the field alone is looked at
        drawn = family.sample(8, generator())[:, 0]
        return torch.cat([nearest(mask) for mask in drawn])

    white, blue = close("random"), close("poisson")
    assert (white < 1.5).float().mean() > 0.5
    assert (blue < 1.5).float().mean() < 0.15
    assert blue.mean() > 1.3 * white.mean()


def test_submask_keeps_the_centre_and_adds_nothing():
    family = masks()
    sample = family.sample(500, generator())
    sub = family.submask(sample, torch.full((500,), 0.3), generator(1))
    assert not (sub & ~sample).any() and sub[:, 0, family.middle].all()
    outside = ~family.middle
    assert (sub[:, 0, outside].sum() / sample[:, 0, outside].sum()).item() == pytest.approx(0.3, abs=0.01)


def test_everything_is_kept_at_acceleration_one():
    assert masks(acceleration=1).sample(3, generator()).all()
    assert VariableDensityMasks((8, 8), 4, 8).sample(3, generator()).all()


def test_odd_sizes_and_more_draws_than_points_need():
    family = VariableDensityMasks((7, 1), 2, 1)
    assert family.sample(100, generator())[:, 0, 3, 0].all()
    assert family.draw(torch.rand(5, 9, 3, generator=generator()), covering=True).any(1).all()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"acceleration": 0.5}, "at least 1"),
        ({"acceleration": 1.1, "corners": False}, "at least 1.3"),
        ({"acceleration": 1e9}, "at most"),
        ({"center": 21}, "between 0 and the 20 points"),
        ({"pattern": "spiral"}, "pattern must be"),
    ],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        VariableDensityMasks(SIZE, **({"center": 4} | arguments))
