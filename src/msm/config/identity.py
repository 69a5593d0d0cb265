"""What a result follows from: the settings that two runs must share for their results to go together."""

from collections.abc import Mapping
from typing import Any

from ..errors import ConfigError
from .schema import Config
from .trained import TrainConfig

TRAINING_MAY_CHANGE = {  # of the `train` block, when a run goes on: what the rest of it does, not what it is
    *("images", "lr", "weight_decay", "warmup_images", "decay", "grad_clip", "ema_decay", "sure_tau"),
    *("accumulate", "mixed_precision", "workers", "checkpoint_images", "keep_checkpoints", "pictures"),
}


def training(settings: TrainConfig) -> dict[str, Any]:
    """What a training run is, of its `train` block: by name, as JSON has it."""
    fixed = settings.model_dump(mode="json", exclude=TRAINING_MAY_CHANGE)
    return {f"train.{name}": value for name, value in fixed.items()}


def samples(config: Config) -> dict[str, Any]:
    """What samples follow from beside data and weights: other numbers of images, or of them at a time, change none."""
    return config.model_dump(
        mode="json",
        include={"data", "diffusion", "inverse_problem", "sample"},
        exclude={"sample": {"preset", "count", "batch_size"}},
    )


def measurements(config: Config) -> dict[str, Any]:
    """What simulated measurements of test images follow from: runs that share it can be compared."""
    same = config.model_dump(mode="json", include={"data": True, "inverse_problem": True})
    return {**same, "dataset_dir": str(config.setting.dataset_dir), "seed": config.sample.seed}


def check(found: Mapping[str, Any], wanted: Mapping[str, Any], holder: str, remedy: str) -> None:
    """Refuse a result that follows from other settings than wanted, both by name; names not found are not compared.

    Raises:
        ConfigError: the first in which they differ; `holder` holds the result, `remedy` is what to do.
    """
    for name, value in wanted.items():
        if found.get(name, value) != value:
            raise ConfigError(f"{holder} with {name} = {found[name]}, the config says {value}; {remedy}")
