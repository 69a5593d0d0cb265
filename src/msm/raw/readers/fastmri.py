"""fastMRI files: `kspace`, `ismrmrd_header`, perhaps `mask`."""

from collections.abc import Iterator
from pathlib import Path

import h5py
import torch
from torch import Tensor

from ...data.hdf5 import open_hdf5, own_dataset
from ...errors import DataError
from ..scan import Scan
from .guards import _check_array, _measured, _nonzero, _tensor
from .header import Header, read_header
from .ismrmrd import remove_oversampling


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
    with open_hdf5(path) as file:
        data = own_dataset(path, file, "kspace")
        _check_array(f"{path}: dataset kspace", data, axes=(3, 4), coil_axis=-3 if data.ndim == 4 else -4)
        header = read_header(path, own_dataset(path, file, "ismrmrd_header"))
        columns = _fastmri_columns(path, file, header, data.shape[-1])
        size = min(header.recon_x * data.shape[-2] // header.matrix[0], data.shape[-2])
        for i in range(len(data)):
            k_space = _tensor(f"{path}: slice {i}", data[i]).reshape(-1, *data.shape[-2:])
            mask = columns & _nonzero(k_space).any(0)
            k_space = remove_oversampling(k_space, size).masked_fill_(~mask, 0)
            mask = _measured(path, i, mask.expand(1, *k_space.shape[1:]))
            about = {"format": "fastMRI", "file": path.name, "slice": i, "oversampling_removed": size < data.shape[-2]}
            yield Scan(f"{path.stem}:{i}", k_space, mask, about, voxel_mm=header.voxel_mm)


def _fastmri_columns(path: Path, file: h5py.File, header: Header, width: int) -> Tensor:
    """Columns that were measured as far as the header and the mask say (W,), bool."""
    columns, step = torch.zeros(width, dtype=torch.bool), "kspace_encoding_step_1"
    first = header.shift(step, width)
    columns[max(first, 0) : max(first + header.limits.get(f"{step}/maximum", width - 1) + 1, 0)] = True
    if "mask" in file:
        mask = own_dataset(path, file, "mask")
        if mask.shape != (width,) or mask.dtype.kind not in "biuf":
            raise DataError(f"{path}: mask is {mask.dtype} {mask.shape}, expected ({width},); correct or remove it")
        columns &= torch.from_numpy(mask[:] != 0)
    return columns
