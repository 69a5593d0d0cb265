"""What a training step is made of: acquisitions, sub-masks, times and white noise (SPEC §3).

All randomness of an item follows from (seed, its place in the run): no step depends on the ones before it, on who
computes it, or on how often the run was stopped.
"""

from collections.abc import Iterator
from functools import lru_cache
from math import ceil

import torch
from torch import Generator, Tensor
from torch.utils.data import Dataset

from ..config.trained import TrainConfig
from ..data.acquire import item_generator
from ..data.store import Acquisitions
from ..masks import Masks
from ..measurement import Measurement, standard_normal

Batch = tuple[Tensor, Measurement, dict[str, Tensor]]
VALIDATIONS = 64  # evaluations of held-out measurements at a checkpoint


class TrainingItems(Dataset[Batch]):
    """Batches as the optimiser takes them: times, acquisitions, and by name what else the loss takes.

    Times are stratified over a batch: each item's time is uniform on the grid, and together they spread over it.
    A share of items is restricted to a random sub-mask; flips are of the whole acquisition, so no entry is used
    that was not measured.

    Args:
        data: the acquisitions.
        masks: p(S), for sub-masks.
        grid: training times (steps,).
        settings: `train` block of the config.
        count: how many of the acquisitions to train on, the first ones.
    """

    def __init__(self, data: Acquisitions, masks: Masks, grid: Tensor, settings: TrainConfig, count: int):
        self.data, self.masks, self.grid, self.settings, self.count = data, masks, grid, settings, count

    def __getitem__(self, place: tuple[int, range]) -> Batch:
        """Some rows of the batch of a step; by name "noise" and, for data with noise, "probe" and "sure_weight"."""
        step, rows = place
        size, seed = self.settings.batch_size, self.settings.seed
        places = [step * size + row for row in rows]
        epochs, positions = zip(*(divmod(n, self.count) for n in places))
        indices = [int(_order(epoch, self.count, seed)[n]) for epoch, n in zip(epochs, positions)]
        streams = [item_generator(f"noise:{n}", seed) for n in places]
        measurement = self._submask(self.data.batch(indices, epochs), streams)
        if self.settings.augment:
            turn = torch.stack([torch.rand(2, generator=g) for g in streams]) < 0.5
            turn[:, 0] &= measurement.maps is not None  # photos have an up and a down
            measurement = flip(measurement, turn)
        names = ("noise", "probe") if self.data.largest_noise_std > 0 else ("noise",)
        noises = {
            name: torch.stack([standard_normal(v, g) for v, g in zip(measurement.values, streams)]) for name in names
        }
        if "probe" in noises:
            noises["sure_weight"] = self._sure_weights()[list(rows)]
        return self._times(step)[list(rows)], measurement, noises

    def _times(self, step: int) -> Tensor:
        size, generator = self.settings.batch_size, item_generator(f"times:{step}", self.settings.seed)
        u = (torch.rand((), generator=generator) + torch.randperm(size, generator=generator) / size) % 1
        return self.grid[(u * len(self.grid)).long().clamp(max=len(self.grid) - 1)]

    def _sure_weights(self) -> Tensor:
        """Weight of SURE by place in a batch: 0 but at `sure_share` of them, spread evenly, which make up for it."""
        size = self.settings.batch_size
        count = ceil(self.settings.sure_share * size)  # by place: the same in however many parts a batch is computed
        return (torch.arange(size) * count % size < count) * (self.settings.sure_weight * (size / count))

    def _submask(self, measurement: Measurement, streams: list[Generator]) -> Measurement:
        share, (low, high) = self.settings.submask_share, self.settings.submask_keep
        if share == 0:
            return measurement
        masks = []
        for mask, stream in zip(measurement.mask.split(1), streams):
            chosen, place = torch.rand(2, generator=stream).unbind()
            keep = low + (high - low) * place
            masks.append(self.masks.submask(mask, keep[None], stream) if chosen < share else mask)
        return measurement.restrict(torch.cat(masks))


def validation_count(settings: TrainConfig, total: int) -> int:
    """How many of the acquisitions, the last ones, are not trained on."""
    return ceil(settings.validation_share * total)


def held_out(data: Acquisitions, count: int, grid: Tensor, settings: TrainConfig) -> Iterator[Batch]:
    """Batches to judge a network by: the same ones every time, so that their loss differs by the network alone.

    The last acquisitions, whole, at times spread evenly over the grid, `VALIDATIONS` in all: each acquisition at
    several times if there are fewer. Their noise has streams of its own, so that training draws none of it.

    Args:
        data: the acquisitions, of which the last `count` are not trained on.
        count: how many of them.
        grid: training times (steps,).
        settings: `train` block of the config.
    """
    size = max(1, settings.batch_size // settings.accumulate)
    for start in range(0, VALIDATIONS, size):
        numbers = range(start, min(start + size, VALIDATIONS))
        places = [n * count // VALIDATIONS if count > VALIDATIONS else n % count for n in numbers]
        measurement = data.batch([len(data) - count + place for place in places], [0] * len(places))
        streams = [item_generator(f"validation:{n}", settings.seed) for n in numbers]
        names = ("noise", "probe") if data.largest_noise_std > 0 else ("noise",)
        noises = {
            name: torch.stack([standard_normal(v, g) for v, g in zip(measurement.values, streams)]) for name in names
        }
        if "probe" in noises:
            noises["sure_weight"] = torch.full((len(numbers),), settings.sure_weight)
        yield grid[[int((n + 0.5) * len(grid) / VALIDATIONS) for n in numbers]], measurement, noises


@lru_cache(maxsize=2)  # a batch may lie in two epochs
def _order(epoch: int, count: int, seed: int) -> Tensor:
    """Every epoch is a permutation of its own."""
    return torch.randperm(count, generator=item_generator(f"order:{epoch}", seed))


def flip(measurement: Measurement, turn: Tensor) -> Measurement:
    """Mirror whole acquisitions: of k-space, mask and maps together, or of pixels and mask.

    A mirrored image has mirrored k-space; for an even number of samples the centre stays in place if the
    mirrored axis is moved on by one.

    Args:
        measurement: B acquisitions.
        turn: whether to mirror (vertically, horizontally), (B, 2), bool.
    """
    fields, is_mri = [measurement.values, measurement.mask], measurement.maps is not None
    if measurement.maps is not None:
        fields.append(measurement.maps.expand(len(turn), -1, -1, -1))
    for axis in (2, 3):
        here = turn[:, axis - 2, None, None, None]
        move = 1 if is_mri and fields[0].shape[axis] % 2 == 0 else 0
        fields = [torch.where(here, field.flip(axis).roll(move, axis), field) for field in fields]
    values, mask, *maps = fields
    return Measurement(values, mask, maps[0] if maps else None, measurement.noise_std)
