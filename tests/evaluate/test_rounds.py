"""What rounds of refinement are judged by."""

from dataclasses import replace

import pytest
import torch
from oracle import GaussianOracle

from msm import Draw, Measurement, Sampler
from msm.evaluate.rounds import Standing, _middle, _misses, predict, proximal_distance
from msm.masks import BoxMasks, FullMask
from msm.sample.shares import Shares

BEFORE = Standing((0.1, 0.2, 0.3, 0.2), 1.0, 10.0)


def test_a_round_is_worse_by_its_error_beyond_chance_or_by_its_distance():
    assert BEFORE.worse_than(BEFORE) is None
    larger = replace(BEFORE, errors=(0.11, 0.22, 0.33, 0.23))
    assert "rose by 1" in larger.worse_than(BEFORE) and BEFORE.worse_than(larger) is None
    doubled = replace(BEFORE, errors=tuple(2 * e for e in BEFORE.errors))
    assert "rose by 100.0 % (100.0 to 100.0)" in doubled.worse_than(BEFORE)
    mixed = replace(BEFORE, errors=(0.2, 0.1, 0.3, 0.205))
    assert mixed.change(BEFORE).value > 0 and mixed.worse_than(BEFORE) is None
    assert "rose from 10.0 to 10.1" in replace(BEFORE, distance=10.1).worse_than(BEFORE)
    nothing = Standing((), None, 10.0)
    assert nothing.worse_than(nothing) is None and "too little" in nothing.told()


def test_the_middle_is_the_largest_square_that_is_measured():
    mask = torch.zeros(9, 8, dtype=torch.bool)
    mask[:, 3:6] = True
    assert _middle(mask) == (slice(3, 6), slice(3, 6))
    assert mask[_middle(mask)].all() and not mask.clone().fill_(False)[_middle(torch.zeros_like(mask))].numel()


def test_what_is_missed_and_what_is_announced():
    values = torch.tensor([[[[1.0, 2.0, 3.0]]]])
    mask = torch.ones(1, 1, 1, 3, dtype=torch.bool)
    judged = torch.tensor([[[[False, True, True]]]])
    share = Shares(Measurement(values, mask, None, 0.5), judged, judged, "pixels")
    z = torch.tensor([[[[0.0, 1.0, 3.0]]], [[[0.0, 2.0, 5.0]]]])
    missed, energy, announced = _misses(share, z)
    assert (missed, energy) == (0.25 + 1, 13) and announced == pytest.approx(1.5 * (0.5 + 2) + 2 * 0.25)


class Data:
    """Fields of the oracle's own law, a third of their boxes missing."""

    largest_noise_std = 0.05

    def __init__(self, oracle, count):
        g = torch.Generator().manual_seed(0)
        self.z, self.mask = oracle.sample(count, g), BoxMasks(16, 0.3).sample(count, g)
        self.z = self.z + 0.05 * torch.randn(self.z.shape, generator=g)

    def __len__(self):
        return len(self.z)

    def batch(self, indices, epochs):
        return Measurement(self.z[list(indices)], self.mask[list(indices)], None, 0.05)


def test_the_exact_model_predicts_what_is_hidden_and_generates_what_is_measured():
    exact, wrong = (GaussianOracle((16, 16), length=length) for length in (6.0, 1.0))
    data, found = Data(exact, 128), {}
    for name, oracle in {"exact": exact, "wrong": wrong}.items():
        oracle.masks = FullMask(16)
        how = {"seed": 0, "batch_size": 64}
        log = Sampler(steps=20, draws=1, grid="log")
        errors, dispersion = predict(oracle, data, range(24), sampler=log, data_step=Draw(), **how)
        distance, images = proximal_distance(oracle, data, sampler=log, **how)
        assert images.shape == (64, 1, 16, 16) and len(errors) == 24
        found[name] = Standing(errors, dispersion, distance)
    assert found["exact"].change(found["wrong"]).bounds[1] < 0
    assert "rose" in found["wrong"].worse_than(found["exact"])
    assert found["exact"].distance < 0.8 * found["wrong"].distance
