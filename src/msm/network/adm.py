"""guided-diffusion's ADM U-Net, on top of diffusers' UNet2DModel (SPEC §8).

`UNet2DModel` computes exactly the ADM network once it is configured as in `_build_unet`; what it lacks is ADM's zero
initialisation, done there too. Two settings are ours: `num_groups` keeps small networks from forgetting how bright an
image is, `patch_size` begins the levels at patches instead of pixels, which halves the cost (docs/studies/speed.md).

Sources: Dhariwal & Nichol, "Diffusion Models Beat GANs on Image Synthesis", 2021; patches: Hoogeboom, Heek &
Salimans, "simple diffusion", 2023.
"""

import copy
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import pixel_shuffle, pixel_unshuffle

from ..errors import DataError
from .stored import CONFIG_FILE, WEIGHTS_FILE, StoredNetwork, check_tensors, read_settings, read_tensors, shapes

ZERO_INITIALISED = ("conv2", "to_out.0", "conv_out")  # the end of each residual branch, and of the network


class SettingError(ValueError):
    """A setting that describes no ADM network: which, and why."""

    def __init__(self, name: str, reason: str):
        super().__init__(f"{name}: {reason}")
        self.name, self.reason = name, reason


class ADMNetwork(StoredNetwork):
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
        check_settings(settings)
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

    @property
    def inner(self) -> nn.Module:
        """The U-Net of diffusers, under whose names the weights are stored."""
        return self.unet

    @classmethod
    def load(cls, folder: str | os.PathLike[str]) -> "ADMNetwork":
        """Read a network that `save` wrote.

        Args:
            folder: holds config.json and model.safetensors.

        Returns:
            The network in float32 on the CPU.

        Raises:
            DataError: a file is missing or damaged, or the weights do not fit the settings.
        """
        settings, tensors = read_settings(folder), read_tensors(Path(folder) / WEIGHTS_FILE)
        try:
            blocks = settings["num_res_blocks"] * len(settings["channel_mult"])
            if blocks > len(tensors):  # building them takes memory
                raise ValueError(f"{blocks} blocks, {WEIGHTS_FILE} holds {len(tensors)} tensors")
            network = cls.empty(settings)
        except (TypeError, ValueError, KeyError) as error:
            raise DataError(f"{Path(folder) / CONFIG_FILE}: not the settings of a network ({error})") from error
        check_tensors(Path(folder) / WEIGHTS_FILE, shapes(network.unet), tensors)
        return network.filled(tensors)

    @classmethod
    def empty(cls, settings: Mapping[str, Any]) -> "ADMNetwork":
        """A network without memory or random draws: for its shapes, or for `filled`."""
        with torch.device("meta"):
            return cls(**settings)

    def filled(self, tensors: Mapping[str, Tensor]) -> "ADMNetwork":
        """Give an empty network float32 copies of all its weights; they share no memory with the file."""
        layout = torch.contiguous_format
        copies = {name: v.to(torch.float32, copy=True, memory_format=layout) for name, v in tensors.items()}
        self.unet.load_state_dict(copies, assign=True)
        return self


def check_settings(settings: Mapping[str, Any]) -> None:
    """Raise SettingError if the settings, by name, do not describe an ADM network."""
    for name, value in settings.items():
        many = name in ("channel_mult", "attention_resolutions")
        values = value if many else [value]
        if not isinstance(values, list | tuple) or any(type(v) is not int or v < 1 for v in values):
            kind = "a list of positive whole numbers" if many else "a positive whole number"
            raise SettingError(name, f"found {value!r}; use {kind}")
    base, head, patch = settings["num_channels"], settings["num_head_channels"], settings["patch_size"]
    mult, last = list(settings["channel_mult"]), len(settings["channel_mult"]) - 1
    if settings["image_size"] % patch:
        raise SettingError("patch_size", f"found {patch}; use a divisor of image_size {settings['image_size']}")
    if base % settings["num_groups"]:
        raise SettingError("num_channels", f"found {base}; use a multiple of num_groups {settings['num_groups']}")
    if not mult or mult[0] != 1:
        raise SettingError("channel_mult", f"found {mult}; begin with 1")
    side = settings["image_size"] // patch
    if side % 2**last:
        raise SettingError("channel_mult", f"found {mult}; a side of {side} cannot be halved {last} times; use fewer")
    widths = {side >> level: base * m for level, m in enumerate(mult)}
    for side in settings["attention_resolutions"]:
        if side not in widths:
            reason = f"the levels of channel_mult are at {list(widths)}; use some of these"
            raise SettingError("attention_resolutions", f"found {side}; {reason}")
    for side in (*settings["attention_resolutions"], min(widths)):  # the lowest level always has attention
        if widths[side] % head:
            reason = f"use a divisor of the {widths[side]} channels of the level of side {side}"
            raise SettingError("num_head_channels", f"found {head}; {reason}")


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
