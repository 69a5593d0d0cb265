"""U_θ: the ADM U-Net, its published weights, and networks of others (SPEC §8)."""

from .adapted import adapt
from .adm import ADMNetwork, SettingError, check_settings
from .published import PublishedWeights, load_published_weights, published_shapes
from .stored import StoredNetwork, read_tensors

__all__ = [
    "ADMNetwork",
    "PublishedWeights",
    "SettingError",
    "StoredNetwork",
    "adapt",
    "check_settings",
    "load_published_weights",
    "published_shapes",
    "read_json",
    "read_tensors",
]
