"""Conjugate gradients for a batch of linear systems: what SENSE, and steps towards y, need."""

from collections.abc import Callable

import torch
from torch import Tensor

Map = Callable[[Tensor], Tensor]


def conjugate_gradient(normal: Map, b: Tensor, iterations: int, precondition: Map = lambda v: v) -> Tensor:
    """Solve normal(x) = b from x = 0 by a fixed number of steps, each item with step sizes and an end of its own.

    deepinv's solver is not used: it ends once all items are below its tolerance, which ties an item to its
    batch, and every 100 steps it resets the residual but not the direction, which throws converged items off.

    Args:
        normal: symmetric positive semi-definite map of (B, C, H, W), linear over the real numbers.
        b: right side (B, C, H, W), real or complex.
        iterations: number of steps; an item that is exact to rounding before that stands still.
        precondition: a map of the same kind that roughly undoes `normal`.

    Returns:
        x (B, C, H, W).

    Source: Shewchuk, An introduction to the conjugate gradient method (1994), B3.
    """

    def inner(v: Tensor, w: Tensor) -> Tensor:
        return (v.conj() * w).real.sum((1, 2, 3), keepdim=True)

    x, residual, direction = torch.zeros_like(b), b, precondition(b)
    left = inner(residual, direction)
    floor = left * torch.finfo(b.dtype).eps ** 2  # below it the residual is rounding: the item stands still
    for k in range(iterations):
        if k > 0:
            downhill = precondition(residual)
            left_before, left = left, inner(residual, downhill)
            direction = downhill + torch.where(left_before > floor, left / left_before, 0) * direction
        moving = left > floor
        mapped = normal(direction)
        step = torch.where(moving, left / inner(direction, mapped), 0)
        x, residual = x + step * direction, residual - step * mapped
    return x
