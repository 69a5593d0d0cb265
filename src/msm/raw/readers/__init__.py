"""Readers of raw k-space by file type.

    .h5 .hdf5 .mrd   fastMRI (kspace, ismrmrd_header) or ISMRMRD (dataset/xml, dataset/data)
    .npy             (H, W), (coils, H, W) or (slices, coils, H, W)
    .mat             the variable kdata, kspace or data, likewise
    .cfl .hdr        BART: read, phase 1, phase 2, coils, …, slices

No reader trusts a size that the file's data do not justify, runs anything, or follows a link out of the file.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

from ...data.hdf5 import open_hdf5
from ...errors import DataError, MsmError
from ..scan import Scan, normalise
from .arrays import mat_scans, npy_scans
from .bart import bart_scans
from .fastmri import fastmri_scans
from .ismrmrd import ismrmrd_scans


def raw_files(paths: Sequence[Path]) -> list[Path]:
    """The raw files that paths name: files as they are, of a folder all of a kind that is read, sorted by name.

    A BART pair counts once.

    Args:
        paths: files and folders.

    Raises:
        DataError: if there are none.
    """
    files: list[Path] = []
    for path in paths:
        inside = sorted(f for f in path.glob("[!.]*") if f.suffix.lower() in READERS) if path.is_dir() else [path]
        files += [f.with_suffix(".cfl") if f.suffix.lower() == ".hdr" else f for f in inside]
    if not files:
        raise DataError(f"{', '.join(map(str, paths))}: no raw files in it; give some of {', '.join(READERS)}")
    return list(dict.fromkeys(files))


def import_scans(paths: Iterable[Path]) -> Iterator[Scan]:
    """Slices of raw files of any kind that is read, one at a time, scaled to a magnitude of at most about 1.

    Args:
        paths: the files.

    Yields:
        slices, ready for `fit`, for the coil maps (`msm.raw.coil_maps`) and for `StoreWriter.add`.

    Raises:
        DataError: if a file cannot be used.
    """
    for path in map(Path, paths):
        yield from map(normalise, read_scans(path))


def read_scans(path: Path) -> Iterator[Scan]:
    """Slices of one raw file in the file's units.

    Raises:
        DataError: if the file is missing, damaged, or of a kind that is not read.
    """
    reader = READERS.get(path.suffix.lower())
    if reader is None:
        raise DataError(f"{path}: not a kind of raw file that is read; give one of {', '.join(READERS)}")
    if not path.is_file():
        raise DataError(f"{path}: no such file; correct the path")
    try:
        yield from reader(path)
    except MsmError:
        raise
    except Exception as error:  # the parsers of damaged files raise whatever they stumble over
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise DataError(f"{path}: not readable, damaged or cut off ({reason}); copy or make it again") from error


def _hdf5_scans(path: Path) -> Iterator[Scan]:
    with open_hdf5(path) as file:
        return fastmri_scans(path) if "kspace" in file else ismrmrd_scans(path)


READERS: dict[str, Callable[[Path], Iterator[Scan]]] = {
    **dict.fromkeys((".h5", ".hdf5", ".mrd"), _hdf5_scans),
    ".npy": npy_scans,
    ".mat": mat_scans,
    **dict.fromkeys((".cfl", ".hdr"), bart_scans),
}
