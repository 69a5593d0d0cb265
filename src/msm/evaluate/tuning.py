"""Classical reconstructions of an observation, each with parameters chosen on images that are kept apart for it."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from torch import Tensor

from ..operators import Problem
from .classical import bicubic, biharmonic, cg_sense, l1_wavelet, total_variation, tune
from .metrics import psnr

Setting = tuple[Any, ...]


@dataclass(frozen=True)
class Method:
    """A classical method.

    Args:
        run: (observation, setting) -> images (B, C, H, W).
        grid: the settings to choose from.
        usual: the setting where there is nothing to choose on; good for 64 px slices of magnitude 1, noise 0.01.
        words: what a setting means, to be formatted with its values.
    """

    run: Callable[[Problem, Setting], Tensor]
    grid: tuple[Setting, ...] = ((),)
    usual: Setting = ()
    words: str = ""


def fitting(seen: Problem) -> dict[str, Method]:
    """The classical methods that fit an observation, by name; none for blur and colourisation."""
    if seen.y.is_complex():
        return MRI
    if hasattr(seen.operator, "mask"):
        return {"biharmonic": Method(lambda o, _: biharmonic(o.y, o.operator.mask.expand(len(o.y), -1, -1, -1)))}
    if getattr(seen.operator, "factor", 1) > 1:
        return {"bicubic": Method(lambda o, _: bicubic(o.y, o.operator.factor))}
    return {}


def choose(method: Method, apart: Problem | None, truth: Tensor | None) -> Setting:
    """The setting of the highest mean PSNR (plain) on images kept apart; without them the usual one."""
    if apart is None or truth is None or len(method.grid) == 1:
        return method.usual
    return tune(partial(method.run, apart), method.grid, truth, partial(psnr, convention="plain"))


def _sense(seen: Problem, setting: Setting) -> Tensor:
    weight, iterations = setting
    return cg_sense(seen.y, seen.operator.mask, seen.transform, regularisation=weight, iterations=iterations)


def _wavelet(seen: Problem, setting: Setting) -> Tensor:
    weight, name = setting
    given = (seen.y, seen.operator.mask, seen.transform)
    return l1_wavelet(*given, regularisation=weight, iterations=100, wavelet=name)


def _variation(seen: Problem, setting: Setting) -> Tensor:
    return total_variation(seen.y, seen.operator.mask, seen.transform, regularisation=setting[0], iterations=200)


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
