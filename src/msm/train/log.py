"""The log of a training run: log.jsonl, and tensorboard if it is installed."""

import json
from pathlib import Path

from torch import Tensor

from ..errors import DataError
from ..system.files import write_text


class Log:
    """log.jsonl and tensorboard; lines past the step that is resumed from are dropped."""

    def __init__(self, folder: Path, step: int, active: bool):
        self.active = active
        if not active:
            return
        path = folder / "log.jsonl"
        lines = path.read_text().splitlines() if path.exists() else []
        whole = [line for line in lines if line.endswith("}")]  # a killed run may leave the last one cut off
        try:
            kept = [line for line in whole if json.loads(line)["step"] <= step]
        except (ValueError, KeyError, TypeError) as error:
            raise DataError(f"{path}: damaged ({error}); remove it, or the line") from error
        write_text(path, "".join(line + "\n" for line in kept))
        self.file = path.open("a", buffering=1)
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            self.board = None
        else:
            self.board = SummaryWriter(str(folder / "tensorboard"), purge_step=step + 1)

    def write(self, step: int, images: int, **record: float) -> None:
        """Add a line of numbers by name; nothing where another process writes."""
        if not self.active:
            return
        self.file.write(json.dumps({"step": step, "images": images, **record}) + "\n")
        if self.board is not None:
            for name, value in record.items():
                self.board.add_scalar(name, value, step)

    def show(self, step: int, pictures: Tensor) -> None:
        """Put pictures (B, 1 or 3, H, W), in [0, 1], on the board."""
        if self.active and self.board is not None:
            self.board.add_images("samples", pictures, step)

    def close(self) -> None:
        """Everything is written."""
        if self.active:
            self.file.close()
            if self.board is not None:
                self.board.close()
