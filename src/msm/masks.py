"""p(S), the law of the random subsampling S, as families of 0/1 masks (SPEC §7).

A family turns uniform variates into masks, `draw(u)`, so that a whole batch of masks, each from its own random
stream, is built at once. Several masks for the same sample are either independent or *covering*: they are
windows that follow one another on a circle, so each alone has exactly the law p(S), and together they cover
every entry as evenly as their number allows.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Generator, Tensor

Size = int | tuple[int, int]


class Masks(ABC):
    """A mask family: the law p(S) of one acquisition's mask.

    Attributes:
        size: height and width of the masks.
        variates: how many uniform variates one mask is made of.
    """

    size: tuple[int, int]
    variates: int

    @property
    @abstractmethod
    def kept(self) -> float:
        """Expected fraction of entries kept."""

    @abstractmethod
    def draw(self, u: Tensor, covering: bool = False) -> Tensor:
        """Masks (B, draws, 1, H, W), bool, from uniform variates u (B, draws, `variates`)."""

    @abstractmethod
    def submask(self, mask: Tensor, keep: Tensor, generator: Generator | None = None) -> Tensor:
        """Random sub-masks (B, 1, H, W) of masks, keeping about a share `keep` (B,) of what can be left out."""

    def sample(self, batch: int, generator: Generator | None = None) -> Tensor:
        """Draw independent masks.

        Args:
            batch: number of masks.
            generator: source of randomness; its device is the masks' device.

        Returns:
            masks (batch, 1, H, W), bool.
        """
        device = generator.device if generator is not None else None
        return self.draw(torch.rand(batch, 1, self.variates, generator=generator, device=device))[:, 0]


class BoxMasks(Masks):
    """Boxes of a coarse grid are dropped, then the pattern is rolled by a random shift (SPEC §7).

    Args:
        size: image height and width, each a multiple of `grid`.
        drop: p, share of boxes dropped: exactly ⌊grid² p⌋ of them.
        grid: boxes along each axis.

    Raises:
        ValueError: if the grid does not divide the image, or nothing would be kept.
    """

    def __init__(self, size: Size, drop: float = 0.4, grid: int = 4):
        self.size = _height_width(size)
        if grid < 1 or self.size[0] % grid or self.size[1] % grid:
            raise ValueError(f"a {grid}×{grid} grid of boxes does not divide {self.size[0]}×{self.size[1]} px")
        if not 0 <= drop < 1:
            raise ValueError(f"drop must be in [0, 1), got {drop}")
        self.grid = grid
        self.boxes_kept = grid**2 - int(grid**2 * drop + 1e-9)
        self.variates = grid**2 + 2  # one per box, two for the shift

    @property
    def kept(self) -> float:
        """Fraction of pixels kept, the same for every mask."""
        return self.boxes_kept / self.grid**2

    def draw(self, u: Tensor, covering: bool = False) -> Tensor:
        """Masks from uniform variates.

        Args:
            u: variates in [0, 1), (B, draws, `variates`).
            covering: draw k holds boxes k·K … (k+1)·K − 1 of one random order, taken cyclically (K boxes a
                mask): the second draw holds all that the first left out.

        Returns:
            masks (B, draws, 1, H, W), bool.
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
        """Random sub-mask: of the kept boxes of each mask, a share is kept.

        Args:
            mask: masks of this family (B, 1, H, W), bool.
            keep: share of the kept boxes to keep (B,), rounded to whole boxes, at least one.
            generator: source of randomness.

        Returns:
            sub-masks (B, 1, H, W), bool.
        """
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


class CartesianMasks(Masks):
    """Columns of k-space with a fully sampled centre (SPEC §7).

    "random": every column outside the centre with probability 1/R, independently.
    "uniform": every R-th column from a random offset. The centre is always kept, so the true acceleration,
    1 / `kept`, is below the nominal R.

    Args:
        size: height and width of k-space; columns run along the width.
        acceleration: R ≥ 1, nominal; a whole number for "uniform".
        center: number of centre columns always kept.
        pattern: "random" or "uniform".

    Raises:
        ValueError: if an argument is out of range.
    """

    def __init__(
        self,
        size: Size,
        acceleration: float = 4,
        center: int = 20,
        pattern: Literal["random", "uniform"] = "random",
    ):
        self.size = _height_width(size)
        width = self.size[1]
        if pattern not in ("random", "uniform"):
            raise ValueError(f'pattern must be "random" or "uniform", got {pattern!r}')
        if acceleration < 1 or (pattern == "uniform" and acceleration != int(acceleration)):
            raise ValueError(f"acceleration must be ≥ 1 (a whole number if uniform), got {acceleration}")
        if not 0 <= center <= width:
            raise ValueError(f"center must be between 0 and the {width} columns there are, got {center}")
        self.acceleration, self.pattern = acceleration, pattern
        self.center = torch.zeros(width, dtype=torch.bool)
        start = (width - center + 1) // 2
        self.center[start : start + center] = True
        self.variates = width if pattern == "random" else 1

    @property
    def kept(self) -> float:
        """Expected fraction of columns kept, the centre included."""
        center = self.center.float().mean().item()
        return center + (1 - center) / self.acceleration

    def draw(self, u: Tensor, covering: bool = False) -> Tensor:
        """Masks from uniform variates.

        Args:
            u: variates in [0, 1), (B, draws, `variates`).
            covering: a column is kept by draw k if its variate, moved on by k/R around the circle, falls below
                1/R: ⌈R⌉ draws cover every column.

        Returns:
            masks (B, draws, 1, H, W), bool.
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
        columns = columns | self.center.to(u.device)
        return columns[:, :, None, None, :].expand(-1, -1, 1, height, width)

    def submask(self, mask: Tensor, keep: Tensor, generator: Generator | None = None) -> Tensor:
        """Random sub-mask: the centre, and each other measured column with probability `keep`.

        Args:
            mask: masks of this family (B, 1, H, W), bool.
            keep: probability of keeping a column outside the centre (B,).
            generator: source of randomness.

        Returns:
            sub-masks (B, 1, H, W), bool.
        """
        u = torch.rand(len(mask), self.size[1], generator=generator, device=mask.device)
        columns = (u < keep[:, None]) | self.center.to(mask.device)
        return mask & columns[:, None, None, :]


class EmpiricalMasks(Masks):
    """Masks taken from files: one of a given set, each equally likely.

    Args:
        masks: the set (N, 1, H, W), bool.

    Raises:
        ValueError: if the set is empty, of another type or shape, or a mask keeps nothing.
    """

    variates = 1

    def __init__(self, masks: Tensor):
        if masks.ndim != 4 or masks.shape[1] != 1 or masks.dtype != torch.bool or not len(masks):
            raise ValueError(f"masks must be bool (N, 1, H, W), got {masks.dtype} {tuple(masks.shape)}")
        if not masks.flatten(1).any(1).all():
            raise ValueError("a mask keeps nothing")
        self.masks = masks
        self.size = (masks.shape[2], masks.shape[3])

    @property
    def kept(self) -> float:
        """Mean fraction of entries kept over the set."""
        return self.masks.float().mean().item()

    def draw(self, u: Tensor, covering: bool = False) -> Tensor:
        """Masks from uniform variates.

        Args:
            u: variates in [0, 1), (B, draws, 1).
            covering: draws after the first take the mask that adds most to what is covered, so together they
                cover all that the set can; only the first has the law p(S).

        Returns:
            masks (B, draws, 1, H, W), bool.
        """
        masks = self.masks.to(u.device)
        index = (u[..., 0] * len(masks)).long()
        if covering:
            index = self._greedy(masks.flatten(1).float(), index)
        return masks[index]

    @staticmethod
    def _greedy(flat: Tensor, index: Tensor) -> Tensor:
        """Indices (B, draws) of masks that each cover most of what the ones before left open."""
        index = index.clone()
        open_ = 1 - flat[index[:, 0]]
        for k in range(1, index.shape[1]):
            gain = open_ @ flat.T
            best = gain.argmax(1)
            index[:, k] = torch.where(gain.max(1).values > 0, best, index[:, k])
            open_ = open_ * (1 - flat[index[:, k]])
        return index

    def submask(self, mask: Tensor, keep: Tensor, generator: Generator | None = None) -> Tensor:
        """Random sub-mask: what all masks of the set share, and each other entry with probability `keep`.

        Masks that are made of whole columns or rows lose whole columns or rows.

        Args:
            mask: masks of this family (B, 1, H, W), bool.
            keep: probability of keeping (B,).
            generator: source of randomness.

        Returns:
            sub-masks (B, 1, H, W), bool.
        """
        always = self.masks.all(0).to(mask.device)
        whole = [bool((self.masks == self.masks.select(axis, 0).unsqueeze(axis)).all()) for axis in (2, 3)]
        shape = [1 if constant else length for constant, length in zip(whole, self.size)]
        u = torch.rand(len(mask), 1, *shape, generator=generator, device=mask.device)
        return mask & ((u < keep[:, None, None, None]) | always)


def _height_width(size: Size | Sequence[int]) -> tuple[int, int]:
    height, width = (size, size) if isinstance(size, int) else size
    if height < 1 or width < 1:
        raise ValueError(f"size must be positive, got {size}")
    return height, width
