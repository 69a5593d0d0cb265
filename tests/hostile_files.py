"""Raw files that are damaged or hostile, and what is to be said of each."""

import zlib

import h5py
import numpy as np
import pytest
from dataset_files import good_m4raw, good_skm_tea, write_cc359, write_cmrxrecon, write_skm_tea
from raw_files import (
    COILS,
    NX,
    NY,
    NZ,
    H,
    W,
    good_cfl,
    good_fastmri,
    good_ismrmrd,
    good_mat,
    header,
    lines_of,
    noise,
    write_fastmri,
    write_ismrmrd,
)


def saved(path, array):
    np.save(path / "a.npy", np.asarray(array), allow_pickle=True)
    return path / "a.npy"


def changed(array, index, value):
    array[index] = value
    return array


def with_bytes(path, content):
    path.write_bytes(content)
    return path


def npy_header(path, shape, dtype="<c8"):
    """A .npy of 64 bytes of data whose header claims any shape."""
    text = f"{{'descr': '{dtype}', 'fortran_order': False, 'shape': {shape}, }}".ljust(117) + "\n"
    return with_bytes(
        path / "a.npy", b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text.encode() + bytes(64)
    )


def with_hdr(path, text):
    good_cfl(path).with_suffix(".hdr").write_text(text)
    return path / "a.cfl"


def without(path):
    path.with_suffix(".hdr").unlink()
    return path


def edited(path, field, value):
    with h5py.File(path, "r+") as file:
        del file[field]
        file[field] = value
    return path


def unwritten(path):
    """A dataset of 10 terabytes that holds nothing."""
    with h5py.File(path, "r+") as file:
        del file["kspace"]
        file.create_dataset("kspace", (10**6, 15, 320, 320), np.complex64, chunks=(1, 1, 320, 320))
    return path


def unwritten5(path):
    """Likewise, of SKM-TEA's axes."""
    with h5py.File(path, "r+") as file:
        del file["kspace"]
        size, chunk = (10**6, 320, 320, 4, 15), (1, 320, 320, 1, 1)
        file.create_dataset("kspace", size, np.complex64, chunks=chunk)
    return path


def virtual(path):
    layout = h5py.VirtualLayout((2, COILS, H, W), np.complex64)
    layout[:] = h5py.VirtualSource("other.h5", "kspace", (2, COILS, H, W))
    with h5py.File(path, "r+") as file:
        del file["kspace"]
        file.create_virtual_dataset("kspace", layout)
    return path


def claim_length(path, name, field=None):
    """The first value of a dataset of values of variable length claims four gigabytes."""
    with h5py.File(path) as file:
        data, at = file[name], 0
        if field is not None:
            kind = data.id.get_type()
            at = kind.get_member_offset(kind.get_member_index(field))
        at += data.id.get_offset() if data.chunks is None else data.id.get_chunk_info(0).byte_offset
    content = bytearray(path.read_bytes())
    content[at : at + 4] = (2**32 - 16).to_bytes(4, "little")
    return with_bytes(path, content)


def group(path, name):
    with h5py.File(path, "r+") as file:
        del file[name]
        file.create_group(name)
    return path


def packed(path, name):
    with h5py.File(path, "r+") as file:
        content, kind = file[name][()], file[name].dtype
        del file[name]
        file.create_dataset(name, data=np.ravel(content), dtype=kind, compression=4)
    return path


def big_chunk(path):
    """A chunk of 4 gigabytes, of which a few kilobytes are stored."""
    with h5py.File(path, "r+") as file:
        content = file["kspace"][:]
        del file["kspace"]
        size, most = (1, 1, 2**14, 2**15), (None,) * 4
        data = file.create_dataset("kspace", content.shape, maxshape=most, dtype="c8", chunks=size, compression=4)
        data.id.write_direct_chunk((0, 0, 0, 0), zlib.compress(bytes(10**4)))
    return path


def elsewhere(path, name):
    """The name is a link into another file, which is there."""
    other = path.with_name("other.h5")
    with h5py.File(path, "r+") as file, h5py.File(other, "w") as copy:
        file.copy(name, copy)
        del file[name]
        file[name] = h5py.ExternalLink("other.h5", name)
    return path


def other_channels(path):
    lines = lines_of(noise((COILS, H, W)))
    lines[3]["data"] = lines[3]["data"][:-1]
    return write_ismrmrd(path / "a.mrd", header(H, W), lines)


def no_acquisitions(path):
    return edited(good_ismrmrd(path), "dataset/data", np.zeros(3))


def claims(**sizes):
    return lambda path: good_ismrmrd(path, header(H, W, **sizes))


def mat_bomb(path):
    """Four megabytes of zeros in four kilobytes."""
    scipy_io = pytest.importorskip("scipy").io
    scipy_io.savemat(path / "a.mat", {"kdata": np.zeros((2, 500, 500), np.complex64)}, do_compression=True)
    return path / "a.mat"


BOMB = '<!DOCTYPE a [<!ENTITY b "bbbb"><!ENTITY c "&b;&b;&b;&b;">]>'


HOSTILE = {
    "unknown kind": (lambda path: with_bytes(path / "a.dcm", b""), "not a kind .* give one of .h5"),
    "missing": (lambda path: path / "a.npy", "no such file; correct the path"),
    "real npy": (lambda path: saved(path, np.ones((COILS, H, W))), "float64, expected complex .* save"),
    "5 axes": (lambda path: saved(path, noise((1, 1, COILS, H, W))), "expected 2 or 3 or 4 axes; reshape"),
    "empty npy": (lambda path: saved(path, np.ones((COILS, 0, W), np.complex64)), "holds nothing; save it again"),
    "swapped axes": (lambda path: saved(path, noise((H, W, COILS))), "16 coils for .* 12×3; the axes are swapped, put"),
    "swapped slices": (lambda path: saved(path, noise((2, H, W, COILS))), "the axes are swapped, put"),
    "pickled": (lambda path: saved(path, [{"a": 1}]), "not readable.*Python objects.*make it again"),
    "npy of 10^12": (lambda path: npy_header(path, (10**4, 10**4, 10**4)), "not readable.*make it again"),
    "npy of 10^30": (lambda path: npy_header(path, (10**15, 10**15)), "not readable.*make it again"),
    "NaN": (lambda path: saved(path, changed(noise((COILS, H, W)), (0, 3), np.nan)), "12 values are not finite; set"),
    "overflow": (lambda path: saved(path, np.full((H, W), 1e200 + 0j)), "192 values are not finite; set"),
    "zero": (lambda path: saved(path, np.zeros((COILS, H, W), np.complex64)), "slice 0 is zero throughout.*leave"),
    "corners": (
        lambda path: saved(path, changed(noise((1, 64, 64)), (0, 0, 0), 1e3)),
        "has its centre at 0 of 64, expected 32; apply fftshift",
    ),
    "no hdr": (lambda path: without(good_cfl(path)), r"a.hdr: not a BART header \(.*\); give"),
    "hdr of 10^12": (
        lambda path: with_hdr(path, f"# Dimensions\n{10**6} {10**6}\n"),
        "4608 bytes.*1000000000000.*copy",
    ),
    "hdr of words": (lambda path: with_hdr(path, "# Dimensions\nmany\n"), "not a BART header .*give"),
    "hdr below zero": (lambda path: with_hdr(path, "# Dimensions\n-16 -12 1 3\n"), "not a BART header .*give"),
    "hdr of digits": (lambda path: with_hdr(path, "# Dimensions\n" + "9" * 10**5), "not a BART header .*give"),
    "hdr of comments": (
        lambda path: with_hdr(path, "#\n" * 2**15 + f"# Dimensions\n{H} {W} 1 {COILS}\n"),
        "not a BART header .*give",
    ),
    "hdr with echoes": (lambda path: with_hdr(path, f"# Dimensions\n{H} {W} 1 1 1 3\n"), "3 along dimension 5; ex"),
    "a vector": (lambda path: with_hdr(path, f"# Dimensions\n{H * W * COILS}\n"), "expected slices or one volume; use"),
    "no kdata": (lambda path: good_mat(path, other=np.ones(3)), "holds .'other'., none of kdata.*save"),
    "real mat": (lambda path: good_mat(path, kdata=np.ones((COILS, H, W))), "float64, expected complex"),
    "struct mat": (lambda path: good_mat(path, kdata={"a": 1}), "kdata is no numeric array; save"),
    "mat bomb": (mat_bomb, "an element of .* are left"),
    "no mat": (lambda path: with_bytes(path / "a.mat", b"MATLAB" * 100), "not a little-endian MATLAB file.*save"),
    "no HDF5": (lambda path: with_bytes(path / "a.h5", b"HDF5" * 100), "not readable as HDF5.*copy"),
    "other HDF5": (
        lambda path: edited(good_fastmri(path), "kspace", h5py.SoftLink("/none")),
        "kspace is missing.*make",
    ),
    "external link": (
        lambda path: edited(good_fastmri(path), "kspace", h5py.ExternalLink("b.h5", "kspace")),
        "kspace is missing.*make",
    ),
    "virtual": (lambda path: virtual(good_fastmri(path)), "kspace points into other files; copy"),
    "unwritten": (lambda path: unwritten(good_fastmri(path)), "kspace claims 1.23e.13 bytes.* copy or make"),
    "big chunk": (lambda path: big_chunk(good_fastmri(path)), "kspace claims 4.29e.09 bytes.* copy or make"),
    "group for kspace": (lambda path: group(good_fastmri(path), "kspace"), "kspace is missing.*make"),
    "mask elsewhere": (
        lambda path: elsewhere(write_fastmri(path / "a.h5", noise((2, H, W)), header(H, W), [1] * W), "mask"),
        "mask is missing.*make",
    ),
    "real kspace": (lambda path: edited(good_fastmri(path), "kspace", np.ones((2, H, W))), "float64, expected complex"),
    "empty kspace": (
        lambda path: edited(good_fastmri(path), "kspace", np.ones((0, H, W), np.complex64)),
        "holds nothing; save",
    ),
    "swapped kspace": (
        lambda path: edited(good_fastmri(path), "kspace", noise((2, H, W, COILS))),
        "the axes are swapped",
    ),
    "mask too short": (
        lambda path: write_fastmri(path / "a.h5", noise((2, H, W)), header(H, W), [1, 0]),
        "mask is .*rem",
    ),
    "no header": (lambda path: edited(good_fastmri(path), "ismrmrd_header", 3), "not a usable ISMRMRD header.*convert"),
    "bomb": (lambda path: good_fastmri(path, BOMB + header(H, W)), "a document type or entities.*convert"),
    "UTF-16 bomb": (
        lambda path: edited(good_fastmri(path), "ismrmrd_header", np.void((BOMB + header(H, W)).encode("utf-16"))),
        "not a usable .*convert",
    ),
    "deep XML": (
        lambda path: good_fastmri(path, "<a>" * 10**5 + "</a>" * 10**5),
        "header .encoding is missing.*convert",
    ),
    "huge XML": (lambda path: good_fastmri(path, header(H, W) + " " * 2**22), "characters, more than.*convert"),
    "no matrix": (
        lambda path: good_fastmri(path, header(H, W).replace("<y>12</y>", "<y></y>")),
        "not a usable ISMRMRD header.*convert",
    ),
    "matrix of 10^9": (claims(y=10**9), "matrixSize/y is 1000000000, expected 1 to 65536.*convert"),
    "matrix of 65536": (claims(y=65536, z=65536), "a matrix of .* claims .* copy or make"),
    "NaN field of view": (claims(fx="nan"), "not a usable ISMRMRD header.*convert"),
    "spiral": (claims(trajectory="spiral"), "trajectory is 'spiral', only cartesian is read; grid"),
    "too few columns": (claims(y=8, cy=4), "kspace_encode_step_1 = 8 lies outside of a matrix of 8; convert"),
    "readout too long": (claims(x=8), "16 samples with the centre at 8 do not fit a readout of 8; convert"),
    "long XML": (
        lambda path: claim_length(good_fastmri(path), "ismrmrd_header"),
        "a value of /ismrmrd_header claims 4.29e.09 bytes.* copy or make",
    ),
    "long line": (
        lambda path: claim_length(good_ismrmrd(path), "dataset/data", b"data"),
        "a value of /dataset/data claims 4.29e.09 bytes.* copy or make",
    ),
    "packed XML": (lambda path: packed(good_fastmri(path), "ismrmrd_header"), "is stored packed; write it plainly"),
    "acquisitions elsewhere": (lambda path: elsewhere(good_ismrmrd(path), "dataset"), "holds neither kspace .*convert"),
    "no acquisitions": (no_acquisitions, "dataset/data holds no acquisitions; convert"),
    "other channels": (other_channels, "2 channels × 16 samples where the scan has 3 channels; convert"),
    "only noise": (lambda path: good_ismrmrd(path, flags=["ACQ_IS_NOISE_MEASUREMENT"]), "is an image line; convert"),
    "echoes of coils": (
        lambda path: write_skm_tea(path / "a.h5", noise((3, 2, 4, 10, 8))),
        "SKM-TEA's .* has shape .* the axes are swapped",
    ),
    "SKM-TEA of reals": (
        lambda path: edited(good_skm_tea(path), "kspace", np.ones((3, 10, 8, 2, 4))),
        "float64, expected complex.*save",
    ),
    "maps elsewhere": (lambda path: elsewhere(good_skm_tea(path), "maps"), "maps is missing.*make"),
    "real maps": (
        lambda path: edited(good_skm_tea(path), "maps", np.ones((3, 10, 8, 4, 1))),
        r"maps is float64 .* expected complex \(3, 10, 8, 4, 1\); remove",
    ),
    "unwritten SKM-TEA": (lambda path: unwritten5(good_skm_tea(path)), "kspace claims 4.92e.13 bytes.* copy or make"),
    "odd CC359": (
        lambda path: edited(write_cc359(path / "a.h5", noise((3, 2, 10, 8))), "kspace", np.ones((3, 10, 8, 3))),
        r"float64 \(3, 10, 8, 3\), expected real \(slices, H, W, 2 × coils\)",
    ),
    "CC359 of 20 coils": (lambda path: write_cc359(path / "a.npy", noise((3, 20, 10, 8))), "the axes are swapped"),
    "CC359 of NaN": (
        lambda path: write_cc359(path / "a.npy", changed(noise((3, 2, 10, 8)), (1, 0, 3), np.nan)),
        "slice 1: 8 values are not finite; set",
    ),
    "npy of 10^12 reals": (
        lambda path: npy_header(path, (10**4, 10**4, 10**4, 2), "<f4"),
        "not readable.*make it again",
    ),
    "M4Raw bomb": (
        lambda path: edited(good_m4raw(path), "ismrmrd_header", BOMB),
        "a document type or entities.*convert",
    ),
    "CMRxRecon of 2 axes too many": (
        lambda path: write_cmrxrecon(path / "a.mat", "kspace_full", noise((10, 8, 3, 2, 2, 2, 2)).numpy()),
        r"kspace_full has shape .* expected \(kx, ky, coils, slices, frames\); save",
    ),
    "CMRxRecon in another order": (
        lambda path: write_cmrxrecon(path / "a.mat", "kspace_full", noise((2, 3, 10, 8)).numpy()),
        "kspace_full has shape .* the axes are swapped",
    ),
    "no split": (
        lambda path: write_ismrmrd(
            path / "a.h5", header(NX, NY, NZ), [{"data": noise((1, 6)), "y": y, "z": 1, "center": 1} for y in range(NY)]
        ),
        "neither the readout nor the second .* fill",
    ),
}
