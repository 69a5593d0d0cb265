"""Columns of k-space with a fully sampled centre (SPEC §7)."""

from math import ceil
from typing import Literal

import torch
from torch import Generator, Tensor

from .base import Chain, Masks, Size, height_width


class CartesianMasks(Masks):
    """Columns of k-space with a fully sampled centre (SPEC §7).

    "random": each column outside the centre with probability 1/R, independently.
    "uniform": one column in R, from a random offset on. The centre is always kept, so the true acceleration,
    1 / `kept`, is below the nominal R.

    Args:
        size: height and width of k-space; columns run along the width.
        acceleration: R ≥ 1, nominal; a whole number for "uniform".
        center: number of centre columns always kept.
        pattern: "random" or "uniform".

    Raises:
        ValueError: if an argument is out of range.
    """

    kind = "cartesian"

    def __init__(
        self,
        size: Size,
        acceleration: float = 4,
        center: int = 20,
        pattern: Literal["random", "uniform"] = "random",
    ):
        self.size = height_width(size)
        width = self.size[1]
        if pattern not in ("random", "uniform"):
            raise ValueError(f'pattern must be "random" or "uniform", got {pattern!r}')
        if acceleration < 1 or (pattern == "uniform" and acceleration != int(acceleration)):
            raise ValueError(f"acceleration must be ≥ 1 (a whole number if uniform), got {acceleration}")
        if not 0 <= center <= width:
            raise ValueError(f"center must be between 0 and the {width} columns there are, got {center}")
        self.acceleration, self.center, self.pattern = acceleration, center, pattern
        self.middle = torch.zeros(width, dtype=torch.bool)
        start = (width - center + 1) // 2
        self.middle[start : start + center] = True
        self.variates = width if pattern == "random" else 1

    @property
    def kept(self) -> float:
        """Expected fraction of columns kept, the centre included."""
        center = self.middle.float().mean().item()
        return center + (1 - center) / self.acceleration

    def draw(self, u: Tensor, covering: bool = False) -> Tensor:
        """Masks from uniform variates (B, draws, `variates`).

        Covering: a column is kept by draw k if its variate, moved on by k/R around the circle, falls below 1/R:
        ⌈R⌉ draws cover every column.
        """
        height, width = self.size
        r = self.acceleration
        if covering:
            u = u[:, :1].expand(-1, u.shape[1], -1).double()  # in float32 rounding may open a gap at a window's edge
            u = (u + torch.arange(u.shape[1], dtype=u.dtype, device=u.device)[:, None] / r) % 1
        if self.pattern == "random":
            columns = u < 1 / r
        else:
            columns = torch.arange(width, device=u.device) % int(r) == (u * r).long()
        columns = columns | self.middle.to(u.device)
        return columns[:, :, None, None, :].expand(-1, -1, 1, height, width)

    def covers(self, u: Tensor) -> Tensor:
        """Ordered covers: the centre, and one of K = ⌈R⌉ parts of the other columns, in any order.

        "random": each column is in one of the parts at random. "uniform": in the K parts that the offsets give.
        """
        height, width = self.size
        number = ceil(self.acceleration)
        part = (u * number).long() if self.pattern == "random" else torch.arange(width, device=u.device) % number
        columns = part.expand(len(u), width)[:, None] == torch.arange(number, device=u.device)[:, None]
        columns = columns | self.middle.to(u.device)
        return columns[:, :, None, None, :].expand(-1, -1, 1, height, width)

    def chain(self, u: Tensor) -> Chain:
        """Covers and the one separator of all of them, the centre: K + 1 masks, from variates u (B, `variates`)."""
        covers = self.covers(u)
        number = covers.shape[1]
        if number == 1 or not self.center:
            return Chain(covers, torch.ones(number, device=u.device))
        center = self.middle.to(u.device).expand_as(covers[:, :1])
        weights = torch.tensor([1.0] * number + [1.0 - number], device=u.device)
        columns = torch.cat([covers, center], 1)[..., :1, :]  # expanded, for `MultiCoil.normal` to see whole columns
        return Chain(columns.expand(-1, -1, -1, self.size[0], -1), weights)

    def submask(self, mask: Tensor, keep: Tensor, generator: Generator | None = None) -> Tensor:
        """Random sub-mask: the centre, and each other measured column with probability `keep`."""
        u = torch.rand(len(mask), self.size[1], generator=generator, device=mask.device)
        columns = (u < keep[:, None]) | self.middle.to(mask.device)
        return mask & columns[:, None, None, :]
