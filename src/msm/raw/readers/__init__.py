"""Which raw files a command was given, and their hashes."""

import hashlib
from collections.abc import Sequence
from pathlib import Path

from .formats import READERS
from .store import DataError


def raw_files(paths: Sequence[Path]) -> list[Path]:
    """The raw files that paths name: files as they are, of a folder all of a kind that is read, sorted by name.

    A BART pair counts once.

    Args:
        paths: files and folders.

    Raises:
        DataError: if there are none.
    """
    files: list[Path] = []
    for path in paths:
        inside = (f for f in sorted(path.iterdir()) if f.suffix.lower() in READERS) if path.is_dir() else [path]
        files += [f.with_suffix(".cfl") if f.suffix.lower() == ".hdr" else f for f in inside]
    if not files:
        raise DataError(f"{', '.join(map(str, paths))}: no raw files in it; give some of {', '.join(READERS)}")
    return list(dict.fromkeys(files))


def digest(path: Path) -> str:
    """SHA-256 of a file, of a BART pair that of both.

    Raises:
        DataError: if a file cannot be read.
    """
    parts = [path.with_suffix(".hdr"), path] if path.suffix.lower() == ".cfl" else [path]
    state = hashlib.sha256()
    for part in parts:
        try:
            with part.open("rb") as file:
                while block := file.read(2**20):
                    state.update(block)
        except OSError as error:
            raise DataError(f"{part}: not readable ({error.strerror}); correct the path") from None
    return state.hexdigest()
