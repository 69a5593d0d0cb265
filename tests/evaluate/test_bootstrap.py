"""Intervals over images: paired where they must be, and of a memory that does not grow with the number of values."""

import tracemalloc

import numpy as np
import pytest

from msm.evaluate.bootstrap import Estimate, mean, ratio, root_mean_square


def peak_of(values):
    """Megabytes that an interval takes beside its values."""
    mean(values[:20])  # imports
    tracemalloc.start(1)
    mean(values)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return peak / 1e6


def test_memory_does_not_grow_with_the_square_of_the_values():
    values = np.random.default_rng(0).gamma(2.0, size=16_000).tolist()
    small, large = peak_of(values[:4_000]), peak_of(values)  # 128 and 2,048 MB of leave-one-out means, were they kept
    assert large < 80 and large < small + 20


def test_many_values_have_the_interval_of_the_central_limit():
    values = np.random.default_rng(0).gamma(2.0, size=8_000)
    e, half = mean(values.tolist()), 1.96 * values.std() / len(values) ** 0.5
    assert (e.low, e.high) == pytest.approx((values.mean() - half, values.mean() + half), abs=0.06 * half)


def test_rare_values_among_very_many_have_their_interval():
    """Wherever they lie: all values are drawn from."""
    values = np.zeros(40_000)
    values[1:4000:40] = 1
    e, expected = mean(values.tolist()), 1.96 * values.std() / len(values) ** 0.5
    assert e.value == pytest.approx(0.0025)
    assert [e.value - e.low, e.high - e.value] == pytest.approx([expected, expected], rel=0.25)


def test_the_ratio_of_errors_is_of_their_squares_and_paired():
    assert ratio([3.0, 4.0], [6.0, 8.0]) == Estimate(0.5, 0.5, 0.5, 2)  # every pair has the ratio: nothing to doubt
    e = ratio([1.0, 2.0, 4.0], [1.0, 2.0, 8.0])
    assert e.value == pytest.approx((21 / 69) ** 0.5) and 0.5 <= e.low < e.value < e.high <= 1
    assert ratio([0.0], [0.0]).value == 1 and ratio([1.0, 1.0], [0.0, 0.0]).value == float("inf")
    assert root_mean_square([3.0, 4.0]).value == pytest.approx(12.5**0.5)
    assert root_mean_square([3.0]) == Estimate(3.0)
