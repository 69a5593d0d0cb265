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
from ..system.console import note
from .acquire import Source
from .folder import Split
from .hdf5 import open_hdf5, readable

VOLUMES: dict[Split, range] = {"train": range(0, 1355), "test": range(1355, 1377)}
LAST_SLICES_DROPPED = 5


def scans(folder: Path, split: Split, size: int, demo: bool = False) -> Iterator[Source]:
    """Slices of the prepared volumes with their coil maps, ready to be measured.

    Volumes are numbered in order of their names: 0…1354 train, 1355…1376 test; with fewer than 100 volumes all
    serve both. The last five slices of a volume are dropped. A CSV file in the folder replaces both rules: INDEX
    numbers the volumes, FILE names them (no .h5), DROP keeps a volume only if it says 0 or false, one left out does
    not move the numbers of the others, slices SLICE_START … SLICE_END − 1 are kept; left empty, these two mean the
    rule above. Other columns do not count.

    Args:
        folder: folder that holds `x_hat` and `smps_hat`.
        split: "train" or "test".
        size: height and width to crop the middle to.
        demo: of several CSV files, take the one whose name begins with DEMO_, not the one whose name does not.

    Raises:
        DataError: if files are missing or do not fit together.
    """
    for volume in _volumes(folder, split, demo):
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


def _volumes(folder: Path, split: Split, demo: bool) -> list[_Volume]:
    """The volumes of a split."""
    if not (folder / "x_hat").is_dir() or not (folder / "smps_hat").is_dir():
        raise DataError(f"{folder}: needs the folders x_hat and smps_hat; set setting.dataset_dir to where they are")
    table = _table(folder, demo)
    if table is None:
        volumes = [_Volume(f.name, number) for number, f in enumerate(sorted((folder / "x_hat").glob("*.h5")))]
    else:
        volumes = _read_table(table)
    if not volumes:
        raise DataError(f"{table or folder / 'x_hat'}: names no .h5 files; prepare the scans first")
    kept = [volume for volume in volumes if not volume.drop]
    if table is not None:
        if not kept:
            raise DataError(f"{table}: keeps none of its {len(volumes)} volumes; write 0 under DROP for those to keep")
        note(f"{table}: keeps {len(kept)} of {len(volumes)} volumes, those with 0 under DROP")
    return [volume for volume in kept if len(volumes) < 100 or volume.number in VOLUMES[split]]


def _table(folder: Path, demo: bool) -> Path | None:
    """The CSV file of the volumes, if there is any: of several the one of the demo, or the one that is not."""
    tables = sorted(path for path in folder.glob("*.csv") if path.name[0] != ".")
    chosen = [table for table in tables if table.name.startswith("DEMO_") == demo] if len(tables) > 1 else tables
    if tables and len(chosen) != 1:
        names = ", ".join(table.name for table in tables)
        which = f"data.demo={str(demo).lower()} takes the one that {'is' if demo else 'is not'} named DEMO_…"
        reason = f"{which}, there are {len(chosen)}; leave the one to use"
        raise DataError(f"{folder}: holds {len(tables)} CSV files ({names}); {reason}")
    return chosen[0] if chosen else None


COLUMNS = ("INDEX", "FILE", "DROP", "SLICE_START", "SLICE_END")


def _read_table(path: Path) -> list[_Volume]:
    """Rows of the CSV, in order of INDEX."""
    volumes = []
    with path.open(newline="", encoding="utf-8-sig", errors="replace") as file:
        rows = csv.DictReader(file)
        if missing := [name for name in COLUMNS if name not in (rows.fieldnames or ())]:
            raise DataError(f"{path}: has no column {missing[0]} (line 1: {', '.join(COLUMNS)}); add it")
        for row in rows:
            where = f"{path}: line {rows.line_num}"
            try:
                index, name, drop, start, end = (row[key].strip() for key in COLUMNS)
                name, number = Path(name).name.removesuffix(".h5"), _whole(index)
                if not name or number is None:
                    raise ValueError("INDEX or FILE is empty")
                if _keeps(drop):
                    volume = _Volume(name + ".h5", number, False, _whole(start), _whole(end), where)
                else:  # whatever its slices are
                    volume = _Volume(name + ".h5", number, True)
            except (ValueError, AttributeError, OverflowError) as error:
                raise DataError(f"{where} is not {', '.join(COLUMNS)} ({error}); correct it") from None
            volumes.append(volume)
    return sorted(volumes, key=lambda volume: volume.number)


def _keeps(drop: str) -> bool:
    """What is under DROP keeps a volume only if it is 0, as a number, or false; nothing there drops it."""
    try:
        return float(drop) == 0
    except ValueError:
        return drop.lower() == "false"


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
