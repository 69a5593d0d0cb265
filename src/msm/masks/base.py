"""p(S), the law of the random subsampling S, as families of 0/1 masks (SPEC §7).

A family turns uniform variates into masks, `draw(u)`, so that a whole batch of masks, each from its own random
stream, is built at once. Several masks for the same sample are either independent or *covering*: they are
windows that follow one another on a circle, so each alone has exactly the law p(S), and together they cover
every entry as evenly as their number allows.

For the chain-rule score (SPEC §12) a family gives ordered *covers* S_1 … S_K, which together hold every entry, and
their *separators* R_k = S_k ∩ (S_1 ∪ … ∪ S_{k−1}), `chain(u)`.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from math import ceil
from typing import Literal

import torch
from torch import Generator, Tensor

Size = int | tuple[int, int]


@dataclass(frozen=True)
class Chain:
    """Covers and separators of a batch of samples, and how often each counts: covers 1, separators less than 0.

    Attributes:
        masks: the masks of each sample (B, calls, 1, H, W), bool; each is one network call.
        weights: (calls,); Σ_c weights_c masks_c is 1 at every entry that a mask holds.
    """

    masks: Tensor
    weights: Tensor


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

    @abstractmethod
    def covers(self, u: Tensor) -> Tensor:
        """Ordered covers S_1 … S_K, masks or sub-masks of the family (B, K, 1, H, W), from variates (B, `variates`)."""

    def chain(self, u: Tensor) -> Chain:
        """Covers and their separators, 2K − 1 masks, from uniform variates u (B, `variates`)."""
        covers = self.covers(u)
        separators = covers[:, 1:] & (covers.cumsum(1) > 0)[:, :-1]
        weights = [1.0] * covers.shape[1] + [-1.0] * separators.shape[1]
        return Chain(torch.cat([covers, separators], 1), torch.tensor(weights, device=u.device))

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
        self.size = height_width(size)
        if grid < 1 or self.size[0] % grid or self.size[1] % grid:
            raise ValueError(f"a {grid}×{grid} grid of boxes does not divide {self.size[0]}×{self.size[1]} px")
        self.grid = grid
        self.boxes_kept = grid**2 - int(grid**2 * drop + 1e-9)
        if not 0 <= drop < 1 or not self.boxes_kept:
            raise ValueError(f"drop must be in [0, 1) and leave a box, got {drop}")
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

    def covers(self, u: Tensor) -> Tensor:
        """Ordered covers: S_1 is a mask of the family, each later one adds boxes and takes earlier ones for context.

        The boxes left out are shared out evenly, in random order, over the fewest covers that have at least a third
        of their boxes for context. All have the number of boxes of the family's masks. The context is those earlier
        boxes that touch the new ones most. At drop 0.4 of 16 boxes: two covers of 10, the second of 6 new boxes and
        4 of the first's, which are the separator.

        Args:
            u: variates in [0, 1), (B, `variates`).

        Returns:
            covers (B, K, 1, H, W), bool.
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
        self.acceleration, self.pattern, self.has_center = acceleration, pattern, center > 0
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

    def covers(self, u: Tensor) -> Tensor:
        """Ordered covers: the centre, and one of K = ⌈R⌉ parts of the other columns, in any order.

        "random": each column is in one of the parts at random. "uniform": in the K parts that the offsets give.

        Args:
            u: variates in [0, 1), (B, `variates`).

        Returns:
            covers (B, K, 1, H, W), bool.
        """
        height, width = self.size
        number = ceil(self.acceleration)
        part = (u * number).long() if self.pattern == "random" else torch.arange(width, device=u.device) % number
        columns = part.expand(len(u), width)[:, None] == torch.arange(number, device=u.device)[:, None]
        columns = columns | self.center.to(u.device)
        return columns[:, :, None, None, :].expand(-1, -1, 1, height, width)

    def chain(self, u: Tensor) -> Chain:
        """Covers and the one separator of all of them, the centre: K + 1 masks, from variates u (B, `variates`)."""
        covers = self.covers(u)
        number = covers.shape[1]
        if number == 1 or not self.has_center:
            return Chain(covers, torch.ones(number, device=u.device))
        center = self.center.to(u.device).expand_as(covers[:, :1])
        weights = torch.tensor([1.0] * number + [1.0 - number], device=u.device)
        columns = torch.cat([covers, center], 1)[..., :1, :]  # expanded, for `MultiCoil.normal` to see whole columns
        return Chain(columns.expand(-1, -1, -1, self.size[0], -1), weights)

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
        self._elsewhere: dict[torch.device, EmpiricalMasks] = {}
        self._greedy: dict[int, Tensor] = {}

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
        here = self._on(u.device)
        index = (u[..., 0] * len(self.masks)).long()
        if covering:
            order = here._greedy_orders(index.shape[1])[index[:, 0]]
            index = torch.where(order < 0, index, order)
        return here.masks[index]

    def _on(self, device: torch.device) -> "EmpiricalMasks":
        """The same family with its set, and what is tabulated of it, on a device."""
        if device == self.masks.device:
            return self
        if device not in self._elsewhere:
            self._elsewhere[device] = EmpiricalMasks(self.masks.to(device))
        return self._elsewhere[device]

    def _greedy_orders(self, draws: int) -> Tensor:
        """Each mask of the set, then those that cover most of what the ones before left open.

        Returns:
            their numbers (N, draws), -1 where none adds anything.
        """
        if draws not in self._greedy:
            flat = self.masks.flatten(1).float()
            orders, open_ = [torch.arange(len(flat), device=flat.device)], 1 - flat
            for _ in range(1, draws):
                most, best = (open_ @ flat.T).max(1)
                orders.append(torch.where(most > 0, best, -1))
                open_ *= 1 - flat[best]
            self._greedy[draws] = torch.stack(orders, 1)
        return self._greedy[draws]

    def covers(self, u: Tensor) -> Tensor:
        """Ordered covers: a mask of the set, then one after the other until none adds anything.

        Next is the mask that adds most of those that have a third of their entries for context, or else the one with
        the greatest share. What no mask of the set holds stays uncovered. K is that of the mask that needs most; the
        order of another ends with masks that add nothing, and cancel in the chain.

        Args:
            u: variates in [0, 1), (B, 1).

        Returns:
            covers (B, K, 1, H, W), bool.
        """
        here = self._on(u.device)
        return here.masks[here._orders[(u[:, 0] * len(self.masks)).long()]]

    @cached_property
    def _orders(self) -> Tensor:
        """Numbers (N, K) of the covers that begin with each mask of the set."""
        flat = self.masks.flatten(1).float()
        sizes, orders = flat.sum(1), torch.arange(len(flat), device=flat.device)[:, None]
        open_ = flat.amax(0) * (1 - flat)
        while open_.any():
            added = open_ @ flat.T
            merit = torch.where(3 * added <= 2 * sizes, added, -added / sizes)
            best = merit.masked_fill(added == 0, -2).argmax(1)
            orders = torch.cat([orders, best[:, None]], 1)
            open_ *= 1 - flat[best]
        return orders

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
        here = self._on(mask.device)
        u = torch.rand(len(mask), 1, *here._blocks, generator=generator, device=mask.device)
        return mask & ((u < keep[:, None, None, None]) | here._always)

    @cached_property
    def _always(self) -> Tensor:
        """What all masks of the set share, (1, H, W)."""
        return self.masks.all(0)

    @cached_property
    def _blocks(self) -> list[int]:
        """Height and width, 1 for the one along which every mask of the set is constant."""
        whole = [bool((self.masks == self.masks.select(axis, 0).unsqueeze(axis)).all()) for axis in (2, 3)]
        return [1 if constant else length for constant, length in zip(whole, self.size)]


def height_width(size: Size | Sequence[int]) -> tuple[int, int]:
    """Height and width of a size, which may be one number for both."""
    height, width = (size, size) if isinstance(size, int) else size
    if height < 1 or width < 1:
        raise ValueError(f"size must be positive, got {size}")
    return height, width
