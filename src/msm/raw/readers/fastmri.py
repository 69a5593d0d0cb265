"""fastMRI files: `kspace`, `ismrmrd_header`, perhaps `mask`; M4Raw's are of that layout.

M4Raw's header counts 195 lines where an index is due, and its readout has its centre at 136 of 256: of its files, what
was measured is what is not zero, and the centre is where the data have it.

Source: Zbontar et al., arXiv 1811.08839; Lyu et al., Sci. Data 10 (2023), github.com/mylyu/M4Raw.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py
import torch
from torch import Tensor

from ...data.hdf5 import open_hdf5, own_dataset
from ...errors import DataError
from ..scan import Scan
from .acquisitions import remove_oversampling
from .guards import _check_array, _measured, _nonzero, _tensor, find_centre
from .header import Header, read_header

M4RAW_VENDOR = "xingaoyi"
M4RAW = (
    "taken for M4Raw: rows are the readout, columns the phase encoding, measured where they are not zero; the "
    "limits in its header are not used (another systemVendor in the header has them used)"
)


def fastmri_scans(path: Path) -> Iterator[Scan]:
    """Slices of a fastMRI file, multi-coil or single-coil, without the readout's oversampling.

    Measured are the columns that the file's mask keeps (all, if it has none), within the header's limits of the
    phase encoding: what lies outside is padding. A column that is exactly zero throughout is padding too. The header
    does not say where the readout has its centre: the data do.

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
        is_m4raw = M4RAW_VENDOR in header.vendor.lower()
        columns = _fastmri_columns(path, file, header, data.shape[-1], limited=not is_m4raw)
        size = min(header.recon_x * data.shape[-2] // header.matrix[0], data.shape[-2])
        about: dict[str, Any] = {"format": "M4Raw" if is_m4raw else "fastMRI", "file": path.name}
        about |= {"oversampling_removed": size < data.shape[-2], **({"taken_for": M4RAW} if is_m4raw else {})}

        def measured(i: int) -> tuple[Tensor, Tensor]:
            k_space = _tensor(f"{path}: slice {i}", data[i]).reshape(-1, *data.shape[-2:])
            mask = columns & _nonzero(k_space).any(0)
            return remove_oversampling(k_space, size).masked_fill_(~mask, 0), mask

        centre = find_centre(measured(len(data) // 2)[0])  # the same for all slices, which make one volume
        about["centre"] = centre if is_m4raw else [centre[0], data.shape[-1] // 2]  # the header has that of the columns
        for i in range(len(data)):
            k_space, mask = measured(i)
            mask = _measured(path, i, mask.expand(1, *k_space.shape[1:]))
            yield Scan(f"{path.stem}:{i}", k_space, mask, about | {"slice": i}, voxel_mm=header.voxel_mm)


def _fastmri_columns(path: Path, file: h5py.File, header: Header, width: int, *, limited: bool) -> Tensor:
    """Columns that were measured as far as the header's limits, if they count, and the mask say (W,), bool."""
    columns, step = torch.zeros(width, dtype=torch.bool), "kspace_encoding_step_1"
    first = header.shift(step, width) if limited else 0
    last = first + header.limits.get(f"{step}/maximum", width - 1) if limited else width - 1
    columns[max(first, 0) : max(last + 1, 0)] = True
    if "mask" in file:
        mask = own_dataset(path, file, "mask")
        if mask.shape != (width,) or mask.dtype.kind not in "biuf":
            raise DataError(f"{path}: mask is {mask.dtype} {mask.shape}, expected ({width},); correct or remove it")
        columns &= torch.from_numpy(mask[:] != 0)
    return columns
