"""Readers of raw k-space by file type.

    .h5 .hdf5 .mrd   fastMRI and M4Raw (kspace, ismrmrd_header), ISMRMRD (dataset/xml, dataset/data),
                     SKM-TEA (kspace of five axes, maps), CC359 (kspace of real numbers)
    .npy             (H, W), (coils, H, W) or (slices, coils, H, W); CC359 (real numbers)
    .mat             the variable kdata, kspace or data, likewise, or CMRxRecon's; versions 5 to 7.3
    .dat             Siemens twix: VB, VD, VE, XA
    .cfl .hdr        BART: read, phase 1, phase 2, coils, …, slices

No reader trusts a size that the file's data do not justify, runs anything, or follows a link out of the file.
"""

import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

import h5py

from ...data.hdf5 import open_hdf5, own_dataset
from ...errors import DataError, MsmError, is_damage
from ...system.files import check_name
from ...system.places import is_run
from ..scan import Scan, centred, normalise
from .arrays import mat_scans, npy_scans
from .bart import bart_scans
from .cc359 import cc359_scans
from .fastmri import fastmri_scans
from .given_maps import with_maps
from .guards import check_centre
from .ismrmrd import ismrmrd_scans
from .skm_tea import skm_tea_scans
from .twix import twix_scans


def raw_files(paths: Sequence[Path]) -> list[Path]:
    """The raw files that paths name: files as they are, of a folder and those in it all of a kind that is read, sorted.

    A BART pair counts once. What begins with a dot is left out.

    Args:
        paths: files and folders.

    Raises:
        DataError: if there are none.
    """
    files: list[Path] = []
    for path in paths:
        files += sorted(f for f in _inside(path) if f.suffix.lower() in READERS) if path.is_dir() else [path]
    if not files:
        raise DataError(f"{', '.join(map(str, paths))}: no raw files in it; give some of {', '.join(READERS)}")
    for file in files:
        check_name(file)
    return list(dict.fromkeys(map(_of_pair, files)))


def left_out(paths: Sequence[Path]) -> dict[str, int]:
    """How many files of folders are of kinds that are not read, by suffix."""
    suffixes = [f.suffix.lower() for path in paths if path.is_dir() for f in _inside(path)]
    return dict(sorted(Counter(suffix or "no suffix" for suffix in suffixes if suffix not in READERS).items()))


def _inside(folder: Path) -> Iterator[Path]:
    """Files in a folder and in those in it, without hidden ones and the results of runs."""
    for place, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if name[0] != "." and not is_run(Path(place, name))]
        yield from (path for name in files if name[0] != "." and (path := Path(place, name)).is_file())


def _of_pair(file: Path) -> Path:
    """The .cfl that goes with a .hdr; any other file is itself."""
    changed = {".hdr": ".cfl", ".HDR": ".CFL"}.get(file.suffix)
    return file.with_suffix(changed) if changed else file


def import_scans(paths: Iterable[Path], maps: Path | None = None) -> Iterator[Scan]:
    """Slices of raw files of any kind that is read, one at a time, scaled to a magnitude of at most about 1.

    Args:
        paths: the files.
        maps: coil maps for them, a file or a folder of files (`msm.raw.readers.given_maps`); None: to be estimated.

    Yields:
        slices, ready for `fit`, for the coil maps (`msm.raw.coil_maps`) and for `StoreWriter.add`.

    Raises:
        DataError: if a file cannot be used.
    """
    for path in map(Path, paths):
        scans = map(normalise, map(centred, read_scans(path)))
        yield from scans if maps is None else with_maps(scans, path, maps)


def scans_as_they_are(path: Path, maps: Path | None) -> Iterator[Scan]:
    """Slices of one raw file as of `import_scans`, but in the file's units: what a first reading needs, in less time.

    Args:
        path: the file.
        maps: as of `import_scans`.

    Raises:
        DataError: if a file cannot be used.
    """
    scans = map(centred, read_scans(path))
    return scans if maps is None else with_maps(scans, path, maps)


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
        yield from (check_centre(path, scan) for scan in reader(path))
    except MsmError:
        raise
    except Exception as error:  # the parsers of damaged files raise whatever they stumble over
        if not is_damage(error):
            raise
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise DataError(f"{path}: not readable, damaged or cut off ({reason}); copy or make it again") from error


def _hdf5_scans(path: Path) -> Iterator[Scan]:
    with open_hdf5(path) as file:
        if "kspace" not in file:
            return ismrmrd_scans(path)
        data = None if "ismrmrd_header" in file else own_dataset(path, file, "kspace")
        if data is not None and data.dtype.kind == "f" and data.ndim == 4:
            return _open_scans(path, cc359_scans)
        if data is not None and data.dtype.kind == "c" and data.ndim == 5:
            return _open_scans(path, skm_tea_scans)
        return fastmri_scans(path)


def _open_scans(path: Path, reader: Callable[[Path, h5py.Dataset], Iterator[Scan]]) -> Iterator[Scan]:
    """What a reader makes of the dataset kspace, the file being open as long."""
    with open_hdf5(path) as file:
        yield from reader(path, own_dataset(path, file, "kspace"))


READERS: dict[str, Callable[[Path], Iterator[Scan]]] = {
    **dict.fromkeys((".h5", ".hdf5", ".mrd"), _hdf5_scans),
    ".npy": npy_scans,
    ".mat": mat_scans,
    **dict.fromkeys((".cfl", ".hdr"), bart_scans),
    ".dat": twix_scans,
}
