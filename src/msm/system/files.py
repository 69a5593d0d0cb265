"""Files that are written whole or not at all, and hashes of what they hold."""

import errno
import hashlib
import os
import re
import secrets
import shutil
import tempfile
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from torch import Tensor

from ..errors import DataError

LONGEST_NAME = 220  # bytes of a name, of 255: what follows it, _std.nii for instance, has room


@contextmanager
def whole(path: Path) -> Iterator[Path]:
    """A new file to write to in the same folder, moved to `path` once the block has succeeded, else removed.

    It is made exclusively, under a name that nobody can have put a link at, and ends as `path` does: many writers take
    the format from that. Its permissions are those of any new file.

    Raises:
        OSError: what the block raised, with the name of the file.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = new_name(path)
    temporary.touch(exist_ok=False)
    try:
        yield temporary
        put(temporary, path)
    except BaseException as error:
        temporary.unlink(missing_ok=True)
        if isinstance(error, OSError) and error.filename in (None, str(temporary)):
            if error.errno is None:  # NumPy's
                raise OSError(errno.ENOSPC, f"not written whole, as on a full disk ({error})", str(path)) from error
            raise OSError(error.errno, error.strerror, str(path)) from error
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


def new_name(path: Path) -> Path:
    """A name beside a path that nobody can foresee, for what is to go there; it says so, to `remove_leftovers`."""
    return path.with_name(f".{secrets.token_hex(8)}.{_short(path)}.tmp{path.suffix}")


def lock_name(path: Path, *, folder: bool) -> Path:
    """The file that a folder, or a file, is locked by."""
    return path / ".lock" if folder else path.with_name(f".{_short(path)}.lock")


def remove_leftovers(path: Path, *, folder: bool) -> None:
    """Remove what killed commands left half-written in a folder, or beside a file; nobody may be writing there."""
    place, ours = (path, "[0-9a-f]{8}") if folder else (path.parent, _short(path))
    half_written = re.compile(rf"\.[0-9a-f]{{16}}\.{ours}\.tmp(\..*)?")
    for parent, folders, files in os.walk(place):
        for name in filter(half_written.fullmatch, files):
            os.unlink(os.path.join(parent, name))
        for name in filter(half_written.fullmatch, folders):
            shutil.rmtree(os.path.join(parent, name), ignore_errors=True)
        # a folder in it that is locked is another command's
        folders[:] = [n for n in folders if folder and not lock_name(Path(parent, n), folder=True).exists()]


def _short(path: Path) -> str:
    """Eight characters for a name, which may be as long as names can be."""
    return f"{zlib.crc32(os.fsencode(path.name)):08x}"


def put(finished: Path, path: Path) -> None:
    """Move a finished file or folder to its place in the same folder, at once; a file that was there is replaced."""
    os.replace(finished, path)


def write_text(path: Path, text: str) -> None:
    """Write a text file, whole or not at all."""
    with whole(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def check_name(path: Path) -> None:
    """Refuse a name that no file of ours could hold.

    Raises:
        DataError: it is no UTF-8.
    """
    try:
        str(path).encode()
    except UnicodeEncodeError:
        raise DataError(f"{path}: the name is not UTF-8; rename it") from None


def fitting(name: str) -> str:
    """A name with room for what our files append to it; a longer one is cut, and told from others by a hash."""
    encoded = name.encode()
    if len(encoded) <= LONGEST_NAME:
        return name
    return f"{encoded[:LONGEST_NAME].decode(errors='ignore')}~{hashlib.sha256(encoded).hexdigest()[:8]}"


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
