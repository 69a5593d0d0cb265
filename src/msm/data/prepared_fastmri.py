"""fastMRI as the authors prepared it (SPEC §8): `x_hat/NAME.h5` and `smps_hat/NAME.h5` side by side.

x_hat holds images (slices, H, W), smps_hat coil maps (slices, coils, H, W), both complex.
"""

import csv
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import h5py
import torch
from torch import Tensor

from ..errors import DataError
from .acquire import Source
from .folder import Split
from .hdf5 import open_hdf5, readable

VOLUMES: dict[Split, range] = {"train": range(0, 1355), "test": range(1355, 1377)}
LAST_SLICES_DROPPED = 5


def scans(folder: Path, split: Split, size: int) -> Iterator[Source]:
    """Slices of the prepared volumes with their coil maps, ready to be measured.

    Volumes are numbered in order of their names: 0…1354 train, 1355…1376 test; with fewer than 100 volumes all
    serve both. The last five slices of a volume are dropped. A CSV file in the folder replaces both rules: INDEX
    numbers the volumes, FILE names them (no .h5), DROP (0 or 1) leaves one out without moving the numbers of
    the others, slices SLICE_START … SLICE_END − 1 are kept; left empty, these two mean the rule above.

    Args:
        folder: folder that holds `x_hat` and `smps_hat`.
        split: "train" or "test".
        size: height and width to crop the middle to.

    Raises:
        DataError: if files are missing or do not fit together.
    """
    for volume in _volumes(folder, split):
        with (
            _open(folder, "x_hat", volume.file, 3) as images_file,
            _open(folder, "smps_hat", volume.file, 4) as maps_file,
        ):
            images, maps = images_file["x_hat"], maps_file["smps_hat"]
            count, height, width = images.shape
            if maps.shape[0] != count or maps.shape[2:] != (height, width):
                what = f"smps_hat {maps.shape} does not fit x_hat {images.shape}"
                raise DataError(f"{maps_file.filename}: {what}; prepare both from the same scan")
            if min(height, width) < size:
                what = f"slices of {height}×{width} are smaller than data.image_size = {size}"
                raise DataError(f"{images_file.filename}: {what}; set it lower")
            for i in volume.slices(count):
                name, image = f"{volume.file.removesuffix('.h5')}:{i}", scale_magnitude(_middle(images, i, size))
                yield Source(name, image[None], _middle(maps, i, size))


def scale_magnitude(image: Tensor) -> Tensor:
    """Min-max scale the magnitude of a complex image (H, W) to [0, 1], phase kept."""
    magnitude = image.abs()
    low, high = magnitude.min(), magnitude.max()
    return torch.polar((magnitude - low) / (high - low).clamp(min=1e-12), image.angle())


@dataclass(frozen=True)
class _Volume:
    """A scan: its file name, its number in the split rule, and which slices are kept; None leaves it to the rule."""

    file: str
    number: int
    drop: bool = False
    start: int | None = None
    end: int | None = None
    table: str = ""

    def slices(self, count: int) -> range:
        """Numbers of the slices kept, of `count` that there are."""
        end = count - LAST_SLICES_DROPPED if self.end is None else self.end
        if end > count:
            raise DataError(f"{self.table}: SLICE_END: found {end}, but {self.file} has {count} slices; correct it")
        return range(self.start or 0, end)


def _volumes(folder: Path, split: Split) -> list[_Volume]:
    """The volumes of a split."""
    if not (folder / "x_hat").is_dir() or not (folder / "smps_hat").is_dir():
        raise DataError(f"{folder}: needs the folders x_hat and smps_hat; set setting.dataset_dir to where they are")
    tables = sorted(folder.glob("*.csv"))
    if len(tables) > 1:
        names = ", ".join(table.name for table in tables)
        raise DataError(f"{folder}: holds {len(tables)} CSV files ({names}); leave the one to use")
    if tables:
        volumes = _read_table(tables[0])
    else:
        volumes = [_Volume(f.name, number) for number, f in enumerate(sorted((folder / "x_hat").glob("*.h5")))]
    if not volumes:
        raise DataError(f"{tables[0] if tables else folder / 'x_hat'}: names no .h5 files; prepare the scans first")
    return [v for v in volumes if not v.drop and (len(volumes) < 100 or v.number in VOLUMES[split])]


def _read_table(path: Path) -> list[_Volume]:
    """Rows of the CSV (INDEX, FILE, DROP, SLICE_START, SLICE_END), in order of INDEX."""
    volumes = []
    with path.open(newline="", encoding="utf-8-sig", errors="replace") as file:
        for line, row in enumerate(csv.DictReader(file), start=2):
            try:
                name = Path(row["FILE"].strip()).name.removesuffix(".h5")
                drop = _DROP[row["DROP"].strip().lower()]
                start, end = (_whole(row[key]) for key in ("SLICE_START", "SLICE_END"))
                index = _whole(row["INDEX"])
                if not name or index is None:
                    raise ValueError("INDEX or FILE is empty")
            except (KeyError, ValueError, AttributeError, OverflowError) as error:
                raise DataError(
                    f"{path}: line {line} is not INDEX, FILE, DROP, SLICE_START, SLICE_END ({error}); correct it"
                ) from None
            volumes.append(_Volume(name + ".h5", index, drop, start, end, f"{path}: line {line}"))
    return sorted(volumes, key=lambda volume: volume.number)


_DROP = {"0": False, "0.0": False, "false": False, "1": True, "1.0": True, "true": True}


def _whole(text: str) -> int | None:
    """A number from 0 up, perhaps written as "12.0"; None if it is empty."""
    text = text.strip()
    if not text or text.lower() == "nan":
        return None
    number = float(text)
    if number != int(number) or number < 0:
        raise ValueError(f"{text} is no whole number from 0 up")
    return int(number)


def _open(folder: Path, kind: str, name: str, axes: int) -> h5py.File:
    """One of the two files of a volume; its dataset has the name of its folder and is complex."""
    path = folder / kind / name
    if not path.is_file():
        raise DataError(f"{path}: no such file; each volume needs one in x_hat and in smps_hat, prepare it")
    file = open_hdf5(path, fields={kind: axes})
    with readable(path):
        found = file[kind].dtype
    if found.kind != "c":
        file.close()
        raise DataError(f"{path}: dataset {kind} is {found}, expected complex numbers; prepare the file again")
    return file


def _middle(dataset: h5py.Dataset, index: int, size: int) -> Tensor:
    """Middle of the last two axes of an item, complex64."""
    path = Path(dataset.file.filename)
    with readable(path):
        tensor = torch.from_numpy(dataset[index]).to(torch.complex64)
    if not torch.isfinite(tensor.abs()).all():
        raise DataError(f"{path}: holds values that are not finite; prepare the file again")
    top, left = ((n - size) // 2 for n in tensor.shape[-2:])
    return tensor[..., top : top + size, left : left + size].contiguous()
