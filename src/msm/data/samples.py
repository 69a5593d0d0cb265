"""Inputs of the demo that other packages ship: a real brain volume and a real portrait. Neither was trained on."""

import numpy as np
import torch
from PIL import Image

from ..errors import optional
from .acquire import Source, simulate_scan

PLACES = {"axial": (2, (0.45, 0.6)), "coronal": (1, (0.4, 0.6)), "sagittal": (0, (0.4, 0.55))}  # axis, shares of it


def brain_slices(size: int, coils: int, seed: int = 0) -> list[Source]:
    """`brain_pictures`, made into multi-coil scans.

    Args:
        size: height and width in pixels.
        coils: number of simulated coils.
        seed: seed of coils and phase.

    Returns:
        six slices, each scaled to magnitude 1.

    Raises:
        MissingPackage: as `brain_pictures`.
    """
    scans = []
    for name, picture in brain_pictures().items():
        resized = np.asarray(picture.resize((size, size), Image.Resampling.LANCZOS))
        magnitude = torch.from_numpy(resized.copy()).clamp(min=0)
        scans.append(simulate_scan(name, magnitude / magnitude.max(), coils, seed))
    return scans


def brain_pictures() -> dict[str, Image.Image]:
    """Slices of the MNI ICBM152 T1 brain (an average of 152 people, skull removed) on squares with a margin, float.

    Returns:
        six, by name.

    Raises:
        MissingPackage: if nilearn, which ships the volume, is missing.

    Source: Fonov et al., NeuroImage 54 (2011), as in nilearn.
    """
    datasets = optional("nilearn.datasets", "the demo brain", "demo")
    volume = np.asarray(datasets.load_mni152_template(resolution=1).dataobj, dtype=np.float32)
    pictures = {}
    for plane, (axis, places) in PLACES.items():
        for place in places:
            image = np.take(volume, round(place * (volume.shape[axis] - 1)), axis)
            upright = np.rot90(image).clip(min=0)  # the head, or the nose, is up
            pictures[f"{plane}_{100 * place:.0f}"] = _square(upright)
    return pictures


def _square(image: np.ndarray) -> Image.Image:
    """The image in the middle of a square with a margin."""
    side = round(1.15 * max(image.shape))
    rows, columns = (side - n for n in image.shape)
    return Image.fromarray(np.pad(image, ((rows // 2, rows - rows // 2), (columns // 2, columns - columns // 2))))


def portrait(size: int) -> Source:
    """`portrait_picture`, (3, size, size), in [-1, 1]."""
    face = portrait_picture().resize((size, size), Image.Resampling.LANCZOS)
    pixels = torch.from_numpy(np.asarray(face, dtype=np.float32).copy()) / 127.5 - 1
    return Source("astronaut", pixels.permute(2, 0, 1).contiguous())


def portrait_picture() -> Image.Image:
    """The face of astronaut Eileen Collins.

    Source: NASA, public domain, as in scikit-image.
    """
    from skimage.data import astronaut

    return Image.fromarray(astronaut()).crop((134, 10, 318, 194))
