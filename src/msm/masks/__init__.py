"""p(S), the law of the random subsampling S, as families of 0/1 masks (SPEC §7): one family a file."""

from .base import Chain, FullMask, Masks, Size, height_width
from .boxes import BoxMasks
from .cartesian import CartesianMasks
from .empirical import EmpiricalMasks
from .variable_density import VariableDensityMasks

FAMILIES: dict[str, type[Masks]] = {
    family.kind: family for family in (FullMask, BoxMasks, CartesianMasks, VariableDensityMasks, EmpiricalMasks)
}

__all__ = [
    "FAMILIES",
    "BoxMasks",
    "CartesianMasks",
    "Chain",
    "EmpiricalMasks",
    "FullMask",
    "Masks",
    "Size",
    "VariableDensityMasks",
    "height_width",
]
