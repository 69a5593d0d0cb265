"""Test images as an inverse problem sees them (SPEC §6)."""

from collections.abc import Sequence

import torch
from torch import Tensor

from ..config.build import make_masks, make_operator
from ..config.measured import AnyProblem, DataConfig, MissingProblem, UndersamplingProblem
from ..data.acquire import Source, item_generator
from ..measurement import Measurement, standard_normal
from ..operators import Problem, Undersampling
from ..transforms import MultiCoil


def coil_maps(items: Sequence[Source]) -> Tensor:
    """Coil maps (B, coils, H, W) of MRI items."""
    return torch.stack([item.maps for item in items if item.maps is not None])


def observe(
    items: Sequence[Source], problem: AnyProblem, data: DataConfig, *, seed: int = 0, device: torch.device | None = None
) -> Problem:
    """Simulate what an inverse problem is given. An item's mask and noise follow from its name and the seed.

    Args:
        items: the images; one that comes several times is observed in the same way each time.
        problem: H and the noise.
        data: size and channels of the images.
        seed: seed of masks and noise.
        device: where the observation goes.

    Returns:
        the problem of len(items) images.
    """
    assert not isinstance(problem, MissingProblem)  # masked photos are not observed, they bring what was measured
    streams = [item_generator(item.name + ":test", seed) for item in items]
    images = torch.stack([item.image for item in items])
    if isinstance(problem, UndersamplingProblem):
        assert problem.mask is not None  # raw files, which bring their own, are not observed
        maps, law = coil_maps(items), make_masks(problem.mask, data.image_size, "inverse_problem.mask")
        operator = Undersampling(torch.cat([law.sample(1, stream) for stream in streams]))
        y = operator.A(MultiCoil(maps).forward(images))
        y = operator.A(y + problem.noise_std * _noise(y, streams))  # no noise where nothing is measured
        return Problem(y.to(device), operator.to(device), MultiCoil(maps.to(device)), problem.noise_std)
    shape = (data.channels, data.image_size, data.image_size)
    given = make_operator(problem, shape, streams)
    y = given.A(images)
    y = y + problem.noise_std * _noise(y, streams)
    return Problem(y.to(device), given.to(device), noise_std=problem.noise_std)


def completion(measurement: Measurement, copies: int = 1) -> Problem:
    """The problem of an image given what was measured of it: H is the measurement's own mask.

    Args:
        measurement: a batch of one.
        copies: items of the problem, for as many samples.
    """
    noise_std = measurement.noise_std
    y, mask = (part.expand(copies, -1, -1, -1) for part in (measurement.values, measurement.mask))
    return Problem(y, Undersampling(mask), measurement.transform, float(noise_std))


def _noise(y: Tensor, streams: Sequence[torch.Generator]) -> Tensor:
    """White noise like y (B, …), each item's from its own stream."""
    return torch.stack([standard_normal(item, stream) for item, stream in zip(y, streams)])
