"""The settings of a command that may name a run's folder, or a bundled model, in place of a YAML file."""

import json
from collections.abc import Sequence
from pathlib import Path

from ..config.load import Config, load_config
from ..errors import ConfigError
from ..output.run_folder import CHECKPOINTS, STORE
from ..system.console import note
from ..system.places import BUNDLED, WEIGHTS

SAMPLES_FOLDER, REFINED_FOLDER = "samples", "refined"  # in the folder of the training run


def training_config(name: Path, overrides: Sequence[str]) -> Config:
    """What `msm train` is asked for; a run's folder goes on where it lies."""
    implied = {"save_dir": name} if _is_trained(name) else {}
    return load_config(name, [*_settings(implied), *overrides])


def calibration_config(name: Path, overrides: Sequence[str]) -> Config:
    """What `msm calibrate` is asked for; of a run's folder it is the weights inside, not those that it began with."""
    implied = {"save_dir": name, "pretrained_model_dir": name} if _is_trained(name) else {}
    return load_config(name, [*_settings(implied), *overrides])


def refinement_config(name: Path, overrides: Sequence[str]) -> Config:
    """What `msm refine` is asked for; of a run's folder, its weights and the measurements that lie there."""
    implied: dict[str, Path] = {}
    if _is_trained(name):
        implied = {"pretrained_model_dir": name, "save_dir": name / REFINED_FOLDER}
        if (name / STORE).is_file():
            implied["dataset_dir"] = name / STORE
    return load_config(name, [*_settings(implied), *overrides])


def sampling_config(name: Path, overrides: Sequence[str]) -> Config:
    """What `msm sample` is asked for; a training run's folder, or a bundled model, is config and weights in one.

    Raises:
        ConfigError: the run has no weights yet, or the settings are at fault.
    """
    implied: dict[str, Path] = {}
    if _is_trained(name):
        if not (name / WEIGHTS).is_dir():
            raise ConfigError(f"{name}: has no weights yet; its first checkpoint writes them, go on with the training")
        implied = {"pretrained_model_dir": name, "save_dir": name / SAMPLES_FOLDER}
    config = load_config(name, [*_settings(implied), *overrides])
    if implied or str(name).startswith(BUNDLED):
        setting = config.setting
        note(f"setting.pretrained_model_dir={setting.pretrained_model_dir}, setting.save_dir={setting.save_dir}")
    return config


def _is_trained(name: Path) -> bool:
    return (name / CHECKPOINTS).is_dir() or (name / WEIGHTS).is_dir()


def _settings(paths: dict[str, Path]) -> list[str]:
    """Overrides of the setting block; quoted, as a path may be anything."""
    return [f"setting.{key}={json.dumps(str(path))}" for key, path in paths.items()]
