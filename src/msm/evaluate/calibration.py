"""Whether posterior samples mean what they say: coverage, spread and residual of K samples per measurement.

The rule. If the samples are drawn from the posterior, the truth and the K samples of a measurement are exchangeable,
so the truth's rank among the samples is uniform on 0 … K, whatever the posterior is. The interval between the r-th
smallest and the r-th largest sample, r = 1, 2, …, therefore holds the truth with probability

    (K + 1 − 2r) / (K + 1)     exactly,

not about: K = 19 gives intervals of exactly 90, 80 and 50 % (r = 1, 2, 5), K = 39 also of 95 %. The same argument
gives two more exact statements: E (truth − mean of samples)² = (1 + 1/K) E (sample variance), and the residual
y − H z of a sample z has the law of the noise, so its root-mean-square over σ_y is 1. The former holds within any
group of pixels that other samples chose (`errors_by_spread`).

Ranks are counted pixel by pixel; a complex image counts by its magnitude. Which pixels are counted may depend on
the measurement, never on the truth: that would break the exchangeability. Where the truth equals samples its rank is
spread evenly over the ranks that it ties with.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..errors import DataError
from ..operators import Operator
from ..transforms import Transform

LEVELS = (0.95, 0.9, 0.8, 0.5)  # that readers ask for
GROUPS = 5
MOST = 40  # intervals that are told of at once


@dataclass(frozen=True)
class Coverage:
    """How often intervals of K samples hold the truth: `expected` if all is well, `observed` in fact."""

    expected: float
    observed: float


def rank_counts(samples: Tensor, truth: Tensor, where: Tensor | None = None) -> Tensor:
    """How often the truth has each rank among the samples of its measurement, item by item.

    Args:
        samples: (B, K, C, H, W), real or complex.
        truth: (B, C, H, W), of the same kind.
        where: the pixels that count (B, 1 or C, H, W), bool, a function of the measurement; None: all.

    Returns:
        (B, K + 1), float64; each row sums to the number of its pixels.

    Raises:
        ValueError: shapes that do not fit together.
    """
    if samples.ndim != 5 or samples.shape[:1] + samples.shape[2:] != truth.shape:
        raise ValueError(
            f"samples must be (B, K, C, H, W) for a truth (B, C, H, W), "
            f"got {tuple(samples.shape)} and {tuple(truth.shape)}"
        )
    samples, truth = _magnitudes(samples, truth)
    return count_ranks(samples.unbind(1), truth, where)


def count_ranks(draws: Iterable[Tensor], truth: Tensor, where: Tensor | None = None) -> Tensor:
    """The same of any real numbers that follow from an image, one sample of each item at a time.

    Args:
        draws: K times (B, …), one sample of every item.
        truth: (B, …), real.
        where: what counts, of a shape that expands to the truth's; None: all.

    Returns:
        (B, K + 1), float64.
    """
    below, ties = torch.zeros_like(truth, dtype=torch.int64), torch.zeros_like(truth, dtype=torch.int64)
    number = 0
    for draw in draws:
        below += draw < truth
        ties += draw == truth
        number += 1
    share = _all_or(where, truth) / (ties + 1).double()
    steps = share.new_zeros(len(truth), number + 2)  # a share begins at the first of its ranks, and ends after the last
    steps.scatter_add_(1, below.flatten(1), share.flatten(1))
    steps.scatter_add_(1, (below + ties + 1).flatten(1), -share.flatten(1))
    return steps[:, :-1].cumsum(1).round(decimals=6).abs()  # thirds do not cancel to the last bit


def intervals(counts: Sequence[float], of: Iterable[int] | None = None) -> list[Coverage]:
    """Coverage of central intervals of K samples, the widest first.

    Args:
        counts: how often the truth had each of the ranks 0 … K.
        of: r of each interval, r-th smallest to r-th largest; None: all.

    Raises:
        DataError: if nothing was counted.
    """
    total, ranks = sum(counts), len(counts)
    if not total > 0:
        raise DataError("no pixels were counted: there is no coverage to speak of")
    chosen = range(1, (ranks + 1) // 2) if of is None else of
    return [Coverage((ranks - 2 * r) / ranks, sum(counts[r : ranks - r]) / total) for r in chosen]


def central(number: int, levels: Sequence[float] = LEVELS) -> list[int]:
    """The r of those intervals of K samples, r-th smallest to r-th largest, that come nearest to some levels.

    Args:
        number: K.
        levels: shares of the truth, as 0.9.

    Returns:
        different r, the widest interval first; none of a single sample.
    """
    ranks = range(1, (number + 2) // 2)
    return sorted({min(ranks, key=lambda r: abs((number + 1 - 2 * r) / (number + 1) - p)) for p in levels if ranks})


def spaced(number: int, most: int = MOST) -> list[int]:
    """The r of intervals of K samples, evenly spaced and the widest first, so many at most."""
    ranks = range(1, (number + 2) // 2)
    return list(ranks[:: -(-len(ranks) // most) or 1])


def spread_and_error(samples: Tensor, truth: Tensor, where: Tensor | None = None) -> list[tuple[float, float]]:
    """The error that the samples' spread announces, and the one there is, for each item.

    Args:
        samples: (B, K, C, H, W) with K > 1, real or complex (by magnitude).
        truth: (B, C, H, W).
        where: as in `rank_counts`.

    Returns:
        B pairs (announced, actual) of root-mean-square errors of the samples' mean; announced is
        sqrt((1 + 1/K) · mean variance). Over many items their squares agree if the samples are the posterior's.

    Raises:
        ValueError: a single sample.
    """
    number = samples.shape[1]
    if number < 2:
        raise ValueError("the spread of a single sample is unknown; draw more (sample.samples)")
    samples, truth = _magnitudes(samples, truth)
    announced, actual = (1 + 1 / number) * samples.var(1), (samples.mean(1) - truth).square()
    items = zip(announced, actual, _all_or(where, truth))
    return [(a[counted].mean().sqrt().item(), b[counted].mean().sqrt().item()) for a, b, counted in items]


def errors_by_spread(
    samples: Tensor, truth: Tensor, where: Tensor | None = None, groups: int = GROUPS
) -> list[tuple[tuple[float, float], ...]]:
    """The same by groups of pixels, from those that the samples hardly differ at to those that they differ at most.

    The first half of the samples groups the pixels, the second half announces their error. Were it the same samples,
    a pixel whose few samples happen to lie close would seem to promise what none of them said.

    Args:
        samples: (B, K, C, H, W) with K > 3, real or complex (by magnitude).
        truth: (B, C, H, W).
        where: as in `rank_counts`.
        groups: of as many pixels each.

    Returns:
        for each item its groups of (announced, actual); none with fewer samples, or fewer pixels than groups.
    """
    half = samples.shape[1] // 2
    if half < 2:
        return [()] * len(samples)
    samples, truth = _magnitudes(samples, truth)
    first, second = samples[:, :half], samples[:, half:]
    announced = (1 + 1 / second.shape[1]) * second.var(1)
    actual = (second.mean(1) - truth).square()
    found = []
    for spread, a, b, counted in zip(first.var(1), announced, actual, _all_or(where, truth)):
        parts = spread[counted].argsort(stable=True).tensor_split(groups)
        pairs = [tuple(x[counted][part].mean().sqrt().item() for x in (a, b)) for part in parts]
        found.append(tuple((x, y) for x, y in pairs) if len(parts[-1]) else ())
    return found


def residual_ratio(
    images: Tensor, y: Tensor, operator: Operator, transform: Transform, noise_std: float, mask: Tensor | None = None
) -> list[float]:
    """Root-mean-square of y − H T x over what was measured, in units of the noise: 1 for a sample of the posterior.

    A ratio far below 1 says that the noise was fitted, one above 1 that the measurement was not.

    Args:
        images: x, (B, C, H, W).
        y: observations (B, …).
        operator: H.
        transform: T.
        noise_std: σ_y per real component.
        mask: which entries of y were measured, of a shape that expands to y's; None: all.

    Returns:
        B floats.

    Raises:
        ValueError: noise_std is 0.
    """
    if not noise_std > 0:
        raise ValueError("the residual has no unit: the measurement is without noise (noise_std is 0)")
    residual = (y - operator.A(transform.forward(images))).abs().square()
    parts = 2 if y.is_complex() else 1
    measured = _all_or(mask, residual)
    energy = torch.where(measured, residual, 0).flatten(1).sum(1) / (parts * measured.flatten(1).sum(1))
    return (energy.sqrt() / noise_std).tolist()


def foreground(inputs: Tensor, share: float = 0.1) -> Tensor:
    """Pixels of an MRI input image (B, 1, H, W) above a share of its largest magnitude: the object, without the air."""
    magnitude = inputs.abs()
    return magnitude > share * magnitude.amax((1, 2, 3), keepdim=True)


def _magnitudes(samples: Tensor, truth: Tensor) -> tuple[Tensor, Tensor]:
    return (samples.abs(), truth.abs()) if samples.is_complex() else (samples, truth)


def _all_or(where: Tensor | None, like: Tensor) -> Tensor:
    """Which entries count, in the shape of `like`; None: all."""
    return torch.ones_like(like, dtype=torch.bool) if where is None else where.expand(like.shape)
