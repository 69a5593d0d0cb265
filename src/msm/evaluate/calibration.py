"""Whether posterior samples mean what they say: coverage, spread and residual of K samples per measurement.

The rule. If the samples are drawn from the posterior, the truth and the K samples of a measurement are exchangeable,
so the truth's rank among the samples is uniform on 0 … K, whatever the posterior is. The interval between the r-th
smallest and the r-th largest sample, r = 1, 2, …, therefore holds the truth with probability

    (K + 1 − 2r) / (K + 1)     exactly,

not about: K = 19 gives intervals of exactly 90, 80 and 50 % (r = 1, 2, 5), K = 39 also of 95 %. The same argument
gives two more exact statements: E (truth − mean of samples)² = (1 + 1/K) E (sample variance), and the residual
y − H z of a sample z has the law of the noise, so its root-mean-square over σ_y is 1.

Ranks are counted pixel by pixel; a complex image counts by its magnitude. Which pixels are counted may depend on
the measurement, never on the truth: that would break the exchangeability. Where the truth equals samples its rank is
spread evenly over the ranks that it ties with.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..errors import DataError
from ..operators import Operator
from ..transforms import Transform


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
    below, ties = (relation(samples, truth[:, None]).sum(1) for relation in (torch.lt, torch.eq))
    counted = _all_or(where, truth)
    ranks = torch.arange(samples.shape[1] + 1, device=samples.device).view(-1, 1, 1, 1, 1)
    weight = ((ranks >= below) & (ranks <= below + ties) & counted) / (ties + 1).double()
    return weight.sum((2, 3, 4)).T


def intervals(counts: Sequence[float]) -> list[Coverage]:
    """Coverage of all central intervals of K samples, the widest first.

    Args:
        counts: how often the truth had each of the ranks 0 … K.

    Raises:
        DataError: if nothing was counted.
    """
    total, ranks = sum(counts), len(counts)
    if not total > 0:
        raise DataError("no pixels were counted: there is no coverage to speak of")
    return [Coverage((ranks - 2 * r) / ranks, sum(counts[r : ranks - r]) / total) for r in range(1, (ranks + 1) // 2)]


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
