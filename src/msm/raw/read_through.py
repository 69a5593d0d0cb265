"""What reading raw files through told: files that cannot be used, and what was taken for granted of the others."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from ..errors import DataError
from ..system.console import note, warn
from .scan import Scan

Result = TypeVar("Result")
SHOWN = 3  # files that a note names


@dataclass
class ReadThrough:
    """Bad files are skipped, if there are others, and told of.

    Args:
        files: the raw files.
        bad: why files cannot be used.
        remarks: what to tell, with the files that it is true of.
    """

    files: Sequence[Path]
    bad: dict[Path, DataError] = field(default_factory=dict)
    remarks: dict[str, list[Path]] = field(default_factory=dict)

    def attempt(self, file: Path, work: Callable[[], Result]) -> Result | None:
        """What the work on a file gives; None, and the file is bad, if it cannot be used.

        Raises:
            DataError: if no file can be used.
        """
        try:
            return work()
        except DataError as error:
            self.leave_out(file, error)
            return None

    def leave_out(self, file: Path, error: DataError) -> None:
        """Note that a file cannot be used.

        Raises:
            DataError: if no file can be used; the first one's reason.
        """
        if file not in self.bad:
            self.bad[file] = error
            if len(self.bad) == len(set(self.files)):
                raise next(iter(self.bad.values()))
            warn(f"skipped {file}: {str(error).removeprefix(f'{file}: ')}")

    def remark(self, file: Path, texts: Sequence[str]) -> None:
        """Keep what is to be told of a file."""
        for text in texts:
            of = self.remarks.setdefault(text, [])
            if file not in of:
                of.append(file)

    def tell(self) -> None:
        """Print the remarks, a line each."""
        for text, files in self.remarks.items():
            more = f" and {len(files) - SHOWN} more" if len(files) > SHOWN else ""
            note(f"{', '.join(str(file) for file in files[:SHOWN])}{more}: {text}")


def remarks(scan: Scan) -> list[str]:
    """What was taken for granted of a slice, a line each."""
    found, about = [], scan.provenance
    if taken := about.get("taken_for"):
        found.append(taken if about.get("ends_unevenly") else f"{taken}; read with its centre in the middle")
    if old := about.get("ends_unevenly"):
        row, column = about["centre"]
        ends = f"k-space of {old[0]} × {old[1]} has its centre at row {row}, column {column}, not in its middle"
        size = "{} × {}".format(*scan.mask.shape[1:])
        found.append(f"{ends}: taken for partial Fourier, padded to {size} by points that were not measured")
    if count := about.get("noise_lines_left_out"):
        found.append(f"{count} noise lines of another number of channels are left out")
    if scan.maps is not None:
        empty = float((scan.maps == 0).all(0).float().mean())
        found.append(f"coil maps as given, scaled to a sum of squares of 1, zero on {empty:.0%} of the image")
    return found
