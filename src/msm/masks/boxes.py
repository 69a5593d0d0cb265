"""Boxes of a coarse grid are dropped (SPEC §7)."""

from itertools import pairwise
from math import ceil

import torch
from torch import Generator, Tensor

from .base import Masks, Size, height_width


class BoxMasks(Masks):
    """Boxes of a coarse grid are dropped, then the pattern is rolled by a random shift (SPEC §7).

    Args:
        size: image height and width, each a multiple of `grid`.
        drop: p, share of boxes dropped: exactly ⌊grid² p⌋ of them.
        grid: boxes along each axis.

    Raises:
        ValueError: if the grid does not divide the image, or nothing would be kept.
    """

    kind = "box"

    def __init__(self, size: Size, drop: float = 0.4, grid: int = 4):
        self.size = height_width(size)
        if grid < 1 or self.size[0] % grid or self.size[1] % grid:
            raise ValueError(f"a {grid}×{grid} grid of boxes does not divide {self.size[0]}×{self.size[1]} px")
        self.grid, self.drop = grid, drop
        self.boxes_kept = grid**2 - int(grid**2 * drop + 1e-9)
        if not 0 <= drop < 1 or not self.boxes_kept:
            raise ValueError(f"drop must be in [0, 1) and leave a box, got {drop}")
        self.variates = grid**2 + 2  # one per box, two for the shift

    @property
    def kept(self) -> float:
        """Fraction of pixels kept, the same for every mask."""
        return self.boxes_kept / self.grid**2

    def draw(self, u: Tensor, covering: bool = False) -> Tensor:
        """Masks from uniform variates (B, draws, `variates`).

        Covering: draw k holds boxes k·K … (k+1)·K − 1 of one random order, taken cyclically (K boxes a mask):
        the second draw holds all that the first left out.
        """
        batch, draws, _ = u.shape
        boxes = self.grid**2
        if covering:
            u = u[:, :1].expand(batch, draws, -1)
        rank = u[..., :boxes].argsort(-1).argsort(-1)
        if covering:
            rank = (rank - torch.arange(draws, device=u.device)[:, None] * self.boxes_kept) % boxes
        kept = (rank < self.boxes_kept).unflatten(-1, (self.grid, self.grid))
        return self._paint(kept.flatten(0, 1), u[..., boxes:].flatten(0, 1)).unflatten(0, (batch, draws))

    def covers(self, u: Tensor) -> Tensor:
        """Ordered covers: S_1 is a mask of the family, each later one adds boxes and takes earlier ones for context.

        The boxes left out are shared out evenly, in random order, over the fewest covers that have at least a third
        of their boxes for context. All have the number of boxes of the family's masks. The context is those earlier
        boxes that touch the new ones most. At drop 0.4 of 16 boxes: two covers of 10, the second of 6 new boxes and
        4 of the first's, which are the separator.
        """
        kept, boxes = self.boxes_kept, self.grid**2
        rank, shift = u[:, :boxes].argsort(1).argsort(1), u[:, boxes:]
        later = ceil((boxes - kept) / max(1, 2 * kept // 3))
        ends = [kept, *(kept + (boxes - kept) * (k + 1) // later for k in range(later))]
        covers = [rank < kept]
        for start, end in pairwise(ends):
            known, new = rank < start, (start <= rank) & (rank < end)
            wanted = self._contacts(new, shift) - rank / boxes  # ties in random order
            order = wanted.masked_fill(~known, -torch.inf).argsort(1, descending=True).argsort(1)
            covers.append(new | (order < kept - (end - start)))
        pattern = torch.stack(covers, 1).flatten(0, 1).unflatten(1, (self.grid, self.grid))
        return self._paint(pattern, shift.repeat_interleave(len(covers), 0)).unflatten(0, (len(u), len(covers)))

    def _contacts(self, boxes: Tensor, shift: Tensor) -> Tensor:
        """For each box, how many of its sides touch one of `boxes` (B, grid²) in the image rolled by `shift` (B, 2).

        Rolling brings the first and the last row (or column) of boxes together, unless the shift is no pixel.
        """
        pattern = boxes.unflatten(1, (self.grid, self.grid))
        contacts = torch.zeros(pattern.shape, device=boxes.device)
        for axis, length in enumerate(self.size, start=1):
            rolled = (shift[:, axis - 1] * (length // self.grid)).long() > 0
            for step, first in ((1, 0), (-1, -1)):
                neighbour = pattern.roll(step, axis)
                neighbour.select(axis, first).logical_and_(rolled[:, None])
                contacts += neighbour
        return contacts.flatten(1)

    def _paint(self, kept: Tensor, shift: Tensor) -> Tensor:
        """Masks (N, 1, H, W) from boxes (N, grid, grid) and shifts (N, 2) in units of a box."""
        height, width = self.size
        n = torch.arange(len(kept), device=kept.device)[:, None, None]
        rows = self._box_of_pixel(height, (shift[:, 0] * (height // self.grid)).long())
        columns = self._box_of_pixel(width, (shift[:, 1] * (width // self.grid)).long())
        return kept[n, rows[:, :, None], columns[:, None, :]][:, None]

    def _box_of_pixel(self, length: int, shift: Tensor) -> Tensor:
        """Index (N, length) of the box that each pixel falls in after rolling by `shift` (N,) pixels."""
        pixels = torch.arange(length, device=shift.device)
        return ((pixels - shift[:, None]) % length) // (length // self.grid)

    def submask(self, mask: Tensor, keep: Tensor, generator: Generator | None = None) -> Tensor:
        """Random sub-mask: of the kept boxes of each mask a share is kept, rounded to whole boxes, at least one."""
        shift = torch.stack([self._shift(mask[:, 0], axis) for axis in (1, 2)], 1)
        height, width = self.size
        rows = torch.arange(self.grid, device=mask.device) * (height // self.grid)
        columns = torch.arange(self.grid, device=mask.device) * (width // self.grid)
        n = torch.arange(len(mask), device=mask.device)[:, None, None]
        corner = (rows + shift[:, :1]) % height, (columns + shift[:, 1:]) % width
        boxes = mask[n, 0, corner[0][:, :, None], corner[1][:, None, :]].flatten(1)
        u = torch.rand(boxes.shape, generator=generator, device=mask.device)
        order = u.masked_fill(~boxes, 2.0).argsort(1).argsort(1)
        number = (keep * boxes.sum(1)).round().clamp(min=1)
        chosen = (order < number[:, None]) & boxes
        sizes = torch.tensor([height // self.grid, width // self.grid], device=mask.device)
        return self._paint(chosen.unflatten(1, (self.grid, self.grid)), (shift + 0.5) / sizes)

    def _shift(self, mask: Tensor, axis: int) -> Tensor:
        """Shift (B,) in pixels along an axis of masks (B, H, W), read off where boxes begin and end."""
        edges = (mask != mask.roll(1, axis)).any(3 - axis)
        return edges.unflatten(1, (self.grid, -1)).any(1).int().argmax(1)
