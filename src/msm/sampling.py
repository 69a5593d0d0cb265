"""Sampling with a partial denoiser: generation (SPEC §5, Algorithm 1) and posterior sampling (SPEC §6).

The estimate ẑ of a step comes from its masks by averaging (SPEC §5) or by the chain rule (SPEC §12).

Plain functions of a denoiser, a mask family and seeds; they know nothing of training or data. z_t is the
variance-preserving iterate, z_t = sqrt(ᾱ_t) z + sqrt(1−ᾱ_t) n.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from math import log, sqrt
from typing import Literal

import torch
from torch import Generator, Tensor, nn

from .data_step import PROXIMAL_ITERATIONS, Operator, Step, gradient_step, proximal_step
from .denoiser import Denoiser
from .masks import Chain, Masks
from .mri_prior import ImagePrior
from .schedule import Grid, VPSchedule
from .transforms import Transform

Callback = Callable[[int, Tensor, Tensor], None]
Score = Literal["average", "chain"]


@torch.no_grad()
def generate(
    denoiser: Denoiser,
    transform: Transform,
    masks: Masks,
    shape: Sequence[int],
    *,
    seeds: Sequence[int],
    steps: int = 200,
    draws: int = 3,
    eta: float = 1.0,
    covering: bool = True,
    score: Score = "average",
    grid: Grid = "time",
    order: Literal[1, 2] = 1,
    callback: Callback | None = None,
) -> Tensor:
    """Draw full measurements z from the model (SPEC §5).

    Args:
        denoiser: partial denoiser, (z_t, mask, t, transform) -> ŝ.
        transform: T; `MultiCoil` samples complex z.
        masks: mask family that the denoiser was trained on.
        shape: shape of one z, (C or coils, H, W).
        seeds: one integer per sample; a sample depends on its own seed only.
        steps: reverse steps.
        draws: masks, and network calls, per step (w); for the average only.
        eta: 0 (deterministic given the start) … 1 (ancestral).
        covering: the masks of a step together cover z as evenly as they can; otherwise they are independent. For
            the average only.
        score: "average" of what the masks of a step say; or "chain", the chain rule over the ordered covers of
            `masks.chain`: K covers and their separators, evaluated as one batch of 2K − 1 network calls (3 for boxes
            at drop 0.4), or K + 1 for Cartesian masks (5 at R = 4). The chain calls the denoiser on masks sparser
            than the measured ones: it must be trained on sub-masks (train.submask_share, train.submask_keep), see
            docs/chain.md.
        grid: spacing of the steps, as in `VPSchedule.grid`: "time", published; or "log", for few steps.
        order: 2 extrapolates ẑ from the step before, at no cost (see `extrapolate`).
        callback: called after each step with (steps left, z_t, ẑ).

    Returns:
        z (len(seeds), *shape).

    Raises:
        ValueError: if steps, draws, eta, score, grid or order is out of range.
    """
    if order not in (1, 2):
        raise ValueError(f"order must be 1 or 2, got {order}")
    process = ReverseProcess(denoiser, transform, masks, shape, seeds, steps, draws, eta, covering, score, grid)
    z, z_hat = process.start()
    for level, drawn, noise in process:
        before = z_hat
        z, z_hat = estimate(denoiser, z, z_hat, drawn, noise[:, :-1], transform, level, eta)
        ahead = extrapolate(z_hat, before, level) if order == 2 else z_hat
        z = ddim(z, ahead, level, eta, noise[:, -1])
        if callback is not None:
            callback(level.index, z, z_hat)
    return z


@torch.no_grad()
def reconstruct(
    denoiser: Denoiser,
    y: Tensor,
    operator: Operator,
    transform: Transform,
    masks: Masks,
    shape: Sequence[int],
    *,
    seeds: Sequence[int],
    steps: int = 200,
    draws: int = 3,
    eta: float = 0.85,
    step_size: float | Literal["proximal"] = 2.0,
    noise_std: float = 0.0,
    covering: bool = True,
    score: Score = "average",
    grid: Grid = "time",
    warm_start: float | None = None,
    proximal_iterations: int = PROXIMAL_ITERATIONS,
    callback: Callback | None = None,
) -> Tensor:
    """Draw posterior samples of z given y = H z + e (SPEC §6).

    The likelihood step ẑ ← ẑ − γ H⁺(H ẑ − y) follows the aggregation; for complex z (MRI), where H keeps entries
    of z, it is applied to each draw of the average. It moves measured entries only; the proximal step moves the
    image that they belong to (see `proximal_step`), which matters where T is no identity.

    Args:
        denoiser: partial denoiser.
        y: observations (B, …), one item per seed; repeat y to draw several samples of it.
        operator: H with A, A_adjoint and A_dagger: any deepinv physics object works.
        transform: T.
        masks: mask family that the denoiser was trained on; H may be another.
        shape: shape of one z, (C or coils, H, W).
        seeds: one integer per sample.
        steps: reverse steps.
        draws: masks, and network calls, per step (w); for the average only.
        eta: share of fresh noise in each update.
        step_size: γ of the likelihood step, or "proximal", which needs no tuning.
        noise_std: σ_y, standard deviation of e per real component; used by the proximal step and the warm start.
        covering: as in `generate`.
        score: as in `generate`.
        grid: as in `generate`.
        warm_start: noise level σ to begin at, with a linear reconstruction of y (the proximal step from ẑ = 0) and
            noise of that level; None: begin with noise alone. It saves the steps above σ, and biases the samples
            towards that reconstruction where its error, frequency by frequency, is not small against σ.
        proximal_iterations: conjugate-gradient steps of the proximal step and the warm start; not fewer are done than
            the denoiser's `sense_iterations`.
        callback: called after each step with (steps left, z_t, ẑ).

    Returns:
        z (len(seeds), *shape).

    Raises:
        ValueError: if there is not one seed per item of y, or steps, draws, eta, score, grid or warm_start is out of
            range.
    """
    if len(seeds) != len(y):
        raise ValueError(f"one seed per item of y is needed: y has {len(y)} items, there are {len(seeds)} seeds")
    process = ReverseProcess(
        denoiser, transform, masks, shape, seeds, steps, draws, eta, covering, score, grid, warm_start
    )
    z, z_hat = process.start()
    if step_size == "proximal" or warm_start is not None:
        prior = getattr(denoiser, "prior", ImagePrior())
        iterations = max(proximal_iterations, getattr(denoiser, "sense_iterations", 0))
        linear = proximal_step(y, operator, transform, noise_std, prior, iterations)
    if warm_start is not None:
        z, z_hat = process.noisy(linear(z_hat, warm_start), z)
    towards_y = linear if step_size == "proximal" else gradient_step(y, operator, step_size)
    each_draw = towards_y if z.is_complex() and step_size != "proximal" and score == "average" else None
    for level, drawn, noise in process:
        z, z_hat = estimate(denoiser, z, z_hat, drawn, noise[:, :-1], transform, level, eta, each_draw)
        corrected = z_hat if each_draw else towards_y(z_hat, level.sigma)
        z = posterior_update(z, corrected, level, eta, noise[:, -1])
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
    Iterating gives, from the noisiest level down, (level, masks (B, draws, 1, H, W), noise (B, draws + 1, *shape)),
    or (level, chain, noise (B, 1, *shape)). The last level gets no fresh noise, as published: zeros.
    """

    def __init__(
        self,
        denoiser: Denoiser,
        transform: Transform,
        masks: Masks,
        shape: Sequence[int],
        seeds: Sequence[int],
        steps: int,
        draws: int,
        eta: float,
        covering: bool,
        score: Score,
        grid: Grid,
        start: float | None = None,
    ):
        if score not in ("average", "chain"):
            raise ValueError(f'score must be "average" or "chain", got {score!r}')
        if draws < 1:
            raise ValueError(f"draws must be at least 1, got {draws}")
        if not 0 <= eta <= 1:
            raise ValueError(f"eta must be between 0 and 1, got {eta}")
        maps = getattr(transform, "maps", None)
        self.device = _device(denoiser) if maps is None else maps.device
        self.dtype = torch.float32 if maps is None else torch.complex64
        self.masks, self.shape, self.covering, self.score = masks, tuple(shape), covering, score
        self.renoised = draws if score == "average" else 0
        schedule = getattr(denoiser, "schedule", None) or VPSchedule()
        times = schedule.grid(steps, grid, start)
        self.times = times.to(self.device)
        self.alpha_bars = [0.0, *schedule.alpha_bar(times).tolist()[::-1], 1.0]
        self.streams = [Generator(self.device).manual_seed(seed) for seed in seeds]
        self.variates = self._per_sample(torch.rand, (steps, max(1, self.renoised), masks.variates))

    def start(self) -> tuple[Tensor, Tensor]:
        """z_T ~ N(0, I) and the estimate ẑ = 0 that goes with it, each (B, *shape)."""
        z = self._normal(1)[:, 0]
        return z, torch.zeros_like(z)

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
            yield level, self._masks(self.variates[:, k]), self._normal(number) if index else self._zeros(number)

    def _masks(self, u: Tensor) -> Tensor | Chain:
        """The masks of a step from its variates (B, draws, `variates`)."""
        return self.masks.draw(u, self.covering) if self.score == "average" else self.masks.chain(u[:, 0])

    def _normal(self, number: int) -> Tensor:
        """Normal noise (B, number, *shape) of unit variance per real component."""
        if not self.dtype.is_complex:
            return self._per_sample(torch.randn, (number, *self.shape))
        return torch.view_as_complex(self._per_sample(torch.randn, (number, *self.shape, 2)))

    def _zeros(self, number: int) -> Tensor:
        """As `_normal`, of no variance and without memory of its own."""
        zero = torch.zeros((), dtype=self.dtype, device=self.device)
        return zero.expand(len(self.streams), number, *self.shape)

    def _per_sample(self, draw: Callable[..., Tensor], shape: tuple[int, ...]) -> Tensor:
        """Random numbers (B, *shape), each item from its own stream."""
        out = torch.empty(len(self.streams), *shape, device=self.device)
        for item, stream in zip(out, self.streams):
            draw(shape, generator=stream, out=item)
        return out


def estimate(
    denoiser: Denoiser,
    z: Tensor,
    z_hat: Tensor,
    drawn: Tensor | Chain,
    noise: Tensor,
    transform: Transform,
    level: Level,
    eta: float,
    likelihood: Step | None = None,
) -> tuple[Tensor, Tensor]:
    """The iterate and ẑ, by the chain rule or as `aggregate` does; the chain leaves the iterate as it is."""
    if isinstance(drawn, Chain):
        return z, combine(denoiser, z, z_hat, drawn, transform, level)
    return aggregate(denoiser, z, z_hat, drawn, noise, transform, level, eta, likelihood)


def combine(denoiser: Denoiser, z: Tensor, z_hat: Tensor, chain: Chain, transform: Transform, level: Level) -> Tensor:
    """Denoise under all masks of a chain as one batch and add up: ẑ = Σ_k S_kᵀ ŝ_k − Σ_{k≥2} R_kᵀ r̂_k (SPEC §12).

    Args:
        denoiser: partial denoiser.
        z: iterate at this level (B, *shape).
        z_hat: estimate of the step before (B, *shape); entries that no mask covers keep it.
        chain: covers and separators of every sample.
        transform: T.
        level: noise level.

    Returns:
        ẑ (B, *shape).
    """
    batch, calls = chain.masks.shape[:2]
    repeated, masks = z.repeat_interleave(calls, 0), chain.masks.flatten(0, 1)
    s_hat = denoiser(repeated, masks, level.t, transform.repeat(calls)).unflatten(0, (batch, calls))
    total = (chain.weights[:, None, None, None] * s_hat).sum(1)
    return torch.where(chain.masks.any(1), total, z_hat)


def aggregate(
    denoiser: Denoiser,
    z: Tensor,
    z_hat: Tensor,
    masks: Tensor,
    noise: Tensor,
    transform: Transform,
    level: Level,
    eta: float,
    likelihood: Step | None = None,
) -> tuple[Tensor, Tensor]:
    """Denoise under each mask in turn and average what they say of each entry (SPEC §5, the inner loop).

    Args:
        denoiser: partial denoiser.
        z: iterate at this level (B, *shape).
        z_hat: estimate of the step before (B, *shape); entries that no mask covers keep it.
        masks: S_1 … S_w of every sample, (B, w, 1, H, W), bool.
        noise: (B, w, *shape), to re-noise the denoised entries.
        transform: T.
        level: noise level.
        eta: share of fresh noise in the re-noising.
        likelihood: likelihood step applied to every ŝ_i, if any.

    Returns:
        the iterate with each S_i's entries replaced, and ẑ, both (B, *shape).
    """
    total = torch.zeros_like(z)
    count = torch.zeros_like(masks[:, 0], dtype=total.real.dtype)
    for mask, n in zip(masks.unbind(1), noise.unbind(1)):
        s_hat = denoiser(z, mask, level.t, transform)
        if likelihood is not None:
            s_hat = torch.where(mask, likelihood(s_hat, level.sigma), 0)
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


def _device(denoiser: Denoiser) -> torch.device:
    """Where a denoiser's parameters live; a plain function is taken to work on the CPU."""
    if isinstance(denoiser, nn.Module):
        return next((p.device for p in denoiser.parameters()), torch.device("cpu"))
    return torch.device("cpu")
