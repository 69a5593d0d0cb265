"""Samplers on data: observe test images, draw posterior samples of them, and say how good these are (SPEC §6, §9)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Generator, Tensor, nn

from .config import Config
from .data.acquire import Source, item_generator
from .denoiser import PartialDenoiser
from .density import VariableDensityMasks
from .losses import standard_normal
from .masks import BoxMasks, CartesianMasks, Masks, Size
from .metrics import Convention, image_metrics
from .operators import Undersampling, build
from .processes import shared_out
from .sampling import generate, reconstruct
from .schedule import VPSchedule
from .sense import ImagePrior
from .settings import (
    BoxMaskConfig,
    CartesianMaskConfig,
    DataConfig,
    DiffusionConfig,
    InverseProblemConfig,
    MaskConfig,
    SampleConfig,
)
from .transforms import Identity, MultiCoil, Transform

Advance = Callable[[int], None]
Draw = Callable[[range], Any]
Keep = Callable[[Draw, Callable[[range], None]], Draw]  # `Parts.keep`


@dataclass(frozen=True)
class Observation:
    """y = H z + e of B images, with H and T."""

    y: Tensor
    operator: Any
    transform: Transform
    noise_std: float

    @property
    def input(self) -> Tensor:
        """What the observation shows by itself, Tᴴ H⁺ y: (B, C, H, W)."""
        return self.transform.adjoint(self.operator.A_dagger(self.y))


def make_denoiser(network: nn.Module, diffusion: DiffusionConfig) -> PartialDenoiser:
    """The partial denoiser that a config describes, around a network."""
    return PartialDenoiser(
        network,
        VPSchedule(),
        diffusion.parametrisation,
        prior=ImagePrior(phase_width=diffusion.phase_width, phase_residual=diffusion.phase_residual),
        sense_iterations=diffusion.sense_iterations,
    )


def make_masks(mask: MaskConfig, size: Size) -> Masks:
    """The mask family that a config describes, of a size (H, W), or H = W."""
    if isinstance(mask, BoxMaskConfig):
        return BoxMasks(size, mask.drop, mask.grid)
    if isinstance(mask, CartesianMaskConfig):
        return CartesianMasks(size, mask.acceleration, mask.center, mask.pattern)
    return VariableDensityMasks(size, mask.acceleration, mask.center, mask.pattern, mask.corners)


def coil_maps(items: Sequence[Source]) -> Tensor:
    """Coil maps (B, coils, H, W) of MRI items."""
    return torch.stack([item.maps for item in items if item.maps is not None])


def observe(
    items: Sequence[Source],
    problem: InverseProblemConfig,
    data: DataConfig,
    *,
    seed: int = 0,
    device: torch.device | None = None,
) -> Observation:
    """Simulate what an inverse problem is given. An item's mask and noise follow from its name and the seed.

    Args:
        items: the images; one that comes several times is observed in the same way each time.
        problem: H and the noise.
        data: size and channels of the images.
        seed: seed of masks and noise.
        device: where the observation goes.

    Returns:
        an observation of len(items) images.
    """
    streams = [item_generator(item.name + ":test", seed) for item in items]
    images = torch.stack([item.image for item in items])
    transform: Transform = Identity()
    if problem.mask is not None:
        maps = coil_maps(items)
        family = make_masks(problem.mask, data.image_size)
        mask = torch.cat([family.sample(1, stream) for stream in streams])
        y = Undersampling(mask).A(MultiCoil(maps).forward(images))
        operator: Any = Undersampling(mask).to(device)
        transform = MultiCoil(maps.to(device))
    else:
        operator = _photo_operator(problem, (data.channels, data.image_size, data.image_size), seed)
        y = operator.A(images)
        operator = operator.to(device)
    noise = torch.stack([standard_normal(item, stream) for item, stream in zip(y, streams)])
    y = (y + problem.noise_std * noise).to(device)
    if problem.mask is not None:
        y = operator.A(y)  # no noise where nothing is measured
    return Observation(y, operator, transform, problem.noise_std)


def _photo_operator(problem: InverseProblemConfig, shape: tuple[int, int, int], seed: int) -> Any:
    names = {"hole": "hole", "keep": "kept", "factor": "factor"}
    names |= {"blur_sigma": "sigma", "blur_length": "length", "blur_angle": "angle"}
    given = {new: getattr(problem, old) for old, new in names.items() if getattr(problem, old) is not None}
    return build(problem.operator, shape, Generator().manual_seed(seed), **given)


def posterior_samples(
    denoiser: PartialDenoiser,
    items: Sequence[Source],
    config: Config,
    advance: Advance = lambda n: None,
    keep: Keep = lambda draw, reused: draw,
) -> tuple[Tensor, Tensor]:
    """Observe items and draw sample.samples posterior samples of each.

    Args:
        denoiser: trained partial denoiser.
        items: the images.
        config: inverse_problem, sample and data blocks.
        advance: told how many sampler steps were done, a step of each image counting one.
        keep: wraps the drawing of a batch, to take up batches drawn before.

    Returns:
        input images (B, C, H, W), and samples (B, samples, C, H, W).
    """
    problem, settings, data = config.inverse_problem, config.sample, config.data
    assert problem is not None
    device, repeats = next(denoiser.parameters()).device, settings.samples

    def draw(numbers: range) -> tuple[Tensor, Tensor]:
        chosen = [items[n // repeats] for n in numbers]
        seen = observe(chosen, problem, data, seed=settings.seed, device=device)
        z = reconstruct(
            denoiser,
            seen.y,
            seen.operator,
            seen.transform,
            make_masks(data.mask, data.image_size),
            tuple(seen.operator.A_dagger(seen.y).shape[1:]),
            seeds=[settings.seed + n for n in numbers],
            steps=settings.steps,
            draws=settings.draws,
            eta=settings.eta,
            step_size=problem.step_size,
            noise_std=problem.trusted_noise(problem.noise_std),
            covering=settings.masks == "covering",
            score=settings.score,
            grid=settings.grid,
            warm_start=settings.warm_start,
            proximal_iterations=problem.proximal_iterations,
            callback=lambda *_: advance(len(numbers)),
        )
        return seen.input.cpu(), seen.transform.adjoint(z).cpu()

    def reused(numbers: range) -> None:
        advance(len(numbers) * settings.steps)

    total = len(items) * repeats
    inputs, samples = zip(*shared_out(total, settings.batch_size, keep(draw, reused)))
    return torch.cat(inputs)[::repeats], torch.cat(samples).unflatten(0, (len(items), repeats))


def prior_samples(
    denoiser: PartialDenoiser,
    data: DataConfig,
    settings: SampleConfig,
    maps: Tensor | None = None,
    advance: Advance = lambda n: None,
    keep: Keep = lambda draw, reused: draw,
) -> Tensor:
    """Generate sample.count images (B, C, H, W).

    Args:
        denoiser: trained partial denoiser.
        data: size, channels and masks that it was trained on.
        settings: the sampler.
        maps: MRI: coil maps (N, coils, H, W), used in turn.
        advance: as in `posterior_samples`.
        keep: as in `posterior_samples`.
    """
    device = next(denoiser.parameters()).device

    def draw(numbers: range) -> Tensor:
        transform: Transform = Identity()
        channels: int = data.channels
        if maps is not None:
            transform, channels = MultiCoil(maps[[n % len(maps) for n in numbers]].to(device)), maps.shape[1]
        z = generate(
            denoiser,
            transform,
            make_masks(data.mask, data.image_size),
            (channels, data.image_size, data.image_size),
            seeds=[settings.seed + n for n in numbers],
            steps=settings.steps,
            draws=settings.draws,
            eta=settings.eta,
            covering=settings.masks == "covering",
            score=settings.score,
            grid=settings.grid,
            order=settings.order,
            callback=lambda *_: advance(len(numbers)),
        )
        return transform.adjoint(z).cpu()

    def reused(numbers: range) -> None:
        advance(len(numbers) * settings.steps)

    return torch.cat(shared_out(settings.count, settings.batch_size, keep(draw, reused)))


def score(method: str, x_hat: Tensor, x: Tensor, names: Sequence[str]) -> list[dict[str, str]]:
    """PSNR, SSIM and NMSE of images (B, C, H, W): one row per image and convention."""
    rows = []
    conventions: tuple[Convention, ...] = ("plain", "published")
    for convention in conventions:
        scores = image_metrics(x_hat, x, convention=convention)
        for i, name in enumerate(names):
            values = {key: f"{values[i]:.4f}" for key, values in scores.items()}
            rows.append({"image": name, "method": method, "convention": convention, **values})
    return rows


def summary(rows: list[dict[str, str]]) -> list[dict[str, str]]:
    """Mean scores of each method, convention plain."""
    table = []
    for method in dict.fromkeys(row["method"] for row in rows):
        of_method = [row for row in rows if row["method"] == method and row["convention"] == "plain"]
        mean = {name: sum(float(row[name]) for row in of_method) / len(of_method) for name in ("psnr", "ssim", "nmse")}
        table.append({"method": method, **{name.upper(): f"{value:.4g}" for name, value in mean.items()}})
    return table
