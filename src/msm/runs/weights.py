"""The denoiser of a run: new, or from weights that must fit the config."""

from pathlib import Path
from typing import Any

import torch

from ..config.build import make_denoiser, make_law, make_sampler
from ..config.identity import check
from ..config.load import Config
from ..config.sampled import DrawConfig
from ..denoiser import PartialDenoiser, Sense
from ..errors import ConfigError
from ..network import ADMNetwork
from ..system.console import note, warn
from ..system.memory import physical_memory
from ..system.places import weights_folder
from ..system.processes import processes
from .published_weights import published_network

NOT_MEASURED = "the error of the estimates, which data step draw needs, was not measured"


def new_denoiser(config: Config) -> PartialDenoiser:
    """A denoiser to train: with seeded weights, or with those of setting.pretrained_model_dir."""
    start = config.setting.pretrained_model_dir
    if start is not None:
        given = _load(config, start)
        _check_diffusion(config, start, given, {"parametrisation"})
        network = given.network
    else:
        _check_memory(config)
        with torch.random.fork_rng(devices=[]):  # the generator of the caller is left as it is
            torch.default_generator.manual_seed(config.train.seed)
            network = ADMNetwork(**config.network.model_dump())
    denoiser = make_denoiser(network, config.diffusion, make_law(config.data))
    scale = "complex, magnitude at most 1" if config.data.is_mri else "real, in [-1, 1]"
    told = {"remask", "submask_share", "submask_keep", "images", "seed"}
    trained = config.train.model_dump(mode="json", include=told)
    data = config.data.model_dump(mode="json", exclude={"mask", "limit", "masks_dir"})
    denoiser.record = {"scale": scale, "train": trained, "data": data}
    return denoiser


def _check_memory(config: Config) -> None:
    """Refuse a network whose weights, gradients, averages and optimiser are more than the machine holds."""
    count = sum(weights.numel() for weights in ADMNetwork.empty(config.network.model_dump()).parameters())
    needed, there = 5 * 4 * count, physical_memory()
    if there is not None and needed > there:
        said = f"a network of {count:.3g} weights takes {needed:.3g} bytes to train, this machine has {there:.3g}"
        raise ConfigError(f"network: {said}; lower network.num_channels, channel_mult or num_res_blocks")


def trained_denoiser(config: Config, config_file: Path, *, drawing: bool = False) -> PartialDenoiser:
    """The denoiser of a trained run, on the device that is there and in the layout that is fast there.

    Args:
        config: says where the weights are, and what for.
        config_file: for what is said to the user.
        drawing: whether posterior samples are drawn with it, whatever sample.data_step says.
    """
    path = config.setting.pretrained_model_dir
    if path is None:
        missing = "setting.pretrained_model_dir: missing; set it to the folder of a training run, or to bundled:NAME"
        raise ConfigError(f"{config_file}: {missing}")
    device, masks = processes().device, make_law(config.data)
    denoiser = _load(config, path)
    _check_diffusion(config, path, denoiser, {"parametrisation", "phase_width", "phase_residual", "sense_iterations"})
    law = denoiser.masks
    if law is None and masks is None:
        example = "data.mask={kind: box, drop: 0.4} for instance"
        raise ConfigError(f"{path}: does not say which masks it was trained on; set data.mask to their law, {example}")
    if law is None:
        denoiser.masks = masks
    elif (
        "refined" not in denoiser.record
        and masks is not None
        and (law.kind, law.resized(masks.size).settings) != (masks.kind, masks.settings)
    ):
        note(f"{path}: was trained on {law.kind} masks, other than data.mask; samples are drawn with those")
    if config.sample.score == "chain" and not denoiser.record.get("train", {}).get("submask_share"):
        warn(
            f"{path}: no record of training on sub-masks; sample.score=chain needs it: train with train.submask_share "
            "and train.submask_keep (docs/explanation/chain.md), or use sample.score=average"
        )
    if (drawing or isinstance(config.sample.data_step, DrawConfig)) and denoiser.measured_error is None:
        remedy = "measure it by `msm calibrate`, with the config and measurements of the training"
        if not config.data.is_mri:
            raise ConfigError(f"{path}: {NOT_MEASURED}; {remedy}, or use sample.data_step.kind=proximal")
        warn(f"{path}: {NOT_MEASURED}, and is assumed, which calibrates draws less well; {remedy}")
    if device.type == "cuda" and config.sample.mixed_precision != "no":
        denoiser.network.to(memory_format=torch.channels_last)  # tensor cores take it as it is; CPUs are slower with it
    if config.sample.compile:
        denoiser.network.compile(dynamic=False)
    return denoiser.to(device).eval()


def on_its_masks(config: Config, denoiser: PartialDenoiser) -> Config:
    """The config with a sampler that fits the masks of its weights: full ones need one a step."""
    assert denoiser.masks is not None  # `trained_denoiser` sees to it
    fitted = make_sampler(config.sample).fitted(denoiser.masks)
    return config.with_found({"sample": config.sample.with_found({"steps": fitted.steps, "draws": fitted.draws})})


def _load(config: Config, path: Path) -> PartialDenoiser:
    """The denoiser in a weights folder, or that of the config around a published network; it must fit the config."""
    folder = weights_folder(path)
    if not folder.exists():
        raise ConfigError(f"{path}: no such file or folder; set setting.pretrained_model_dir to where the weights are")
    if path.suffix in (".pt", ".safetensors"):
        return make_denoiser(published_network(path, config), config.diffusion, make_law(config.data))
    denoiser = PartialDenoiser.load(folder)
    assert isinstance(denoiser.network, ADMNetwork)
    _check_network(config, path, denoiser.network)
    return denoiser


def _check_network(config: Config, path: Path, network: ADMNetwork) -> None:
    """Weights of one size serve every other: what counts is where attention is."""
    wanted, found = config.network.model_dump(mode="json"), dict(network.settings)
    for settings in (wanted, found):
        side = settings.pop("image_size")
        settings["attention_resolutions"] = sorted(side // other for other in settings["attention_resolutions"])
    for key, value in wanted.items():
        if found[key] != value:
            said = f"the config says network.{key} = {getattr(config.network, key)}"
            found_at = f"{key} = {network.settings[key]} at {network.settings['image_size']} px"
            raise ConfigError(f"{path}: a network with {found_at}, {said}; use the config it was trained with")


def _check_diffusion(config: Config, path: Path, denoiser: PartialDenoiser, names: set[str]) -> None:
    """Settings of the diffusion block by these names must be those that the weights were trained with."""
    sides = denoiser, make_denoiser(denoiser.network, config.diffusion)
    found, wanted = ({f"diffusion.{n}": v for n, v in _of_diffusion(side).items() if n in names} for side in sides)
    check(found, wanted, f"{path}: was trained", "use the config it was trained with")


def _of_diffusion(denoiser: PartialDenoiser) -> dict[str, Any]:
    """The settings of the diffusion block that describe a denoiser."""
    chosen: dict[str, Any] = {"parametrisation": type(denoiser.parametrisation).__name__.lower()}
    if isinstance(denoiser.parametrisation, Sense):
        chosen |= {name: getattr(denoiser.prior, name) for name in ("phase_width", "phase_residual")}
        chosen["sense_iterations"] = denoiser.parametrisation.iterations
    return chosen
