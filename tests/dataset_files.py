"""Files in the layouts of public data sets, written from their descriptions (docs/reference/raw_formats.md)."""

import h5py
import numpy as np
from raw_files import noise

M4RAW_HEADER = """<ns0:ismrmrdHeader xmlns:ns0="http://www.ismrm.org/ISMRMRD">
  <ns0:acquisitionSystemInformation>
    <ns0:systemVendor> XinGaoYi Medical Equipment Co.,Ltd.</ns0:systemVendor>
    <ns0:systemModel>XGY OPER-0.3</ns0:systemModel>
  </ns0:acquisitionSystemInformation>
  <ns0:encoding>
    <ns0:encodedSpace>
      <ns0:matrixSize><ns0:x>{n}</ns0:x><ns0:y>{n}</ns0:y><ns0:z>1</ns0:z></ns0:matrixSize>
      <ns0:fieldOfView_mm><ns0:x>240.0</ns0:x><ns0:y>240.0</ns0:y><ns0:z>5.0</ns0:z></ns0:fieldOfView_mm>
    </ns0:encodedSpace>
    <ns0:reconSpace>
      <ns0:matrixSize><ns0:x>{n}</ns0:x><ns0:y>{n}</ns0:y><ns0:z>1</ns0:z></ns0:matrixSize>
      <ns0:fieldOfView_mm><ns0:x>240.0</ns0:x><ns0:y>240.0</ns0:y><ns0:z>5.0</ns0:z></ns0:fieldOfView_mm>
    </ns0:reconSpace>
    <ns0:trajectory>cartesian</ns0:trajectory>
    <ns0:encodingLimits>
      <ns0:kspace_encoding_step_1>
        <ns0:minimum>0</ns0:minimum><ns0:maximum>{lines}</ns0:maximum><ns0:center>{middle}</ns0:center>
      </ns0:kspace_encoding_step_1>
    </ns0:encodingLimits>
    <ns0:parallelImaging><ns0:calibrationMode>other</ns0:calibrationMode></ns0:parallelImaging>
  </ns0:encoding>
</ns0:ismrmrdHeader>"""


def write_m4raw(path, k_space):
    """As the tutorial of M4Raw prints a file: (slices, coils, 256, 256), 195 columns not zero, counted as `maximum`."""
    lines = int((np.abs(k_space) > 0).any((0, 1, 2)).sum())
    with h5py.File(path, "w") as file:
        file["kspace"] = np.asarray(k_space, np.complex64)
        text = M4RAW_HEADER.format(n=k_space.shape[-1], lines=lines, middle=lines // 2)
        file["ismrmrd_header"] = text
        file["reconstruction_rss"] = np.zeros((len(k_space), *k_space.shape[-2:]), np.float32)
        file.attrs["acquisition"] = "AXT2"
    return path


def write_skm_tea(path, k_space, maps=None, **other):
    """As DATASET.md has it: kspace (x, ky, kz, echoes, coils), maps (x, y, z, coils, 1), target, masks."""
    with h5py.File(path, "w") as file:
        file["kspace"] = np.asarray(k_space, np.complex64)
        if maps is not None:
            file["maps"] = np.asarray(maps, np.complex64)
        for name, array in other.items():
            file[name] = array
    return path


def in_turn(values):
    """(slices, coils, H, W) as CC359 has it: (slices, H, W, 2 × coils), real and imaginary part in turn."""
    values = np.moveaxis(np.asarray(values), 1, -1)
    return np.stack([values.real, values.imag], -1).reshape(*values.shape[:-1], -1).astype(np.float32)


def write_cc359(path, values):
    """.h5 as the challenge has it, or .npy."""
    if path.suffix == ".npy":
        np.save(path, in_turn(values))
    else:
        with h5py.File(path, "w") as file:
            file["kspace"] = in_turn(values)
    return path


def write_cmrxrecon(path, name, array):
    """MATLAB 7.3 (HDF5 behind 512 bytes): axes reversed, complex numbers as pairs; last axes of length 1 left out."""
    while array.ndim > 2 and array.shape[-1] == 1:
        array = array[..., 0]
    stored = np.empty(array.T.shape, [("real", np.float32), ("imag", np.float32)])
    stored["real"], stored["imag"] = array.T.real, array.T.imag
    with h5py.File(path, "w", userblock_size=512) as file:
        file.create_dataset(name, data=stored, chunks=stored.shape, compression=3)
        file[name].attrs["MATLAB_class"] = np.bytes_("single")
    with path.open("r+b") as file:
        file.write(b"MATLAB 7.3 MAT-file, Platform: GLNXA64 HDF5 schema 1.00 .".ljust(124) + b"\0\2IM")
    return path


def good_m4raw(path):
    return write_m4raw(path / "a.h5", noise((2, 4, 16, 16)).numpy())


def good_skm_tea(path):
    return write_skm_tea(path / "a.h5", noise((3, 10, 8, 2, 4)), noise((3, 10, 8, 4, 1), 1))


def good_cc359(path):
    return write_cc359(path / "a.h5", noise((3, 2, 10, 8)))


def good_cc359_npy(path):
    return write_cc359(path / "a.npy", noise((3, 1, 10, 8)))


def good_cmrxrecon(path):
    return write_cmrxrecon(path / "a.mat", "kspace_full", noise((10, 8, 3, 2, 2)).numpy())


DATASETS = {
    "m4raw": good_m4raw,
    "skm_tea": good_skm_tea,
    "cc359": good_cc359,
    "cc359_npy": good_cc359_npy,
    "cmrxrecon": good_cmrxrecon,
}
