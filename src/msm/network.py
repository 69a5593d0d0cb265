"""The network: guided-diffusion's ADM U-Net, on top of diffusers' UNet2DModel (SPEC §8).

`UNet2DModel` computes exactly the ADM network once it is configured as in `_build_unet`; what it lacks is
ADM's zero initialisation, done there too. Two settings are ours: `num_groups` keeps small networks from forgetting
how bright an image is, `patch_size` begins the levels at patches instead of pixels, which halves the cost
(docs/speed.md). Weights come from two places:

* a folder of ours: `config.json` (the settings) and `model.safetensors` (diffusers' tensor names), written by
  `ADMNetwork.save` and read by `ADMNetwork.load`;
* a published state dict with guided-diffusion's tensor names, read by `load_published_weights`.

Sources: Dhariwal & Nichol, "Diffusion Models Beat GANs on Image Synthesis", 2021; patches: Hoogeboom, Heek &
Salimans, "simple diffusion", 2023.
"""

import copy
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor, nn
from torch.nn.functional import pixel_shuffle, pixel_unshuffle

CONFIG_FILE = "config.json"
WEIGHTS_FILE = "model.safetensors"
ZERO_INITIALISED = ("conv2", "to_out.0", "conv_out")  # the end of each residual branch, and of the network

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


class ADMNetwork(nn.Module):
    """The ADM U-Net: predicts the noise ε in an image, given the image and its time t.

    Args:
        image_size: side of the training images in pixels; attention_resolutions refer to it.
        in_channels: channels of input and output (2 for one complex image).
        num_channels: channels of the first level, a multiple of num_groups.
        num_res_blocks: residual blocks a level in the encoder; the decoder has one more.
        channel_mult: channels of each level as multiples of num_channels, the first being 1.
        attention_resolutions: sides of the levels that have attention, as the levels see the image (in patches).
        num_head_channels: channels of one attention head.
        num_groups: groups of every GroupNorm; 32 is the published network. With as many groups as channels each
            channel loses its mean, and with these the brightness of the image: take 8 for 32 channels.
        patch_size: side in pixels of the patches that the first level sees as one; 1 is the published network.

    Raises:
        ValueError: the settings do not describe a network.
    """

    def __init__(
        self,
        image_size: int,
        in_channels: int,
        num_channels: int,
        num_res_blocks: int,
        channel_mult: tuple[int, ...] | list[int],
        attention_resolutions: tuple[int, ...] | list[int],
        num_head_channels: int,
        num_groups: int = 32,
        patch_size: int = 1,
    ):
        super().__init__()
        settings = {
            "image_size": image_size,
            "in_channels": in_channels,
            "num_channels": num_channels,
            "num_res_blocks": num_res_blocks,
            "channel_mult": channel_mult,
            "attention_resolutions": attention_resolutions,
            "num_head_channels": num_head_channels,
            "num_groups": num_groups,
            "patch_size": patch_size,
        }
        _check_settings(settings)
        lists = {"channel_mult": list(channel_mult), "attention_resolutions": list(attention_resolutions)}
        self._settings = {**settings, **lists}
        self.image_size = image_size
        self.in_channels = in_channels
        self.patch_size = patch_size
        self.divisor = patch_size * 2 ** (len(channel_mult) - 1)  # of the height and width that the levels can halve
        self.unet = _build_unet(self._settings)

    @property
    def settings(self) -> dict[str, Any]:
        """The constructor's arguments by name, ready for JSON."""
        return copy.deepcopy(self._settings)

    def forward(self, u: Tensor, t: Tensor) -> Tensor:
        """Predict the noise in u.

        Args:
            u: (B, in_channels, H, W) real; H and W are multiples of `divisor`, whatever image_size is.
            t: time on the 0…999 scale, scalar or (B,), fractional values allowed.

        Returns:
            ε̂ of u's shape.

        Raises:
            ValueError: a shape or type that the network cannot take.
        """
        divisible = all(side % self.divisor == 0 for side in u.shape[2:])
        if u.is_complex() or u.ndim != 4 or u.shape[1] != self.in_channels or not divisible:
            wanted = f"real (B, {self.in_channels}, H, W), H and W multiples of {self.divisor}"
            raise ValueError(f"the network's input is {u.dtype} {list(u.shape)}, expected {wanted}")
        # UNet2DModel truncates a Python number to an integer, so t always goes down as a float tensor.
        t = torch.as_tensor(t, dtype=torch.float32, device=u.device)
        if t.shape not in ((), (len(u),)):
            raise ValueError(f"t has shape {list(t.shape)}, expected a scalar or [{len(u)}]")
        patches = pixel_unshuffle(u, self.patch_size)
        return pixel_shuffle(self.unet(patches, t.expand(len(u)), return_dict=False)[0], self.patch_size)

    def save(self, folder: str | os.PathLike[str], dtype: torch.dtype = torch.float32) -> None:
        """Write settings and weights; a file already there is replaced only once the new one is whole.

        Args:
            folder: created if missing.
            dtype: floating type of the stored weights; float16 halves the size.

        Raises:
            ValueError: dtype is not a floating type.
        """
        if not dtype.is_floating_point:
            raise ValueError(f"weights cannot be saved as {dtype}, expected a floating type")
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        state = self.unet.state_dict()
        weights = {name: value.to("cpu", dtype).contiguous() for name, value in state.items()}
        partial = folder / f"{WEIGHTS_FILE}.partial"
        partial.write_bytes(safetensors.torch.save(weights, {"format": "pt"}))  # save_file makes it private (0600)
        os.replace(partial, folder / WEIGHTS_FILE)
        partial = folder / f"{CONFIG_FILE}.partial"
        partial.write_text(json.dumps(self.settings, indent=2) + "\n", encoding="utf-8")
        os.replace(partial, folder / CONFIG_FILE)

    @classmethod
    def load(cls, folder: str | os.PathLike[str]) -> "ADMNetwork":
        """Read a network that `save` wrote.

        Args:
            folder: holds config.json and model.safetensors.

        Returns:
            The network in float32 on the CPU.

        Raises:
            FileNotFoundError: a file is missing.
            ValueError: a file is damaged, or the weights do not fit the settings.
        """
        config, weights = Path(folder) / CONFIG_FILE, Path(folder) / WEIGHTS_FILE
        for path in (config, weights):
            if not path.is_file():
                raise FileNotFoundError(f"{path}: no such file (a network is {CONFIG_FILE} and {WEIGHTS_FILE})")
        tensors = _read_tensors(weights)
        try:
            settings = json.loads(config.read_text(encoding="utf-8"))
            blocks = settings["num_res_blocks"] * len(settings["channel_mult"])
            if blocks > len(tensors):  # building them takes memory
                raise ValueError(f"{blocks} blocks, {weights.name} holds {len(tensors)} tensors")
            network = _empty_network(settings)
        except (TypeError, ValueError, KeyError, RecursionError) as error:
            raise ValueError(f"{config}: not the settings of a network ({error})") from error
        _check_tensors(weights, _shapes(network), tensors)
        return _filled(network, tensors)


def load_published_weights(path: str | os.PathLike[str], **settings: Any) -> ADMNetwork:
    """Read a published state dict with guided-diffusion's tensor names; nothing in the file is executed.

    Args:
        path: a .safetensors file, or else one that torch.load reads (.pt).
        settings: ADMNetwork's arguments.

    Returns:
        The network in float32 on the CPU.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is damaged or holds code, or a tensor is missing, unexpected or misshapen.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file (expected published weights, .pt or .safetensors)")
    network = _empty_network(settings)
    published = _read_tensors(path)
    _check_tensors(path, published_shapes(**settings), published)
    shapes = _shapes(network)
    tensors = {}
    for theirs, ours in _published_names(network.unet).items():
        parts = [published[theirs]]
        if len(ours) == 3:  # rows are split into heads first, then each head into q, k and v
            parts = published[theirs].unflatten(0, (-1, 3, settings["num_head_channels"])).unbind(1)
        tensors.update({name: part.reshape(shapes[name]) for name, part in zip(ours, parts)})
    return _filled(network, tensors)


def published_shapes(**settings: Any) -> dict[str, tuple[int, ...]]:
    """Name and shape of every tensor of a published state dict; needs no memory for the weights.

    Args:
        settings: ADMNetwork's arguments.

    Returns:
        Guided-diffusion's tensor name → shape.

    Raises:
        ValueError: the settings do not describe a network.
    """
    network = _empty_network(settings)
    shapes = _shapes(network)
    published = {}
    for theirs, ours in _published_names(network.unet).items():
        rows, *columns = shapes[ours[0]]
        kernel = (1,) if theirs.endswith(("qkv.weight", "proj_out.weight")) else ()  # a 1-D convolution there
        published[theirs] = (len(ours) * rows, *columns, *kernel)
    return published


def _check_settings(settings: Mapping[str, Any]) -> None:
    """Raise ValueError, naming the setting, if the settings do not describe an ADM network."""
    for name, value in settings.items():
        many = name in ("channel_mult", "attention_resolutions")
        values = value if many else [value]
        if not isinstance(values, list | tuple) or any(type(v) is not int or v < 1 for v in values):
            kind = "a list of positive whole numbers" if many else "a positive whole number"
            raise ValueError(f"{name} is {value!r}, expected {kind}")
    size, base, head = settings["image_size"], settings["num_channels"], settings["num_head_channels"]
    mult, attention, patch = settings["channel_mult"], settings["attention_resolutions"], settings["patch_size"]
    if not mult or mult[0] != 1:
        raise ValueError(f"channel_mult is {mult}, expected a list that begins with 1")
    step = patch * 2 ** (len(mult) - 1)
    if size % step:
        patches = f" of patches of {patch} pixels" if patch > 1 else ""
        raise ValueError(f"image_size is {size}, expected a multiple of {step} for {len(mult)} levels{patches}")
    if base % settings["num_groups"]:
        raise ValueError(f"num_channels is {base}, expected a multiple of num_groups, {settings['num_groups']}")
    channels = {size // patch // 2**level: base * m for level, m in enumerate(mult)}
    for side in attention:
        if side not in channels:
            raise ValueError(f"attention_resolutions has {side}, expected some of {list(channels)}")
    for side in (*attention, min(channels)):  # the middle, at the lowest resolution, always has attention
        if channels[side] % head:
            where = f"the {channels[side]} channels of the level of side {side}"
            raise ValueError(f"num_head_channels is {head}, expected a divisor of {where}")


def _build_unet(settings: Mapping[str, Any]) -> nn.Module:
    """Build diffusers' U-Net with ADM's layers, order and initial weights."""
    from diffusers import UNet2DModel  # takes seconds to import

    mult, resolutions = settings["channel_mult"], settings["attention_resolutions"]
    patch = settings["patch_size"]
    side, channels = settings["image_size"] // patch, settings["in_channels"] * patch**2
    attention = [side // 2**level in resolutions for level in range(len(mult))]
    unet: Any = UNet2DModel(
        sample_size=side,
        in_channels=channels,
        out_channels=channels,
        block_out_channels=tuple(settings["num_channels"] * m for m in mult),
        layers_per_block=settings["num_res_blocks"],
        down_block_types=tuple("AttnDownBlock2D" if a else "ResnetDownsampleBlock2D" for a in attention),
        up_block_types=tuple("AttnUpBlock2D" if a else "ResnetUpsampleBlock2D" for a in attention[::-1]),
        downsample_type="resnet",
        upsample_type="resnet",
        resnet_time_scale_shift="scale_shift",
        attention_head_dim=settings["num_head_channels"],
        norm_num_groups=settings["num_groups"],
        attn_norm_num_groups=settings["num_groups"],  # without it the middle attention has no norm
        norm_eps=1e-5,
        flip_sin_to_cos=True,  # the embedding is [cos, sin] …
        freq_shift=0,  # … of t · 10000^(−k/half)
        dropout=0.0,
    )
    for name, parameter in unet.named_parameters():
        if name.rpartition(".")[0].endswith(ZERO_INITIALISED):
            nn.init.zeros_(parameter)
    return unet


def _empty_network(settings: Mapping[str, Any]) -> ADMNetwork:
    """Build a network without memory or random draws: for its shapes, or for `_filled`."""
    with torch.device("meta"):
        return ADMNetwork(**settings)


def _filled(network: ADMNetwork, tensors: Mapping[str, Tensor]) -> ADMNetwork:
    """Give an empty network float32 copies of all its weights; they share no memory with the file."""
    layout = torch.contiguous_format
    copies = {name: v.to(torch.float32, copy=True, memory_format=layout) for name, v in tensors.items()}
    network.unet.load_state_dict(copies, assign=True)
    return network


def _shapes(network: ADMNetwork) -> dict[str, tuple[int, ...]]:
    """Name and shape of every tensor of a network in diffusers' names."""
    return {name: tuple(value.shape) for name, value in network.unet.state_dict().items()}


def _read_tensors(path: Path) -> dict[Any, Any]:
    """Read a .safetensors file or a PyTorch pickle of plain values, without running anything it holds."""
    if path.suffix == ".safetensors":
        try:
            return safetensors.torch.load_file(path)
        except safetensors.SafetensorError as error:
            raise ValueError(f"{path}: damaged, or not a safetensors file; copy or make it again") from error
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a broken or hostile pickle may raise anything
        raise ValueError(f"{path}: not a readable state dict of plain tensors (code in it is never run)") from error
    if not isinstance(content, dict):
        raise ValueError(f"{path}: holds a {type(content).__name__}, expected a state dict")
    return content


def _check_tensors(path: Path, expected: Mapping[str, tuple[int, ...]], found: Mapping[Any, Any]) -> None:
    """Raise ValueError, naming the file and the first offenders, unless names, shapes and types fit."""
    kinds = {
        "missing": [name for name in expected if name not in found],
        "unexpected": [repr(name) for name in found if name not in expected],
        "misshapen": [
            f"{name}, {_describe(found[name])} instead of {list(shape)}"
            for name, shape in expected.items()
            if name in found and _describe(found[name]) != str(list(shape))
        ],
    }
    problems = [f"{len(names)} {kind} (first: {names[0]})" for kind, names in kinds.items() if names]
    if problems:
        raise ValueError(f"{path}: tensors do not fit the network's settings: {'; '.join(problems)}")


def _describe(value: Any) -> str:
    """Shape of an ordinary floating-point tensor, else what the value is."""
    if not isinstance(value, Tensor):
        return f"a {type(value).__name__}"
    if not value.is_floating_point() or value.layout != torch.strided or value.device.type != "cpu":
        return f"a {value.dtype} {value.layout} tensor on {value.device}"
    return str(list(value.shape))


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
