"""Samplers on data: posterior samples of observed test images, and new images (SPEC §5, §6)."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from ..config.build import make_data_step, make_sampler
from ..config.load import Config
from ..config.measured import DataConfig
from ..config.sampled import SampleConfig
from ..data.acquire import Source
from ..data_step import DataStep, Proximal
from ..denoiser import Denoiser, PartialDenoiser
from ..errors import DataError
from ..measurement import Measurement
from ..operators import Problem, Undersampling
from ..sampling import Callback, Sampler, generate, reconstruct
from ..system.console import warn
from ..system.processes import shared_out
from ..transforms import Identity, MultiCoil, Transform
from .observe import completion, observe

FARTHEST = 10  # that values of an image may be from zero, where 1 is the range
NOT_TRAINED = (
    "the weights are damaged, or not trained enough, or do not go with the settings (data.noise_std, diffusion, "
    "sample.data_step)"
)
Work = Callable[[range], Any]  # on the numbers of a batch
Keep = Callable[[Work, Callable[[range], None]], Work]  # `Parts.keep`


def posterior_samples(
    denoiser: PartialDenoiser,
    items: Sequence[Source],
    config: Config,
    advance: Callable[[int], None] = lambda n: None,
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
    problem, data = config.inverse_problem, config.data
    assert problem is not None

    def pose(numbers: list[int]) -> Problem:
        return observe(
            [items[n] for n in numbers], problem, data, seed=config.sample.seed, device=denoiser.schedule.device
        )

    return _drawn(denoiser, len(items), pose, config.sample, advance, keep)


def filled_samples(
    denoiser: PartialDenoiser,
    photos: Measurement,
    settings: SampleConfig,
    advance: Callable[[int], None] = lambda n: None,
    keep: Keep = lambda draw, reused: draw,
) -> tuple[Tensor, Tensor]:
    """Draw sample.samples posterior samples of photos that miss pixels: the operator is each photo's own mask.

    Args:
        denoiser: trained partial denoiser.
        photos: what there is of B photos.
        settings: the sampler.
        advance: as in `posterior_samples`.
        keep: as in `posterior_samples`.

    Returns:
        input images (B, C, H, W), zero where pixels are missing, and samples (B, samples, C, H, W).
    """
    noise_std = torch.as_tensor(photos.noise_std).expand(len(photos))[:, None, None, None]

    def pose(numbers: list[int]) -> Problem:
        y, mask, rho = (part[numbers].to(denoiser.schedule.device) for part in (photos.values, photos.mask, noise_std))
        return Problem(y, Undersampling(mask), noise_std=rho)

    return _drawn(denoiser, len(photos), pose, settings, advance, keep)


def _drawn(
    denoiser: PartialDenoiser,
    count: int,
    pose: Callable[[list[int]], Problem],
    settings: SampleConfig,
    advance: Callable[[int], None],
    keep: Keep,
) -> tuple[Tensor, Tensor]:
    """Inputs and samples of `count` items, from the problem of those with certain numbers, which may repeat."""
    repeats, sampler, data_step = settings.samples, make_sampler(settings), make_data_step(settings.data_step)
    look = looking()

    def draw(batch: range) -> tuple[Tensor, Tensor]:
        seen = pose([n // repeats for n in batch])
        seeds = [settings.seed + n for n in batch]
        z = reconstruct(
            denoiser, seen, seeds=seeds, sampler=sampler, data_step=data_step, callback=lambda *_: advance(len(batch))
        )
        return seen.input.cpu(), look(seen.transform.adjoint(z).cpu())

    drawn = keep(draw, lambda batch: advance(len(batch) * settings.steps))
    inputs, samples = zip(*shared_out(count * repeats, settings.batch_size, drawn))
    return torch.cat(inputs)[::repeats], torch.cat(samples).unflatten(0, (count, repeats))


def looking() -> Callable[[Tensor], Tensor]:
    """Look through the images of a run, batch by batch on the CPU and not in every step, before they are kept.

    Returns:
        a function that gives the images of a batch as they are; it warns, once, of values that no trained network
        gives, and raises a DataError if some are not finite.
    """
    told = False

    def look(images: Tensor) -> Tensor:
        nonlocal told
        largest = images.abs().max().item()  # NaN if one is
        if not math.isfinite(largest):
            raise DataError(f"sampling gave values that are not finite; {NOT_TRAINED}")
        if largest > FARTHEST and not told:
            text = f"sampling gave values of up to {largest:.3g}, where 1 is the range; {NOT_TRAINED}"
            warn(text, by_every_process=True)
            told = True
        return images

    return look


def samples_of(
    denoiser: Denoiser,
    measurement: Measurement,
    *,
    seeds: Sequence[int],
    sampler: Sampler = Sampler(),
    data_step: DataStep = Proximal(),
    batch_size: int = 8,
    advance: Callable[[int], None] = lambda n: None,
    keep: Keep = lambda draw, reused: draw,
) -> Tensor:
    """Posterior samples of one image, given what was measured of it (SPEC §6).

    Args:
        denoiser: partial denoiser with its mask law.
        measurement: what was measured, a batch of one; its own mask is the operator.
        seeds: one integer for each sample.
        sampler: as in `msm.reconstruct`.
        data_step: as in `msm.reconstruct`.
        batch_size: samples at a time; changes no result. Of several processes each does some of the batches.
        advance: as in `posterior_samples`.
        keep: as in `posterior_samples`.

    Returns:
        (len(seeds), C, H, W), on the CPU.

    Raises:
        DataError: values are not finite.
    """
    given, look = measurement.to(denoiser.schedule.device), looking()

    def draw(numbers: range) -> Tensor:
        repeated = completion(given, len(numbers))
        chosen = [seeds[n] for n in numbers]
        told: Callback = lambda *_: advance(len(numbers))  # noqa: E731
        z = reconstruct(denoiser, repeated, seeds=chosen, sampler=sampler, data_step=data_step, callback=told)
        return look(given.transform.adjoint(z).cpu())

    drawn = keep(draw, lambda numbers: advance(len(numbers) * sampler.steps))
    return torch.cat(shared_out(len(seeds), batch_size, drawn))


def prior_samples(
    denoiser: PartialDenoiser,
    data: DataConfig,
    settings: SampleConfig,
    maps: Tensor | None = None,
    advance: Callable[[int], None] = lambda n: None,
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
    device, sampler, look = denoiser.schedule.device, make_sampler(settings), looking()
    shape = (data.channels if maps is None else maps.shape[1], data.image_size, data.image_size)

    def draw(batch: range) -> Tensor:
        transform: Transform = Identity()
        if maps is not None:
            transform = MultiCoil(maps[[n % len(maps) for n in batch]].to(device))
        seeds = [settings.seed + n for n in batch]
        z = generate(
            denoiser, shape, seeds=seeds, transform=transform, sampler=sampler, callback=lambda *_: advance(len(batch))
        )
        return look(transform.adjoint(z).cpu())

    drawn = keep(draw, lambda batch: advance(len(batch) * settings.steps))
    return torch.cat(shared_out(settings.count, settings.batch_size, drawn))
