"""Conjugate gradients for a batch of linear systems: what SENSE, and steps towards y, need."""

from collections.abc import Callable
from typing import Protocol

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


class Parts(Protocol):
    """How images (B, C, H, W) are taken apart into real parts (B, P, H, W), orthonormally, and put together."""

    def apart(self, x: Tensor) -> Tensor:
        """The parts of x."""

    def together(self, m: Tensor) -> Tensor:
        """The image of parts m; of parts of x, x."""


def filtered(m: Tensor, weights: Tensor) -> Tensor:
    """Fᴴ weights F m for real m (B, P, H, W); weights (1 or B, P, H, W // 2 + 1) in the order of `torch.fft.rfft2`."""
    return torch.fft.irfft2(weights * torch.fft.rfft2(m), s=m.shape[-2:])


def solve_penalised(
    normal: Map, b: Tensor, parts: Parts, ridges: Tensor, density: Tensor | float, iterations: int
) -> Tensor:
    """Minimise xᴴ N x − 2 Re bᴴ x + Σ_p m_pᵀ Fᴴ ridges[p] F m_p over the parts m of an image x.

    Args:
        normal: N, Aᴴ A of images (B, C, H, W).
        b: Aᴴ s (B, C, H, W).
        parts: those of the images.
        ridges: weights of the penalties, (1 or B, P, H, W // 2 + 1), as `filtered` takes them.
        density: rough size of N, the share of entries measured, for the preconditioner.
        iterations: preconditioned conjugate-gradient steps.

    Returns:
        m (B, P, H, W).
    """
    precondition = 1 / (density + ridges)

    def penalised(m: Tensor) -> Tensor:
        return parts.apart(normal(parts.together(m))) + filtered(m, ridges)

    return conjugate_gradient(penalised, parts.apart(b), iterations, lambda m: filtered(m, precondition))
