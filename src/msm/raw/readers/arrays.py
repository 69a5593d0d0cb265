"""Readers of raw k-space by file type, and `import_scans`, which reads any of them.

    .h5 .hdf5 .mrd   fastMRI (kspace, ismrmrd_header) or ISMRMRD (dataset/xml, dataset/data)
    .npy             (H, W), (coils, H, W) or (slices, coils, H, W)
    .mat             the variable kdata, kspace or data, likewise
    .cfl .hdr        BART: read, phase 1, phase 2, coils, …, slices

No reader trusts a size that the file's data do not justify, runs anything, or follows a link out of the file.
"""

import math
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import h5py
import numpy as np
import torch
from torch import Tensor

from .guards import check_finite, raw_dataset
from .header import Header, read_header
from .ismrmrd import ismrmrd_scans, remove_oversampling
from .matlab import read_mat
from .raw import Scan, normalise, split_axis, split_volume
from .store import DataError, open_hdf5

MAT_NAMES = ("kdata", "kspace", "data")
BART_AXES = 16
BART_SLICES = 13
FULL_LINE = 0.95  # of a line's points are not zero: it was measured whole
CORNER_RATIO = 4  # so much more energy at the corners than in the middle is no accident


def import_scans(paths: Iterable[Path]) -> Iterator[Scan]:
    """Slices of raw files of any kind that is read, one at a time, scaled to a magnitude of at most about 1.

    Args:
        paths: the files.

    Yields:
        slices, ready for `fit`, for the coil maps (`msm.data.maps`) and for `StoreWriter.add`.

    Raises:
        DataError: if a file cannot be used.
    """
    for path in map(Path, paths):
        yield from map(normalise, read_scans(path))


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
        yield from reader(path)
    except (DataError, ImportError):
        raise
    except Exception as error:  # the parsers of damaged files raise whatever they stumble over
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise DataError(f"{path}: not readable, damaged or cut off ({reason}); copy or make it again") from error


def _hdf5_scans(path: Path) -> Iterator[Scan]:
    with open_hdf5(path, None, {}) as file:
        is_fastmri = "kspace" in file
    return fastmri_scans(path) if is_fastmri else ismrmrd_scans(path)


def fastmri_scans(path: Path) -> Iterator[Scan]:
    """Slices of a fastMRI file, multi-coil or single-coil, without the readout's oversampling.

    Measured are the columns that the file's mask keeps (all, if it has none), within the header's limits of the
    phase encoding: what lies outside is padding. A column that is exactly zero throughout is padding too.

    Args:
        path: HDF5 with `kspace` (slices, coils, H, W) or (slices, H, W), `ismrmrd_header`, perhaps `mask` (W,).

    Raises:
        DataError: if it is damaged or not of that layout.

    Source: Zbontar et al., arXiv 1811.08839.
    """
    with open_hdf5(path, None, {}) as file:
        data = raw_dataset(path, file, "kspace")
        _check_array(f"{path}: dataset kspace", data, axes=(3, 4), coil_axis=-3 if data.ndim == 4 else -4)
        header = read_header(path, raw_dataset(path, file, "ismrmrd_header"))
        columns = _fastmri_columns(path, file, header, data.shape[-1])
        size = min(header.recon_x * data.shape[-2] // header.matrix[0], data.shape[-2])
        for i in range(len(data)):
            k_space = _tensor(f"{path}: slice {i}", data[i])
            k_space = k_space if k_space.ndim == 3 else k_space[None]
            mask = columns & (k_space != 0).any(0).any(0)
            k_space = torch.where(mask, remove_oversampling(k_space, size, 1), 0)
            yield Scan(
                f"{path.stem}:{i}",
                k_space,
                _measured(path, i, mask.expand(1, *k_space.shape[1:])),
                {"format": "fastMRI", "file": path.name, "slice": i, "oversampling_removed": size < data.shape[-2]},
                voxel_mm=header.voxel_mm,
            )


def _fastmri_columns(path: Path, file: h5py.File, header: Header, width: int) -> Tensor:
    """Columns that were measured as far as the header and the mask say (W,), bool."""
    columns = torch.zeros(width, dtype=torch.bool)
    step = "kspace_encoding_step_1"
    first = header.shift(step, width)
    last = first + header.maximum.get(step, width - 1) + 1
    columns[max(first, 0) : max(last, 0)] = True
    if "mask" in file:
        mask = raw_dataset(path, file, "mask")
        if mask.shape != (width,) or mask.dtype.kind not in "biuf":
            raise DataError(f"{path}: mask is {mask.dtype} {mask.shape}, expected ({width},); correct or remove it")
        columns &= torch.from_numpy(mask[:] != 0)
    return columns


def npy_scans(path: Path) -> Iterator[Scan]:
    """Slices of a NumPy array, read slice by slice; pickled objects are refused."""
    return _array_scans(path, "NumPy", np.lib.format.open_memmap(path, mode="r"))


def mat_scans(path: Path) -> Iterator[Scan]:
    """Slices of a MATLAB file, versions 5 to 7: the first of kdata, kspace and data that it holds."""
    return _array_scans(path, "MATLAB", read_mat(path, MAT_NAMES))


def _array_scans(path: Path, kind: str, array: np.ndarray) -> Iterator[Scan]:
    """Slices of an array that no header explains."""
    _check_array(str(path), array, axes=(2, 3, 4), coil_axis=-3)
    array = array.reshape(-1, *array.shape[-3:]) if array.ndim > 2 else array[None, None]
    for i, part in enumerate(array):
        where = f"{path}: slice {i}"
        k_space = _tensor(where, part)
        mask = _measured(path, i, _guess_mask(k_space))
        _check_centre(where, k_space)
        yield Scan(f"{path.stem}:{i}", k_space, mask, {"format": kind, "file": path.name, "slice": i})


def _guess_mask(k_space: Tensor) -> Tensor:
    """What was measured (1, H, W), where the file does not say: what is not exactly zero in all coils.

    If all lines along an axis are either empty or full but for a few zeros, those zeros were measured too.
    """
    mask = (k_space != 0).any(0, keepdim=True)
    for axis in (1, 2):
        share = mask.float().mean(axis, keepdim=True)
        if ((share == 0) | (share > FULL_LINE)).all():
            return (share > 0).expand(mask.shape)
    return mask


def bart_scans(path: Path) -> Iterator[Scan]:
    """Slices of a BART file pair: 2-D multi-slice, or a volume, which is split along an axis measured whole.

    Args:
        path: the .cfl or the .hdr.

    Raises:
        DataError: if the pair is incomplete, does not fit together, or has axes other than those of k-space.
    """
    array = _open_cfl(path.with_suffix(".cfl"), _bart_shape(path.with_suffix(".hdr")))
    other = [i for i, n in enumerate(array.shape) if n > 1 and i not in (0, 1, 2, 3, BART_SLICES)]
    if other:
        raise DataError(f"{path}: has {array.shape[other[0]]} along dimension {other[0]}; extract one by bart slice")
    *grid, coils = array.shape[:4]
    grid, count = [n for n in grid if n > 1], array.shape[BART_SLICES]
    array = array.reshape(*grid, coils, count, order="F")
    if len(grid) == 2:
        return _array_scans(path, "BART", array.transpose(3, 2, 0, 1))
    if len(grid) < 2 or count > 1:
        raise DataError(f"{path}: has {count} times {grid} points, expected slices or one volume; use bart slice")
    return _bart_volume(path, array[..., 0])


def _bart_shape(path: Path) -> tuple[int, ...]:
    """The 16 dimensions that a .hdr states."""
    try:
        with path.open(encoding="ascii") as file:
            text = file.read(2**16)
        lines = text.splitlines()
        sizes = [int(n) for n in lines[lines.index("# Dimensions") + 1].split()]
        if not 1 <= len(sizes) <= BART_AXES or min(sizes) < 1:
            raise ValueError(f"dimensions {sizes}")
    except (OSError, ValueError, IndexError) as error:
        reason = str(error).splitlines()[0]
        raise DataError(f"{path}: not a BART header ({reason}); give a .cfl with its .hdr beside it") from None
    return (*sizes, *[1] * (BART_AXES - len(sizes)))


def _open_cfl(path: Path, shape: tuple[int, ...]) -> np.ndarray:
    """The data, mapped into memory: nothing is read yet."""
    held = path.stat().st_size if path.is_file() else 0
    if held != 8 * math.prod(shape):
        raise DataError(
            f"{path}: has {held} bytes, the .hdr states {math.prod(shape)} complex numbers of 8; copy both files again"
        )
    return np.memmap(path, dtype=np.complex64, mode="r", shape=shape, order="F")


def _bart_volume(path: Path, array: np.ndarray) -> Iterator[Scan]:
    """Slices of a volume (x, y, z, coils)."""
    x, y, z, coils = array.shape
    rows, lines = np.zeros(x, dtype=bool), np.zeros((y, z), dtype=bool)
    for i in range(y):
        measured = (array[:, i] != 0).any(-1)
        rows |= measured.any(1)
        lines[i] = measured.any(0)
    axis = split_axis(rows, lines)
    if axis is None or not lines.any():
        raise DataError(f"{path}: no axis of the volume is measured whole; give slices instead")

    def plane(i: int) -> Tensor:
        return _tensor(f"{path}: phase 1 = {i}", np.moveaxis(array[:, i], -1, 0))

    for i, (k_space, mask) in enumerate(split_volume(plane, rows, lines, coils, axis)):
        yield Scan(f"{path.stem}:{i}", k_space, mask, {"format": "BART", "file": path.name, "plane": i})


def _check_array(where: str, array: np.ndarray | h5py.Dataset, axes: tuple[int, ...], coil_axis: int) -> None:
    """Refuse what cannot be k-space; an array of fewer axes than the coils' needs has one coil."""
    shape, dtype = array.shape, array.dtype
    if dtype.kind != "c":
        raise DataError(f"{where} is {dtype}, expected complex k-space; save real and imaginary part as one")
    if len(shape) not in axes:
        raise DataError(f"{where} has shape {shape}, expected {' or '.join(map(str, axes))} axes; reshape it")
    if 0 in shape:
        raise DataError(f"{where} has shape {shape}, which holds nothing; save it again")
    coils = shape[coil_axis] if len(shape) >= abs(coil_axis) else 1
    if coils > min(shape[-2:]):
        raise DataError(
            f"{where} has shape {shape}: {coils} coils for an image of {shape[-2]}×{shape[-1]}; "
            "the axes are swapped, put them in the order (slices, coils, H, W)"
        )


def _tensor(where: str, array: np.ndarray) -> Tensor:
    """Complex64 values, all finite."""
    with np.errstate(over="ignore"):  # found out below
        values = torch.from_numpy(np.array(array, dtype=np.complex64, order="C"))
    check_finite(where, values)
    return values


def _measured(path: Path, number: int, mask: Tensor) -> Tensor:
    """The mask, if it keeps anything."""
    if not mask.any():
        raise DataError(f"{path}: slice {number} is zero throughout, nothing was measured; leave it out")
    return mask


def _check_centre(where: str, k_space: Tensor) -> None:
    """Refuse k-space whose low frequencies lie at the corners."""
    energy = k_space.abs().square().sum(0)
    height, width = (max(n // 8, 1) for n in energy.shape)
    corners = torch.roll(energy, (height, width), (0, 1))[: 2 * height, : 2 * width].sum()
    top, left = (n // 2 - m for n, m in zip(energy.shape, (height, width)))
    middle = energy[max(top, 0) : top + 2 * height, max(left, 0) : left + 2 * width].sum()
    if corners > CORNER_RATIO * middle:
        raise DataError(f"{where}: low frequencies lie at the corners, not in the middle; apply fftshift and save it")


READERS: dict[str, Callable[[Path], Iterator[Scan]]] = {
    ".h5": _hdf5_scans,
    ".hdf5": _hdf5_scans,
    ".mrd": _hdf5_scans,
    ".npy": npy_scans,
    ".mat": mat_scans,
    ".cfl": bart_scans,
    ".hdr": bart_scans,
}
