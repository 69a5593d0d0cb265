"""From settings to objects."""

from __future__ import annotations

from torch import Generator, nn

from ..denoiser import PartialDenoiser
from ..masks import BoxMasks, CartesianMasks, Masks, Size, VariableDensityMasks
from ..mri_prior import ImagePrior
from ..operators import LinearOperator, build
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


def make_masks(mask: MaskConfig, size: Size) -> Masks:
    """The mask family that a config describes, of a size (H, W), or H = W."""
    if isinstance(mask, BoxMaskConfig):
        return BoxMasks(size, mask.drop, mask.grid)
    if isinstance(mask, CartesianMaskConfig):
        return CartesianMasks(size, mask.acceleration, mask.center, mask.pattern)
    return VariableDensityMasks(size, mask.acceleration, mask.center, mask.pattern, mask.corners)


def _photo_operator(problem: InverseProblemConfig, shape: tuple[int, int, int], seed: int) -> LinearOperator:
    names = {"hole": "hole", "keep": "kept", "factor": "factor"}
    names |= {"blur_sigma": "sigma", "blur_length": "length", "blur_angle": "angle"}
    given = {new: getattr(problem, old) for old, new in names.items() if getattr(problem, old) is not None}
    return build(problem.operator, shape, Generator().manual_seed(seed), **given)
