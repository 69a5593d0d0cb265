"""The denoiser of a run: new, or from weights that must fit the config."""

from __future__ import annotations

import json
from collections.abc import Collection
from pathlib import Path
from typing import Any

import torch

from ..config.build import make_denoiser, make_masks
from ..config.load import Config
from ..denoiser import PartialDenoiser
from ..errors import ConfigError, DataError
from ..network import CONFIG_FILE, ADMNetwork, load_published_weights
from ..output.run_folder import WEIGHTS
from ..system.console import warn
from ..system.files import write_text
from ..system.processes import processes

DENOISER_FILE = "denoiser.json"  # next to the weights: what the network predicts
DENOISER_SETTINGS = {"parametrisation", "phase_width", "phase_residual", "sense_iterations"}  # of the diffusion block


def new_denoiser(config: Config) -> PartialDenoiser:
    """An untrained denoiser with seeded weights, or one that starts from setting.pretrained_model_dir."""
    start = config.setting.pretrained_model_dir
    masks = make_masks(config.data.mask, config.data.image_size)
    if start is not None:
        return make_denoiser(load_network(config, start), config.diffusion, masks)
    with torch.random.fork_rng(devices=[]):  # the generator of the caller is left as it is
        torch.default_generator.manual_seed(config.train.seed)
        return make_denoiser(ADMNetwork(**config.network.model_dump()), config.diffusion, masks)


def trained_denoiser(config: Config, config_file: Path) -> PartialDenoiser:
    """The denoiser of a trained run, on the device that is there and in the layout that is fast there."""
    if config.setting.pretrained_model_dir is None:
        raise ConfigError(
            f"{config_file}: setting.pretrained_model_dir: missing; set it to the weights folder of a training run"
        )
    device, denoiser = processes().device, new_denoiser(config)
    if config.diffusion.parametrisation == "sense":
        check_record(config, config.setting.pretrained_model_dir, DENOISER_SETTINGS)
    if config.sample.score == "chain":
        warn_of_chain(config.setting.pretrained_model_dir)
    if device.type == "cuda" and config.sample.mixed_precision != "no":
        denoiser.network.to(memory_format=torch.channels_last)  # tensor cores take it as it is; CPUs are slower with it
    if config.sample.compile:
        denoiser.network.compile(dynamic=False)
    return denoiser.to(device).eval()


def check_record(config: Config, path: Path, names: Collection[str]) -> None:
    """Settings of the diffusion block by these names must be those that the weights were trained with."""
    trained = denoiser_record(path)
    default = type(config.diffusion)()
    for name in sorted(names):
        found, wanted = trained.get(name, getattr(default, name)), getattr(config.diffusion, name)
        if found != wanted:
            raise ConfigError(
                f"{path}: was trained with diffusion.{name} = {found}, the config says {wanted}; use the config it "
                "was trained with"
            )


def warn_of_chain(path: Path) -> None:
    """Say so where nothing tells that weights saw masks as sparse as the separators of a chain."""
    if not denoiser_record(path).get("submask_share"):
        warn(
            f"{path}: no record of training on sub-masks; sample.score=chain needs it: train with "
            "train.submask_share and train.submask_keep (docs/chain.md), or use sample.score=average"
        )


def load_network(config: Config, path: Path) -> ADMNetwork:
    """A network from a weights folder or a published file; it must fit the config."""
    if not path.exists():
        raise ConfigError(f"{path}: no such file or folder; set setting.pretrained_model_dir to where the weights are")
    if path.suffix in (".pt", ".safetensors"):
        return load_published_weights(path, **config.network.model_dump())
    if not (path / CONFIG_FILE).exists() and (path / WEIGHTS).is_dir():
        raise ConfigError(f"{path}: holds a run, not weights; set setting.pretrained_model_dir to {path / WEIGHTS}")
    network = ADMNetwork.load(path)
    check_record(config, path, {"parametrisation"})
    wanted, found = config.network.model_dump(mode="json"), dict(network.settings)
    for settings in (wanted, found):  # weights of one size serve every other: what counts is where attention is
        side = settings.pop("image_size")
        settings["attention_resolutions"] = sorted(side // other for other in settings["attention_resolutions"])
    for key, value in wanted.items():
        if found[key] != value:
            raise ConfigError(
                f"{path}: a network with {key} = {network.settings[key]} at {network.settings['image_size']} px, the "
                f"config says network.{key} = {getattr(config.network, key)}; use the config it was trained with"
            )
    return network


def record_denoiser(config: Config, folder: Path) -> None:
    """Write down beside the weights how they are trained."""
    record = config.diffusion.model_dump(include=DENOISER_SETTINGS)
    record |= config.train.model_dump(mode="json", include={"remask", "submask_share", "submask_keep"})
    write_text(folder / DENOISER_FILE, json.dumps(record) + "\n")


def denoiser_record(path: Path) -> dict[str, Any]:
    """What `record_denoiser` wrote, or nothing where it did not.

    Raises:
        DataError: it is damaged.
    """
    record = path / DENOISER_FILE
    try:
        return dict(json.loads(record.read_text(encoding="utf-8"))) if record.exists() else {}
    except (ValueError, TypeError) as error:
        raise DataError(f"{record}: damaged ({error}); copy it again from the training run") from error
