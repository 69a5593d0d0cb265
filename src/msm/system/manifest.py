"""SHA256SUMS: which files of a folder are ours, and what was in them; `sha256sum -c SHA256SUMS` reads it too.

Nothing that is not listed is ever replaced or removed, and what is read again has to be what was written.
"""

import json
import os
import shutil
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ..errors import ConfigError, DataError, is_damage
from .files import digest, new_name, put, write_text

MANIFEST = "SHA256SUMS"
UNFINISHED = "# files are being replaced"  # its first line meanwhile; a name may then have two lines, old and new
Sums = Mapping[str, set[str]]


def listed(folder: Path) -> Sums:
    """Digests of our files in a folder, by their paths there, in order; none without a manifest."""
    found: dict[str, set[str]] = defaultdict(set)
    try:
        lines = (folder / MANIFEST).read_text(encoding="utf-8", errors="replace").splitlines()
    except (FileNotFoundError, NotADirectoryError):
        return {}
    for line in lines:
        written, _, name = line.partition("  ")
        if len(written) == 64 and _inside(name):
            found[name].add(written)
    return dict(found)


def _inside(name: str) -> bool:
    """Whether a name of a manifest, which others may have written, stays in its folder."""
    return name != "" and not os.path.isabs(name) and ".." not in Path(name).parts


def check(path: Path, remedy: str) -> None:
    """Refuse a file that is not as it was written; one that no manifest lists is somebody else's, and passes.

    Raises:
        DataError: it differs, with the remedy.
    """
    written = listed(path.parent).get(path.name)
    if written is not None and path.is_file() and digest(path) not in written:
        raise DataError(f"{path}: is not as it was written ({MANIFEST}), damaged or changed since; {remedy}")


def seal(folder: Path) -> None:
    """List all files of a folder that is complete."""
    _write(folder, {path.relative_to(folder).as_posix(): {digest(path)} for path in _files(folder)})


def check_seal(folder: Path) -> None:
    """Refuse a folder in which a file that is listed is missing, or not as it was written.

    Raises:
        DataError: naming it.
    """
    for name, written in listed(folder).items():
        if not (folder / name).is_file():
            raise DataError(f"{name} is missing")
        if digest(folder / name) not in written:
            raise DataError(f"{name} is not as it was written")


def check_finished(folder: Path, remedy: str) -> None:
    """Refuse a folder whose files are partly of one run and partly of another.

    Raises:
        DataError: a command was cut off while it replaced them.
    """
    path = folder / MANIFEST
    if path.is_file() and path.read_text(encoding="utf-8", errors="replace").startswith(UNFINISHED):
        raise DataError(f"{folder}: a command was cut off while it replaced files here; {remedy}")


def check_ours(folder: Path, names: Iterable[str]) -> None:
    """Refuse to replace files that are not ours.

    Args:
        folder: where files are to be written.
        names: their paths there, and of folders, in which nothing may be that is not ours.

    Raises:
        ConfigError: one is there that no manifest lists.
    """
    ours = listed(folder)
    for name in names:
        path = folder / name
        for other in sorted(path.iterdir()) if path.is_dir() else [path]:
            if os.path.lexists(other) and other.relative_to(folder).as_posix() not in ours:
                raise ConfigError(
                    f"{other}: is there, and not listed as ours ({MANIFEST}); move it away, or choose another folder"
                )


@contextmanager
def replacing(folder: Path, old: Callable[[str], bool], *, force: bool = False) -> Iterator[Path]:
    """A new folder to fill, whose files then take the place of old ones of ours; until then nothing changes.

    Args:
        folder: where they will lie.
        old: says of the path in the folder of one of our files whether it goes.
        force: whether files of others may be replaced.

    Raises:
        ConfigError: if another file would be, by `check_ours`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    filled = new_name(folder / MANIFEST)
    filled.mkdir()
    try:
        yield filled
        new = {path.relative_to(filled).as_posix(): {digest(path)} for path in _files(filled)}
        if not force:
            check_ours(folder, new)
        before = listed(folder)
        both = {name: before.get(name, set()) | new.get(name, set()) for name in {**before, **new}}
        _write(folder, both, UNFINISHED)
        for name in new:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            put(filled / name, folder / name)
        gone = [name for name in before if old(name) and name not in new]
        for name in gone:
            (folder / name).unlink(missing_ok=True)
        for parent in {(folder / name).parent for name in gone} - {folder}:
            if parent.is_dir() and not any(parent.iterdir()):
                parent.rmdir()
        _write(folder, {name: sums for name, sums in {**before, **new}.items() if name not in gone})
    finally:
        shutil.rmtree(filled, ignore_errors=True)


def read_json(path: Path, what: str, remedy: str = "copy it again from where it was written") -> dict[str, Any]:
    """The object that a JSON file holds, as it was written.

    Raises:
        DataError: it is missing, damaged, or something else.
    """
    check(path, remedy)
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        if not is_damage(error):
            raise
        raise DataError(f"{path}: not {what} ({error}); {remedy}") from error
    if not isinstance(content, dict):
        raise DataError(f"{path}: not {what}, but a {type(content).__name__}; {remedy}")
    return content


def write_listed(path: Path, text: str) -> None:
    """Write one text file, which is ours from then on; whether it may replace what is there, the caller has seen to."""
    with replacing(path.parent, lambda name: name == path.name, force=True) as filled:
        write_text(filled / path.name, text)


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def _write(folder: Path, sums: Sums, *first: str) -> None:
    lines = [f"{one}  {name}" for name in sorted(sums) for one in sorted(sums[name])]
    write_text(folder / MANIFEST, "".join(f"{line}\n" for line in (*first, *lines)))
