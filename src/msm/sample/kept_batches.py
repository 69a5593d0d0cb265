"""Batches of a long sampling run, kept as they come: a run that was stopped computes none of them twice.

They lie in `parts/` of the run folder until all results are written. A batch is taken up again only if everything
that it follows from is the same: settings, weights, data, versions, kind of device.
"""

import hashlib
import io
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import torch

from ..errors import DataError, is_damage
from ..system.files import whole
from ..system.packed import refuse_packed

Result = TypeVar("Result")
Work = Callable[[range], Result]
DIGEST = 32  # bytes, before what a file holds: SHA-256 of identity, numbers and content


class Parts:
    """Keeps the results of batches, for the next run of the same command.

    Args:
        folder: the run folder.
        identity: what the results follow from, see `fingerprint`; those of another identity are removed.
        name: of the folder in it where they lie.
    """

    def __init__(self, folder: Path, identity: str, name: str = "parts"):
        self.identity = identity
        self.all = Path(folder) / name
        self.folder = self.all / identity[:16]

    def keep(self, work: Work[Result], reused: Callable[[range], None] = lambda numbers: None) -> Work[Result]:
        """Work that is done once for each batch.

        Args:
            work: gives tensors, from the numbers of a batch.
            reused: told of a batch that was there already.
        """

        def part(numbers: range) -> Result:
            if (content := self._content(numbers)) is not None:
                reused(numbers)
                return self._tensors(numbers, content)
            result = work(numbers)
            self.put(numbers, result)
            return result

        return part

    def has(self, numbers: range) -> bool:
        """Whether a batch is kept, as it was written."""
        return self._content(numbers) is not None

    def put(self, numbers: range, result: Any) -> None:
        """Keep a batch; nothing of another identity stays."""
        for other in set(self.all.glob("*")) - {self.folder}:
            shutil.rmtree(other, ignore_errors=True)
        content = io.BytesIO()
        torch.save(result, content)
        with whole(self._path(numbers)) as temporary, temporary.open("wb") as file:
            file.write(self._digest(numbers, content.getvalue()))
            file.write(content.getvalue())

    def read(self, numbers: range) -> Any:
        """The result of a batch that is kept.

        Raises:
            DataError: it is not as it was written.
        """
        content = self._content(numbers)
        if content is None:
            raise DataError(f"{self._path(numbers)}: damaged; run the same command again, which makes it anew")
        return self._tensors(numbers, content)

    def _tensors(self, numbers: range, content: bytes) -> Any:
        source = io.BytesIO(content)
        refuse_packed(source, str(self._path(numbers)))
        try:
            return torch.load(source, weights_only=True)
        except Exception as error:  # a pickle that somebody else put there may raise anything
            if not is_damage(error):
                raise
            raise DataError(f"{self._path(numbers)}: holds something else than tensors; remove it") from error

    def _content(self, numbers: range) -> bytes | None:
        """What was written of a batch; None if nothing was, it was damaged since, or is another batch."""
        if not self._path(numbers).is_file():
            return None
        held = self._path(numbers).read_bytes()
        content = held[DIGEST:]
        return content if held[:DIGEST] == self._digest(numbers, content) else None

    def _digest(self, numbers: range, content: bytes) -> bytes:
        return hashlib.sha256(f"{self.identity} {numbers.start} {numbers.stop} ".encode() + content).digest()

    def _path(self, numbers: range) -> Path:
        return self.folder / f"{numbers.start:06d}-{numbers.stop:06d}.pt"

    def remove(self) -> None:
        """All results are written elsewhere."""
        shutil.rmtree(self.all, ignore_errors=True)
