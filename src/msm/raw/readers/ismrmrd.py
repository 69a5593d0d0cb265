"""ISMRMRD files: an XML header and acquisitions.

    /dataset/xml    (1,)   the header
    /dataset/data   (N,)   acquisitions: head (counters, flags, geometry), traj, data (float32, channels × samples)

Source: Inati et al., Magn. Reson. Med. 77 (2017); https://ismrmrd.readthedocs.io.
"""

from collections.abc import Iterator
from pathlib import Path

import h5py
import numpy as np

from ...data.hdf5 import check_lengths, open_hdf5, own_dataset
from ...errors import DataError
from ..scan import Scan
from .acquisitions import HEAD_FIELDS, Acquisitions
from .header import Header, read_header

READ_ROWS = 1024  # heads of acquisitions read at a time


def ismrmrd_scans(path: Path) -> Iterator[Scan]:
    """Slices of a Cartesian ISMRMRD file, 2-D or 3-D, in the file's units.

    Args:
        path: the file.

    Raises:
        DataError: if it is damaged, or of a kind that is not read.
    """
    with open_hdf5(path) as file:
        if not isinstance(file.get("dataset", getlink=True), h5py.HardLink) or "xml" not in file["dataset"]:
            raise DataError(f"{path}: holds neither kspace (fastMRI) nor dataset/xml (ISMRMRD); convert the scan")
        header = read_header(path, own_dataset(path, file["dataset"], "xml"))
        if header.trajectory != "cartesian":
            found = header.trajectory[:40]
            raise DataError(f"{path}: the trajectory is {found!r}, only cartesian is read; grid it first")
        yield from _acquisitions(path, own_dataset(path, file["dataset"], "data"), header).scans()


def _acquisitions(path: Path, data: h5py.Dataset, header: Header) -> Acquisitions:
    """The heads of all acquisitions, and how to read their data."""
    if data.ndim != 1 or data.dtype.names is None or not {"head", "data"} <= set(data.dtype.names):
        raise DataError(f"{path}: dataset/data holds no acquisitions; convert the scan again")
    check_lengths(path, data, "data")
    rows = [data.fields("head")[i : i + READ_ROWS] for i in range(0, len(data), READ_ROWS)]
    heads = np.concatenate(rows) if rows else np.empty(0, data.dtype["head"])
    if missing := [name for name in HEAD_FIELDS if name not in (heads.dtype.names or ())]:
        raise DataError(f"{path}: acquisitions have no {', '.join(missing)}; convert the scan again")
    values = data.fields("data")
    return Acquisitions(path, header, heads, lambda line: np.asarray(values[line]), {"format": "ISMRMRD"})
