"""Acquisitions of a scanner, line by line, sorted into the k-space of slices: ISMRMRD's heads, from whatever file."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ...data.hdf5 import refuse_claim
from ...errors import DataError
from ..scan import Scan, resize, resize_image, split_axis, split_volume
from .guards import _tensor
from .header import Header

COUNTERS = ("slice", "contrast", "phase", "repetition", "set")  # each combination is an image of its own
HEAD_FIELDS = (
    *("flags", "idx", "active_channels", "number_of_samples", "center_sample", "discard_pre", "discard_post"),
    *("encoding_space_ref", "sample_time_us", "position", "read_dir", "phase_dir", "slice_dir"),
)
NOISE, CALIBRATION, CALIBRATION_AND_IMAGING, REVERSE = (1 << (n - 1) for n in (19, 20, 21, 22))
NAVIGATION = 1 << 22
OTHER = sum(1 << (n - 1) for n in (23, 24, 26, 27, 28, 29, 30, 31))  # navigators, phase correction, dummies, …


def remove_oversampling(k_space: Tensor, size: int) -> Tensor:
    """Keep the middle `size` pixels of the image along the readout, of k-space (coils, readout, …)."""
    return k_space if size >= k_space.shape[1] else resize_image(k_space, size, 1)


class Acquisitions:
    """The acquisitions of a file: heads in memory, data read line by line.

    Args:
        path: the file.
        header: matrix, field of view, limits.
        heads: of all acquisitions, with `HEAD_FIELDS`.
        read: gives the samples of one: float32, real and imaginary parts in turn, channels × samples.
        about: what the provenance is to begin with: the format.
        remedy: what to do about a bad file.

    Raises:
        DataError: if there is no image line.
    """

    def __init__(
        self,
        path: Path,
        header: Header,
        heads: np.ndarray,
        read: Callable[[int], np.ndarray],
        about: dict[str, Any],
        remedy: str = "convert the scan again",
    ):
        self.path, self.header, self.heads, self._read = path, header, heads, read
        self.is_volume, self._about, self._remedy = header.matrix[2] > 1, about, remedy
        flags = self.heads["flags"]
        embedded = CALIBRATION_AND_IMAGING | (CALIBRATION if header.calibration == "embedded" else 0)
        noise = flags & NOISE != 0
        usable = ~noise & (flags & OTHER == 0) & (self.heads["encoding_space_ref"] == 0)
        calibration = usable & (flags & CALIBRATION != 0) & (flags & embedded == 0)
        self.calibration_lines = np.flatnonzero(calibration)
        imaging = np.flatnonzero(usable & ~calibration)
        if not len(imaging):
            raise DataError(f"{path}: none of {len(flags)} acquisitions is an image line; {remedy}")
        self.left_out = len(flags) - len(imaging) - int(noise.sum()) - int(calibration.sum())
        self.coils = int(self.heads["active_channels"][imaging[0]])
        of_other_channels = noise & (self.heads["active_channels"] != self.coils)
        self.noise_lines, self.noise_left_out = np.flatnonzero(noise & ~of_other_channels), int(of_other_channels.sum())
        counters = np.stack([self.heads["idx"][name][imaging] for name in COUNTERS], 1)
        self.keys, group = np.unique(counters, axis=0, return_inverse=True)
        self.images = np.split(imaging[np.argsort(group, kind="stable")], np.cumsum(np.bincount(group.ravel()))[:-1])
        samples = [self._line(int(line)) for line in self.noise_lines]
        self.noise = torch.cat(samples, 1) if samples else None

    def scans(self) -> Iterator[Scan]:
        """The slices of all images."""
        for number in range(len(self.images)):
            yield from self._image(number)

    def _image(self, number: int) -> Iterator[Scan]:
        """The slices of image `number`: one, or those of a volume."""
        lines, calibration = self.images[number], self.calibration_lines
        calibration = calibration[self.heads["idx"]["slice"][calibration] == self.keys[number][0]]
        # before memory is taken for a matrix that the lines do not justify
        held = 8 * self.coils * int(self.heads["number_of_samples"][lines].astype(int).sum())
        refuse_claim(f"{self.path}: a matrix of {self.header.matrix}", 8 * self.coils * prod(self.header.matrix), held)
        size = self._size(lines)
        axis = split_axis(*self._grid(lines, size)) if self.is_volume else 2
        if axis is None:
            raise DataError(
                f"{self.path}: neither the readout nor the second phase encoding is measured whole, so the volume "
                "cannot be split into slices; fill one of them first"
            )
        groups = [group for group in (lines, calibration) if len(group)]
        for index, (own, *other) in enumerate(zip(*(self._slices(group, size, axis) for group in groups))):
            scan = self._scan(number, index, axis, *own)
            if other:
                scan = replace(scan, calibration=replace(scan, k_space=other[0][0], mask=other[0][1]))
            yield scan

    def _scan(self, number: int, index: int, axis: int, k_space: Tensor, mask: Tensor) -> Scan:
        """A slice with its name, geometry and provenance."""
        lines, key = self.images[number], dict(zip(COUNTERS, self.keys[number].tolist()))
        head, voxel = self.heads[lines[0]], self.header.voxel_mm
        directions = tuple(tuple(head[name].tolist()) for name in ("read_dir", "phase_dir", "slice_dir"))
        steps = np.stack([self.heads["idx"][f"kspace_encode_step_{i}"][lines] for i in (1, 2)], 1)
        repeats = np.unique(steps, axis=0, return_counts=True)[1]
        order = (0, 1, 2) if axis == 2 else (2, 1, 0)  # which of readout, phase, slice lie along H, W and across
        provenance = {
            **self._about,
            "file": self.path.name,
            **key,
            **({"plane": index} if self.is_volume else {}),
            "position_mm": head["position"].tolist(),
            "averages": [int(repeats.min()), int(repeats.max())],  # how often a line was measured
            "oversampling_removed": self._size(lines) < self.header.matrix[0],
            "lines_left_out": self.left_out,
            "noise_lines_left_out": self.noise_left_out,
        }
        if self.noise is not None:  # the level of the noise in k-space follows from that in the noise scan by these
            times = self.heads["sample_time_us"]
            provenance |= {"dwell_us": float(times[lines[0]]), "noise_dwell_us": float(times[self.noise_lines[0]])}
            provenance["noise_bandwidth"] = self.header.noise_bandwidth
        varying = [name for i, name in enumerate(COUNTERS) if len(np.unique(self.keys[:, i])) > 1]
        parts = [f"{name}{key[name]}" for name in varying if self.is_volume or name != "slice"]
        name = ":".join([self.path.stem, *parts, str(index if self.is_volume else key["slice"])])
        voxel = voxel and (voxel[order[0]], voxel[order[1]], voxel[order[2]])
        axes = tuple(directions[i] for i in order) if all(map(any, directions)) else None
        return Scan(name, k_space, mask, provenance, self.noise, voxel, axes)

    def _wrong(self, line: int, what: str) -> DataError:
        return DataError(f"{self.path}: acquisition {line}: {what}; {self._remedy}")

    def _line(self, line: int) -> Tensor:
        """Samples of one acquisition (coils, samples), without those to be discarded, in order of k."""
        head = self.heads[line]
        values = self._read(line)
        coils, count = int(head["active_channels"]), int(head["number_of_samples"])
        if coils != self.coils or values.dtype != np.float32 or values.size != 2 * coils * count or not values.size:
            found = f"{values.size} numbers ({values.dtype}) for {coils} channels × {count} samples"
            raise self._wrong(line, f"{found} where the scan has {self.coils} channels")
        samples = _tensor(f"{self.path}: acquisition {line}", values.view(np.complex64).reshape(coils, count))
        samples = samples[:, head["discard_pre"] : count - head["discard_post"]]
        return samples.flip(1) if head["flags"] & REVERSE else samples

    def _extent(self, lines: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """First position on the readout's grid, and the one after the last, of each line."""
        heads, nx = self.heads[lines], self.header.matrix[0]
        total, center = heads["number_of_samples"].astype(int), heads["center_sample"].astype(int)
        center[(center == 0) & (total == nx)] = nx // 2  # some converters leave it empty
        reverse = heads["flags"] & REVERSE != 0
        before, after = heads["discard_pre"].astype(int), heads["discard_post"].astype(int)
        first = nx // 2 - center + np.where(reverse, after, before)  # the centre is counted in order of k
        last = first + total - before - after
        bad = np.flatnonzero((first < 0) | (last > nx) | (last <= first))
        if len(bad):
            found = f"{total[bad[0]]} samples with the centre at {center[bad[0]]}"
            raise self._wrong(lines[bad[0]], f"{found} do not fit a readout of {nx}")
        return first, last

    def _size(self, lines: np.ndarray) -> int:
        """Length of the readout that is kept: the oversampling goes if the readouts are whole."""
        first, last = self._extent(lines)
        whole = first.max() == 0 and last.min() == self.header.matrix[0]
        return self.header.recon_x if whole else self.header.matrix[0]

    def _position(self, step: str, lines: np.ndarray) -> np.ndarray:
        """Positions of lines on the grid of a phase-encoding axis: "1" is y, "2" is z."""
        size = self.header.matrix[int(step)]
        found = self.heads["idx"][f"kspace_encode_step_{step}"][lines].astype(int)
        position = found + self.header.shift(f"kspace_encoding_step_{step}", size)
        bad = np.flatnonzero((position < 0) | (position >= size))
        if len(bad):
            what = f"kspace_encode_step_{step} = {found[bad[0]]} lies outside of a matrix of {size}"
            raise self._wrong(lines[bad[0]], what)
        return position

    def _assemble(self, lines: np.ndarray, positions: np.ndarray, width: int) -> tuple[Tensor, Tensor]:
        """Lines put side by side, repeated ones averaged: k-space (coils, nx, width) and mask (nx, width)."""
        nx = self.header.matrix[0]
        total = torch.zeros(self.coils, nx, width, dtype=torch.complex64)
        count = torch.zeros(nx, width)
        for line, position, first, last in zip(lines, positions, *self._extent(lines)):
            total[:, first:last, position] += self._line(int(line))
            count[first:last, position] += 1
        return total / count.clamp(min=1), count > 0

    def _slices(self, lines: np.ndarray, size: int, axis: int) -> Iterator[tuple[Tensor, Tensor]]:
        """The slices that lines make: k-space (coils, H, W) and mask (1, H, W)."""
        _, ny, nz = self.header.matrix
        y, z = self._position("1", lines), self._position("2", lines)
        if self.is_volume:

            def plane(number: int) -> Tensor:
                k_space, _ = self._assemble(lines[y == number], z[y == number], nz)
                return remove_oversampling(k_space, size)

            yield from split_volume(plane, *self._grid(lines, size), self.coils, axis)
        else:
            k_space, mask = self._assemble(lines, y, ny)
            mask = resize(mask, size, 0)  # all rows are alike where oversampling goes
            yield torch.where(mask, remove_oversampling(k_space, size), 0), mask[None]

    def _grid(self, lines: np.ndarray, size: int) -> tuple[np.ndarray, np.ndarray]:
        """Which samples of a readout (x) and which lines (y, z) of a volume were measured."""
        _, ny, nz = self.header.matrix
        first, last = self._extent(lines)
        rows = np.ones(size, dtype=bool)
        if size == self.header.matrix[0]:
            rows[: first.max()], rows[last.min() :] = False, False
        measured = np.zeros((ny, nz), dtype=bool)
        measured[self._position("1", lines), self._position("2", lines)] = True
        return rows, measured
