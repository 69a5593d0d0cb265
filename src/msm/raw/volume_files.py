"""Reconstructed volumes as files: HDF5 and NIfTI, put together from slices that are kept one by one.

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
import torch
from torch import Tensor

from ..data.hdf5 import new_hdf5
from ..errors import ConfigError, is_damage, optional
from ..sample.kept_batches import Parts
from ..system.files import fingerprint, whole
from ..system.manifest import check, replacing

IMAGES = ("reconstruction", "standard_deviation")
FACTS = ("noise_std", "maps_residual", "scale")


class VolumeWriter:
    """A volume's slices, kept one by one as they come, and its files, which are put together from all of them.

    A run may end at any time: the next one takes up every slice that was kept whole.

    Args:
        path: the HDF5 file to make.
        count: number of slices.
        provenance: how the volume is made, JSON-friendly: only slices made in the same way are kept.
        force: whether a volume that was made in another way is replaced, and what is not ours.

    Raises:
        ConfigError: if the file is there and was made in another way.
        DataError: if it is not as it was written.
    """

    def __init__(self, path: Path, count: int, provenance: dict[str, Any], *, force: bool = False):
        self.path, self.count, self.force = path, count, force
        self._provenance = json.dumps(provenance, sort_keys=True)
        self._kept = Parts(path.parent, fingerprint([self._provenance, path.name], []), f"{path.stem}.parts")
        self.finished = path.exists() and _attributes(path).get("provenance") == self._provenance
        if path.exists() and not force:
            check(path, "remove it, and it is made anew")
            if not self.finished:
                remedy = "choose another setting.save_dir (--force replaces it)"
                raise ConfigError(f"{path}: was made with other settings or data; {remedy}")
        self.left = set() if self.finished else {n for n in range(count) if not self._kept.has(range(n, n + 1))}

    @property
    def files(self) -> tuple[Path, ...]:
        """All that is written of the volume, and the folder of its pictures."""
        return outputs(self.path.parent, self.path.stem)

    def add(self, number: int, mean: Tensor, deviation: Tensor | None, picture: bytes, **facts: float) -> None:
        """Keep a slice.

        Args:
            number: of the slice.
            mean: magnitude (H, W).
            deviation: standard deviation (H, W); None, for every slice, if there is one sample.
            picture: of both, a PNG.
            facts: noise_std, maps_residual and scale.
        """
        images = dict(zip(IMAGES, (mean,) if deviation is None else (mean, deviation)))
        numbers = {name: torch.tensor(value, dtype=torch.float32) for name, value in facts.items()}
        drawn = torch.frombuffer(bytearray(picture), dtype=torch.uint8)
        self._kept.put(range(number, number + 1), {**images, **numbers, "picture": drawn})
        self.left.discard(number)

    def finish(self, affine: np.ndarray | None, voxel_mm: tuple[float, float, float] | None) -> None:
        """Write the HDF5 file, NAME.nii and, of several samples, NAME_std.nii, and pictures in NAME/, once.

        Args:
            affine: voxels to millimetres, from `msm.raw.geometry`; None if not known.
            voxel_mm: size of the voxels along H, W and across, or None.
        """
        if self.finished:
            return
        tops = {path.name for path in self.files}
        with replacing(self.path.parent, lambda name: Path(name).parts[0] in tops, force=self.force) as filled:
            self._write(filled, affine, voxel_mm)
        self._kept.remove()
        self.finished = True

    def _write(self, folder: Path, affine: np.ndarray | None, voxel_mm: tuple[float, float, float] | None) -> None:
        pictures = folder / self.path.stem
        pictures.mkdir()
        with new_hdf5(folder / self.path.name, self.path) as (file, _):
            file.attrs["provenance"] = self._provenance
            if affine is not None:
                file.attrs["affine"] = affine
            for number in range(self.count):
                kept = self._kept.read(range(number, number + 1))
                (pictures / f"{number:04d}.png").write_bytes(kept.pop("picture").numpy().tobytes())
                for name, value in kept.items():
                    if number == 0:
                        chunks = (1, *value.shape) if value.ndim else None
                        file.create_dataset(name, (self.count, *value.shape), np.float32, chunks=chunks)
                    file[name][number] = value.numpy()
            for name, suffix in ((n, s) for n, s in zip(IMAGES, ("", "_std")) if n in file):
                write_nifti(folder / f"{self.path.stem}{suffix}.nii", file[name], affine, voxel_mm)

    def facts(self) -> dict[str, np.ndarray]:
        """noise_std, maps_residual and scale of each slice of the finished file (slices,)."""
        with h5py.File(self.path, "r") as file:
            return {name: file[name][:] for name in FACTS}


def outputs(folder: Path, name: str) -> tuple[Path, ...]:
    """Where a volume of a name is written: HDF5, NIfTI of its mean and its deviation, the folder of its pictures."""
    return (*(folder / f"{name}{end}" for end in (".h5", ".nii", "_std.nii")), folder / name)


def _attributes(path: Path) -> dict[str, Any]:
    """Those of an HDF5 file; none if it is no such file."""
    try:
        with h5py.File(path, "r") as file:
            return dict(file.attrs)
    except OSError as error:
        if not is_damage(error):
            raise
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
