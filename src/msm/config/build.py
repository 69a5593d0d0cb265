"""From settings to objects."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import Generator, nn

from ..denoiser import PartialDenoiser
from ..errors import ConfigError
from ..masks import BoxMasks, CartesianMasks, Masks, Size, VariableDensityMasks
from ..mri_prior import ImagePrior
from ..operators import build
from ..schedule import VPSchedule
from .schema import (
    BoxMaskConfig,
    CartesianMaskConfig,
    DiffusionConfig,
    InverseProblemConfig,
    MaskConfig,
)


def make_denoiser(network: nn.Module, diffusion: DiffusionConfig) -> PartialDenoiser:
    """The partial denoiser that a config describes, around a network."""
    return PartialDenoiser(
        network,
        VPSchedule(),
        diffusion.parametrisation,
        prior=ImagePrior(phase_width=diffusion.phase_width, phase_residual=diffusion.phase_residual),
        sense_iterations=diffusion.sense_iterations,
    )


@contextmanager
def _of_field(name: str) -> Iterator[None]:
    """What is built refuses values that do not go together, by a ValueError: here they come from a field."""
    try:
        yield
    except ValueError as error:
        raise ConfigError(f"{name}: {error}") from error


def make_masks(mask: MaskConfig, size: Size, field: str = "data.mask") -> Masks:
    """The mask family that a field of a config describes, of a size (H, W), or H = W.

    Raises:
        ConfigError: there is no such family of this size.
    """
    with _of_field(field):
        if isinstance(mask, BoxMaskConfig):
            return BoxMasks(size, mask.drop, mask.grid)
        if isinstance(mask, CartesianMaskConfig):
            return CartesianMasks(size, mask.acceleration, mask.center, mask.pattern)
        return VariableDensityMasks(size, mask.acceleration, mask.center, mask.pattern, mask.corners)


def _photo_operator(problem: InverseProblemConfig, shape: tuple[int, int, int], seed: int) -> Any:
    names = {"hole": "hole", "keep": "kept", "factor": "factor"}
    names |= {"blur_sigma": "sigma", "blur_length": "length", "blur_angle": "angle"}
    fields = [old for old in names if getattr(problem, old) is not None]
    given = {names[old]: getattr(problem, old) for old in fields}
    with _of_field(f"inverse_problem.{' and '.join(fields) or 'operator'}"):
        return build(problem.operator, shape, Generator().manual_seed(seed), **given)
