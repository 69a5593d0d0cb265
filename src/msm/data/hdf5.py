"""HDF5 files of others, opened safely: nothing leads out of the file, and damage is told in one line."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import h5py

from ..errors import DataError

OWN_FILTERS = {1, 2, 3, 32000}  # deflate, shuffle, fletcher32, h5py's LZF: HDF5 would look for others in plugins


def open_hdf5(
    path: Path, file_format: str | None, fields: dict[str, int], optional: dict[str, int] | None = None
) -> h5py.File:
    """Open an HDF5 file for reading and check that it holds the datasets that are needed.

    Args:
        path: the file.
        file_format: value that its attribute `format` must have, if any.
        fields: names of the datasets and how many axes each must have.
        optional: likewise, of datasets that need not be there.

    Raises:
        DataError: if the file is missing, damaged, or of another kind.
    """
    if not path.is_file():
        raise DataError(f"{path}: no such file; make it with `msm acquire`, or correct the path")
    try:
        file = h5py.File(path, "r")
    except OSError as error:
        reason = str(error).splitlines()[0]
        raise DataError(f"{path}: not readable as HDF5, damaged or cut off ({reason}); copy or make it again") from None
    try:
        _check_kind(path, file, file_format, fields, optional or {})
    except BaseException:
        file.close()
        raise
    return file


def _check_kind(
    path: Path, file: h5py.File, file_format: str | None, fields: dict[str, int], optional: dict[str, int]
) -> None:
    with readable(path):
        found = file.attrs.get("format")
        there = {name: axes for name, axes in optional.items() if name in file}
    if file_format is not None and str(found) != file_format:
        found = ascii(found)[:40]
        raise DataError(f"{path}: expected a file of format {file_format}, found {found}; make it with `msm acquire`")
    for name, axes in (fields | there).items():
        if own_dataset(path, file, name).ndim != axes:
            raise DataError(f"{path}: dataset {name} has {file[name].ndim} axes, expected {axes}; make it again")


def own_dataset(path: Path, group: h5py.Group, name: str) -> h5py.Dataset:
    """A dataset whose data lie in this file: links and storage that lead into other files are not followed.

    Args:
        path: the file, for the message.
        group: the open file, or a group of it.
        name: name in the group.

    Raises:
        DataError: if there is none.
    """
    with readable(path):
        link = group.get(name, getlink=True)
        if not isinstance(link, h5py.HardLink) or not isinstance(group[name], h5py.Dataset):
            raise DataError(f"{path}: dataset {name} is missing; the file is not complete, make it again")
        data = group[name]
        if data.is_virtual or data.external:
            raise DataError(f"{path}: dataset {name} points into other files; copy the data into this one")
        layout = data.id.get_create_plist()
        foreign = {layout.get_filter(i)[0] for i in range(layout.get_nfilters())} - OWN_FILTERS
    if foreign:
        raise DataError(f"{path}: dataset {name} is packed by filter {min(foreign)}, a plugin; h5repack -f GZIP=4 it")
    return data


@contextmanager
def readable(path: Path) -> Iterator[None]:
    """Tell of damage in one line: HDF5 raises whatever it stumbles over."""
    try:
        yield
    except DataError:
        raise
    except Exception as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0][:200]
        raise DataError(f"{path}: damaged ({reason}); copy or make the file again") from None
