"""The ISMRMRD XML header, which fastMRI files carry too.

Source: https://ismrmrd.readthedocs.io.
"""

import xml.etree.ElementTree as ET
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np

from ...data.hdf5 import check_lengths
from ...errors import DataError

LARGEST_HEADER = 2**22  # characters
LARGEST_SIDE = 2**16  # of a matrix: the counters of an acquisition have 16 bits


@dataclass(frozen=True)
class Header:
    """What is needed of the XML header; axes are x (readout), y and z (phase encoding)."""

    matrix: tuple[int, int, int]
    field_of_view: tuple[float, float, float]
    recon_x: int
    limits: dict[str, int]  # "kspace_encoding_step_1/center" and the like
    trajectory: str
    calibration: str
    noise_bandwidth: float
    vendor: str

    @property
    def voxel_mm(self) -> tuple[float, float, float] | None:
        """Size of a voxel along x, y, z, mm, or None if the header does not say."""
        x, y, z = (size / count for size, count in zip(self.field_of_view, self.matrix))
        return (x, y, z) if min(x, y, z) > 0 else None

    def shift(self, step: str, size: int) -> int:
        """What to add to a counter so that the centre of k-space comes to size // 2."""
        return size // 2 - self.limits.get(f"{step}/center", size // 2)


def read_header(path: Path, data: h5py.Dataset) -> Header:
    """Read an ISMRMRD header; a document type, and with it any entity, is refused.

    Args:
        path: the file, for messages.
        data: the dataset that holds the XML, one string.

    Raises:
        DataError: if it is no such header.
    """
    if h5py.check_string_dtype(data.dtype) is None or data.size != 1:
        raise DataError(f"{path}: not a usable ISMRMRD header ({data.name} is no text); convert the scan again")
    if h5py.check_string_dtype(data.dtype).length is None:
        check_lengths(path, data)
    text = np.ravel(data[()])[0]
    try:
        text = text.decode() if isinstance(text, bytes) else text
        if len(text) > LARGEST_HEADER:
            raise ValueError(f"{len(text)} characters, more than {LARGEST_HEADER}")
        if "<!DOCTYPE" in text or "<!ENTITY" in text:
            raise ValueError("it declares a document type or entities, which no such header needs")
        root = ET.fromstring(text)
        for element in root.iter():
            element.tag = element.tag.rpartition("}")[2]  # whatever namespace
        if (encoding := root.find("encoding")) is None:
            raise ValueError("encoding is missing")
        return _header(root, encoding)
    except (ValueError, ET.ParseError) as error:
        raise DataError(f"{path}: not a usable ISMRMRD header ({error}); convert the scan again") from None


def _header(root: ET.Element, encoding: ET.Element) -> Header:
    """The first encoding of a header."""
    nx, ny, nz = (int(_number(encoding, f"encodedSpace/matrixSize/{axis}", 1, LARGEST_SIDE)) for axis in "xyz")
    recon = int(_number(encoding, "reconSpace/matrixSize/x", 1, LARGEST_SIDE))
    size_x, size_y, size_z = (_number(encoding, f"encodedSpace/fieldOfView_mm/{axis}", 0, 1e5) for axis in "xyz")
    recon_size = _number(encoding, "reconSpace/fieldOfView_mm/x", 0, 1e5)
    if size_x > 0 and recon_size > 0:  # the matrix may be interpolated, the fields of view tell the oversampling
        recon = round(nx * recon_size / size_x)
    steps = [f"kspace_encoding_step_{i}/{kind}" for i in (1, 2) for kind in ("center", "maximum")]
    found = [step for step in steps if encoding.find(f"encodingLimits/{step}") is not None]
    return Header(
        (nx, ny, nz),
        (size_x, size_y, size_z),
        min(max(recon, 1), nx),
        {step: int(_number(encoding, f"encodingLimits/{step}", 0, LARGEST_SIDE)) for step in found},
        (encoding.findtext("trajectory") or "cartesian").strip().lower(),
        (encoding.findtext("parallelImaging/calibrationMode") or "").strip().lower(),
        float(root.findtext("acquisitionSystemInformation/relativeReceiverNoiseBandwidth") or 1),
        root.findtext("acquisitionSystemInformation/systemVendor") or "",
    )


def _number(element: ET.Element, names: str, low: float, high: float) -> float:
    text = element.findtext(names)
    if text is None:
        raise ValueError(f"{names} is missing")
    value = float(text)
    if not low <= value <= high:
        raise ValueError(f"{names} is {text.strip()}, expected {low} to {high}")
    return value
