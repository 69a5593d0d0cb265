"""Published weights: state dicts with guided-diffusion's tensor names (SPEC §8)."""

import os
from pathlib import Path
from typing import Any

from torch import nn

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


def load_published_weights(path: str | os.PathLike[str], **settings: Any) -> ADMNetwork:
    """Read a published state dict with guided-diffusion's tensor names; nothing in the file is executed.

    Args:
        path: a .safetensors file, or else one that torch.load reads (.pt).
        settings: ADMNetwork's arguments.

    Returns:
        The network in float32 on the CPU.

    Raises:
        DataError: the file is missing, damaged or holds code, or a tensor is missing, unexpected or misshapen.
    """
    path = Path(path)
    if not path.is_file():
        raise DataError(f"{path}: no such file (expected published weights, .pt or .safetensors)")
    network = ADMNetwork.empty(settings)
    published = read_tensors(path)
    check_tensors(path, published_shapes(**settings), published)
    sizes = shapes(network.unet)
    tensors = {}
    for theirs, ours in _published_names(network.unet).items():
        parts = [published[theirs]]
        if len(ours) == 3:  # rows are split into heads first, then each head into q, k and v
            parts = published[theirs].unflatten(0, (-1, 3, settings["num_head_channels"])).unbind(1)
        tensors.update({name: part.reshape(sizes[name]) for name, part in zip(ours, parts)})
    return network.filled(tensors)


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
