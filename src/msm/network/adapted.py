"""Networks of others: any module that takes an image and a time."""

from typing import Any

import torch
from torch import Tensor, nn

from .stored import StoredNetwork


class AdaptedNetwork(StoredNetwork):
    """A module of others as a network; `msm.adapt` makes it."""

    def __init__(self, module: nn.Module, divisor: int):
        super().__init__()
        self.module, self.divisor = module, divisor

    @property
    def inner(self) -> nn.Module:
        """The module that was adapted."""
        return self.module

    @property
    def settings(self) -> dict[str, Any]:
        """The kind of module, which `load` has to be given again."""
        return {"adapted": f"{type(self.module).__module__}.{type(self.module).__qualname__}"}

    def forward(self, u: Tensor, t: Tensor) -> Tensor:
        """The output for u (B, C, H, W), real, at times t, scalar or (B,), on the 0…999 scale, fractions too."""
        out = self.module(u, torch.as_tensor(t, dtype=torch.float32, device=u.device).expand(len(u)))
        found: Tensor = out if isinstance(out, Tensor) else out.sample
        if found.shape != u.shape:
            raise ValueError(f"the network makes {list(found.shape)} of {list(u.shape)}, the two should be equal")
        return found


def adapt(module: nn.Module, *, divisor: int = 1) -> AdaptedNetwork:
    """Make a network of a module of others, to be trained and sampled like our own.

    Args:
        module: called as module(u, t) with u (B, C, H, W), real, and t (B,), float, on the 0…999 scale; it returns a
            tensor like u, or an object that has it as `sample`, as models of diffusers do.
        divisor: of which the sides of images must be multiples, 2^(levels − 1) for a U-Net.

    Returns:
        a network for `PartialDenoiser`; to load it again, give `PartialDenoiser.load` an adapted module of that kind.
    """
    return AdaptedNetwork(module, divisor)
