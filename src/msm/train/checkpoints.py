"""Checkpoints on disk: a folder is written whole or not at all, and what is read is what was written.

CHECKPOINTS/000000500/   files of the trainer, state.json with the step, and SHA256SUMS
"""

import errno
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from ..errors import DataError
from ..system.files import whole_folder
from ..system.manifest import check_seal, seal

STATE_FILE = "state.json"
NOT_WRITTEN = "inline_container"  # PyTorch's words, of an archive that is shorter than what was written


def save_optimizer(state: dict[str, Any], path: Path) -> None:
    """Write an optimiser's state.

    Raises:
        OSError: if there is no room; PyTorch has an error of its own for it, if a large tensor found none.
    """
    try:
        with path.open("wb") as file:
            torch.save(state, file)
    except RuntimeError as error:
        if NOT_WRITTEN not in str(error):
            raise
        raise OSError(errno.ENOSPC, f"not written whole, as on a full disk ({error})", str(path)) from error


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
            state = {"step": step, **fill(temporary)}
            (temporary / STATE_FILE).write_text(json.dumps(state, indent=1))
            seal(temporary)
        found = self.newest_first()
        place = found.index(target)  # any newer ones are damaged: the run went back before them
        for path in [*found[:place], *found[place + self.keep :]]:
            shutil.rmtree(path)

    @staticmethod
    def read_state(folder: Path) -> dict[str, Any]:
        """What state.json holds, once it and the files beside it are found to be those that were written.

        Raises:
            OSError: if a file is missing.
            DataError: if one is damaged.
        """
        check_seal(folder)
        state: dict[str, Any] = json.loads((folder / STATE_FILE).read_text())
        if state["step"] != int(folder.name):
            raise DataError(f"{STATE_FILE} is of step {state['step']}")
        return state
