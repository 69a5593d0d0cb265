"""How sure a number is: bootstrap intervals over images (scipy.stats.bootstrap), always from one seed."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from torch import Tensor

from ..errors import DataError

LEVEL, RESAMPLES, SEED = 0.95, 2000, 0


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
    value = sum(values) / len(values)
    if len(set(values)) < 2:  # equal values: BCa is undefined, and there is no spread
        bound = value if len(values) > 1 else None
        return Estimate(value, bound, bound, len(values))
    low, high = _bootstrap([values], lambda x, axis: x.mean(axis), "BCa")
    return Estimate(value, low, high, len(values))


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


def _bootstrap(
    data: Sequence[ArrayLike], statistic: Callable[..., ArrayLike], method: str, resamples: int = RESAMPLES
) -> tuple[float, float]:
    """Both ends of the interval; a statistic with an argument `axis` is given all resamples at once."""
    from scipy.stats import bootstrap

    rng = np.random.default_rng(SEED)
    found = bootstrap(data, statistic, confidence_level=LEVEL, n_resamples=resamples, method=method, rng=rng)
    return float(found.confidence_interval.low), float(found.confidence_interval.high)
