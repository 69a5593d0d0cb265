"""Sampling with a partial denoiser: generation (SPEC §5, Algorithm 1) and posterior sampling (SPEC §6).

The estimate ẑ of a step comes from its masks by averaging (SPEC §5) or by the chain rule (SPEC §12).

Plain functions of a denoiser, a mask law and seeds; they know nothing of training or data. z_t is the
variance-preserving iterate, z_t = sqrt(ᾱ_t) z + sqrt(1−ᾱ_t) n.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from math import log, sqrt
from typing import Literal

import torch
from torch import Generator, Tensor

from .data_step import DataStep, Proximal
from .denoiser import Denoiser, KnowsItsError, mask_law
from .error_covariance import ErrorModel
from .masks import Chain, FullMask, Masks
from .operators import Problem
from .schedule import Grid
from .transforms import Identity, Transform

Callback = Callable[[int, Tensor, Tensor], None]
Correction = Callable[[Tensor, float], Tensor]  # (ẑ, σ_t) -> ẑ, or a draw of z, that meets the data
Score = Literal["average", "chain"]
Preset = Literal["paper", "published", "best"]

GENERATE_ETA, RECONSTRUCT_ETA = 1.0, 0.85  # published
MOST_STEPS = 1000  # of the schedule


@dataclass(frozen=True)
class Sampler:
    """How samples are made of a denoiser; what each preset gives is in docs/studies/presets.md.

    Args:
        steps: reverse steps.
        draws: masks, and network calls, per step (w); for the average only.
        eta: share of fresh noise in each update, 0 (deterministic given the start) … 1 (ancestral); None: 1 to
            generate, 0.85 to reconstruct.
        covering: the masks of a step together cover z as evenly as they can; otherwise they are independent. For
            the average only.
        score: "average" of what the masks of a step say; or "chain", the chain rule over the ordered covers of
            `masks.chain`: K covers and their separators, evaluated as one batch of 2K − 1 network calls (3 for boxes
            at drop 0.4), or K + 1 for Cartesian masks (5 at R = 4). The chain calls the denoiser on masks sparser
            than the measured ones: it must be trained on sub-masks (train.submask_share, train.submask_keep).
        grid: spacing of the steps, as in `VPSchedule.grid`: "time", published; or "log", for few steps.
        order: to generate; 2 extrapolates ẑ from the step before, at no cost (see `extrapolate`).
        warm_start: to reconstruct; noise level σ to begin at, with a linear reconstruction of y (the proximal step
            from ẑ = 0) and noise of that level; None: begin with noise alone. It saves the steps above σ, and biases
            the samples towards that reconstruction where its error, frequency by frequency, is not small against σ.

    Raises:
        ValueError: if a setting is out of range.
    """

    steps: int = 200
    draws: int = 3
    eta: float | None = None
    covering: bool = True
    score: Score = "average"
    grid: Grid = "time"
    order: Literal[1, 2] = 1
    warm_start: float | None = None

    def __post_init__(self) -> None:
        if self.draws < 1:
            raise ValueError(f"draws must be at least 1, got {self.draws}")
        if self.eta is not None and not 0 <= self.eta <= 1:
            raise ValueError(f"eta must be between 0 and 1, got {self.eta}")
        if self.score not in ("average", "chain"):
            raise ValueError(f'score must be "average" or "chain", got {self.score!r}')
        if self.order not in (1, 2):
            raise ValueError(f"order must be 1 or 2, got {self.order}")

    @classmethod
    def preset(cls, name: Preset, *, mri: bool = False, inverse_problem: bool = False) -> "Sampler":
        """Settings with a name; the data step that goes with them is `preset_data_step(name, mri=mri)`.

        Args:
            name: "paper", 200 steps whose masks are drawn independently, one a step to generate; "published", 200
                steps of two masks (photos) or three (else) that cover the image together; "best", 20 steps, or 12 of
                five masks for inverse problems of MRI, even in log σ.
            mri: whether z is k-space of several coils.
            inverse_problem: whether they are for `reconstruct`.

        Raises:
            ValueError: if there is no such preset.

        Source: "paper" and "published": SPEC §5, §6 and §8; "best": measured here.
        """
        if name not in ("paper", "published", "best"):
            raise ValueError(f"preset must be paper, published or best, got {name!r}")
        covering = name != "paper"
        if not inverse_problem:
            if name == "best":
                return cls(steps=20, grid="log", order=2)
            return cls(draws=3 if covering else 1, covering=covering)
        draws = 3 if mri else 2
        if name != "best":
            return cls(draws=draws, covering=covering)
        return cls(steps=12, draws=5, grid="log") if mri else cls(steps=20, draws=draws, grid="log")

    def fitted(self, masks: Masks) -> "Sampler":
        """As many network calls in steps of one mask, if the masks are full ones; else the same sampler."""
        if not isinstance(masks, FullMask) or self.score != "average" or self.draws == 1:
            return self
        return replace(self, steps=min(self.steps * self.draws, MOST_STEPS), draws=1)

    def resolved(self, inverse_problem: bool) -> "Sampler":
        """The same with its automatic `eta` put in."""
        return self if self.eta is not None else replace(self, eta=RECONSTRUCT_ETA if inverse_problem else GENERATE_ETA)

    def calls(self, masks: Masks) -> int:
        """Network calls for one sample."""
        if self.score == "average":
            return self.steps * self.draws
        return self.steps * masks.chain(torch.rand(1, masks.variates, generator=Generator())).masks.shape[1]


@torch.no_grad()
def generate(
    denoiser: Denoiser,
    shape: Sequence[int],
    *,
    seeds: Sequence[int],
    transform: Transform = Identity(),
    masks: Masks | None = None,
    sampler: Sampler = Sampler(),
    callback: Callback | None = None,
) -> Tensor:
    """Draw full measurements z from the model (SPEC §5).

    Args:
        denoiser: partial denoiser, (z_t, mask, t, transform) -> ŝ, with its `schedule`.
        shape: shape of one z, (C or coils, H, W).
        seeds: one integer per sample; a sample depends on its own seed only.
        transform: T; `MultiCoil` samples complex z.
        masks: law of the masks that the denoiser was trained on; None: the denoiser's own, taken to the shape's size.
        sampler: how.
        callback: called after each step with (steps left, z_t, ẑ).

    Returns:
        z (len(seeds), *shape).

    Raises:
        ValueError: if no mask law is known, or the sampler is one of inverse problems.
    """
    if sampler.warm_start is not None:
        raise ValueError(f"warm_start is for inverse problems, to generate use None, got {sampler.warm_start}")
    process = ReverseProcess(denoiser, shape, seeds, transform, masks, sampler.resolved(inverse_problem=False))
    z, z_hat = process.start()
    for level, drawn, noise in process:
        before = z_hat
        z, z_hat = process.estimate(z, z_hat, drawn, noise[:, :-1], level)
        ahead = extrapolate(z_hat, before, level) if sampler.order == 2 else z_hat
        z = ddim(z, ahead, level, process.eta, noise[:, -1])
        if callback is not None:
            callback(level.index, z, z_hat)
    return z


@torch.no_grad()
def reconstruct(
    denoiser: Denoiser,
    problem: Problem,
    *,
    seeds: Sequence[int],
    masks: Masks | None = None,
    sampler: Sampler = Sampler(),
    data_step: DataStep = Proximal(),
    callback: Callback | None = None,
) -> Tensor:
    """Draw posterior samples of z given y = H z + e (SPEC §6).

    Args:
        denoiser: partial denoiser, with its `schedule`.
        problem: y, H, T and σ_y; H need not keep what the masks of the training keep.
        seeds: one integer per item of y.
        masks: as in `generate`.
        sampler: how.
        data_step: how ẑ meets the data: `Draw`, for samples of the posterior; `Proximal`, for estimates near its mode;
            or the published `GradientStep`.
        callback: called after each step with (steps left, z_t, ẑ).

    Returns:
        z (len(seeds), C or coils, H, W).

    Raises:
        ValueError: if there is not one seed per item of y, no mask law is known, or the sampler is not one for this.
    """
    if len(seeds) != len(problem.y):
        raise ValueError(
            f"one seed per item of y is needed: y has {len(problem.y)} items, there are {len(seeds)} seeds"
        )
    if sampler.order != 1:
        raise ValueError("order 2 is to generate, for inverse problems use 1")
    if data_step.draws and sampler.eta not in (None, 1):
        raise ValueError(f"a step that draws is followed by fresh noise alone: eta must be 1, got {sampler.eta}")
    sampler = replace(sampler, eta=1.0) if data_step.draws else sampler.resolved(inverse_problem=True)
    process = ReverseProcess(
        denoiser, problem.shape, seeds, problem.transform, masks, sampler, renoise=not data_step.draws
    )
    error = denoiser.error if isinstance(denoiser, KnowsItsError) else ErrorModel()
    step = data_step.of(problem, error)

    def towards_y(z_hat: Tensor, sigma: float) -> Tensor:
        return step(z_hat, sigma, process.normal_like)

    z, z_hat = process.start()
    if sampler.warm_start is not None:
        linear = step if isinstance(data_step, Proximal) else Proximal().of(problem, error)
        known = process.highest if data_step.draws else sampler.warm_start  # of which ẑ = 0 is the estimate
        z, z_hat = process.noisy(linear(z_hat, known, process.normal_like), z)
    each_draw = towards_y if data_step.of_each_draw and z.is_complex() and sampler.score == "average" else None
    for level, drawn, noise in process:
        z, z_hat = process.estimate(z, z_hat, drawn, noise[:, :-1], level, each_draw)
        corrected = z_hat if each_draw else towards_y(z_hat, level.sigma)
        z = posterior_update(z, corrected, level, process.eta, noise[:, -1])
        if callback is not None:
            callback(level.index, z, corrected)
    return z


@dataclass(frozen=True)
class Level:
    """One noise level of the reverse process; `above` and `below` are the ᾱ of the next noisier and cleaner one."""

    index: int
    t: Tensor
    alpha_bar: float
    above: float
    below: float

    @property
    def sigma(self) -> float:
        """σ_t, the noise level of z_t / sqrt(ᾱ)."""
        return sqrt((1 - self.alpha_bar) / self.alpha_bar)


class ReverseProcess:
    """All that the steps need and the iterate does not change: levels, masks, noise.

    Every sample has a random stream of its own, seeded by its seed; masks of all steps are drawn at the start.
    Iterating gives, from the noisiest level down, (level, masks (B, draws, 1, H, W) or chain, noise (B, n, *shape)):
    the last noise leads to the next level, those before it, for an average that re-noises, to the next mask. The last
    level gets no fresh noise, as published: zeros.
    """

    def __init__(
        self,
        denoiser: Denoiser,
        shape: Sequence[int],
        seeds: Sequence[int],
        transform: Transform,
        masks: Masks | None,
        sampler: Sampler,
        renoise: bool = True,
    ):
        assert sampler.eta is not None  # as `Sampler.resolved` gives it
        schedule, self.eta = denoiser.schedule, sampler.eta
        self.denoiser, self.transform = denoiser, transform
        self.device, self.is_complex = schedule.device, transform.dtype.is_complex
        self.shape, self.sampler = tuple(shape), sampler
        self.masks = mask_law(denoiser, masks, (self.shape[-2], self.shape[-1]))
        drawn = sampler.draws if sampler.score == "average" else 1
        self.renoised = drawn if renoise and sampler.score == "average" else 0
        self.times = schedule.grid(sampler.steps, sampler.grid, sampler.warm_start)
        self.alpha_bars = [0.0, *schedule.alpha_bar(self.times).tolist()[::-1], 1.0]
        self.streams = [Generator(self.device).manual_seed(seed) for seed in seeds]
        self.variates = self._per_sample(torch.rand, (sampler.steps, drawn, self.masks.variates))

    def start(self) -> tuple[Tensor, Tensor]:
        """z_T ~ N(0, I) and the estimate ẑ = 0 that goes with it, each (B, *shape)."""
        z = self._normal(self.shape, self.is_complex)
        return z, torch.zeros_like(z)

    @property
    def highest(self) -> float:
        """The largest σ_t of the schedule."""
        return self.denoiser.schedule.sigmas[-1].item()

    def normal_like(self, tensor: Tensor) -> Tensor:
        """Normal noise like a tensor (B, …), of unit variance per real component, each item from its own stream."""
        return self._normal(tensor.shape[1:], tensor.is_complex())

    def noisy(self, z_hat: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
        """The iterate of the first level around an estimate ẑ, and ẑ, each (B, *shape)."""
        alpha_bar = self.alpha_bars[1]
        return sqrt(alpha_bar) * z_hat + sqrt(1 - alpha_bar) * noise, z_hat

    def __iter__(self) -> Iterator[tuple[Level, Tensor | Chain, Tensor]]:
        steps = len(self.times)
        for k in range(steps):
            index = steps - 1 - k
            above, here, below = self.alpha_bars[k : k + 3]
            level = Level(index, self.times[index], here, above, below)
            number = self.renoised + 1
            noise = self._normal((number, *self.shape), self.is_complex) if index else self._zeros(number)
            yield level, self._masks(self.variates[:, k]), noise

    def estimate(
        self,
        z: Tensor,
        z_hat: Tensor,
        drawn: Tensor | Chain,
        noise: Tensor,
        level: Level,
        of_each: Correction | None = None,
    ) -> tuple[Tensor, Tensor]:
        """The iterate and ẑ: as `aggregate` does, or from all masks at once, which leaves the iterate as it is.

        That is ẑ = Σ_k S_kᵀ ŝ_k − Σ_{k≥2} R_kᵀ r̂_k by the chain rule (SPEC §12), or the mean over the masks.
        """
        if isinstance(drawn, Chain):
            weights = drawn.weights[:, None, None, None]
            return z, combine(self.denoiser, z, z_hat, drawn.masks, weights, self.transform, level)
        if not self.renoised:
            weights = 1 / drawn.sum(1, keepdim=True).clamp(min=1)
            return z, combine(self.denoiser, z, z_hat, drawn, weights, self.transform, level)
        return aggregate(self.denoiser, z, z_hat, drawn, noise, self.transform, level, self.eta, of_each)

    def _masks(self, u: Tensor) -> Tensor | Chain:
        """The masks of a step from its variates (B, draws, `variates`)."""
        sampler = self.sampler
        return self.masks.draw(u, sampler.covering) if sampler.score == "average" else self.masks.chain(u[:, 0])

    def _normal(self, shape: Sequence[int], is_complex: bool) -> Tensor:
        """Normal noise (B, *shape) of unit variance per real component, each item from its own stream."""
        if not is_complex:
            return self._per_sample(torch.randn, tuple(shape))
        return torch.view_as_complex(self._per_sample(torch.randn, (*shape, 2)))

    def _zeros(self, number: int) -> Tensor:
        """As `_normal`, of no variance and without memory of its own."""
        zero = torch.zeros((), dtype=torch.complex64 if self.is_complex else torch.float32, device=self.device)
        return zero.expand(len(self.streams), number, *self.shape)

    def _per_sample(self, draw: Callable[..., Tensor], shape: tuple[int, ...]) -> Tensor:
        """Random numbers (B, *shape), each item from its own stream."""
        out = torch.empty(len(self.streams), *shape, device=self.device)
        for item, stream in zip(out, self.streams):
            draw(shape, generator=stream, out=item)
        return out


def combine(
    denoiser: Denoiser, z: Tensor, z_hat: Tensor, masks: Tensor, weights: Tensor, transform: Transform, level: Level
) -> Tensor:
    """Denoise under all masks as one batch and add up what they say, ẑ = Σ_i weights_i S_iᵀ ŝ_i.

    masks (B, calls, 1, H, W), bool; weights of a shape that expands to it; z, the estimate of the step before and ẑ are
    (B, *shape). Entries that no mask covers keep the estimate before.
    """
    batch, calls = masks.shape[:2]
    repeated = z.repeat_interleave(calls, 0)
    s_hat = denoiser(repeated, masks.flatten(0, 1), level.t, transform.repeat(calls)).unflatten(0, (batch, calls))
    return torch.where(masks.any(1), (weights * s_hat).sum(1), z_hat)


def aggregate(
    denoiser: Denoiser,
    z: Tensor,
    z_hat: Tensor,
    masks: Tensor,
    noise: Tensor,
    transform: Transform,
    level: Level,
    eta: float,
    of_each: Correction | None = None,
) -> tuple[Tensor, Tensor]:
    """Denoise under each mask in turn and average what they say of each entry (SPEC §5, the inner loop).

    masks S_1 … S_w (B, w, 1, H, W), bool; noise (B, w, *shape) re-noises the denoised entries, a share η of it. z, the
    estimate of the step before and the results, the iterate with each S_i's entries replaced and ẑ, are (B, *shape);
    entries that no mask covers keep the estimate before. `of_each` is a data step that every ŝ_i takes.
    """
    total = torch.zeros_like(z)
    count = torch.zeros_like(masks[:, 0], dtype=total.real.dtype)
    for mask, n in zip(masks.unbind(1), noise.unbind(1)):
        s_hat = denoiser(z, mask, level.t, transform)
        if of_each is not None:
            s_hat = torch.where(mask, of_each(s_hat, level.sigma), 0)
        z = torch.where(mask, ddim_kernel(z, s_hat, level, eta, n, level.alpha_bar, level.above), z)
        total, count = total.add_(s_hat), count.add_(mask)
    return z, torch.where(count > 0, total.mul_(count.clamp(min=1).reciprocal()), z_hat)


def ddim(z: Tensor, z_hat: Tensor, level: Level, eta: float, noise: Tensor) -> Tensor:
    """One DDIM step from z_t to the next cleaner level (SPEC §5); all tensors (B, *shape)."""
    return ddim_kernel(z, z_hat, level, eta, noise, level.below, level.alpha_bar)


def extrapolate(z_hat: Tensor, before: Tensor, level: Level) -> Tensor:
    """ẑ as it will be in the middle of a step, in log σ, on the line through it and the one `before`; all (B, *shape).

    The first step has no step before, and the last one ends at σ = 0, infinitely far: both keep ẑ.

    Source: DPM-Solver++(2M) (Lu et al. 2022, Algorithm 2); with fresh noise, its SDE form.
    """
    if level.above == 0 or level.index == 0:
        return z_hat
    above, here, below = (0.5 * log(1 / a - 1) for a in (level.above, level.alpha_bar, level.below))  # log σ
    return torch.lerp(before, z_hat, 1 + (here - below) / (2 * (above - here)))


def posterior_update(z: Tensor, z_hat: Tensor, level: Level, eta: float, noise: Tensor) -> Tensor:
    """sqrt(ᾱ₋) ẑ + sqrt(1−ᾱ₋) (η n + sqrt(1−η²) ε̂), the update of SPEC §6; all tensors (B, *shape)."""
    left = sqrt(1 - level.below)
    return mix(z, z_hat, level, noise, sqrt(level.below), left * sqrt(1 - eta**2), left * eta)


def ddim_kernel(
    z: Tensor, z_hat: Tensor, level: Level, eta: float, noise: Tensor, target: float, source: float
) -> Tensor:
    """Go from ᾱ = source to the cleaner ᾱ = target, with a share η of fresh noise (Song et al. 2021, eq. 12)."""
    fresh = eta**2 * (1 - target) / (1 - source) * (1 - source / target)
    return mix(z, z_hat, level, noise, sqrt(target), sqrt(1 - target - fresh), sqrt(fresh))


def mix(z: Tensor, z_hat: Tensor, level: Level, noise: Tensor, clean: float, old: float, fresh: float) -> Tensor:
    """The iterate clean · ẑ + old · ε̂ + fresh · n with ε̂ = (z_t − sqrt(ᾱ) ẑ) / sqrt(1−ᾱ), without making ε̂."""
    of_z = old / sqrt(1 - level.alpha_bar)
    return (z_hat * (clean - of_z * sqrt(level.alpha_bar))).add_(z, alpha=of_z).add_(noise, alpha=fresh)
