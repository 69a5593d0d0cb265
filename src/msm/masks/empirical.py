"""Masks taken from files (SPEC §7)."""

from functools import cached_property

import torch
from torch import Generator, Tensor

from .base import Masks, Size, height_width


class EmpiricalMasks(Masks):
    """Masks taken from files: one of a given set, each equally likely.

    Args:
        masks: the set (N, 1, H, W), bool.

    Raises:
        ValueError: if the set is empty, of another type or shape, or a mask keeps nothing.
    """

    kind = "empirical"
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

    def resized(self, size: Size) -> "EmpiricalMasks":
        """The same set, which is of one size.

        Raises:
            ValueError: if another one is asked for.
        """
        if height_width(size) != self.size:
            raise ValueError(f"measured masks are of {self.size[0]}×{self.size[1]}, {size} is asked for")
        return self

    @property
    def kept(self) -> float:
        """Mean fraction of entries kept over the set."""
        return self.masks.float().mean().item()

    def draw(self, u: Tensor, covering: bool = False) -> Tensor:
        """Masks from uniform variates (B, draws, `variates`).

        Covering: draws after the first take the mask that adds most to what is covered, so together they cover
        all that the set can; only the first has the law p(S).
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
