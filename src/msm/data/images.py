"""Folders of photos and of magnitude slices (SPEC §8)."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ..errors import DataError
from .acquire import Source, simulate_scan
from .decode import Range, Rules, decode
from .folder import SUFFIXES, Account, Split, image_files, of_split


def load_image(path: Path, size: int, rules: Rules, account: Account | None = None) -> Tensor:
    """Read an image, crop its middle to a square and resize it.

    Args:
        path: image file.
        size: height and width in pixels.
        rules: how it is read; nothing may be missing in it.
        account: is told what was done.

    Returns:
        (channels, size, size), in [-1, 1].

    Raises:
        DataError: if it is no readable image.
    """
    bands = [middle(band) for band in decode(path, rules, account or Account()).bands]
    resized = [np.array(band.resize((size, size), Image.Resampling.LANCZOS), dtype=np.float32) for band in bands]
    pixels = torch.from_numpy(np.stack(resized)).clamp(0, 255) / 127.5 - 1
    return pixels.expand(rules.channels, -1, -1).contiguous()


def middle(band: Image.Image) -> Image.Image:
    """The largest square in the middle."""
    side = min(band.size)
    left, top = (band.width - side) // 2, (band.height - side) // 2
    return band.crop((left, top, left + side, top + side))


def item_names(
    folder: Path, split: Split, held_out: int, suffixes: set[str] = SUFFIXES, besides: Path | None = None
) -> list[str]:
    """Names of the files of a split, without reading them; the last two are as in `image_files`."""
    return list(of_split(image_files(folder, Account(), suffixes, besides), split, held_out))


def photos(
    folder: Path,
    split: Split,
    held_out: int,
    size: int,
    channels: int,
    value_range: Range | None = None,
    account: Account | None = None,
) -> Iterator[Source]:
    """Photos of a folder, ready to be measured; the account is told what was done with its files."""
    account, rules = account or Account(), Rules(channels, value_range)
    for name, path in of_split(image_files(folder, account), split, held_out).items():
        image = load_image(path, size, rules, account)
        account.read += 1
        yield Source(name, image)


def slices(
    folder: Path,
    split: Split,
    held_out: int,
    size: int,
    coils: int,
    seed: int,
    phase_detail: float = 0.0,
    value_range: Range | None = None,
    account: Account | None = None,
) -> Iterator[Source]:
    """Magnitude slices of a folder, made into multi-coil scans; each slice's maximum is scaled to 1."""
    account, rules = account or Account(), Rules(1, value_range)
    for name, path in of_split(image_files(folder, account), split, held_out).items():
        magnitude = (load_image(path, size, rules, account)[0] + 1) / 2
        if magnitude.max() <= 0:
            raise DataError(f"{path}: the image is black; remove it")
        account.read += 1
        yield simulate_scan(name, magnitude / magnitude.max(), coils, seed, phase_detail)
