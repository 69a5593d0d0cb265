"""Checkpoints on disk: a folder is written whole or not at all, and what is read is what was written.

CHECKPOINTS/000000500/   files of the trainer, and state.json: the step, and the SHA-256 of every other file
"""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ..errors import DataError
from ..system.files import digest, whole_folder

STATE_FILE = "state.json"


class Checkpoints:
    """The checkpoints of one run, by the number of the step they were made at.

    Args:
        folder: holds one folder a checkpoint.
        keep: how many of the newest are kept.
    """

    def __init__(self, folder: Path, keep: int):
        self.folder, self.keep = Path(folder), keep

    def newest_first(self) -> list[Path]:
        """Folders of all checkpoints, damaged ones too."""
        return sorted((path for path in self.folder.glob("*") if path.name.isdigit()), reverse=True)

    def write(self, step: int, fill: Callable[[Path], dict[str, object]]) -> None:
        """Add a checkpoint, then drop the oldest ones.

        Args:
            step: number of the step.
            fill: writes all files into the folder it is given; returns what else state.json is to hold.

        Raises:
            OSError: if there is no room; what there was before stays.
        """
        target = self.folder / f"{step:09d}"
        with whole_folder(target) as temporary:
            state = {"step": step, **fill(temporary), "sha256": _digests(temporary)}
            (temporary / STATE_FILE).write_text(json.dumps(state, indent=1))
        found = self.newest_first()
        place = found.index(target)  # any newer ones are damaged: the run went back before them
        for path in [*found[:place], *found[place + self.keep :]]:
            shutil.rmtree(path)

    @staticmethod
    def read_state(folder: Path) -> dict[str, Any]:
        """What state.json holds, once the files beside it are found to be those that were written.

        Raises:
            OSError: if a file is missing.
            DataError: if one is damaged.
        """
        state: dict[str, Any] = json.loads((folder / STATE_FILE).read_text())
        found = _digests(folder)
        for name, written in state.get("sha256", {}).items():
            if name not in found:
                raise DataError(f"{name} is missing")
            if found[name] != written:
                raise DataError(f"{name} is not as it was written")
        if state["step"] != int(folder.name):
            raise DataError(f"{STATE_FILE} is of step {state['step']}")
        return state


def _digests(folder: Path) -> dict[str, str]:
    """SHA-256 of every file in a folder but state.json, by its path there."""
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path.name != STATE_FILE)
    return {path.relative_to(folder).as_posix(): digest(path) for path in files}
