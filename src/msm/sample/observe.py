"""Test images as an inverse problem sees them (SPEC §6)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..config.build import _photo_operator, make_masks
from ..config.schema import (
    DataConfig,
    InverseProblemConfig,
)
from ..data.acquire import Source, item_generator
from ..losses import standard_normal
from ..operators import LinearOperator, Undersampling
from ..transforms import Identity, MultiCoil, Transform


@dataclass(frozen=True)
class Observation:
    """y = H z + e of B images, with H and T."""

    y: Tensor
    operator: LinearOperator
    transform: Transform
    noise_std: float

    @property
    def input(self) -> Tensor:
        """What the observation shows by itself, Tᴴ H⁺ y: (B, C, H, W)."""
        return self.transform.adjoint(self.operator.A_dagger(self.y))


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
        operator: LinearOperator = Undersampling(mask).to(device)
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
