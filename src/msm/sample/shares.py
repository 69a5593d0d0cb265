"""Measured entries that are held out: what a model and classical methods have to predict where there is no truth.

What is held out is what a mask could have left out, so that predicting it is the task that the image itself was:

    k-space of whole lines     whole lines: a point of a measured line would follow from its neighbours
    other k-space              points
    photos                     patches of the mask's own holes, laid over what was measured: a single pixel would
                               follow from its neighbours

The middle of k-space, from which the coil maps come, stays with everyone. A tenth of the rest is judged; another tenth
chooses the settings of the classical methods, and is theirs once these are chosen.
"""

from dataclasses import dataclass

import torch
from torch import Generator, Tensor

from ..errors import DataError
from ..measurement import Measurement

STEP = 10  # one entry or line in so many is judged
FEWEST = 3  # lines that are judged at least: of one in ten of few, chance would decide
PATCHES = 200  # at most: of a few dead pixels a tenth of the photo cannot be hidden


@dataclass(frozen=True)
class Shares:
    """What was measured of one image, shared out.

    Args:
        measurement: all that was measured, a batch of one.
        judged: the entries that are predicted (1, 1, H, W), bool.
        tuning: those that settings are chosen on.
        unit: what is held out as a whole: lines, points or pixels.
    """

    measurement: Measurement
    judged: Tensor
    tuning: Tensor
    unit: str

    @property
    def seen(self) -> Measurement:
        """What every method is given: all but the judged entries."""
        return self.measurement.restrict(~self.judged)

    @property
    def less(self) -> Measurement:
        """What settings are chosen by: all but the judged entries and those of the choice."""
        return self.measurement.restrict(~self.judged & ~self.tuning)


def of_k_space(measurement: Measurement, middle: tuple[slice, slice], name: str) -> Shares:
    """Share out the k-space of a slice, every tenth line or point in order.

    Args:
        measurement: all that was measured, a batch of one.
        middle: rows and columns in the middle that every method keeps.
        name: of the slice, for the error.

    Raises:
        DataError: if too little was measured outside of the middle.
    """
    mask = measurement.mask[0, 0]
    outside = torch.ones_like(mask)
    outside[middle] = False
    if torch.equal(mask, mask.any(0).expand_as(mask)):
        lines, unit = torch.arange(mask.shape[1]).expand_as(mask), "lines"
        outside = outside.all(0).expand_as(mask)
    elif torch.equal(mask, mask.any(1, keepdim=True).expand_as(mask)):
        lines, unit = torch.arange(mask.shape[0])[:, None].expand_as(mask), "lines"
        outside = outside.all(1, keepdim=True).expand_as(mask)
    else:
        lines, unit = torch.arange(mask.numel()).view_as(mask), "points"
    found = lines[mask & outside].unique()
    step = min(STEP, len(found) // FEWEST)
    if step < 2:
        reason = f"{len(found)} measured {unit} outside of the middle of k-space are too few to hold some out"
        raise DataError(f"{name}: {reason}; leave this slice out")
    judged, tuning = (mask & torch.isin(lines, found[first::step]) for first in (0, step // 2))
    return Shares(measurement, judged[None, None], tuning[None, None], unit)


def of_photo(measurement: Measurement, generator: Generator, name: str) -> Shares:
    """Share out the pixels of a photo, patches of its own holes at a time.

    Args:
        measurement: all that was measured, a batch of one.
        generator: of the places.
        name: of the photo, for the error.

    Raises:
        DataError: if nothing, or nearly everything is missing.
    """
    mask = measurement.mask[0, 0]
    wanted = int(mask.sum()) // STEP
    if mask.all() or wanted == 0:
        what = "no pixel is missing" if mask.all() else f"{int(mask.sum())} measured pixels are too few"
        raise DataError(f"{name}: {what}, so there is nothing to hold out; leave this photo out")
    judged = _patches(mask, ~mask, wanted, generator)
    tuning = _patches(mask & ~judged, ~mask, wanted, generator)
    return Shares(measurement, judged[None, None], tuning[None, None], "pixels")


def _patches(free: Tensor, holes: Tensor, wanted: int, generator: Generator) -> Tensor:
    """About so many of the free pixels, or what `PATCHES` hide, of patches of the holes laid anywhere (H, W)."""
    held, patch, size = torch.zeros_like(free), torch.zeros_like(holes), holes.shape
    side = min(1.0, (wanted / (4 * int(holes.sum()))) ** 0.5)  # so that a patch hides a quarter of them
    patch[: max(1, round(side * size[0])), : max(1, round(side * size[1]))] = True
    for _ in range(PATCHES):
        if int(held.sum()) >= wanted:
            break
        place, shift = (tuple(int(torch.randint(n, (), generator=generator)) for n in size) for _ in range(2))
        held |= (holes.roll(place, (0, 1)) & patch).roll(shift, (0, 1)) & free
    return held
