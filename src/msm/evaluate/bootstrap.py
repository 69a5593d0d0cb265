"""How sure a number is: bootstrap intervals over images (scipy.stats.bootstrap), always from one seed.

Pixels of an image are not independent, so it is images that are drawn again, each with all that is counted in it.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from torch import Tensor

from ..errors import DataError

LEVEL, RESAMPLES, SEED = 0.95, 2000, 0
MANY = 1000  # values: beyond, BCa's n leave-one-out means of n - 1 values cost much and correct nothing visible
MOST = 5000  # values that are drawn again RESAMPLES times; more of them fewer times, for as much work
FEWEST = 200  # times
AT_ONCE = 2**21  # numbers drawn at a time: memory does not grow with the number of values


@dataclass(frozen=True)
class Estimate:
    """A number with its interval: [low, high] holds the true value in 95 % of repetitions."""

    value: float
    low: float | None = None  # where there is a single image: nothing is known of its spread
    high: float | None = None
    count: int = 1

    @property
    def bounds(self) -> tuple[float, float]:
        """Both ends of the interval; the value itself where its spread is unknown."""
        return (self.value, self.value) if self.low is None or self.high is None else (self.low, self.high)


def mean(values: Sequence[float]) -> Estimate:
    """Mean over images, with the bias-corrected and accelerated (BCa) interval.

    Args:
        values: one number an image.

    Raises:
        DataError: no values.
    """
    if not values:
        raise DataError("a mean of no values: there are no records to average")
    return _estimate([values], lambda x, axis: x.mean(axis))


def root_mean_square(values: Sequence[float]) -> Estimate:
    """Root of the mean square over images, its interval as in `mean`."""
    return _estimate([values], _rms)


def ratio(a: Sequence[float], b: Sequence[float]) -> Estimate:
    """Root-mean-square of a over that of b, number i of both being of the same image, its interval as in `mean`."""
    if not any(b):
        return Estimate(1.0 if not any(a) else math.inf, count=len(a))
    if all(math.isclose(x * b[0], y * a[0]) for x, y in zip(a, b)):  # whatever is drawn again
        value = math.sqrt(sum(x * x for x in a) / sum(y * y for y in b))
        bound = value if len(a) > 1 else None
        return Estimate(value, bound, bound, len(a))
    return _estimate([a, b], lambda x, y, axis: _rms(x, axis) / _rms(y, axis))


def difference(a: Sequence[float], b: Sequence[float]) -> Estimate:
    """Mean of a − b over images that both have, number i of both being the same image: a paired comparison."""
    if len(a) != len(b):
        raise DataError(f"a paired comparison needs the same images in both, got {len(a)} and {len(b)}")
    return mean([x - y for x, y in zip(a, b)])


def of_sums(above: Tensor, below: Tensor) -> Estimate:
    """Σ above / Σ below over parts of one image (N,), both resampled together, with the percentile interval.

    Raises:
        DataError: the sum below is 0.
    """
    if not float(below.sum()) > 0:
        raise DataError("a ratio to nothing: all that it is taken of is 0")
    value = float(above.sum() / below.sum())
    if len(above) < 2:
        return Estimate(value)
    rng, total = np.random.default_rng(SEED), len(above)
    parts = np.stack([above.double().numpy(), below.double().numpy()])
    drawn = np.array([parts[:, rng.integers(total, size=total)].sum(1) for _ in range(RESAMPLES)])
    low, high = np.quantile(drawn[:, 0] / drawn[:, 1], [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Estimate(value, float(low), float(high), total)


def of_sets(distance: Callable[[Tensor, Tensor], float], a: Tensor, b: Tensor, resamples: int = 200) -> Estimate:
    """A distance of two sets of features (N, D), (M, D), both resampled, with the basic (reverse percentile) interval.

    Resampled sets have fewer distinct images, which biases a Fréchet distance upwards once more; the basic interval
    takes that off, the percentile one would keep it. It may thus lie below the value, which is itself biased.
    """
    numbers = [np.arange(len(x)) for x in (a, b)]
    low, high = _bootstrap(numbers, lambda i, j: distance(a[i.tolist()], b[j.tolist()]), "basic", resamples)
    return Estimate(distance(a, b), max(0.0, low), high, len(a))


def _rms(x: np.ndarray, axis: int) -> Any:
    return np.sqrt(np.square(x).mean(axis))


def _estimate(data: Sequence[Sequence[float]], statistic: Callable[..., Any]) -> Estimate:
    """A statistic of values of the same images, with its interval if it varies."""
    count = len(data[0])
    value = float(statistic(*(np.asarray(values, dtype=float)[None] for values in data), axis=-1)[0])
    images = set(zip(*data))
    if len(images) < 2:  # all alike: BCa is undefined, and there is no spread
        bound = value if count > 1 else None
        return Estimate(value, bound, bound, count)
    method, times = "BCa" if count <= MANY else "percentile", max(FEWEST, RESAMPLES * MOST // max(MOST, count))
    low, high = _bootstrap(data, statistic, method, times, paired=len(data) > 1)
    return Estimate(value, low, high, count)


def _bootstrap(
    data: Sequence[ArrayLike],
    statistic: Callable[..., ArrayLike],
    method: str,
    resamples: int = RESAMPLES,
    paired: bool = False,
) -> tuple[float, float]:
    """Both ends of the interval; a statistic with an argument `axis` is given many resamples at once."""
    from scipy.stats import bootstrap

    batch = min(resamples, max(1, AT_ONCE // max(len(np.asarray(values)) for values in data)))
    given = {"confidence_level": LEVEL, "n_resamples": resamples, "method": method, "batch": batch, "paired": paired}
    found = bootstrap(data, statistic, rng=np.random.default_rng(SEED), **given)
    return float(found.confidence_interval.low), float(found.confidence_interval.high)
