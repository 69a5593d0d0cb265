"""Calibration inside and outside of what was measured: a model may know its doubt in one and not in the other.

H⁺H projects z = T x onto the subspace that the measurement sees. Of a mask that is the measured entries, pixels or
k-space values of the coils; of a blur or a sum both parts, H⁺H z and z − H⁺H z, have the shape of the image. The
entries of a part are numbers that follow from the image, so the truth's rank among the samples' is uniform there too.
Complex entries count as two numbers. Without noise the measured part is known, and there is nothing to cover.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from ..operators import Problem, Undersampling
from .calibration import count_ranks

Part = Callable[[Tensor], Tensor]
NOTHING = 1e-4  # of an image's root-mean-square: a part this small is rounding


def part_names(seen: Problem) -> tuple[str, str]:
    """What the measured part is called, and the other, for readers."""
    if not isinstance(seen.operator, Undersampling):
        return "part that H sees, H⁺H x", "part that H does not see"
    what = "k-space" if seen.y.is_complex() else "pixels"
    return f"measured {what}", f"unmeasured {what}"


def ranks_in_parts(samples: Tensor, truth: Tensor, seen: Problem) -> tuple[Tensor | None, Tensor | None]:
    """Ranks of the truth among the samples, as `rank_counts`, in the measured part and in the other.

    Args:
        samples: (B, K, C, H, W).
        truth: (B, C, H, W).
        seen: the problem of these B items.

    Returns:
        (B, K + 1) each; None for a part that is empty, or known because the measurement is without noise.
    """
    operator, known = seen.operator, not torch.as_tensor(seen.noise_std).any()
    if isinstance(operator, Undersampling):
        mask = operator.mask.expand(len(truth), -1, -1, -1)
        wheres = (mask if mask.any() and not known else None, None if mask.all() else ~mask)
        inside, outside = (None if w is None else _ranks(samples, truth, seen, lambda z: z, w) for w in wheres)
        return inside, outside

    def measured(z: Tensor) -> Tensor:
        return operator.A_dagger(operator.A(z))

    inside = None if known else _ranks(samples, truth, seen, measured)
    return inside, _ranks(samples, truth, seen, lambda z: z - measured(z))


def _ranks(samples: Tensor, truth: Tensor, seen: Problem, part: Part, where: Tensor | None = None) -> Tensor | None:
    """Ranks in a part of z, one sample at a time: z of all coils is large."""
    if where is not None and seen.y.is_complex():
        where = where.repeat_interleave(2, -1)  # real and imaginary parts

    def numbers(x: Tensor) -> Tensor:
        z = part(seen.transform.forward(x))
        return torch.view_as_real(z).flatten(-2) if z.is_complex() else z

    first = samples[:, 0]  # not the truth, which must not decide what is counted
    if numbers(first).square().mean() <= NOTHING**2 * first.abs().square().mean():
        return None
    return count_ranks(map(numbers, samples.unbind(1)), numbers(truth), where)
