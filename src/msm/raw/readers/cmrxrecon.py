"""CMRxRecon's MATLAB files: cardiac k-space (kx, ky, coils, slices, frames), or without coils.

    kspace_full, kspace_sub04, kspace_sub08, kspace_sub10                  2023
    kspace_single_full, kspace_single_sub04, …                             2023, coils combined
    kspace_full, kus                                                       2024
    kspace, kus                                                            2025

MATLAB leaves out last axes of length 1. Masks lie in files of their own, and are the points that are not zero.

Source: ChallengeDataFormat, github.com/CmrxRecon/CMRxRecon and CMRxRecon2024; cmrxrecon.github.io/2025/Data.html.
"""

from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np

from ...errors import DataError
from ..scan import Scan
from .guards import _check_array, _guess_mask, _measured, _tensor
from .matlab import MatArray

SUBSAMPLED = ("04", "08", "10")
COMBINED = ("kspace_single_full", *(f"kspace_single_sub{rate}" for rate in SUBSAMPLED))
NAMES = ("kspace_full", *(f"kspace_sub{rate}" for rate in SUBSAMPLED), "kus", *COMBINED)


def in_cmrxrecon_order(name: str, shape: tuple[int, ...]) -> bool:
    """Whether an array has CMRxRecon's axes: by its name, or since (slices, coils, H, W) cannot be.

    Args:
        name: of the variable.
        shape: with axes as MATLAB has them.
    """
    if name in NAMES or len(shape) == 5:
        return True
    return len(shape) == 4 and shape[1] > min(shape[2:]) and shape[2] <= min(shape[:2])


def cmrxrecon_scans(path: Path, name: str, array: MatArray) -> Iterator[Scan]:
    """Slices of an array in CMRxRecon's order, frame by frame; each frame is a volume.

    Args:
        path: the file, for messages.
        name: of the variable.
        array: axes as MATLAB has them; read slice by slice.

    Raises:
        DataError: if it is no k-space of that order.
    """
    axes = ("kx", "ky", *(() if name in COMBINED else ("coils",)), "slices", "frames")
    shape = (*array.shape, *[1] * (len(axes) - len(array.shape)))
    if not 2 <= len(array.shape) <= len(axes):
        raise DataError(f"{path}: {name} has shape {array.shape}, expected ({', '.join(axes)}); save it in this order")
    one = np.broadcast_to(np.empty((), array.dtype), (*shape[2:-2], *shape[:2]))  # takes no memory
    _check_array(f"{path}: {name}", one, axes=(2, 3), coil_axis=-3)
    order = f"{name} taken for CMRxRecon's k-space ({', '.join(axes)}), kx the readout"
    taken = f"{order} (other axes: kdata (slices, coils, H, W))"
    about: dict[str, Any] = {"format": "CMRxRecon", "file": path.name, "taken_for": taken}
    about["centre"] = [shape[0] // 2, shape[1] // 2]
    for frame, number in product(range(shape[-1]), range(shape[-2])):
        held = max(0, len(array.shape) - len(axes) + 2)  # of the last two axes
        part = array.at(*(number, frame)[:held]).reshape(*shape[:2], -1)
        k_space = _tensor(f"{path}: frame {frame}, slice {number}", part.transpose(2, 0, 1))
        mask = _measured(path, number, _guess_mask(k_space))
        of_frame = f":frame{frame}" if shape[-1] > 1 else ""
        yield Scan(f"{path.stem}{of_frame}:{number}", k_space, mask, about | {"frame": frame, "slice": number})
