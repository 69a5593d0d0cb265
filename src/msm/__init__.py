"""Diffusion models trained on noisy, subsampled measurements only.

The names here are the public interface. Each is imported when it is first used, so that `import msm` costs nothing.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .denoiser import PartialDenoiser
    from .losses import noiseless_loss, noisy_loss
    from .masks import BoxMasks, CartesianMasks, EmpiricalMasks, VariableDensityMasks
    from .measurement import Measurement
    from .network import ADMNetwork, load_published_weights
    from .noise import estimate_noise
    from .sampling import generate, reconstruct
    from .schedule import VPSchedule
    from .transforms import Identity, MultiCoil
else:
    _HOME = {
        "ADMNetwork": "network",
        "BoxMasks": "masks",
        "CartesianMasks": "masks",
        "EmpiricalMasks": "masks",
        "Identity": "transforms",
        "Measurement": "measurement",
        "MultiCoil": "transforms",
        "PartialDenoiser": "denoiser",
        "VPSchedule": "schedule",
        "VariableDensityMasks": "masks",
        "estimate_noise": "noise",
        "generate": "sampling",
        "load_published_weights": "network",
        "noiseless_loss": "losses",
        "noisy_loss": "losses",
        "reconstruct": "sampling",
    }

    def __getattr__(name):
        if name not in _HOME:
            raise AttributeError(f"module 'msm' has no attribute {name!r}")
        return getattr(import_module(f".{_HOME[name]}", __name__), name)


__all__ = [
    "ADMNetwork",
    "BoxMasks",
    "CartesianMasks",
    "EmpiricalMasks",
    "Identity",
    "Measurement",
    "MultiCoil",
    "PartialDenoiser",
    "VPSchedule",
    "VariableDensityMasks",
    "estimate_noise",
    "generate",
    "load_published_weights",
    "noiseless_loss",
    "noisy_loss",
    "reconstruct",
]


def __dir__() -> list[str]:
    return __all__
