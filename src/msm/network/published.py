"""Published weights: state dicts with guided-diffusion's tensor names (SPEC §8)."""

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from ..errors import DataError
from .adm import ADMNetwork
from .stored import check_tensors, read_tensors, shapes

# guided-diffusion's name of a layer → diffusers': outside the blocks, in a residual one, in an attention one.
OUTER_LAYERS = {
    "time_embed.0": "time_embedding.linear_1",
    "time_embed.2": "time_embedding.linear_2",
    "input_blocks.0.0": "conv_in",
    "out.0": "conv_norm_out",
    "out.2": "conv_out",
}
RESIDUAL_LAYERS = {
    "in_layers.0": "norm1",
    "in_layers.2": "conv1",
    "emb_layers.1": "time_emb_proj",
    "out_layers.0": "norm2",
    "out_layers.3": "conv2",
    "skip_connection": "conv_shortcut",
}
ATTENTION_LAYERS = {"norm": "group_norm", "qkv": "to_q to_k to_v", "proj_out": "to_out.0"}


FULL_SIZE = {  # of the published networks, by image size; their tensors do not tell how wide a head is
    size: {
        "image_size": size,
        "num_channels": 128,
        "num_res_blocks": 2,
        "channel_mult": multiples,
        "attention_resolutions": [32, 16, 8],
        "num_head_channels": 64,
    }
    for size, multiples in ((128, [1, 1, 2, 3, 4]), (256, [1, 1, 2, 2, 4, 4]))
}
FIRST, SECOND = "time_embed.0.weight", "input_blocks.0.0.weight"  # tensors that every state dict holds
OF_AVERAGES = re.compile("ema|averag|shadow", re.IGNORECASE)  # in the name of what holds averaged weights


@dataclass(frozen=True)
class PublishedWeights:
    """A state dict with guided-diffusion's tensor names, found in a file.

    Attributes:
        path: the file.
        tensors: by guided-diffusion's names; not checked yet.
        place: where they lay: the names and prefixes before those, "ema.module." for instance; empty for a plain one.
        left_out: what else the file holds.
    """

    path: Path
    tensors: dict[Any, Any]
    place: str
    left_out: tuple[str, ...]

    @classmethod
    def read(cls, path: str | os.PathLike[str]) -> "PublishedWeights":
        """Find the state dict in a file: plain, under a prefix (`module.`), or in a checkpoint of several things.

        Of a checkpoint that holds weights and their average, the average is taken.

        Args:
            path: a .safetensors file, or else one that torch.load reads (.pt); nothing in it is executed.

        Raises:
            DataError: the file is missing, damaged or holds code, or more than one network that could be meant.
        """
        path = Path(path)
        if not path.is_file():
            raise DataError(f"{path}: no such file (expected published weights, .pt or .safetensors)")
        content = read_tensors(path)
        found = _state_dicts(content)
        averages = [place for place in found if OF_AVERAGES.search(place)]
        chosen = averages or list(found)
        if len(chosen) > 1:
            what = "averages" if averages else "networks"
            raise DataError(f"{path}: holds {len(chosen)} {what}, {', '.join(chosen)}; keep the one to use")
        if not chosen:
            return cls(path, content, "", ())
        place = chosen[0]
        others = {name.split(".")[0] for name in _flat(content) if not name.startswith(place)}
        heads = dict.fromkeys(str(name).split(".")[0] for name in content)
        return cls(path, found[place], place, tuple(head for head in heads if head in others))

    @property
    def settings(self) -> dict[str, Any]:
        """Arguments of the ADMNetwork whose tensors these are, if it is one of the two published sizes.

        Raises:
            DataError: the tensors are of another network, or not all there.
        """
        first = self.tensors.get(SECOND)
        channels = first.shape[1] if isinstance(first, Tensor) and first.ndim == 4 else 3
        sizes = [{**settings, "in_channels": channels} for settings in FULL_SIZE.values()]
        expected = [published_shapes(**settings) for settings in sizes]
        fits = [sum(name in shapes for name in self.tensors) - len(shapes) for shapes in expected]
        best = fits.index(max(fits))
        try:
            check_tensors(self.path, expected[best], self.tensors)
        except DataError as error:
            which = f"(taken for the published one of {sizes[best]['image_size']} px)"
            raise DataError(f"{error} {which}; give --config, whose network block it fits") from None
        return sizes[best]

    def network(self, **settings: Any) -> ADMNetwork:
        """The network in float32 on the CPU.

        Args:
            settings: ADMNetwork's arguments; left out, those of the published size that the tensors are of.

        Raises:
            DataError: a tensor is missing, unexpected or misshapen.
        """
        settings = settings or self.settings
        network = ADMNetwork.empty(settings)
        check_tensors(self.path, published_shapes(**settings), self.tensors)
        sizes = shapes(network.unet)
        tensors = {}
        for theirs, ours in _published_names(network.unet).items():
            parts = [self.tensors[theirs]]
            if len(ours) == 3:  # rows are split into heads first, then each head into q, k and v
                parts = self.tensors[theirs].unflatten(0, (-1, 3, settings["num_head_channels"])).unbind(1)
            tensors.update({name: part.reshape(sizes[name]) for name, part in zip(ours, parts)})
        return network.filled(tensors)


def load_published_weights(path: str | os.PathLike[str], **settings: Any) -> ADMNetwork:
    """Read a published state dict with guided-diffusion's tensor names; nothing in the file is executed.

    Args:
        path: a .safetensors file, or else one that torch.load reads (.pt), as `PublishedWeights.read` takes it.
        settings: ADMNetwork's arguments; left out, those of the published size that the tensors are of.

    Returns:
        The network in float32 on the CPU.

    Raises:
        DataError: the file is missing, damaged or holds code, or a tensor is missing, unexpected or misshapen.
    """
    return PublishedWeights.read(path).network(**settings)


def _flat(content: Mapping[Any, Any]) -> dict[str, Any]:
    """All values of dictionaries in dictionaries, each dictionary once, by names that dots join."""
    values: dict[str, Any] = {}
    blocks, seen = [("", content)], {id(content)}
    for above, block in blocks:  # grows meanwhile
        for key, value in block.items():
            if not isinstance(value, dict):
                values[f"{above}{key}"] = value
            elif id(value) not in seen:
                seen.add(id(value))
                blocks.append((f"{above}{key}.", value))
    return values


def _state_dicts(content: Mapping[Any, Any]) -> dict[str, dict[str, Any]]:
    """The state dicts in a file, each by the names and prefixes before its own."""
    values = _flat(content)
    places = [name.removesuffix(FIRST) for name in values if name.endswith(FIRST)]
    places = sorted((place for place in places if f"{place}{SECOND}" in values), key=len)
    found: dict[str, dict[str, Any]] = {place: {} for place in places}
    for name, value in values.items():
        holders = [place for place in places if name.startswith(place)]
        if holders:  # the longest: what is in "model.ema." is not in "model."
            found[holders[-1]][name.removeprefix(holders[-1])] = value
    if len(found) == 1:  # averages may be a list, in the order of the weights
        (weights,) = found.values()
        for name, value in values.items():
            if isinstance(value, list) and len(value) == len(weights) and OF_AVERAGES.search(name):
                found[f"{name}."] = dict(zip(weights, value))
    return found


def published_shapes(**settings: Any) -> dict[str, tuple[int, ...]]:
    """Name and shape of every tensor of a published state dict; needs no memory for the weights.

    Args:
        settings: ADMNetwork's arguments.

    Returns:
        Guided-diffusion's tensor name → shape.

    Raises:
        ValueError: the settings do not describe a network.
    """
    network = ADMNetwork.empty(settings)
    sizes = shapes(network.unet)
    published = {}
    for theirs, ours in _published_names(network.unet).items():
        rows, *columns = sizes[ours[0]]
        kernel = (1,) if theirs.endswith(("qkv.weight", "proj_out.weight")) else ()  # a 1-D convolution there
        published[theirs] = (len(ours) * rows, *columns, *kernel)
    return published


def _published_names(unet: nn.Module) -> dict[str, list[str]]:
    """Map every published tensor name to ours: to one name, or for a qkv to the three of q, k and v."""
    middle = ["mid_block.resnets.0", "mid_block.attentions.0", "mid_block.resnets.1"]
    groups = {"middle_block": middle}
    groups |= {f"input_blocks.{i}": group for i, group in enumerate(_block_groups(unet, "down_blocks"), start=1)}
    groups |= {f"output_blocks.{i}": group for i, group in enumerate(_block_groups(unet, "up_blocks"))}
    layers = {theirs: [ours] for theirs, ours in OUTER_LAYERS.items()}
    for theirs, group in groups.items():
        for part, ours in enumerate(group):
            inner = ATTENTION_LAYERS if ".attentions." in ours else RESIDUAL_LAYERS
            for name, our_names in inner.items():
                layers[f"{theirs}.{part}.{name}"] = [f"{ours}.{our_name}" for our_name in our_names.split()]
    names = {
        f"{theirs}.{kind}": [f"{our}.{kind}" for our in ours]
        for theirs, ours in layers.items()
        for kind in ("weight", "bias")
    }
    present = unet.state_dict()  # a block that keeps its number of channels has no skip connection
    return {theirs: ours for theirs, ours in names.items() if ours[0] in present}


def _block_groups(unet: nn.Module, side: str) -> list[list[str]]:
    """Our names of the blocks on one side of the U-Net, grouped as guided-diffusion numbers them."""
    groups = []
    for level, block in enumerate(getattr(unet, side)):
        kinds = ["resnets", "attentions"] if hasattr(block, "attentions") else ["resnets"]
        for i in range(len(block.resnets)):
            groups.append([f"{side}.{level}.{kind}.{i}" for kind in kinds])
        if getattr(block, "downsamplers", None):
            groups.append([f"{side}.{level}.downsamplers.0"])
        if getattr(block, "upsamplers", None):
            groups[-1].append(f"{side}.{level}.upsamplers.0")
    return groups
