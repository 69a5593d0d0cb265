"""How well held-out entries were predicted, how sure of it the samples were, and what follows for a user.

Of predictions p_k of measured values d, those of K samples, with p̂ their mean and v their variance, and noise of
variance n² in d (2σ_y² of a complex value):

    error       Σ |p̂ − d|² / Σ |d|²                       the noise alone has Σ n² / Σ |d|²
    against TV  Σ |p̂ − d|² / Σ |p_TV − d|²                 a model that knows such images does better than one that
                                                           only knows that images have few edges
    dispersion  Σ |p̂ − d|² / Σ ((1 + 1/K) v + n²)          1 for samples of the posterior (`msm.evaluate.calibration`)
    residual    of the samples over what they were given, in units of the noise; 1 for samples of the posterior
    coverage    how often intervals of the samples, with noise of σ_y added to each, hold d: ranks as in
                `msm.evaluate.calibration`, of real and imaginary parts one by one

Sums are over the judged entries and all coils. Intervals are bootstrapped over blocks of these entries. The verdict
follows from how many of the three numbers in the middle exceed what slices like those of the training stay below:
none, one, or more; and whoever predicts worse than total variation is not trusted (docs/studies/held_out.md).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Generator, Tensor

from ..measurement import standard_normal
from ..sample.shares import Shares
from .bootstrap import Estimate, of_sums
from .calibration import intervals, rank_counts

Words = Literal["trust", "look closer", "this model does not know such images"]
WORDS: tuple[Words, ...] = get_args(Words)  # from the best to the gravest
LIMITS = {"against_tv": 1.66, "dispersion": 1.8, "residual": 1.33}  # 37 of 40 slices like the training stay below
MAPS_RESIDUAL = 0.05  # as `msm.raw.prepare.HIGH_RESIDUAL`, of which a run warns
BLOCK = 8  # a block of neighbours in a line or photo, whose errors go together, has this side
NORMAL = 1.96  # half of a 95 % interval, in standard deviations
NOMINAL = 0.9  # the interval that is told of is the one nearest to this
NOISE_SEED = 0  # of the noise that is added to predictions


@dataclass(frozen=True)
class Prediction:
    """How one method predicted the judged entries of one image.

    Args:
        error: relative to the energy of the measured values.
        against_tv: its square sum over that of total variation.
        dispersion: actual over announced, of several samples.
        covered: how often the interval `nominal` of several samples holds a measured value.
        nominal: what that would be if all were well.
        ranks: how often a measured value has each rank among the samples.
    """

    error: Estimate
    against_tv: Estimate
    dispersion: Estimate | None = None
    covered: Estimate | None = None
    nominal: float = 0.0
    ranks: tuple[float, ...] = ()

    @property
    def independent(self) -> float | None:
        """Of so many independent values a dispersion (a chi-square over its degrees of freedom) were as uncertain."""
        e = self.dispersion
        if e is None or e.low is None or e.high is None or e.high == e.low:
            return None
        return 2 * (2 * NORMAL * e.value / (e.high - e.low)) ** 2


def predicted(images: Tensor, shares: Shares) -> Tensor:
    """What images (K, C, H, W) say of the judged entries: (K, C or coils, entries)."""
    return shares.measurement.transform.repeat(len(images)).forward(images)[..., shares.judged[0, 0]]


class Judge:
    """Measured values that were held out of one image, and what predictions are worth.

    Args:
        shares: what was measured, shared out.
        tv: total variation's image of the seen entries (1, C, H, W).
    """

    def __init__(self, shares: Shares, tv: Tensor):
        self.shares, values = shares, shares.measurement.values
        self.measured = values[..., shares.judged[0, 0]]
        self.blocks = _blocks(shares)
        self._energy = self._summed(self.measured.abs().square())
        self._tv = self._missed(tv)
        self.noise_std = float(shares.measurement.noise_std)
        self.noise = self.noise_std**2 * (2 if values.is_complex() else 1)

    @property
    def floor(self) -> float:
        """The error of a perfect prediction: the noise of the judged values themselves."""
        return self.noise * self.measured.numel() / float(self._energy.sum())

    @property
    def entries(self) -> int:
        """How many points or pixels were judged."""
        return self.measured.shape[-1]

    def residual(self, images: Tensor) -> float | None:
        """Root-mean-square of y − H T x over what was seen, in units of the noise, of images (K, C, H, W) together.

        None if there is said to be no noise.
        """
        if not self.noise > 0:
            return None
        seen, transform = self.shares.seen, self.shares.measurement.transform.repeat(len(images))
        missed = (transform.forward(images) - seen.values).abs().square()[..., seen.mask[0, 0]].mean()
        return float((missed / self.noise).sqrt())

    def image(self, image: Tensor) -> Prediction:
        """What one image (1, C, H, W) is worth."""
        missed = self._missed(image)
        return Prediction(of_sums(missed, self._energy), of_sums(missed, self._tv))

    def one_of(self, samples: Tensor) -> Prediction:
        """What a single one of the samples (K, C, H, W) is worth, on average."""
        missed = torch.stack([self._missed(sample[None]) for sample in samples]).mean(0)
        return Prediction(of_sums(missed, self._energy), of_sums(missed, self._tv))

    def mean_of(self, samples: Tensor) -> Prediction:
        """What the mean of samples (K, C, H, W) is worth, and how sure of it they were; K of at least 2."""
        number, p = len(samples), predicted(samples, self.shares)
        missed = self._missed(samples.mean(0, keepdim=True))
        variance = (p - p.mean(0)).abs().square().sum(0) / (number - 1)
        announced = self._summed(((1 + 1 / number) * variance + self.noise)[None])
        noise = standard_normal(p, Generator().manual_seed(NOISE_SEED))
        ranks = self._ranks(p + self.noise_std * noise)
        levels = [level.expected for level in intervals(ranks.sum(0).tolist())]
        chosen = min(range(len(levels)), key=lambda r: abs(levels[r] - NOMINAL))
        inside = ranks[:, chosen + 1 : number - chosen].sum(1)
        return Prediction(
            of_sums(missed, self._energy),
            of_sums(missed, self._tv),
            of_sums(missed, announced),
            of_sums(inside, ranks.sum(1)),
            levels[chosen],
            tuple(ranks.sum(0).tolist()),
        )

    def _ranks(self, p: Tensor) -> Tensor:
        """Ranks of the measured values among K predictions (K, coils, entries), block by block: (blocks, K + 1)."""
        parts = [p.real, p.imag] if p.is_complex() else [p]
        truth = [self.measured.real, self.measured.imag] if p.is_complex() else [self.measured]
        given, true = torch.cat(parts, 1), torch.cat(truth, 1)[0]  # (K, C, n) and (C, n)
        each = rank_counts(given.permute(2, 0, 1)[..., None, None], true.T[..., None, None])
        return self._by_block(each)

    def _missed(self, image: Tensor) -> Tensor:
        """Squared error of an image's prediction, block by block."""
        return self._summed((predicted(image, self.shares) - self.measured).abs().square())

    def _summed(self, values: Tensor) -> Tensor:
        """Values (1, coils, entries), added up over coils and blocks."""
        return self._by_block(values[0].sum(0))

    def _by_block(self, values: Tensor) -> Tensor:
        """Values (entries, …), added up over blocks, in double."""
        total = torch.zeros(int(self.blocks.max()) + 1, *values.shape[1:], dtype=torch.float64)
        return total.index_add_(0, self.blocks, values.double().cpu())


def _blocks(shares: Shares) -> Tensor:
    """The number of the block that each judged entry belongs to: itself, or what is near in its line or photo."""
    places = shares.judged[0, 0].cpu().nonzero()
    side = 1 if shares.unit == "points" else BLOCK
    return (places // side).unique(dim=0, return_inverse=True)[1]


@dataclass(frozen=True)
class Verdict:
    """What is said of one image, and what it follows from.

    Args:
        image: its name.
        words: the verdict.
        reasons: in words, the gravest first.
        entries: how many points or pixels were judged.
        unit: what was held out as a whole.
        floor: the error of a perfect prediction.
        noise_std: σ_y, per real component.
        maps_residual: what the coil maps do not explain of the calibration region; None for photos.
    """

    image: str
    words: Words
    reasons: tuple[str, ...]
    entries: int
    unit: str
    floor: float
    noise_std: float
    maps_residual: float | None = None


def verdict(image: str, judge: Judge, samples: Tensor, mean: Prediction, maps_residual: float | None) -> Verdict:
    """What follows from the prediction by the mean of samples, for one image."""
    assert mean.dispersion is not None and mean.covered is not None
    tv, spread, residual = mean.against_tv, mean.dispersion, judge.residual(samples)
    numbers = {"against_tv": tv.value, "dispersion": spread.value, "residual": residual}
    told = {
        "against_tv": f"its error is {_told(tv)} of total variation's",
        "dispersion": f"its error is {_told(spread)} of what its samples announce",
        "residual": f"its samples miss what they were given by {residual or 0:.2f} of the noise",
    }
    found = exceeded(numbers)
    alarms = [f"{told[name]}, at most {LIMITS[name]:g} for images that it knows" for name in found]
    words = words_of(numbers)
    if tv.value > 1 and "against_tv" not in found:
        alarms.append(f"{told['against_tv']}, which predicts better")
    if maps_residual is not None and maps_residual > MAPS_RESIDUAL:
        alarms.append(f"under these coil maps no image explains {maps_residual:.0%} of the calibration region's energy")
        words = max(words, WORDS[1], key=WORDS.index)
    unit = "pixels" if judge.shares.unit == "pixels" else "points"
    held = f"the {mean.nominal:.0%} interval held {mean.covered.value:.0%} of {judge.entries} held-out {unit}"
    facts = judge.entries, judge.shares.unit, judge.floor, judge.noise_std, maps_residual
    return Verdict(image, words, (*alarms, held), *facts)


def exceeded(numbers: Mapping[str, float | None]) -> list[str]:
    """Which of the numbers that a verdict follows from are above their limits."""
    return [name for name, limit in LIMITS.items() if (numbers[name] or 0) > limit]


def words_of(numbers: Mapping[str, float | None]) -> Words:
    """The verdict by the numbers alone: how many exceed their limits, and whether total variation predicts better."""
    worse = (numbers["against_tv"] or 0) > 1
    return WORDS[min(max(len(exceeded(numbers)), int(worse)), 2)]


def overall(verdicts: Sequence[Verdict]) -> Words:
    """The verdict on a run: the one that half of its images reach, or a graver one."""
    order = sorted((WORDS.index(v.words) for v in verdicts), reverse=True)
    return WORDS[order[(len(order) - 1) // 2]]


def in_words(verdicts: Sequence[Verdict]) -> list[str]:
    """The verdict on a run, line by line: all in all, then of which images what is said, and why."""
    lines: list[str] = [overall(verdicts)]
    if len(verdicts) > 1:
        counts = {words: sum(v.words == words for v in verdicts) for words in WORDS}
        lines.append("; ".join(f"{words}: {count} of {len(verdicts)}" for words, count in counts.items() if count))
    gravest = max(verdicts, key=lambda v: WORDS.index(v.words))
    named = "" if len(verdicts) == 1 else f"{gravest.image}, {gravest.words}: "
    return [*lines, f"{named}{'; '.join(gravest.reasons)}"]


def _told(e: Estimate) -> str:
    return f"{e.value:.2f}" if e.low is None or e.high is None else f"{e.value:.2f} ({e.low:.2f} to {e.high:.2f})"
