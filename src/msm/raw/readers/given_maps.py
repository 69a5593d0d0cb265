"""Coil maps that the user has: complex arrays (coils, H, W), or (slices, coils, H, W), on the grid of the scan.

    .npy          the array
    .npz          maps, or the only array in it
    .mat          maps, sens or sensitivities
    .cfl .hdr     BART, as ecalib writes them (one set: -m 1)

What is measured need not hold a calibration region then.
"""

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np

from ...data.hdf5 import LARGEST_CLAIM
from ...errors import DataError, MsmError, is_damage
from ...system.packed import refuse_packed
from ..coil_maps import unit
from ..scan import Scan
from .bart import BART_SLICES, bart_array
from .guards import _tensor
from .matlab import read_mat

NAMES = ("maps", "sens", "sensitivities")


def maps_file(scan_file: Path, maps: Path) -> Path:
    """The file of maps that goes with a raw file: the one given or, of a folder, the one of the same name.

    Raises:
        DataError: if there is none.
    """
    if not maps.is_dir():
        if not maps.is_file():
            raise DataError(f"{maps}: no such file; correct setting.coil_maps (msm acquire: --maps)")
        return maps
    found = sorted(f for f in maps.iterdir() if f.stem == scan_file.stem and f.suffix.lower() in MAPS)
    if not found:
        raise DataError(f"{maps}: holds no maps named {scan_file.stem}, for {scan_file}; give {', '.join(MAPS)}")
    return found[0]


def with_maps(scans: Iterator[Scan], scan_file: Path, maps: Path) -> Iterator[Scan]:
    """Scans of a file with the maps that are given for them.

    Args:
        scans: slices of one raw file.
        scan_file: that file.
        maps: a file, or a folder with one of the same name as the raw file.

    Yields:
        the slices, with maps (coils, H, W), scaled to Σ_c |C_c|² = 1 where they are not zero.

    Raises:
        DataError: if the maps cannot be read, do not fit the slices, or are empty.
    """
    path = maps_file(scan_file, maps)
    try:
        array = MAPS.get(path.suffix.lower(), _unknown)(path)
    except MsmError:
        raise
    except Exception as error:  # the parsers of damaged files raise whatever they stumble over
        if not is_damage(error):
            raise
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise DataError(f"{path}: not readable, damaged or cut off ({reason}); copy or make it again") from error
    for number, scan in enumerate(scans):
        if array.dtype.kind != "c" or array.ndim not in (3, 4):
            raise DataError(f"{path}: is {array.dtype} of shape {array.shape}, expected complex maps (coils, H, W)")
        if array.ndim == 4 and number >= len(array):
            raise DataError(f"{path}: has maps of {len(array)} slices, {scan_file} has more; give a set for each")
        own = array[number] if array.ndim == 4 else array
        if own.shape != scan.k_space.shape:
            wanted = "{} coils of {} × {}".format(*scan.k_space.shape)
            raise DataError(f"{path}: maps have shape {own.shape}, {scan.name} has {wanted}; make them on its grid")
        given = unit(_tensor(str(path), own))
        if not given.any():
            raise DataError(f"{path}: the coil maps for {scan.name} are zero throughout; make them again")
        yield replace(scan, maps=given)


def _npz(path: Path) -> np.ndarray:
    refuse_packed(path, str(path), LARGEST_CLAIM)
    with np.load(path, allow_pickle=False) as arrays:
        name = next((name for name in NAMES if name in arrays.files), arrays.files[0] if len(arrays.files) == 1 else "")
        if not name:
            raise DataError(f"{path}: holds {arrays.files}, none of {', '.join(NAMES)}; save the array as maps")
        array: np.ndarray = arrays[name]
        return array


def _bart(path: Path) -> np.ndarray:
    """(slices, coils, H, W), or (coils, H, W) of one slice."""
    array = bart_array(path)
    sizes = [n for n in array.shape[:3] if n > 1]
    count = array.shape[BART_SLICES]
    if len(sizes) != 2 or array.size != array.shape[3] * sizes[0] * sizes[1] * count:
        raise DataError(f"{path}: has dimensions {array.shape}, expected one set of 2-D maps; use bart slice")
    maps = array.reshape(*sizes, array.shape[3], count, order="F").transpose(3, 2, 0, 1)
    return maps[0] if count == 1 else maps


def _unknown(path: Path) -> np.ndarray:
    raise DataError(f"{path}: not a kind of file that maps are read from; give one of {', '.join(MAPS)}")


MAPS: dict[str, Callable[[Path], np.ndarray]] = {
    ".npy": lambda path: np.lib.format.open_memmap(path, mode="r"),
    ".npz": _npz,
    ".mat": lambda path: read_mat(path, NAMES),
    **dict.fromkeys((".cfl", ".hdr"), _bart),
}
