"""Files that are written whole or not at all, and hashes of what they hold."""

import errno
import hashlib
import os
import secrets
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from torch import Tensor

from ..errors import DataError


@contextmanager
def whole(path: Path) -> Iterator[Path]:
    """A new file to write to in the same folder, moved to `path` once the block has succeeded, else removed.

    It is made exclusively, under a name that nobody can have put a link at, and ends as `path` does: many writers take
    the format from that. Its permissions are those of any new file.

    Raises:
        OSError: what the block raised, with the name of the file.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{secrets.token_hex(8)}.tmp{path.suffix}")
    temporary.touch(exist_ok=False)
    try:
        yield temporary
        put(temporary, path)
    except BaseException as error:
        temporary.unlink(missing_ok=True)
        if isinstance(error, OSError) and error.filename in (None, str(temporary)):  # NumPy's has no number either
            raise OSError(error.errno or errno.EIO, error.strerror or str(error), str(path)) from error
        raise


@contextmanager
def whole_folder(path: Path) -> Iterator[Path]:
    """A new folder to fill, which replaces the one at `path` once the block has succeeded, else is removed.

    Its name is always the same: what a killed run left there, which may be large, is removed first.
    """
    temporary = path.with_name(path.name + ".tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    try:
        yield temporary
        shutil.rmtree(path, ignore_errors=True)
        put(temporary, path)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise


def put(finished: Path, path: Path) -> None:
    """Move a finished file or folder to its place in the same folder, at once; a file that was there is replaced."""
    os.replace(finished, path)


def write_text(path: Path, text: str) -> None:
    """Write a text file, whole or not at all."""
    with whole(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


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
