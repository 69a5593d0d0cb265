"""Whether generated images repeat training data: the nearest training *measurement* of each (no image is needed).

The model never saw images, so images are compared where it saw something: on the entries that a training
acquisition s_i measured, with mask M_i and transform T_i,

    d_i(x)² = min over phases φ of ‖M_i T_i x − e^{iφ} s_i‖² / ‖s_i‖²        (photos: φ = 0).

A repeated training image has d of about ρ √m / ‖s_i‖, the noise. How near two different images of the data come to
each other has to be measured too, with held-out images: `nearest` of these is the yardstick.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from ..data.store import MeasurementStore
from ..errors import DataError
from ..measurement import Measurement


@dataclass(frozen=True)
class Nearest:
    """The training measurement next to an image: name, number, its distance, and that of the second nearest, if any."""

    name: str
    index: int
    distance: float
    second: float | None = None


@torch.no_grad()
def nearest(
    images: Tensor, store: MeasurementStore, batch_size: int = 64, advance: Callable[[int], None] = lambda n: None
) -> list[Nearest]:
    """The training measurement nearest to each image.

    Args:
        images: (B, C, H, W), real or complex, of the store's kind and size.
        store: what the model was trained on.
        batch_size: acquisitions at a time; changes results by rounding only.
        advance: told how many acquisitions were compared.

    Returns:
        one for each image; `second` is None if the store holds one item.

    Raises:
        DataError: images of another kind or size.
    """
    if images.is_complex() != store.is_mri or images.shape[-2:] != store.shape[-2:]:
        kind = "MRI" if store.is_mri else "photos"
        raise DataError(
            f"{store.path}: holds {kind} of shape {store.shape}, the images are {images.dtype} {tuple(images.shape)}"
        )
    rows = []
    for first in range(0, len(store), batch_size):
        numbers = range(first, min(first + batch_size, len(store)))
        rows.append(distances(images, store.batch(numbers)))
        advance(len(numbers))
    values, indices = torch.cat(rows, 1).topk(min(2, len(store)), 1, largest=False)
    closest = indices[:, 0].tolist()
    return [Nearest(name, index, *near) for name, index, near in zip(store.names(closest), closest, values.tolist())]


def distances(images: Tensor, measurement: Measurement) -> Tensor:
    """d_i(x) of every image (B, C, H, W) and every acquisition of a batch of N: (B, N)."""
    squares = _squares_of_coils if measurement.values.is_complex() else _squares_of_pixels
    return squares(images.cpu(), measurement).clamp(min=0).sqrt()


def _squares_of_pixels(images: Tensor, measurement: Measurement) -> Tensor:
    """d_i(x)² (B, N) of photos by two matrix products; in double, as the terms cancel for a repeated image."""
    x, s = images.double(), measurement.values.double().flatten(1)
    energy = s.square().sum(1)
    measured = x.square().sum(1).flatten(1) @ measurement.mask.double().flatten(1).T
    return (measured - 2 * x.flatten(1) @ s.T + energy) / energy


def _squares_of_coils(images: Tensor, measurement: Measurement) -> Tensor:
    """d_i(x)² (B, N) of complex images, in the k-space of each acquisition."""
    s, mask, transform = measurement.values, measurement.mask, measurement.transform
    energy = s.abs().square().sum((1, 2, 3))
    rows = []
    for x in torch.split(images, 1):
        z = torch.where(mask, transform.forward(x.expand(len(s), -1, -1, -1)), 0)
        common = (z.conj() * s).sum((1, 2, 3)).abs()
        rows.append((z.abs().square().sum((1, 2, 3)) - 2 * common + energy) / energy)
    return torch.stack(rows)
