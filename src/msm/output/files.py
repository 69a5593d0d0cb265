"""Texts, tables and arrays as files."""

import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from ..errors import DataError, is_damage
from ..system.files import whole
from ..system.manifest import check
from ..system.packed import refuse_packed


def write_array(path: Path, array: Tensor) -> None:
    """Write a tensor as .npy."""
    # Opened to be read too, a file is written by Python. NumPy writes others itself, and where a disk is full it may
    # lose their end without a word.
    with whole(path) as temporary, temporary.open("w+b") as file:
        np.save(file, array.cpu().numpy())


def write_arrays(path: Path, arrays: Mapping[str, Tensor], names: Sequence[str]) -> None:
    """Write tensors by name, and the names of the images, as .npz."""
    found: dict[str, Any] = {key: value.cpu().numpy() for key, value in arrays.items()}
    with whole(path) as temporary:
        np.savez(temporary, names=np.array(names), **found)


def read_arrays(path: Path, remedy: str) -> dict[str, np.ndarray]:
    """Read an .npz or .npy file ("array") as it was written, executing nothing.

    Raises:
        DataError: it is missing or damaged, with the remedy.
    """
    if not path.is_file():
        raise DataError(f"{path}: missing; {remedy}")
    check(path, remedy)
    refuse_packed(path, str(path))
    try:
        with path.open("rb") as file:
            found = np.load(file, allow_pickle=False)
            return {"array": found} if isinstance(found, np.ndarray) else dict(found)
    except (ValueError, OSError, EOFError, KeyError, MemoryError, zipfile.BadZipFile) as error:
        if not is_damage(error):
            raise
        raise DataError(f"{path}: damaged ({error}); {remedy}") from error
