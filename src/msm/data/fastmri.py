"""fastMRI as the authors prepared it (SPEC §8): `x_hat/NAME.h5` and `smps_hat/NAME.h5` side by side.

x_hat holds images (slices, H, W), smps_hat coil maps (slices, coils, H, W), both complex.
"""

import csv
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from .acquire import Source
from .images import Split
from .store import DataError, open_hdf5

TRAIN_VOLUMES = range(0, 1355)
TEST_VOLUMES = range(1355, 1377)
LAST_SLICES_DROPPED = 5


def scans(folder: Path, split: Split, size: int) -> Iterator[Source]:
    """Slices of the prepared volumes with their coil maps, ready to be measured.

    Volumes are numbered in order of their names: 0…1354 train, 1355…1376 test; with fewer than 100 volumes all
    serve both. The last five slices of a volume are dropped, unless a CSV file in the folder says which to keep.

    Args:
        folder: folder that holds `x_hat` and `smps_hat`.
        split: "train" or "test".
        size: height and width to crop the middle to.

    Raises:
        DataError: if files are missing or do not fit together.
    """
    for volume, start, end in _volumes(folder, split):
        images_file = open_hdf5(folder / "x_hat" / volume, None, {"x_hat": 3})
        maps_file = open_hdf5(folder / "smps_hat" / volume, None, {"smps_hat": 4})
        with images_file, maps_file:
            images, maps = images_file["x_hat"], maps_file["smps_hat"]
            if maps.shape[0] != images.shape[0] or maps.shape[2:] != images.shape[1:]:
                raise DataError(
                    f"{maps_file.filename}: smps_hat {maps.shape} does not fit x_hat {images.shape}; "
                    "prepare both from the same scan"
                )
            for i in range(start, len(images) - LAST_SLICES_DROPPED if end is None else end):
                image = _complex(images[i], images_file.filename)
                yield Source(
                    f"{Path(volume).stem}:{i}",
                    scale_magnitude(_center_crop(image, size))[None],
                    _center_crop(_complex(maps[i], maps_file.filename), size),
                )


def scale_magnitude(image: Tensor) -> Tensor:
    """Min-max scale the magnitude of a complex image (H, W) to [0, 1], phase kept."""
    magnitude = image.abs()
    low, high = magnitude.min(), magnitude.max()
    return torch.polar((magnitude - low) / (high - low).clamp(min=1e-12), image.angle())


def _volumes(folder: Path, split: Split) -> list[tuple[str, int, int | None]]:
    """File name, first slice and end of every volume of a split."""
    if not (folder / "x_hat").is_dir() or not (folder / "smps_hat").is_dir():
        raise DataError(f"{folder}: needs the folders x_hat and smps_hat; set setting.dataset_dir to where they are")
    tables = sorted(folder.glob("*.csv"))
    rows: list[tuple[str, int, int | None]] = [(f.name, 0, None) for f in sorted((folder / "x_hat").glob("*.h5"))]
    if tables:
        rows = _read_table(tables[0])
    if not rows:
        raise DataError(f"{folder}/x_hat: holds no .h5 files; prepare the scans first")
    if len(rows) < 100:
        return rows
    wanted = TRAIN_VOLUMES if split == "train" else TEST_VOLUMES
    return [row for number, row in enumerate(rows) if number in wanted]


def _read_table(path: Path) -> list[tuple[str, int, int | None]]:
    """Rows of the CSV (INDEX, FILE, DROP, SLICE_START, SLICE_END) that are not dropped."""
    rows: list[tuple[str, int, int | None]] = []
    with path.open(newline="") as file:
        for line, row in enumerate(csv.DictReader(file), start=2):
            try:
                if row["DROP"].strip().lower() in ("1", "true", "yes"):
                    continue
                name = Path(row["FILE"]).name
                rows.append((Path(name).stem + ".h5", int(row["SLICE_START"]), int(row["SLICE_END"])))
            except (KeyError, ValueError, AttributeError) as error:
                raise DataError(
                    f"{path}: line {line} is not INDEX, FILE, DROP, SLICE_START, SLICE_END ({error}); correct it"
                ) from None
    return rows


def _complex(array: np.ndarray, filename: str) -> Tensor:
    tensor = torch.from_numpy(array).to(torch.complex64)
    if not torch.isfinite(tensor.abs()).all():
        raise DataError(f"{filename}: holds values that are not finite; prepare the file again")
    return tensor


def _center_crop(array: Tensor, size: int) -> Tensor:
    """Middle of the last two axes."""
    height, width = array.shape[-2:]
    if height < size or width < size:
        raise DataError(f"slices of {height}×{width} are smaller than data.image_size = {size}; set it lower")
    top, left = (height - size) // 2, (width - size) // 2
    return array[..., top : top + size, left : left + size].contiguous()
