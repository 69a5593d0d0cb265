"""Siemens raw data, "twix" .dat: VB, and VD, VE and XA, which share a layout.

    VD, VE, XA   a table of measurements; of each: header, then acquisitions, each a head and all channels
    VB           one measurement: header, then a head before each channel of each acquisition

twixtools knows the layout of heads and the names of their flags. It trusts every length and index that a file states,
so what leads through the file is read here, checked against the bytes that are there.

Source: twixtools, github.com/pehses/twixtools; flags and directions as siemens_to_ismrmrd has them.
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy.spatial.transform import Rotation

from ...errors import DataError, optional
from ..scan import Scan
from .acquisitions import CALIBRATION, CALIBRATION_AND_IMAGING, NAVIGATION, NOISE, OTHER, REVERSE, Acquisitions
from .header import Header
from .twix_protocol import Protocol, read_protocol

HEADS_AT_A_TIME = 1024
MOST_MEASUREMENTS, SMALLEST_VB_HEADER = 64, 10000  # how the two layouts are told apart
DMA_LENGTH = 2**25 - 1  # bits of the first field
NO_IMAGE = (
    *("RTFEEDBACK", "HPFEEDBACK", "PHASCOR", "REFPHASESTABSCAN", "PHASESTABSCAN", "RETRO_DUMMYSCAN", "TAGFLAG1"),
    *("CT_NORMALIZE", "SLICE_ACCEL_REFSCAN", "SLICE_ACCEL_PHASCOR", "PACE", "B1_CONTROLLOOP", "noname60"),
)
REMEDY = "export the scan again"
COUNTERS = {"slice": "Sli", "contrast": "Eco", "phase": "Phs", "repetition": "Rep", "set": "Set"}
VECTOR = ("<f4", 3)
HEAD = np.dtype(
    [("flags", "<u8"), ("idx", [(name, "<i4") for name in (*COUNTERS, *(f"kspace_encode_step_{i}" for i in (1, 2)))])]
    + [(name, "<i4") for name in ("active_channels", "number_of_samples", "center_sample", "discard_pre")]
    + [(name, "<i4") for name in ("discard_post", "encoding_space_ref")]
    + [("sample_time_us", "<f4"), *[(name, *VECTOR) for name in ("position", "read_dir", "phase_dir", "slice_dir")]]
)


@dataclass(frozen=True)
class Measurement:
    """One measurement of a file.

    Args:
        protocol: its settings.
        starts: where its acquisitions begin in the file.
        heads: of the acquisitions, as twixtools lays them out.
    """

    protocol: Protocol
    starts: np.ndarray
    heads: np.ndarray


def twix_scans(path: Path) -> Iterator[Scan]:
    """Slices of a Cartesian Siemens scan, 2-D or 3-D, in the file's units.

    Args:
        path: the file.

    Raises:
        DataError: if it is damaged, or of a kind that is not read.
        MissingPackage: if twixtools is missing.
    """
    file = _File(path)
    last = file.measurement(len(file.places) - 1)
    _check_kind(path, last.protocol)
    flags = _flags(file, last.heads["EvalInfoMask"])
    taken = [] if len(file.places) == 1 else [f"of the file's {len(file.places)} measurements the last is read"]
    noise = None
    if not (flags & NOISE).any():
        for number in reversed(range(len(file.places) - 1)):
            earlier = file.measurement(number)
            lines = _flags(file, earlier.heads["EvalInfoMask"]) & NOISE != 0
            if lines.any():
                noise = Measurement(earlier.protocol, earlier.starts[lines], earlier.heads[lines])
                taken.append(f"noise lines of measurement {number + 1}")
                break
    if last.protocol.oversampling is None:
        taken.append("readout taken for oversampled twice, which its header leaves out")
    about = {"format": "Siemens", **({"taken_for": "; ".join(taken)} if taken else {})}
    yield from _acquisitions(file, last, noise, flags, about).scans()


def _check_kind(path: Path, protocol: Protocol) -> None:
    """Refuse what is not Cartesian, one slice at a time, line by line."""
    for what, is_so in (
        (f"trajectory {protocol.trajectory}", protocol.trajectory != 1),
        (f"{protocol.bands} slices excited at a time", protocol.bands > 1),
        (f"EPI, {protocol.epi_factor} lines after an excitation", protocol.epi_factor > 1),
        ("sampling on the gradients' ramps", protocol.regridding > 1),
    ):
        if is_so:
            raise DataError(f"{path}: {what}: only Cartesian scans, line by line, are read; reconstruct it elsewhere")


class _File:
    """The bytes of a file, and where its measurements lie."""

    def __init__(self, path: Path):
        self.layout = optional("twixtools.mdh_def", "reading Siemens .dat files", "mri")
        self.path = path
        self.content: Any = np.memmap(path, np.uint8, mode="r")  # a buffer, which numpy's types do not say
        if len(self.content) < 8:
            raise self.cut("it has no header")
        first, second = map(int, self.content[:8].view("<u4"))
        self.is_ve = first < SMALLEST_VB_HEADER and second <= MOST_MEASUREMENTS
        if self.is_ve:
            self.head = np.dtype(self.layout.Scan_header)
            self.per_channel = np.dtype(self.layout.Channel_header).itemsize
        else:
            self.head = np.dtype(self.layout.VB17_header)
            self.per_channel = self.head.itemsize
        self.per_line = self.head.itemsize if self.is_ve else 0  # before the channels
        self.places = self._table(second) if self.is_ve else [(0, len(self.content))]

    def cut(self, what: str) -> DataError:
        """That the file is not whole."""
        return DataError(f"{self.path}: {what}; the file is damaged or cut off, copy it or {REMEDY}")

    def _table(self, count: int) -> list[tuple[int, int]]:
        """First byte of each measurement, and the one after its last."""
        kind = optional("twixtools.hdr_def", "reading Siemens .dat files", "mri").MultiRaidFileHeader
        if len(self.content) < kind.itemsize or not count:
            raise self.cut(f"its table lists {count} measurements")
        entries = self.content[: kind.itemsize].view(kind)[0]["entry"][:count]
        places = [(int(entry["off_"]), int(entry["off_"]) + int(entry["len_"])) for entry in entries]
        if count == 1 and places[0][0] == places[0][1]:
            places = [(places[0][0], len(self.content))]  # some exports leave the only length out
        for number, (start, end) in enumerate(places):
            if not kind.itemsize <= start < end <= len(self.content):
                found = f"measurement {number + 1} lies at bytes {start} to {end} of {len(self.content)}"
                raise self.cut(found)
        return places

    def measurement(self, number: int) -> Measurement:
        """Protocol and heads of a measurement."""
        start, end = self.places[number]
        length = struct.unpack_from("<I", self.content, start)[0] if start + 4 <= end else 0
        if not 8 <= length <= end - start:
            raise self.cut(f"measurement {number + 1} states a header of {length} bytes, {end - start} are there")
        protocol = read_protocol(self.path, bytes(self.content[start : start + length]).decode("latin1"))
        starts = self._walk(start + length, end)
        rows = [starts[i : i + HEADS_AT_A_TIME, None] for i in range(0, len(starts), HEADS_AT_A_TIME)]
        bytes_of = np.arange(self.head.itemsize)
        heads = [self.content[row + bytes_of].view(self.head)[:, 0] for row in rows]
        return Measurement(protocol, starts, np.concatenate(heads) if heads else np.empty(0, self.head))

    def _walk(self, place: int, end: int) -> np.ndarray:
        """Where acquisitions begin, up to the mark that ends a measurement."""
        fields = {name: self.head.fields[name][1] for name in ("EvalInfoMask", "SamplesInScan", "UsedChannels")}
        ends, is_other = (1 << self.layout.mask_dict[name] for name in ("ACQEND", "SYNCDATA"))
        starts: list[int] = []
        while place + self.head.itemsize <= end:
            (mask,) = struct.unpack_from("<Q", self.content, place + fields["EvalInfoMask"])
            if mask & ends:
                return np.array(starts, dtype=np.int64)
            samples, channels = (
                struct.unpack_from("<H", self.content, place + fields[name])[0]
                for name in ("SamplesInScan", "UsedChannels")
            )
            length = self.per_line + channels * (self.per_channel + 8 * samples)
            if mask & is_other:
                length = struct.unpack_from("<I", self.content, place)[0] & DMA_LENGTH
            else:
                starts.append(place)
            if not self.head.itemsize <= length <= end - place:
                raise self.cut(f"acquisition {len(starts)} claims {length} bytes, {end - place} are left")
            place += length
        raise self.cut(f"the mark that ends a measurement is missing after {len(starts)} acquisitions")

    def line(self, start: int, head: Any) -> np.ndarray:
        """Samples of an acquisition: float32, channels × samples × 2."""
        channels, samples = int(head["UsedChannels"]), int(head["SamplesInScan"])
        first, length = int(start) + self.per_line, self.per_channel + 8 * samples
        block = self.content[first : first + channels * length].reshape(channels, length)
        return np.ascontiguousarray(block[:, self.per_channel :]).view("<f4").ravel()


def _flags(file: _File, masks: np.ndarray) -> np.ndarray:
    """ISMRMRD's flags for those of Siemens."""

    def has(*names: str) -> np.ndarray:
        return masks & sum(1 << file.layout.mask_dict[name] for name in names) != 0

    both = has("PATREFANDIMASCAN")
    flags = np.where(has("NOISEADJSCAN"), NOISE, 0) | np.where(has(*NO_IMAGE), NAVIGATION, 0)
    flags |= np.where(both, CALIBRATION_AND_IMAGING, np.where(has("PATREFSCAN"), CALIBRATION, 0))
    return flags | np.where(has("REFLECT"), REVERSE, 0)


def _acquisitions(
    file: _File, last: Measurement, noise: Measurement | None, flags: np.ndarray, about: dict[str, Any]
) -> Acquisitions:
    """The lines of a measurement, behind the noise lines of an earlier one."""
    heads = _heads(last, flags)
    is_embedded = last.protocol.calibration == "embedded"
    of_grid = flags & (NOISE | OTHER) == 0
    imaging = of_grid & (is_embedded | (flags & CALIBRATION == 0))
    if not imaging.any():
        raise DataError(f"{file.path}: none of {len(heads)} acquisitions is an image line; {REMEDY}")
    header = _header(last, heads, imaging, of_grid)
    for step, size in zip(("1", "2"), header.matrix[1:]):
        heads["idx"][f"kspace_encode_step_{step}"] += size // 2
    _sort_slices(heads, imaging)
    before = heads["center_sample"]
    fits = np.maximum(before, heads["number_of_samples"] - before) <= header.matrix[0] // 2
    heads["flags"][of_grid & ~imaging & ~fits] |= NAVIGATION  # reference lines of another resolution
    starts, raw = last.starts, last.heads
    heads["sample_time_us"][flags & NOISE != 0] = 0  # not said
    if noise is not None:
        heads = np.concatenate([_heads(noise, np.full(len(noise.heads), NOISE)), heads])
        starts, raw = np.concatenate([noise.starts, starts]), np.concatenate([noise.heads, raw])
    return Acquisitions(file.path, header, heads, lambda line: file.line(starts[line], raw[line]), about, REMEDY)


def _heads(measurement: Measurement, flags: np.ndarray) -> np.ndarray:
    """Heads as ISMRMRD has them; the steps of the phase encodings count from the centre of k-space."""
    raw, heads = measurement.heads, np.zeros(len(measurement.heads), HEAD)
    heads["flags"], counter = flags, raw["Counter"]
    for name, of_siemens in COUNTERS.items():
        heads["idx"][name] = counter[of_siemens]
    heads["idx"]["kspace_encode_step_1"] = counter["Lin"].astype(int) - raw["CenterLin"]
    heads["idx"]["kspace_encode_step_2"] = counter["Par"].astype(int) - raw["CenterPar"]
    heads["active_channels"], heads["number_of_samples"] = raw["UsedChannels"], raw["SamplesInScan"]
    heads["center_sample"] = raw["CenterCol"]
    heads["discard_pre"], heads["discard_post"] = raw["CutOff"]["Pre"], raw["CutOff"]["Post"]
    heads["sample_time_us"] = measurement.protocol.dwell_us
    place = raw["SliceData"]["SlicePos"]
    heads["position"] = np.stack([place[name] for name in ("Sag", "Cor", "Tra")], 1)
    quaternions = raw["SliceData"]["Quaternion"].astype(float)  # w, x, y, z
    usable = np.isfinite(quaternions).all(1) & (np.abs(quaternions) < 2).all(1) & (np.abs(quaternions).max(1) > 0.1)
    if usable.any():
        axes = Rotation.from_quat(np.roll(quaternions[usable], -1, 1)).as_matrix()
        for name, axis in (("phase_dir", 0), ("read_dir", 1), ("slice_dir", 2)):
            heads[name][usable] = axes[..., axis]
    return heads


def _header(measurement: Measurement, heads: np.ndarray, imaging: np.ndarray, of_grid: np.ndarray) -> Header:
    """Matrix and field of view: the smallest grid with its centre in the middle that holds all lines."""
    protocol = measurement.protocol
    center, samples = heads["center_sample"][imaging], heads["number_of_samples"][imaging]
    nx = 2 * int(np.maximum(center, samples - center).max())
    steps = [heads["idx"][f"kspace_encode_step_{i}"][of_grid] for i in (1, 2)]
    ny, nz = (2 * max(-int(step.min()), int(step.max()) + 1) if step.any() else 1 for step in steps)
    oversampling = protocol.oversampling or 2.0
    x, y, z = protocol.field_of_view
    return Header(
        (nx, ny, nz),
        (x * oversampling, y, z),
        min(max(round(nx / oversampling), 1), nx),
        {},
        "cartesian",
        protocol.calibration,
        1.0,
        "Siemens",
    )


def _sort_slices(heads: np.ndarray, imaging: np.ndarray) -> None:
    """Count slices by where they lie along their normal: the scanner counts them as it measured them."""
    slices = heads["idx"]["slice"]
    numbers, first = np.unique(slices[imaging], return_index=True)
    some = heads[imaging][first]
    along = np.einsum("ij,j->i", some["position"].astype(float), some["slice_dir"][0].astype(float))
    order = numbers[np.argsort(along, kind="stable")] if np.isfinite(along).all() else numbers
    places = np.full(int(slices.max()) + 1, len(numbers))  # what is no slice of the image goes with none
    places[order] = np.arange(len(numbers))
    heads["idx"]["slice"] = places[slices]
