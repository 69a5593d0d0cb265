"""Classical reconstructions of an observation, each with parameters chosen on images that are kept apart for it."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from torch import Tensor

from ..operators import Convolution, Problem, Undersampling
from .classical import bicubic, biharmonic, cg_sense, l1_wavelet, total_variation, tune
from .metrics import psnr

Setting = tuple[float | str, ...]


@dataclass(frozen=True)
class Method:
    """A classical method.

    Args:
        solve: (observation, *setting) -> images (B, C, H, W).
        grid: the settings to choose from.
        usual: the setting where there is nothing to choose on; good for 64 px slices of magnitude 1, noise 0.01.
        words: what a setting means, to be formatted with its values.
    """

    solve: Callable[..., Tensor]
    grid: tuple[Setting, ...] = ((),)
    usual: Setting = ()
    words: str = ""

    def run(self, seen: Problem, setting: Setting) -> Tensor:
        """The images (B, C, H, W) of an observation."""
        return self.solve(seen, *setting)


def fitting(seen: Problem) -> dict[str, Method]:
    """The classical methods that fit an observation, by name; none for blur and colourisation."""
    operator = seen.operator
    if seen.y.is_complex():
        return MRI
    if isinstance(operator, Undersampling):
        return {"biharmonic": Method(lambda seen: biharmonic(seen.y, _mask(seen)))}
    if isinstance(operator, Convolution) and operator.factor > 1:
        return {"bicubic": Method(lambda seen: bicubic(seen.y, operator.factor))}
    return {}


def choose(method: Method, apart: Problem | None, truth: Tensor | None) -> Setting:
    """The setting of the highest mean PSNR (plain) on images kept apart; without them the usual one."""
    if apart is None or truth is None or len(method.grid) == 1:
        return method.usual
    return tune(partial(method.run, apart), method.grid, truth, partial(psnr, convention="plain"))


def _mask(seen: Problem) -> Tensor:
    """What was measured, (B, 1, H, W)."""
    assert isinstance(seen.operator, Undersampling)
    return seen.operator.mask.expand(len(seen.y), -1, -1, -1)


def _sense(seen: Problem, weight: float, iterations: int) -> Tensor:
    return cg_sense(seen.y, _mask(seen), seen.transform, regularisation=weight, iterations=iterations)


def _wavelet(seen: Problem, weight: float, name: str) -> Tensor:
    return l1_wavelet(seen.y, _mask(seen), seen.transform, regularisation=weight, iterations=100, wavelet=name)


def _variation(seen: Problem, weight: float) -> Tensor:
    return total_variation(seen.y, _mask(seen), seen.transform, regularisation=weight, iterations=200)


MRI = {
    "CG-SENSE": Method(
        _sense,
        tuple(itertools.product((1e-3, 1e-2, 3e-2, 0.1), (4, 10, 30))),
        (0.01, 30),
        "λ = {:g}, {} iterations",
    ),
    "TV": Method(_variation, ((5e-4,), (1e-3,), (2e-3,), (4e-3,), (8e-3,)), (1e-3,), "λ = {:g}"),
    "L1-wavelet": Method(
        _wavelet,
        tuple(itertools.product((5e-4, 1e-3, 2e-3, 4e-3, 8e-3), ("db4", "sym8"))),
        (0.001, "sym8"),
        "λ = {:g}, {}",
    ),
}
