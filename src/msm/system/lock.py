"""One command at a time writes to a folder, or to a file."""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from ..errors import ConfigError
from .files import lock_name, remove_leftovers

try:
    import fcntl
except ImportError:  # not on Windows: there is no lock then
    fcntl = None  # type: ignore[assignment]

_held: set[Path] = set()


@contextmanager
def alone(path: Path, *, folder: bool) -> Iterator[None]:
    """Keep other commands of ours away from a folder, or a file, and remove what killed ones left half-written there.

    Of several processes of one run the first does so for all. A command within a command needs no second lock.

    Raises:
        ConfigError: another one is at work there.
    """
    place = Path(os.path.abspath(path))
    if fcntl is None or place in _held or os.environ.get("RANK", "0") != "0":
        yield
        return
    lock = lock_name(place, folder=folder)
    made = [parent for parent in (lock.parent, *lock.parent.parents) if not parent.exists()]
    lock.parent.mkdir(parents=True, exist_ok=True)
    file = _locked(lock, path)
    _held.add(place)
    try:
        remove_leftovers(place, folder=folder)
        yield
    finally:
        _held.discard(place)
        lock.unlink(missing_ok=True)  # while it is held: who waits for it finds that it is gone
        os.close(file)
        with suppress(OSError):  # a command that was refused leaves no empty folders
            for parent in made:
                parent.rmdir()


def _locked(lock: Path, path: Path) -> int:
    """The lock file, open and locked."""
    while True:
        file = os.open(lock, os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0), 0o644)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.pread(file, 100, 0).decode(errors="replace").strip() or "not known"
            os.close(file)
            raise ConfigError(
                f"{path}: another msm command is writing there (process {holder}); wait for it, or choose another place"
            ) from None
        except OSError:  # a file system without locks
            return file
        if _same(file, lock):
            os.ftruncate(file, 0)
            os.pwrite(file, f"{os.getpid()}\n".encode(), 0)
            return file
        os.close(file)


def _same(file: int, lock: Path) -> bool:
    """Whether the file that was locked still is the one of this name."""
    try:
        return os.path.samestat(os.fstat(file), os.stat(lock))
    except FileNotFoundError:
        return False
