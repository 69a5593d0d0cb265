"""Where slices lie in the patient, for NIfTI: voxels (H, W, slices) to millimetres right, anterior, superior.

ISMRMRD states, as DICOM does, positions and directions towards left, posterior and superior, so two signs change.
The position of a slice is that of pixel (H // 2, W // 2), where the centred FFT has its middle.

Source: ISMRMRD, https://ismrmrd.readthedocs.io; NIfTI-1, https://nifti.nimh.nih.gov.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from .scan import Scan

UNEVEN = 0.1  # slices off an even spacing by more than this share of it make no volume


@dataclass(frozen=True)
class Geometry:
    """What a file says of a slice's place; None for what it does not say.

    Args:
        voxel_mm: size of a pixel along H and W, and the thickness.
        directions: unit vectors (left, posterior, superior) of H, W and across.
        position_mm: of the slice's middle; of a volume's, if `is_plane`.
        is_plane: whether the slice is one of a volume acquired as a whole.
    """

    voxel_mm: tuple[float, float, float] | None
    directions: tuple[tuple[float, float, float], ...] | None
    position_mm: tuple[float, float, float] | None
    is_plane: bool

    @classmethod
    def of(cls, scan: Scan) -> "Geometry":
        """The geometry of a slice on the file's own grid."""
        position = scan.provenance.get("position_mm")
        return cls(scan.voxel_mm, scan.directions, position and tuple(position), "plane" in scan.provenance)


def affine(shape: tuple[int, int], slices: Sequence[Geometry]) -> np.ndarray | None:
    """Matrix (4, 4) from voxels (i, j, k) to millimetres right, anterior, superior.

    Args:
        shape: H and W.
        slices: geometry of each slice, in order.

    Returns:
        the matrix; None if the files do not say, or the slices do not lie side by side.
    """
    first = slices[0]
    if first.voxel_mm is None or first.directions is None or first.position_mm is None:
        return None
    if any(other.directions != first.directions for other in slices):
        return None
    down, right, across = np.array(first.directions) * np.array(first.voxel_mm)[:, None]
    positions = np.array([s.position_mm for s in slices], dtype=float)
    center = positions[0]
    if first.is_plane:
        center = center - (len(slices) // 2) * across
    elif len(slices) > 1:
        across = (positions[-1] - positions[0]) / (len(slices) - 1)
        off = np.abs(positions - positions[0] - np.arange(len(slices))[:, None] * across).max()
        if not off <= UNEVEN * np.linalg.norm(across) or not across.any():
            return None
    corner = center - (shape[0] // 2) * down - (shape[1] // 2) * right
    matrix = np.eye(4)
    matrix[:3] = np.stack([down, right, across, corner], 1)
    return np.diag([-1.0, -1.0, 1.0, 1.0]) @ matrix
