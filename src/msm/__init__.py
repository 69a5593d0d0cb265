"""Diffusion models trained on noisy, subsampled measurements only.

The names here are the public interface; each is imported when it is first used.
"""

from importlib import import_module
from typing import Any

_HOME = {
    "VPSchedule": "schedule",
    "Identity": "transforms",
    "MultiCoil": "transforms",
    "BoxMasks": "masks",
    "CartesianMasks": "masks",
    "VariableDensityMasks": "density",
    "EmpiricalMasks": "masks",
    "Measurement": "measurement",
    "estimate_noise": "noise",
    "ADMNetwork": "network",
    "load_published_weights": "network",
    "PartialDenoiser": "denoiser",
    "noiseless_loss": "losses",
    "noisy_loss": "losses",
    "generate": "sampling",
    "reconstruct": "sampling",
}
__all__ = list(_HOME)


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'msm' has no attribute {name!r}")
    return getattr(import_module(f".{_HOME[name]}", __name__), name)


def __dir__() -> list[str]:
    return __all__
