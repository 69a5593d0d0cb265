"""Batches of a long sampling run, kept as they come: a run that was stopped computes none of them twice.

They lie in `parts/` of the run folder until all results are written. A batch is taken up again only if everything
that it follows from is the same: settings, weights, data, versions, kind of device.
"""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import torch

from ..system.files import whole

Result = TypeVar("Result")
Work = Callable[[range], Result]


class Parts:
    """Keeps the results of batches, for the next run of the same command.

    Args:
        folder: the run folder.
        identity: what the results follow from, see `fingerprint`; those of another identity are removed.
    """

    def __init__(self, folder: Path, identity: str):
        self.all = Path(folder) / "parts"
        self.folder = self.all / identity[:16]

    def keep(self, work: Work[Result], reused: Callable[[range], None] = lambda numbers: None) -> Work[Result]:
        """Work that is done once for each batch.

        Args:
            work: gives tensors, from the numbers of a batch.
            reused: told of a batch that was there already.
        """

        def part(numbers: range) -> Result:
            path = self._path(numbers)
            if path.exists():
                try:
                    result = torch.load(path, weights_only=True)
                except Exception:  # whatever a damaged file makes its reader raise
                    path.unlink()
                else:
                    reused(numbers)
                    return result
            result = work(numbers)
            for other in set(self.all.glob("*")) - {self.folder}:
                shutil.rmtree(other, ignore_errors=True)
            with whole(path) as temporary, temporary.open("wb") as file:
                torch.save(result, file)
            return result

        return part

    def read(self, numbers: range) -> Any:
        """The result of a batch that is kept."""
        return torch.load(self._path(numbers), weights_only=True)

    def _path(self, numbers: range) -> Path:
        return self.folder / f"{numbers.start:06d}-{numbers.stop:06d}.pt"

    def remove(self) -> None:
        """All results are written elsewhere."""
        shutil.rmtree(self.all, ignore_errors=True)
