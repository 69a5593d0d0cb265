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
from inspect import signature
from typing import Any, ClassVar

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
        kind: name of the family in settings and records.
        size: height and width of the masks.
        variates: how many uniform variates one mask is made of.
    """

    kind: ClassVar[str]
    size: tuple[int, int]
    variates: int

    @property
    def settings(self) -> dict[str, Any]:
        """The constructor's arguments, which are attributes too, by name: with `kind`, the whole law."""
        return {name: getattr(self, name) for name in signature(type(self)).parameters}

    @property
    @abstractmethod
    def kept(self) -> float:
        """Expected fraction of entries kept."""

    @abstractmethod
    def draw(self, u: Tensor, covering: bool = False) -> Tensor:
        """Masks from uniform variates.

        Args:
            u: variates in [0, 1), (B, draws, `variates`).
            covering: whether the draws of an item together cover as much as they can, in the family's own way.

        Returns:
            masks (B, draws, 1, H, W), bool.
        """

    @abstractmethod
    def submask(self, mask: Tensor, keep: Tensor, generator: Generator | None = None) -> Tensor:
        """Random sub-masks of measured masks: what they keep is measured too.

        Args:
            mask: masks of this family (B, 1, H, W), bool.
            keep: about the share to keep of what can be left out (B,).
            generator: source of randomness.

        Returns:
            sub-masks (B, 1, H, W), bool.
        """

    @abstractmethod
    def covers(self, u: Tensor) -> Tensor:
        """Ordered covers S_1 … S_K, masks or sub-masks of the family, which together hold all that masks hold.

        Args:
            u: variates in [0, 1), (B, `variates`).

        Returns:
            covers (B, K, 1, H, W), bool.
        """

    def chain(self, u: Tensor) -> Chain:
        """Covers and their separators, 2K − 1 masks, from uniform variates u (B, `variates`)."""
        covers = self.covers(u)
        separators = covers[:, 1:] & (covers.cumsum(1) > 0)[:, :-1]
        weights = [1.0] * covers.shape[1] + [-1.0] * separators.shape[1]
        return Chain(torch.cat([covers, separators], 1), torch.tensor(weights, device=u.device))

    def resized(self, size: Size) -> "Masks":
        """The same law for another size."""
        return type(self)(**{**self.settings, "size": size})

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


class FullMask(Masks):
    """Everything is measured: the law of complete measurements.

    Args:
        size: height and width of the masks.
    """

    kind = "full"
    kept = 1.0
    variates = 1

    def __init__(self, size: Size):
        self.size = height_width(size)

    def draw(self, u: Tensor, covering: bool = False) -> Tensor:
        """Masks of ones (B, draws, 1, H, W), bool, whatever the variates u (B, draws, 1) are."""
        return torch.ones((), dtype=torch.bool, device=u.device).expand(*u.shape[:2], 1, *self.size)

    def covers(self, u: Tensor) -> Tensor:
        """One cover (B, 1, 1, H, W), which holds every entry."""
        return self.draw(u[:, None])

    def submask(self, mask: Tensor, keep: Tensor, generator: Generator | None = None) -> Tensor:
        """Random sub-masks (B, 1, H, W) of masks: each measured entry with probability `keep` (B,)."""
        return mask & (torch.rand(mask.shape, generator=generator, device=mask.device) < keep[:, None, None, None])


def height_width(size: Size | Sequence[int]) -> tuple[int, int]:
    """Height and width of a size, which may be one number for both."""
    height, width = (size, size) if isinstance(size, int) else size
    if height < 1 or width < 1:
        raise ValueError(f"size must be positive, got {size}")
    return height, width
