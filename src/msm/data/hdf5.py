"""HDF5 files of others, opened safely: nothing leads out of the file, no memory is taken for what it does not hold.

Damage is told in one line. One thing is left to HDF5: texts in attributes, for which a damaged file may make it ask
for up to 4 gigabytes.
"""

import io
import math
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from ..errors import DataError, is_damage

OWN_FILTERS = {1, 2, 3, 32000}  # deflate, shuffle, fletcher32, h5py's LZF: HDF5 would look for others in plugins
LARGEST_PACKING = 1032  # times smaller than it was: deflate packs nothing better
LARGEST_CLAIM = 64  # a raw file may need so many times the memory that its data take: undersampling and compression
CHECKED = ("v110", "v110")  # of HDF5's layouts, the first that has sums of its own of everything but the data
NO_FIELDS: Mapping[str, int] = {}


def open_hdf5(
    path: Path, file_format: str = "", fields: Mapping[str, int] = NO_FIELDS, optional: Mapping[str, int] = NO_FIELDS
) -> h5py.File:
    """Open an HDF5 file for reading and check that it holds the datasets that are needed, and the data they claim.

    Args:
        path: the file.
        file_format: value that its attribute `format` must have, if given.
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
        if not is_damage(error):
            raise OSError(error.errno, os.strerror(error.errno or 0), str(path)) from None
        reason = str(error).splitlines()[0]
        raise DataError(f"{path}: not readable as HDF5, damaged or cut off ({reason}); copy or make it again") from None
    try:
        with readable(path):
            found = file.attrs.get("format")
            there = {name: axes for name, axes in optional.items() if name in file}
        if file_format and str(found) != file_format:
            expected = f"expected a file of format {file_format}, found {ascii(found)[:40]}"
            raise DataError(f"{path}: {expected}; make it with `msm acquire`")
        for name, axes in {**fields, **there}.items():
            data = own_dataset(path, file, name, LARGEST_PACKING)
            if data.ndim != axes:
                raise DataError(f"{path}: dataset {name} has {data.ndim} axes, expected {axes}; make it again")
    except BaseException:
        file.close()
        raise
    return file


def own_dataset(path: Path, group: h5py.Group, name: str, largest: int = LARGEST_CLAIM) -> h5py.Dataset:
    """A dataset whose data lie in this file, and are enough for its size: nothing that leads elsewhere is followed.

    Args:
        path: the file, for the message.
        group: the open file, or a group of it.
        name: name in the group.
        largest: how many times what is stored the dataset, or a chunk of it, may take.

    Raises:
        DataError: if there is none, or it claims too much.
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
            raise DataError(
                f"{path}: dataset {name} is packed by filter {min(foreign)}, a plugin; h5repack -f {name}:GZIP=4 it"
            )
        claimed = data.size and max(data.size, math.prod(data.chunks or ())) * data.dtype.itemsize
        refuse_claim(f"{path}: dataset {data.name.strip('/')}", claimed, data.id.get_storage_size(), largest)
        return data


def refuse_claim(where: str, claimed: int, held: int, largest: int = LARGEST_CLAIM) -> None:
    """Refuse an array far larger than the data in the file, before any memory is taken for it.

    Args:
        where: the file and what in it makes the claim.
        claimed: bytes the array would take.
        held: bytes of data that the file holds.
        largest: how many times as much may be claimed.

    Raises:
        DataError: if the claim is more than that.
    """
    if claimed > largest * held:
        raise DataError(
            f"{where} claims {claimed:.3g} bytes, the file holds {held:.3g} of data; "
            "the file is damaged or cut off, copy or make it again"
        )


def check_lengths(path: Path, data: h5py.Dataset, field: str | None = None) -> None:
    """Refuse values of variable length that claim more than the file holds: HDF5 takes the memory first.

    In the file, each is its length (4 bytes) and where it lies (12 bytes).

    Args:
        path: the file.
        data: the dataset.
        field: name of the values in a compound; None if the values are the dataset.

    Raises:
        DataError: if one does, or the lengths are packed away by a filter.
    """
    kind = data.id.get_type()
    row, offset = kind.get_size(), kind.get_member_offset(kind.get_member_index(field.encode())) if field else 0
    count, places = math.prod(data.chunks or data.shape), []
    if data.chunks is None:
        places.append(data.id.get_offset())
    else:
        data.id.chunk_iter(lambda chunk: places.append(chunk.byte_offset))
    if data.compression is not None or None in places:
        raise DataError(f"{path}: {data.name} is stored packed; write it plainly: h5repack -l CONTI or -f NONE")
    content = np.memmap(path, np.uint8, mode="r")
    for place in places:
        rows = content[place : place + count * row].reshape(count, row)
        longest = int(np.ascontiguousarray(rows[:, offset : offset + 4]).view("<u4").max(initial=0))
        refuse_claim(f"{path}: a value of {data.name}", longest, content.size // LARGEST_CLAIM)


class _Disk(io.FileIO):
    """A file for HDF5 that is never told of a full disk: closed halfway, its library ends the process by a signal.

    Attributes:
        error: the first one; nothing is written after it.
    """

    error: OSError | None = None

    def write(self, content: Any) -> int:
        """All of it, if there is room."""
        left = memoryview(content).cast("B")
        size = len(left)
        try:
            while left and self.error is None:
                left = left[super().write(left) :]
        except OSError as error:
            self.error = error
        return size

    def truncate(self, size: int | None = None) -> int:
        """As of any file, if there is room."""
        try:
            if self.error is None:
                return super().truncate(size)
        except OSError as error:
            self.error = error
        return self.tell() if size is None else size

    def check(self, path: Path) -> None:
        """Raise what went wrong, as of the file that is to be made."""
        if self.error is not None:
            raise OSError(self.error.errno, self.error.strerror, str(path)) from self.error


@contextmanager
def new_hdf5(temporary: Path, path: Path) -> Iterator[tuple[h5py.File, Callable[[], None]]]:
    """A new HDF5 file, and a function that raises if there was no room for all that was written so far.

    Args:
        temporary: where it is written.
        path: where it will lie, for the message.

    Raises:
        OSError: there was no room for all of it.
    """
    with _Disk(temporary, "w+") as disk:
        with h5py.File(disk, "w", libver=CHECKED) as file:
            yield file, lambda: disk.check(path)
        disk.check(path)


@contextmanager
def readable(path: Path) -> Iterator[None]:
    """Tell of damage in one line: HDF5 raises whatever it stumbles over."""
    try:
        yield
    except DataError:
        raise
    except Exception as error:
        if not is_damage(error):
            raise
        reason = (str(error).splitlines() or [type(error).__name__])[0][:200]
        raise DataError(f"{path}: damaged ({reason}); copy or make the file again") from None
