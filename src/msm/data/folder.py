"""Folders of images: which files are taken, and one line that says what was done with all of them."""

import os
from collections import Counter, deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from ..errors import DataError
from ..system.files import check_name
from ..system.places import is_run

SUFFIXES = {".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp"}
PHOTOS = {*SUFFIXES, ".npy"}  # that miss pixels: NaN in an array says so
Split = Literal["train", "test"]
AGAIN = "links to what is there already"


@dataclass
class Account:
    """What was done with the files of a folder, counted while they are read.

    Attributes:
        files: how many images there are.
        read: how many gave an item.
        done: what was done with some of them, in words, and with how many.
        left_out: what was not read, in words, and how many of it.
        there, there_resized: photos that miss pixels: shares of them that are there, added up, in the files and at
            the size of the network.
    """

    files: int = 0
    read: int = 0
    done: Counter[str] = field(default_factory=Counter)
    left_out: Counter[str] = field(default_factory=Counter)
    there: float = 0.0
    there_resized: float = 0.0

    def line(self, folder: Path) -> str:
        """All of it in one line."""
        done, left_out = _words(self.done), _words(self.left_out)
        said = f"{folder}: {self.read} of {self.files} images read" + (f": {done}" if done else ", as they are")
        if self.there and self.read:
            share, resized = self.there / self.read, self.there_resized / self.read
            said += f"; {share:.1%} of the pixels are there, {resized:.1%} at the size of the network"
        return f"{said}; left out: {left_out}" if left_out else said


def image_files(
    folder: Path, account: Account, suffixes: set[str] = SUFFIXES, besides: Path | None = None
) -> dict[str, Path]:
    """The images below a folder, by name, which is the path from there.

    Names that begin with a dot are left out, and what lies below them. A link is followed, to a file or to a folder,
    unless it leads to what was found already: no image comes twice.

    Args:
        folder: where to look.
        account: is told what was left out.
        suffixes: of images, in lower case.
        besides: a folder in it that holds something else.

    Returns:
        the files, sorted.

    Raises:
        DataError: there is no such folder, or no image in it.
    """
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder; set setting.dataset_dir to the folder with the images")
    found, seen = list[Path](), set[str]()
    for path, real in _walk(folder, set() if besides is None else {os.path.realpath(besides)}, account):
        if path.suffix.lower() not in suffixes:
            account.left_out[f"*{path.suffix}" if path.suffix else "without a suffix"] += 1
        elif real in seen:
            account.left_out[AGAIN] += 1
        else:
            seen.add(real)
            check_name(path)
            found.append(path)
    if not found:
        held = f" (left out: {other})" if (other := _words(account.left_out)) else ""
        raise DataError(f"{folder}: holds no images ({', '.join(sorted(suffixes))}){held}; point to a folder that does")
    account.files = len(found)
    return {path.relative_to(folder).as_posix(): path for path in sorted(found)}


def _walk(folder: Path, seen: set[str], account: Account) -> Iterator[tuple[Path, str]]:
    """All files below a folder, each with its real path: those that lie there, then those that links lead to.

    `seen` holds real paths of folders that are not gone into.
    """
    folders, links = deque([folder]), deque[Path]()
    while folders or links:
        place = folders.popleft() if folders else links.popleft()
        real = os.path.realpath(place)
        if os.path.isfile(real):
            yield place, real
        elif not os.path.isdir(real):
            account.left_out["broken links"] += 1
        elif real in seen:
            account.left_out[AGAIN] += place.is_symlink()
        else:
            seen.add(real)
            with os.scandir(place) as entries:
                inside = sorted(entries, key=lambda entry: entry.name)
            for entry in inside:
                if entry.name[0] == ".":
                    account.left_out["hidden"] += 1
                elif entry.is_symlink():
                    links.append(place / entry.name)
                elif entry.is_dir() and is_run(place / entry.name):
                    account.left_out["folders of runs"] += 1
                elif entry.is_dir():
                    folders.append(place / entry.name)
                elif entry.is_file():
                    yield place / entry.name, os.path.join(real, entry.name)


def _words(counted: Counter[str]) -> str:
    return ", ".join(f"{number} {what}" for what, number in counted.items() if number)


def of_split(files: dict[str, Path], split: Split, held_out: int) -> dict[str, Path]:
    """The files of a split: the first `held_out` test, of fewer than 100 all serve both.

    Raises:
        DataError: none is left to train on.
    """
    if held_out == 0 or len(files) < 100:
        return files
    chosen = list(files.items())[:held_out] if split == "test" else list(files.items())[held_out:]
    if not chosen:
        where = next(iter(files.values())).parent
        raise DataError(f"{where}: all {len(files)} images are held out for testing; set data.held_out lower")
    return dict(chosen)
