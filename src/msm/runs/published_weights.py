"""A file of published weights as a denoiser: its tensors tell the network, its name how it was trained."""

import re
from pathlib import Path
from typing import NamedTuple

from ..config.build import make_denoiser, make_masks
from ..config.load import Config
from ..config.measured import AnyMask, BoxMaskConfig, CartesianMaskConfig
from ..config.trained import DiffusionConfig
from ..denoiser import WEIGHTS_FOLDER
from ..errors import DataError
from ..network import ADMNetwork, PublishedWeights
from ..system.console import note, say, warn
from ..system.manifest import check_ours

NAME = re.compile(
    r"(?P<data>ffhq|fmri)_(?:msm|uncond)_(?:p(?P<p>\d+)|R(?P<R>\d+))_noise(?P<noise>\d+_\d+)_img(?P<size>\d+)"
)


class Training(NamedTuple):
    """What weights were trained on."""

    is_mri: bool
    image_size: int
    mask: AnyMask
    noise_std: float

    def __str__(self) -> str:
        settings = self.mask.model_dump(exclude={"kind", "grid", "corners"})
        said = "".join(f", {name} {value}" for name, value in settings.items())
        images = "MRI" if self.is_mri else "photos"
        return f"{images} of {self.image_size} px, masks {self.mask.kind}{said}, noise {self.noise_std:g}"


def told_by_name(path: Path) -> Training | None:
    """What the name of a published file says: ffhq_msm_p04_noise0_1_img128 is p = 0.4, noise 0.1, 128 px."""
    said = NAME.search(path.stem)
    if said is None:
        return None
    noise, size = float(said["noise"].replace("_", ".")), int(said["size"])
    if said["data"] == "fmri" and said["R"] and int(said["R"]):
        return Training(True, size, CartesianMaskConfig(acceleration=int(said["R"])), noise)
    if said["data"] == "ffhq" and said["p"] and said["p"][0] == "0":  # p04 is 0.4, p0 and p00 are 0
        return Training(False, size, BoxMaskConfig(drop=float(f"0.{said['p'][1:]}")), noise)
    return None


def told_by_config(config: Config) -> Training:
    """What a config says of it."""
    data = config.data
    noise_std = 0.0 if data.noise_std == "auto" else data.noise_std
    return Training(data.is_mri, data.image_size, data.mask, noise_std)


def published_network(file: Path, config: Config | None) -> ADMNetwork:
    """The network in a file; says what was taken, and where the file's name and the config differ.

    Args:
        file: .pt or .safetensors.
        config: whose network block it fits; None: one of the two published sizes, as the tensors tell.
    """
    found = PublishedWeights.read(file)
    network = found.network(**(config.network.model_dump() if config else {}))
    if found.place:
        others = f"; left out: {', '.join(found.left_out)}" if found.left_out else ""
        note(f"{file}: took the weights under '{found.place.rstrip('.')}'{others}")
    named = told_by_name(file)
    if config is not None and named is not None and named != (wanted := told_by_config(config)):
        warn(f"{file}: its name says {named}; the config says {wanted}, which counts")
    return network


def import_published(file: Path, folder: Path, config: Config | None, *, force: bool = False) -> None:
    """Write the published network in a file, with the law of its masks, as a folder of weights.

    Args:
        file: .pt or .safetensors.
        folder: to write.
        config: whose network block it fits and whose data block it was trained on; None: what tensors and name say.
        force: whether files of others are replaced.

    Raises:
        DataError: the tensors are not those of the network, or the name contradicts them.
    """
    if not force:
        check_ours(folder, WEIGHTS_FOLDER)
    network = published_network(file, config)
    size, is_mri = network.image_size, network.in_channels == 2
    told = told_by_name(file) if config is None else told_by_config(config)
    if told is not None and (told.image_size, told.is_mri) != (size, is_mri):
        what = f"its name says {told}, its tensors are of {size} px and {network.in_channels} channels"
        raise DataError(f"{file}: {what}; give it the name it had, or --config")
    masks = None if told is None else make_masks(told.mask, size)
    denoiser = make_denoiser(network, DiffusionConfig() if config is None else config.diffusion, masks)
    noise = {} if told is None else {"data": {"noise_std": told.noise_std}}
    scale = "complex, magnitude at most 1" if is_mri else "real, in [-1, 1]"
    denoiser.record = {"scale": scale, "imported": file.name, **noise}
    denoiser.save(folder)
    _tell(file, folder, network, told, "--config" if config else "its name")


def _tell(file: Path, folder: Path, network: ADMNetwork, told: Training | None, source: str) -> None:
    """What was found, where from, and what cannot be known."""
    settings, count = network.settings, sum(weights.numel() for weights in network.parameters())
    levels = f"levels {settings['channel_mult']}, {settings['num_head_channels']} channels a head"
    what = f"{network.image_size} px, {network.in_channels} channels, {levels}, {count:,} weights"
    say(f"{file}: the network of {what}")
    if told is None:
        say(
            f"{file}: neither tensors nor name say which masks and noise it was trained on: set data.mask to them in "
            "the config that samples with it"
        )
    else:
        say(f"{file}: by {source}, trained on {told}")
    say(f"{folder}: config.json, model.safetensors and denoiser.json, for setting.pretrained_model_dir")
