"""Files that are written whole or not at all, and hashes of what they hold."""

import hashlib
import tempfile
from collections.abc import Iterable
from pathlib import Path

from torch import Tensor

from ..errors import DataError


def obstacle(folder: Path) -> str | None:
    """Why no file can be written into a folder, there already or not; None if one can. Nothing is left behind."""
    there = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    try:
        with tempfile.TemporaryFile(dir=there):
            return None
    except OSError as error:
        return error.strerror


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


def fingerprint(texts: Iterable[str], tensors: Iterable[Tensor]) -> str:
    """SHA-256 of texts and of the types, shapes and contents of tensors, in order."""
    digest = hashlib.sha256()
    for text in texts:
        digest.update(f"{len(text)}:{text}".encode())
    for tensor in tensors:
        digest.update(f"{tensor.dtype}{tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()
