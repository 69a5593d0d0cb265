"""Numeric arrays of MATLAB files, versions 5 to 7.3.

scipy's `loadmat` ends the process on a file whose tags are damaged, so the few tags that matter are read here, every
length checked against the bytes that are there. Version 7.3 is HDF5, with the axes in reverse.

Source: MATLAB MAT-File Format, MathWorks; the tests write their files by scipy and h5py.
"""

import zlib
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path

import h5py
import numpy as np

from ...data.hdf5 import LARGEST_CLAIM, open_hdf5, own_dataset
from ...errors import DataError

HEADER_BYTES = 128
MATRIX, COMPRESSED = 14, 15
COMPLEX_FLAG = 0x800
NUMBERS = {1: "i1", 2: "u1", 3: "<i2", 4: "<u2", 5: "<i4", 6: "<u4", 7: "<f4", 9: "<f8", 12: "<i8", 13: "<u8"}
NUMERIC_CLASSES = range(6, 16)  # double, single, integers: no cells, structures, objects, text, sparse matrices
PAIR = ("real", "imag")
WITHOUT_SIZES = range(16, 256)  # function handles and opaque objects (string, table, datetime): laid out in another way


class MatArray:
    """A numeric array of a MATLAB file, axes as MATLAB has them.

    Args:
        stored: the array with its axes in reverse, as HDF5 has it; complex numbers may be pairs of real and imag.
    """

    def __init__(self, stored: np.ndarray | h5py.Dataset):
        self._stored = stored
        self.shape = stored.shape[::-1]
        self.is_pairs = stored.dtype.names == PAIR
        self.dtype = np.dtype(np.complex128) if self.is_pairs else stored.dtype

    def at(self, *place: int) -> np.ndarray:
        """What lies at some indices of the last axes; of version 7.3, nothing else is read."""
        part = self._stored[place[::-1]]
        return (part["real"] + 1j * part["imag"] if self.is_pairs else part).T


@contextmanager
def open_mat(path: Path, names: tuple[str, ...]) -> Iterator[tuple[str, MatArray]]:
    """The first of some variables that a file holds, with its name.

    Args:
        path: the file.
        names: the variables, in order of preference.

    Raises:
        DataError: if there is none, or it is no numeric array.
    """
    if not h5py.is_hdf5(path):
        yield _read_old(path, names)
        return
    with open_hdf5(path) as file:
        name = _first_of(path, names, [name for name in file if not name.startswith("#")])
        own = isinstance(file.get(name, getlink=True), h5py.HardLink)
        if own and file.get(name, getclass=True) is h5py.Group:  # a structure
            raise _no_array(path, name)
        data = own_dataset(path, file, name)
        if data.dtype.names != PAIR and data.dtype.kind not in "fiuc":
            raise _no_array(path, name)
        yield name, MatArray(data)


def read_mat(path: Path, names: tuple[str, ...]) -> np.ndarray:
    """The array of `open_mat`, whole."""
    with open_mat(path, names) as (_, array):
        return array.at()


def _read_old(path: Path, names: tuple[str, ...]) -> tuple[str, MatArray]:
    """The same of versions 5 to 7."""
    content = path.read_bytes()
    if content[:7] != b"MATLAB " or content[126:128] != b"IM":
        raise DataError(f"{path}: not a little-endian MATLAB file of versions 5 to 7.3; save {names[0]} with -v7")
    held = {}
    for flags, shape, name, parts in _variables(content):
        held[name] = (flags, shape, parts if name in names else [])  # the rest need not stay
    name = _first_of(path, names, held)
    flags, shape, parts = held[name]
    if flags & 0xFF not in NUMERIC_CLASSES:
        raise _no_array(path, name)
    real, *imaginary = (_numbers(*part) for part in parts)
    array = real + 1j * imaginary[0] if flags & COMPLEX_FLAG else real
    return name, MatArray(array.reshape(shape[::-1]))


def _first_of(path: Path, names: tuple[str, ...], held: Collection[str]) -> str:
    """The first of some names that a file holds."""
    for name in names:
        if name in held:
            return name
    found = f"{path}: holds {str(list(held))[:100]}, none of {', '.join(names)}"
    raise DataError(f"{found}; save the array as {names[0]}")


def _no_array(path: Path, name: str) -> DataError:
    return DataError(f"{path}: {name} is no numeric array; save complex numbers as {name}")


def _elements(data: memoryview) -> Iterator[tuple[int, memoryview]]:
    """Kind and content of the elements that follow each other in `data`."""
    place = 0
    while place + 8 <= len(data):
        kind, size = np.frombuffer(data[place : place + 8], "<u4").tolist()
        start, step = place + 8, size if kind == COMPRESSED else -(-size // 8) * 8
        if kind >> 16:  # up to four bytes are packed into the tag
            kind, size, start, step = kind & 0xFFFF, kind >> 16, place + 4, 0
        if start + size > len(data):
            raise ValueError(f"an element of {size} bytes, {len(data) - start} are left")
        yield kind, data[start : start + size]
        place += 8 + step


def _variables(content: bytes) -> Iterator[tuple[int, list[int], str, list[tuple[int, memoryview]]]]:
    """Flags, shape, name and numeric parts of the variables of a file, but those of opaque objects."""
    for kind, data in _elements(memoryview(content)[HEADER_BYTES:]):
        if kind == COMPRESSED:
            unpacked = zlib.decompressobj().decompress(data, LARGEST_CLAIM * len(content))
            kind, data = next(_elements(memoryview(unpacked)))
        if kind == MATRIX:
            (_, first), *rest = _elements(data)
            flags = int(np.frombuffer(first, "<u4")[0])
            if flags & 0xFF not in WITHOUT_SIZES:
                (_, shape), (_, name), *parts = rest
                yield flags, np.frombuffer(shape, "<i4").tolist(), bytes(name).decode("ascii"), parts


def _numbers(kind: int, data: memoryview) -> np.ndarray:
    """Numbers as stored; MATLAB stores whole numbers in as few bytes as they need."""
    if kind not in NUMBERS:
        raise ValueError(f"numbers of kind {kind}")
    numbers = np.frombuffer(data, NUMBERS[kind])
    return numbers if numbers.dtype.kind == "f" else numbers.astype(np.float64)
