"""The measurement store: one HDF5 file that holds acquisitions and nothing else (SPEC §3).

    /values      (N, C or coils, H, W)   float32 or complex64, zero where not measured
    /mask        (N, 1, H, W)            bool
    /maps        (N or 1, coils, H, W)   complex64, MRI only
    /noise_std   (N,)                    float32, ρ per real component
    /name        (N,)                    the item's identity
    attributes   format, version, provenance (JSON), sha256 of provenance and names

Arrays are checked by fletcher32, and how they lie in the file by HDF5's own sums.

The truth, where a simulation has one, goes into a file of its own that only evaluation opens:

    /images      (N, C, H, W)            float32 or complex64
    /name        (N,)
"""

import hashlib
import json
import os
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeVar

import h5py
import numpy as np
import torch
from torch import Tensor

from ..errors import DataError
from ..measurement import Measurement
from ..system.files import obstacle, whole
from .hdf5 import check_lengths, new_hdf5, open_hdf5, readable
from .lzf import chunk_of

FORMAT, VERSION = "msm-measurements", 1
TRUTH_FORMAT = "msm-truth"
COMPRESSED = ("values", "mask", "images")  # zeros where nothing was measured; maps have none to speak of
AXES = {"values": 4, "mask": 4, "noise_std": 1, "name": 1}
KINDS = {"values": "fc", "mask": "biu", "noise_std": "f", "name": "O", "maps": "c"}  # of NumPy's types


class Acquisitions(Protocol):
    """Training data: a `MeasurementStore`, or one made of it by `msm.data.acquire` or `msm.data.noise_level`."""

    largest_noise_std: float  # of all acquisitions; 0 if none holds noise

    def __len__(self) -> int: ...

    def batch(self, indices: Sequence[int], epochs: Sequence[int]) -> Measurement:
        """The acquisitions with these numbers, as one batch; `epochs` says how often each was used before."""


def check_target(path: Path) -> None:
    """Refuse a path that no store can be written to, before the work that it is for; nothing is written.

    Args:
        path: the file to make, whose folder need not be there.

    Raises:
        DataError: if its suffix is not .h5, or its folder takes no files.
    """
    if path.suffix != ".h5":
        raise DataError(f"{path}: will be written as HDF5; choose a name that ends in .h5")
    if reason := obstacle(path.absolute().parent):
        raise DataError(f"{path}: cannot be written ({reason}); choose another path")


Writer = TypeVar("Writer", bound="_Writer")


@dataclass
class _Field:
    """A dataset that grows, what its items are, how many it has, and how many it has room for."""

    dataset: h5py.Dataset
    shape: tuple[int, ...]
    dtype: np.dtype
    filled: int = 0
    room: int = 0


class _Writer:
    """An HDF5 file that grows item by item and appears when it is complete."""

    format: str

    def __init__(self, path: Path, provenance: dict[str, Any]):
        self.path = Path(path)
        check_target(self.path)
        self.provenance = provenance
        self._about = {"format": self.format, "version": VERSION}
        self._open = ExitStack()

    def __enter__(self: Writer) -> Writer:
        with ExitStack() as stack:
            temporary = stack.enter_context(whole(self.path))
            self.file, self._check_room = stack.enter_context(new_hdf5(temporary, self.path))
            self.file.attrs.update(self._about)
            self._fields: dict[str, _Field] = {}
            self._names: list[str] = []
            self._numbers: dict[str, list[np.ndarray]] = {}
            self._open = stack.pop_all()
        return self

    def __exit__(self, *error: Any) -> bool | None:
        if error[0] is not None:
            return self._open.__exit__(*error)
        with self._open:
            for field in self._fields.values():
                field.dataset.resize(field.filled, axis=0)
            length = {"maxshape": (None,), "chunks": (1024,)}
            self.file.create_dataset("name", data=self._names, dtype=h5py.string_dtype(), **length)
            for name, numbers in self._numbers.items():
                self.file.create_dataset(name, data=np.stack(numbers), fletcher32=True, **length)
            self.file.attrs["provenance"] = json.dumps(self.provenance)
            self.file.attrs["sha256"] = _digest(self.file)
        return None

    def _append(self, name: str, **fields: Any) -> None:
        """Add one item, of each field as one chunk: random access reads that item only. Numbers are kept to the end."""
        self._names.append(name)
        for field, array in ((field, np.asarray(item)) for field, item in fields.items() if item is not None):
            if not array.shape:
                self._numbers.setdefault(field, []).append(array)
                continue
            dataset, place = self._grown(field, array.shape, array.dtype, 1)
            if field == "values" and array.dtype == np.complex64:
                chunk, left_out = chunk_of(array, np.asarray(fields["mask"])[0])
                dataset.id.write_direct_chunk((place, *[0] * array.ndim), chunk, left_out)
            else:
                dataset[place] = array
        self._check_room()

    def _grown(self, name: str, shape: tuple[int, ...], dtype: np.dtype, count: int) -> tuple[h5py.Dataset, int]:
        """The dataset of a field with room for so many more items, and where these begin; made for the first one."""
        if name not in self._fields:
            shuffle = dtype.kind != "c"  # complex values are packed better without
            packed = {"compression": "lzf", "shuffle": shuffle} if name in COMPRESSED else {}
            made = self.file.create_dataset(  # fletcher32: a flipped bit is an error, not another pixel
                name, (0, *shape), dtype, maxshape=(None, *shape), chunks=(1, *shape), fletcher32=True, **packed
            )
            self._fields[name] = _Field(made, shape, dtype)
        field = self._fields[name]
        if (field.shape, field.dtype) != (shape, dtype):
            before = f"of those before {field.dtype} {field.shape}"
            remedy = "put items of one shape into a store"
            raise DataError(f"{self.path}: {name} of one item is {dtype} {shape}, {before}: {remedy}")
        place, field.filled = field.filled, field.filled + count
        if field.filled > field.room:  # one at a time, growing takes longer than writing
            field.room = max(field.filled, 2 * field.room)
            field.dataset.resize(field.room, axis=0)
        return field.dataset, place


class StoreWriter(_Writer):
    """Write a measurement store; use as a context manager.

    Args:
        path: the file to make (.h5); it appears when all is written.
        provenance: where the data comes from and how it was made, JSON-friendly; what is added to it while items are
            is written too.

    Raises:
        DataError: if it cannot be written there.
    """

    format = FORMAT

    def add(self, name: str, values: Tensor, mask: Tensor, maps: Tensor | None, noise_std: float) -> None:
        """Add one acquisition.

        Args:
            name: identity of the item.
            values: (C or coils, H, W); unmeasured entries are stored as zero.
            mask: (1, H, W), bool.
            maps: (coils, H, W), complex, or None for photos.
            noise_std: ρ per real component.
        """
        values = values if values.is_complex() else torch.where(mask, values, 0)  # those are left out by chunk_of
        self._append(name, values=values, mask=mask, maps=maps, noise_std=np.float32(noise_std))

    def extend(self, path: Path) -> None:
        """Add all items of another store; chunks are copied as they lie there.

        Args:
            path: file written by `StoreWriter`.

        Raises:
            DataError: if it is no such file, or its items have another shape.
        """
        with open_hdf5(path, FORMAT, AXES) as other:
            self._names.extend(name.decode() for name in other["name"][:])
            self._numbers.setdefault("noise_std", []).extend(other["noise_std"][:])
            for field in (name for name in ("values", "mask", "maps") if name in other):
                source = other[field]
                dataset, place = self._grown(field, source.shape[1:], source.dtype, len(source))
                for i in range(len(source)):
                    filters, chunk = source.id.read_direct_chunk((i, 0, 0, 0))
                    dataset.id.write_direct_chunk((place + i, 0, 0, 0), chunk, filters)
                    self._check_room()


class TruthWriter(_Writer):
    """Write the ground truth of simulated acquisitions; use as a context manager."""

    format = TRUTH_FORMAT

    def add(self, name: str, image: Tensor) -> None:
        """Add one image (C, H, W)."""
        self._append(name, images=image)


class MeasurementStore(torch.utils.data.Dataset[Measurement]):
    """Random access to a measurement store, without reading the rest of the file.

    The file is opened once in every process that reads it, so data-loading workers share no handle.

    Args:
        path: file written by `StoreWriter`.

    Raises:
        DataError: if it is no such file, or its parts do not fit together.
    """

    def __init__(self, path: Path | str):
        self.path = Path(path)
        self._file: tuple[int, h5py.File] | None = None
        file = self._open()
        with readable(self.path):
            self.provenance = json.loads(file.attrs.get("provenance", "{}"))
            self.shape: tuple[int, int, int] = file["values"].shape[1:]
            self.is_mri = "maps" in file
            self._length = len(file["values"])
            levels = file["noise_std"][:]
        if not (np.isfinite(levels) & (levels >= 0)).all():
            raise DataError(f"{self.path}: noise_std holds values that are no noise level; acquire the items again")
        self.largest_noise_std = float(levels.max())

    def _open(self) -> h5py.File:
        if self._file is None or self._file[0] != os.getpid():
            file = open_hdf5(self.path, FORMAT, AXES, {"maps": 4})
            with readable(self.path):
                _check_content(self.path, file)
            self._file = (os.getpid(), file)
        return self._file[1]

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_file": None}

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, index: int) -> Measurement:
        """Item `index` as a batch of one."""
        return self.batch([index])

    def batch(self, indices: Sequence[int], epochs: Sequence[int] = ()) -> Measurement:
        """Several items as one batch.

        Args:
            indices: item numbers, any order, repeats allowed.
            epochs: not used: an acquisition is the same in every epoch.

        Returns:
            the acquisitions.

        Raises:
            DataError: if an item measured nothing or holds values that are not finite.
        """
        file = self._open()
        for i in indices:
            if not 0 <= i < self._length:
                raise IndexError(f"{self.path} has {self._length} items, there is no number {i}")
        values, mask, noise_std = (_read(file[name], indices) for name in ("values", "mask", "noise_std"))
        maps = _read(file["maps"], indices if len(file["maps"]) > 1 else [0]) if self.is_mri else None
        measurement = Measurement(values, mask, maps, noise_std)
        self._check(measurement, indices)
        return measurement

    def names(self, indices: Sequence[int]) -> list[str]:
        """Identities of items."""
        with readable(self.path):
            names = self._open()["name"][:]  # at once: one by one, HDF5 takes seconds for many
            return [names[i].decode() for i in indices]

    def masks(self, limit: int = 1000) -> Tensor:
        """The masks of the first `limit` items (N, 1, H, W), bool."""
        with readable(self.path):
            return torch.from_numpy(self._open()["mask"][:limit] != 0)

    def some_masks(self, limit: int) -> Tensor:
        """The masks of at most `limit` items, evenly spaced, each as `batch` gives it: (N, 1, H, W), bool."""
        count = min(limit, len(self))
        return torch.cat([self[n * len(self) // count].mask for n in range(count)])

    def _check(self, measurement: Measurement, indices: Sequence[int]) -> None:
        empty = ~measurement.mask.flatten(1).any(1)
        bad = ~torch.isfinite(measurement.values.abs()).flatten(1).all(1)
        if measurement.maps is not None:
            bad |= ~torch.isfinite(measurement.maps.abs()).flatten(1).all(1)
        for failed, what in ((empty, "a mask of zeros: nothing was measured"), (bad, "values or maps not finite")):
            if failed.any():
                index = indices[int(failed.nonzero()[0])]
                raise DataError(
                    f"{self.path}: item {index} ({self.names([index])[0]}) has {what}; acquire it again or leave it out"
                )


def _digest(file: h5py.File) -> str:
    """SHA-256 of what fletcher32 does not guard: where the data comes from, and the items' names."""
    names = file["name"][:]
    digest = hashlib.sha256(str(file.attrs["provenance"]).encode())
    for name in names:
        digest.update(len(name).to_bytes(8, "little") + name)
    return digest.hexdigest()


def _check_content(path: Path, file: h5py.File) -> None:
    """Refuse shapes that do not go together, other types, and names of a length that the file does not hold."""
    count, channels, height, width = file["values"].shape
    expected = {"mask": (count, 1, height, width), "noise_std": (count,), "name": (count,)}
    if "maps" in file:
        expected["maps"] = (1 if len(file["maps"]) == 1 else count, channels, height, width)
    for name, shape in expected.items():
        if file[name].shape != shape:
            what = f"{name} has shape {file[name].shape}, expected {shape} to go with values"
            raise DataError(f"{path}: {what}; write values, mask and maps of one size")
    if count == 0:
        raise DataError(f"{path}: holds no items; acquire some first")
    for name in (name for name in KINDS if name in file):
        data = file[name]
        if data.dtype.kind not in KINDS[name]:
            raise DataError(f"{path}: {name} is {data.dtype}, which is no type for it; write it as StoreWriter does")
    check_lengths(path, file["name"])
    if "sha256" in file.attrs and file.attrs["sha256"] != _digest(file):
        raise DataError(f"{path}: names or provenance are not as they were written; copy or make it again")
    if (file["values"].dtype.kind == "c") != ("maps" in file):
        raise DataError(f"{path}: complex values and maps go together, only one is there; acquire the items again")


def _read(dataset: h5py.Dataset, indices: Sequence[int]) -> Tensor:
    """Items of a dataset in any order."""
    with readable(Path(f"{dataset.file.filename}: {dataset.name.strip('/')}")):
        items = np.stack([dataset[i] for i in indices])
    kind = {"c": np.complex64, "f": np.float32}.get(items.dtype.kind, np.bool_)
    return torch.from_numpy(items.astype(kind, copy=False))
