"""Raw files in the published layouts, written with known content."""

import h5py
import numpy as np
import pytest
import torch

from msm.raw.readers import read_scans

COILS, H, W = 3, 16, 12
NX, NY, NZ = 10, 8, 6  # of a volume
HEADER = """<?xml version="1.0" encoding="UTF-8"?>
<ismrmrdHeader xmlns="http://www.ismrm.org/ISMRMRD">
  <experimentalConditions><H1resonanceFrequency_Hz>63500000</H1resonanceFrequency_Hz></experimentalConditions>
  <acquisitionSystemInformation>
    <relativeReceiverNoiseBandwidth>0.79</relativeReceiverNoiseBandwidth>
  </acquisitionSystemInformation>
  <encoding>
    <encodedSpace>
      <matrixSize><x>{x}</x><y>{y}</y><z>{z}</z></matrixSize>
      <fieldOfView_mm><x>{fx}</x><y>{fy}</y><z>{fz}</z></fieldOfView_mm>
    </encodedSpace>
    <reconSpace>
      <matrixSize><x>{rx}</x><y>{y}</y><z>{z}</z></matrixSize>
      <fieldOfView_mm><x>{rfx}</x><y>{fy}</y><z>{fz}</z></fieldOfView_mm>
    </reconSpace>
    <encodingLimits>
      <kspace_encoding_step_1><minimum>0</minimum><maximum>{my}</maximum><center>{cy}</center></kspace_encoding_step_1>
      <kspace_encoding_step_2><minimum>0</minimum><maximum>{mz}</maximum><center>{cz}</center></kspace_encoding_step_2>
    </encodingLimits>
    <trajectory>{trajectory}</trajectory>
    <parallelImaging>
      <accelerationFactor><kspace_encoding_step_1>2</kspace_encoding_step_1>
        <kspace_encoding_step_2>1</kspace_encoding_step_2></accelerationFactor>
      <calibrationMode>{calibration}</calibrationMode>
    </parallelImaging>
  </encoding>
</ismrmrdHeader>"""


def header(nx, ny, nz=1, oversampling=1, trajectory="cartesian", calibration="embedded", **other):
    """An ISMRMRD header; pixels of 1 × 2 mm, slices of 5 mm. other: any field."""
    rx = nx // oversampling
    fields = dict(x=nx, y=ny, z=nz, rx=rx, fx=1.0 * nx, rfx=1.0 * rx, fy=2.0 * ny, fz=5.0 * nz)
    fields |= dict(cy=ny // 2, my=ny - 1, cz=nz // 2, mz=nz - 1, trajectory=trajectory, calibration=calibration)
    return HEADER.format(**(fields | other))


def noise(shape, seed=0):
    """White complex64 noise, nowhere zero."""
    return torch.randn(*shape, dtype=torch.complex64, generator=torch.Generator().manual_seed(seed))


def centred_fft(x, axes):
    """Orthonormal FFT with the middle at n // 2, in double precision, by NumPy: no code of the library."""
    return np.fft.fftshift(np.fft.fftn(np.fft.ifftshift(x, axes), axes=axes, norm="ortho"), axes)


def write_fastmri(path, k_space, xml, mask=None):
    """The layout of fastMRI: kspace (slices, [coils,] H, W), ismrmrd_header, mask (W,) in the test sets."""
    with h5py.File(path, "w") as file:
        file["kspace"] = np.asarray(k_space)
        file["ismrmrd_header"] = xml
        if mask is not None:
            file["mask"] = np.asarray(mask)
    return path


def write_cfl(path, array, dims):
    """A BART pair: the header's text, and complex64 values in column-major order."""
    path.with_suffix(".hdr").write_text("# Dimensions\n" + " ".join(map(str, dims)) + " \n")
    np.asarray(array, dtype=np.complex64).reshape(-1, order="F").tofile(path.with_suffix(".cfl"))
    return path.with_suffix(".cfl")


def write_ismrmrd(path, xml, lines):
    """ISMRMRD by its own package. lines: dicts of data (coils, samples), and of y, z, flags, … where not default."""
    import ismrmrd

    with ismrmrd.Dataset(str(path), "dataset", mode="w") as file:
        file.write_xml_header(xml.encode())
        for number, line in enumerate(lines):
            data = np.asarray(line["data"])
            acquisition = ismrmrd.Acquisition.from_array(
                data, center_sample=line.get("center", data.shape[1] // 2), scan_counter=number
            )
            for flag in line.get("flags", ()):
                acquisition.set_flag(getattr(ismrmrd, flag))
            acquisition.idx.kspace_encode_step_1 = line.get("y", 0)
            acquisition.idx.kspace_encode_step_2 = line.get("z", 0)
            for counter in ("slice", "average", "contrast", "repetition"):
                setattr(acquisition.idx, counter, line.get(counter, 0))
            for name in ("discard_pre", "discard_post", "encoding_space_ref", "sample_time_us"):
                setattr(acquisition, name, line.get(name, 0))
            acquisition.read_dir[:], acquisition.phase_dir[:], acquisition.slice_dir[:] = (
                (0, 0, 1),
                (1, 0, 0),
                (0, 1, 0),
            )
            acquisition.position[:] = line.get("position", (0, 0, 0))
            file.append_acquisition(acquisition)
    return path


def lines_of(k_space, kept=range(W), **fields):
    """One acquisition for each kept column of (coils, H, W)."""
    return [{"data": k_space[:, :, y].numpy(), "y": y, **fields} for y in kept]


def undersampled(*shape):
    """White noise with three empty columns."""
    k = noise(shape)
    k[..., [0, 3, 5]] = 0
    return k


def read(path):
    return list(read_scans(path))


def good_npy(path):
    np.save(path / "a.npy", undersampled(COILS, H, W))
    return path / "a.npy"


def good_cfl(path):
    return write_cfl(path / "a", undersampled(COILS, H, W).permute(1, 2, 0).numpy(), (H, W, 1, COILS))


def good_fastmri(path, xml=None):
    return write_fastmri(path / "a.h5", noise((2, COILS, H, W)), xml or header(H, W))


def good_ismrmrd(path, xml=None, **fields):
    pytest.importorskip("ismrmrd")
    return write_ismrmrd(path / "a.mrd", xml or header(H, W), lines_of(noise((COILS, H, W)), **fields))


def good_mat(path, **variables):
    pytest.importorskip("scipy").io.savemat(path / "a.mat", variables or {"kdata": undersampled(COILS, H, W).numpy()})
    return path / "a.mat"


GOOD = {"npy": good_npy, "cfl": good_cfl, "fastmri": good_fastmri, "ismrmrd": good_ismrmrd, "mat": good_mat}
