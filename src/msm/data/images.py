"""Folders of photos and of magnitude slices (SPEC §8)."""

from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from ..errors import DataError
from .acquire import Source, simulate_scan

SUFFIXES = {".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp"}
FORMATS = ("PNG", "JPEG", "BMP", "TIFF", "WEBP")  # whatever a file is named: Pillow gives EPS to Ghostscript, a program
Split = Literal["train", "test"]


def _items(folder: Path, split: Split, held_out: int) -> dict[str, Path]:
    """Names and image files of a split; the first `held_out` files test, of fewer than 100 all serve both."""
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder; set setting.dataset_dir to the folder with the images")
    files = sorted(f for f in folder.rglob("*") if f.suffix.lower() in SUFFIXES and f.name[0] != ".")
    if not files:
        raise DataError(f"{folder}: holds no images ({', '.join(sorted(SUFFIXES))}); point to a folder that does")
    is_split = held_out > 0 and len(files) >= 100
    chosen = files if not is_split else files[:held_out] if split == "test" else files[held_out:]
    if not chosen:
        raise DataError(f"{files[0].parent}: all {len(files)} images are held out for testing; set data.held_out lower")
    return {path.relative_to(folder).as_posix(): path for path in chosen}


def load_image(path: Path, size: int, channels: int) -> Tensor:
    """Read an image, crop its middle to a square and resize it.

    Args:
        path: image file, of 8 bits a channel or of 16 bits of grey; black is 0, white the largest number of its type.
        size: height and width in pixels.
        channels: 3 (RGB) or 1 (grey).

    Returns:
        (channels, size, size), in [-1, 1].

    Raises:
        DataError: if it is no readable image.
    """
    try:
        with Image.open(path, formats=FORMATS) as file:
            image = _of_bytes(ImageOps.exif_transpose(file), channels)
    except Exception as error:  # the decoders of damaged files raise whatever they stumble over
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise DataError(f"{path}: not a readable image ({reason}); mend or remove it") from None
    side = min(image.size)
    left, top = (image.width - side) // 2, (image.height - side) // 2
    square = image.crop((left, top, left + side, top + side)).resize((size, size), Image.Resampling.LANCZOS)
    pixels = torch.from_numpy(np.array(square, dtype=np.float32)).clamp(0, 255) / 127.5 - 1
    return pixels.reshape(size, size, -1).permute(2, 0, 1).expand(channels, -1, -1).contiguous()


def _of_bytes(image: Image.Image, channels: int) -> Image.Image:
    """The image with pixels on the scale of 0 … 255: RGB, grey, or grey of floating point if it has 16 bits."""
    if image.mode not in ("F", "I") and not image.mode.startswith("I;"):
        return image.convert("RGB" if channels == 3 else "L")
    pixels = np.array(image, dtype=np.float32)
    if image.mode == "F" or not 0 <= pixels.min() <= pixels.max() < 2**16:
        raise ValueError("pixels of floating point, or of 32 bits, have no white; save it with 8 or 16 bits")
    return Image.fromarray(pixels / 257)


def item_names(folder: Path, split: Split, held_out: int) -> list[str]:
    """Names of the items that `photos` and `slices` give, without reading them."""
    return list(_items(folder, split, held_out))


def photos(folder: Path, split: Split, held_out: int, size: int, channels: int) -> Iterator[Source]:
    """Photos of a folder, ready to be measured."""
    for name, path in _items(folder, split, held_out).items():
        yield Source(name, load_image(path, size, channels))


def slices(
    folder: Path, split: Split, held_out: int, size: int, coils: int, seed: int, phase_detail: float = 0.0
) -> Iterator[Source]:
    """Magnitude slices of a folder, made into multi-coil scans; each slice's maximum is scaled to 1."""
    for name, path in _items(folder, split, held_out).items():
        magnitude = (load_image(path, size, 1)[0] + 1) / 2
        if magnitude.max() <= 0:
            raise DataError(f"{path}: the image is black; remove it")
        yield simulate_scan(name, magnitude / magnitude.max(), coils, seed, phase_detail)
