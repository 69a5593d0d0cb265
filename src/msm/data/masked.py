"""Photos that miss pixels, as they are: what a file lacks was not measured, and nothing else is left out (SPEC §3).

A pixel is missing where the file is not fully opaque, is not a finite number or holds its no-data value, or where the
mask beside it is not white. What lies there is set to black before anything else is done with the file.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ..errors import DataError
from ..measurement import Measurement
from ..noise import estimate_noise
from .decode import Picture, Rules, decode
from .folder import PHOTOS, Account, Split, image_files, of_split
from .images import middle

ROUNDING = 1e-5  # of the share of missing pixels below a resized one
NOTHING = "with nothing there"


@dataclass(frozen=True)
class MaskedFolder:
    """A folder of photos that miss pixels.

    Args:
        folder: where the photos are.
        masks: a folder of masks: for a photo the file of its name, of whatever suffix; white is measured. None: the
            photos themselves say what they miss.
        split: train or test.
        held_out: how many of the first are for testing.
        size: height and width that photos are brought to.
        rules: how files are read.
        noise_std: ρ; None: estimated from each photo.
    """

    folder: Path
    masks: Path | None
    split: Split
    held_out: int
    size: int
    rules: Rules
    noise_std: float | None = 0.0

    def items(self, account: Account) -> Iterator[tuple[str, Measurement]]:
        """Name and measurement, a batch of one, of each photo; those of which nothing is there are left out.

        Args:
            account: is told what was done with the files.

        Raises:
            DataError: a file cannot be read, or a mask does not go with its photo.
        """
        files = image_files(self.folder, account, PHOTOS, self.masks)
        masks = {} if self.masks is None else _masks_of(files, self.folder, self.masks, account)
        for name, path in of_split(files, self.split, self.held_out).items():
            measured = _white(masks[name], account) if name in masks else None
            picture = decode(path, self.rules, account, measured)
            there = picture.there
            values, mask = _resized(picture, self.size)
            if not mask.any():
                account.left_out[NOTHING] += 1
                continue
            account.read += 1
            account.done["without a mask beside them"] += self.masks is not None and name not in masks
            account.done["complete"] += bool(there.all())
            account.there += float(there.mean())
            account.there_resized += mask.float().mean().item()
            yield name, self._with_noise(Measurement(values.expand(1, self.rules.channels, -1, -1), mask), path)

    def _with_noise(self, photo: Measurement, path: Path) -> Measurement:
        noise_std = self.noise_std
        if noise_std is None:
            try:
                noise_std = estimate_noise(photo)[0].item()
            except ValueError as reason:
                raise DataError(f"{path}: {reason}; set data.noise_std to a number") from None
        return Measurement(photo.values, photo.mask, None, noise_std)


def _masks_of(files: dict[str, Path], folder: Path, masks: Path, account: Account) -> dict[str, Path]:
    """The mask of each photo that has one, by the photo's name."""
    if not masks.is_dir():
        raise DataError(f"{masks}: no such folder; set data.masks_dir to the folder with the masks, or to null")
    photos, beside = (_by_stem(found) for found in (files, image_files(masks, Account(), PHOTOS)))
    both = {photos[stem]: masks / mask for stem, mask in beside.items() if stem in photos}
    if not both:
        found = f"{next(iter(beside.values()))} beside {next(iter(files))}"
        raise DataError(f"{masks}: no mask has the name of a photo of {folder} ({found}); name each as its photo")
    account.left_out["masks without a photo"] += len(beside) - len(both)
    return both


def _by_stem(files: dict[str, Path]) -> dict[str, str]:
    """Names by what is before their suffix."""
    found = dict[str, str]()
    for name, path in files.items():
        stem = name.removesuffix(path.suffix)
        if stem in found:
            raise DataError(f"{path}: {found[stem]} has the same name before the suffix, by which masks are found")
        found[stem] = name
    return found


def _white(path: Path, account: Account) -> np.ndarray:
    """What a mask says was measured (H, W): where it is white, 255 or the largest of its type, or 1."""
    mask = decode(path, Rules(channels=1, complete=False), Account())
    if not mask.there.all():
        raise DataError(f"{path}: has transparency or NaN; a mask is black and white, save it without")
    values = np.array(mask.bands[0], dtype=np.float32)
    top = float(values.max())
    white = top if 0 < top <= 1 else 255.0  # masks of 0 and 1 are common
    account.done["with a mask of 0 and 1"] += white <= 1
    account.done["with grey in the mask, taken for missing"] += bool(((values > 0) & (values < white)).any())
    return values >= white


def _resized(picture: Picture, size: int) -> tuple[Tensor, Tensor]:
    """The middle square of a photo, in [-1, 1], and the mask, at a size (1 or 3, size, size) and (1, 1, size, size).

    A pixel is the average of those below it, and measured where all of them were: so it is what a complete photo
    would have had there.
    """
    there, side = picture.there, min(picture.there.shape)
    kernel = Image.Resampling.BOX if side >= size else Image.Resampling.BILINEAR

    def resized(values: np.ndarray) -> np.ndarray:
        return np.array(middle(Image.fromarray(values)).resize((size, size), kernel))

    mask = torch.from_numpy(resized((~there).astype(np.float32)) < ROUNDING)[None, None]
    bands = [resized(np.where(there, np.array(band, dtype=np.float32), np.float32(0))) for band in picture.bands]
    return torch.from_numpy(np.stack(bands)) / 127.5 - 1, mask
