"""Texts, tables and arrays as files."""

from __future__ import annotations

import os
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

from torch import Tensor


def write_text(path: Path, text: str) -> None:
    """Write a text file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(path.name + ".tmp")
    temporary.write_text(text)
    os.replace(temporary, path)


def write_array(path: Path, array: Tensor) -> None:
    """Write a tensor as .npy."""
    import numpy as np

    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(".tmp.npy")
    np.save(temporary, array.cpu().numpy())
    os.replace(temporary, path)


def print_table(title: str, rows: Sequence[dict[str, str]]) -> None:
    """Print rows of one kind as a table."""
    from rich.console import Console
    from rich.table import Table

    table = Table(title=title, title_justify="left")
    for number, name in enumerate(rows[0]):
        table.add_column(name, justify="left" if number == 0 else "right")
    for row in rows:
        table.add_row(*row.values())
    Console().print(table)


def write_arrays(path: Path, arrays: Mapping[str, Tensor], names: Sequence[str]) -> None:
    """Write tensors by name, and the names of the images, as .npz."""
    import numpy as np

    temporary = path.with_suffix(".tmp.npz")
    found: dict[str, Any] = {key: value.cpu().numpy() for key, value in arrays.items()}
    np.savez(temporary, names=np.array(names), **found)
    os.replace(temporary, path)


def read_arrays(path: Path, remedy: str) -> dict[str, np.ndarray]:
    """Read an .npz or .npy file ("array"), executing nothing.

    Raises:
        ValueError: it is missing or damaged, with the remedy.
    """
    import numpy as np

    if not path.is_file():
        raise ValueError(f"{path}: missing; {remedy}")
    try:
        with path.open("rb") as file:
            found = np.load(file, allow_pickle=False)
            return {"array": found} if isinstance(found, np.ndarray) else dict(found)
    except (ValueError, OSError, EOFError, KeyError, MemoryError, zipfile.BadZipFile) as error:
        raise ValueError(f"{path}: damaged ({error}); {remedy}") from error
