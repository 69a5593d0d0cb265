"""Reconstructed volumes as files: HDF5 that grows slice by slice, and NIfTI.

    /reconstruction       (slices, H, W)   float32, magnitude of the mean of the samples, in the file's units
    /standard_deviation   (slices, H, W)   float32, of the samples' magnitudes; not there for one sample
    /noise_std, /maps_residual, /scale     (slices,)
    attributes            provenance (JSON), affine (4, 4) if known

`reconstruction` is the layout of fastMRI submissions.
"""

import json
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from torch import Tensor

from ..errors import ConfigError, optional
from ..system.files import put, whole

IMAGES = ("reconstruction", "standard_deviation")
FACTS = ("noise_std", "maps_residual", "scale")


class VolumeWriter:
    """A volume's HDF5 file; what is not complete has the suffix .partial, and is gone on with.

    The file is closed between slices, so a run may end at any time, and memory does not grow.

    Args:
        path: the file to make.
        count: number of slices.
        shape: H and W.
        provenance: how the volume is made, JSON-friendly: only slices made in the same way are kept.

    Raises:
        ConfigError: if the file is there and was made in another way.
    """

    def __init__(self, path: Path, count: int, shape: tuple[int, int], provenance: dict[str, Any]):
        self.path, self.partial = path, path.with_name(path.name + ".partial")
        self._size, self._provenance = (count, *shape), json.dumps(provenance, sort_keys=True)
        made, begun = _attributes(path), _attributes(self.partial)
        if path.exists() and made.get("provenance") != self._provenance:
            raise ConfigError(f"{path}: was made with other settings or data; use another setting.save_dir")
        left = int(begun.get("done", 0)) if begun.get("provenance") == self._provenance else 0
        self.done = count if path.exists() else left

    def add(self, mean: Tensor, deviation: Tensor | None, **facts: float) -> None:
        """Write the next slice.

        Args:
            mean: magnitude (H, W).
            deviation: standard deviation (H, W); None, for every slice, if there is one sample.
            facts: noise_std, maps_residual and scale.
        """
        images = dict(zip(IMAGES, (mean,) if deviation is None else (mean, deviation)))
        self.partial.parent.mkdir(parents=True, exist_ok=True)
        with h5py.File(self.partial, "r+" if self.done else "w") as file:
            if self.done == 0:
                file.attrs["provenance"] = self._provenance
                for name in images:
                    file.create_dataset(name, self._size, np.float32, chunks=(1, *self._size[1:]))
                for name in FACTS:
                    file.create_dataset(name, self._size[:1], np.float32)
            for name, value in {**images, **facts}.items():
                file[name][self.done] = value
            self.done += 1
            file.attrs["done"] = self.done

    def finish(self, affine: np.ndarray | None, voxel_mm: tuple[float, float, float] | None) -> None:
        """Write NAME.nii and, of several samples, NAME_std.nii, and move the HDF5 file into place, once.

        Args:
            affine: voxels to millimetres, from `msm.raw.geometry`; None if not known.
            voxel_mm: size of the voxels along H, W and across, or None.
        """
        if self.path.exists():
            return
        with h5py.File(self.partial, "r+") as file:
            if affine is not None:
                file.attrs["affine"] = affine
            for name, suffix in ((n, s) for n, s in zip(IMAGES, ("", "_std")) if n in file):
                write_nifti(self.path.with_name(f"{self.path.stem}{suffix}.nii"), file[name], affine, voxel_mm)
        put(self.partial, self.path)

    def facts(self) -> dict[str, np.ndarray]:
        """noise_std, maps_residual and scale of each slice of the finished file (slices,)."""
        with h5py.File(self.path, "r") as file:
            return {name: file[name][:] for name in FACTS}


def _attributes(path: Path) -> dict[str, Any]:
    """Those of an HDF5 file; none if it is missing, or cut off: then it is made anew."""
    try:
        with h5py.File(path, "r") as file:
            return dict(file.attrs)
    except OSError:
        return {}


def nifti_image() -> Any:
    """Nibabel's class of NIfTI-1 images; a run that will write some asks for it at its start.

    Raises:
        MissingPackage: if nibabel is missing.
    """
    return optional("nibabel.nifti1", "NIfTI", "mri").Nifti1Image


def write_nifti(
    path: Path, slices: h5py.Dataset, affine: np.ndarray | None, voxel_mm: tuple[float, float, float] | None
) -> None:
    """Write slices as a NIfTI-1 volume (H, W, slices), one at a time.

    Args:
        path: .nii file.
        slices: (slices, H, W), real.
        affine: voxels to millimetres right, anterior, superior; None: the orientation is marked as not known.
        voxel_mm: size of the voxels, for when there is no affine; None: 1 mm.

    Raises:
        MissingPackage: if nibabel is missing.
    """
    count, height, width = slices.shape
    grid = np.diag([*(voxel_mm or (1.0, 1.0, 1.0)), 1.0]) if affine is None else affine
    empty = np.broadcast_to(np.float32(0), (height, width, count))  # takes no memory
    header = nifti_image()(empty, grid).header
    header.set_sform(grid, code=int(affine is not None))
    header.set_qform(grid, code=int(affine is not None))
    header.set_xyzt_units("mm")
    header.set_data_offset(352)
    with whole(path) as temporary, temporary.open("wb") as file:
        header.write_to(file)
        file.write(bytes(352 - file.tell()))
        for k in range(count):
            file.write(np.asarray(slices[k], dtype="<f4").tobytes(order="F"))
