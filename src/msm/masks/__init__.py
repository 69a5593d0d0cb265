"""p(S), the law of the random subsampling S, as families of 0/1 masks (SPEC §7): one family a file."""

from .base import Chain, Masks, Size, height_width
from .boxes import BoxMasks
from .cartesian import CartesianMasks
from .empirical import EmpiricalMasks
from .variable_density import VariableDensityMasks

__all__ = [
    "BoxMasks",
    "CartesianMasks",
    "Chain",
    "EmpiricalMasks",
    "Masks",
    "Size",
    "VariableDensityMasks",
    "height_width",
]
