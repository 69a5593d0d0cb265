"""Siemens .dat files, written byte by byte as VB17 and VE11 lay them out: no code of the reader, nor of twixtools."""

import lzma
import struct
from pathlib import Path

import numpy as np
import pytest
from raw_files import noise

VECTORS = Path(__file__).parent / "vectors"  # from scanners, see the README there
BITS = {
    **{"ACQEND": 0, "RTFEEDBACK": 1, "ONLINE": 3, "SYNCDATA": 5, "PHASCOR": 21, "PATREFSCAN": 22},
    **{"PATREFANDIMASCAN": 23, "REFLECT": 24, "NOISEADJSCAN": 25},
}
AXIAL = (0.5**0.5, 0.0, 0.0, 0.5**0.5)  # w, x, y, z: a quarter turn around the normal
PROTOCOL = {
    "sKSpace.lBaseResolution": 16,
    "sKSpace.ucTrajectory": "0x1",
    "sSliceArray.asSlice[0].dThickness": 5.0,
    "sSliceArray.asSlice[0].dPhaseFOV": 24.0,
    "sSliceArray.asSlice[0].dReadoutFOV": 16.0,
    "sPat.ucRefScanMode": "0x1",
    "sRXSPEC.alDwellTime[0]": 5000,
}


def protocol_text(oversampling=2, regridding=1, **settings):
    """Header of a measurement: its parts, each a name, a length and a text. A dot in a name is two underscores."""
    values = PROTOCOL | {name.replace("__", "."): value for name, value in settings.items()}
    lines = "".join(f"{name:<40} = \t{value}\n" for name, value in values.items() if value is not None)
    other = "### ASCCONV BEGIN object=Other ###\nulVersion = 1\n### ASCCONV END ###\n"
    factor = f'<ParamDouble."flReadoutOSFactor">  {{ <Precision> 6  {oversampling:.6f}  }}\n' if oversampling else ""
    parts = {
        "Dicom": f"<XProtocol>\n{factor}",
        "Meas": f'<XProtocol>\n{other}<ParamLong."alRegridMode">  {{ {regridding} 1 1 }}\n',
        "MeasYaps": f"### ASCCONV BEGIN ###\n{lines}\n### ASCCONV END ###\n",
    }
    body = b"".join(
        name.encode() + b"\0" + struct.pack("<I", len(text)) + text.encode("latin1") for name, text in parts.items()
    )
    length = max(10240, -(-(8 + len(body)) // 32) * 32)  # of smaller ones, VB cannot be told from VE
    return struct.pack("<II", length, len(parts)) + body.ljust(length - 8, b"\0")


def counters(line):
    names = ("lin", "ave", "sli", "par", "eco", "phs", "rep", "set", "seg")
    return struct.pack("<14H", *(line.get(name, 0) for name in names), *[0] * 5)


def head(line, samples, channels, length, is_ve):
    mask = sum(1 << BITS[name] for name in line.get("flags", ("ONLINE",)))
    start = struct.pack("<IiIII", length, 7, 1, 0, 0)
    sizes = struct.pack("<QHH", mask, samples, channels) + counters(line)
    middle = struct.pack("<HHHHfI", *line.get("cut", (0, 0)), line.get("center", samples // 2), 0, 0.0, 0)
    center = struct.pack("<HH", line.get("center_lin", 0), line.get("center_par", 0))
    place = struct.pack("<3f4f", *line.get("position", (0, 0, 0)), *line.get("quaternion", AXIAL))
    if is_ve:
        return start + bytes(20) + sizes + middle + center + place + bytes(64)
    return start + sizes + middle + center + bytes(16) + place + bytes(4)


def acquisition(line, is_ve):
    """All channels of a line; with `sync`, bytes that are no acquisition; without data, the mark of the end."""
    if "sync" in line or line.get("data") is None:
        content = line.get("sync", bytes(160))
        length = (192 if is_ve else 128) + len(content)
        return head(line, 0, 0, length, is_ve) + content
    data = np.asarray(line["data"], np.complex64)
    channels, samples = data.shape
    if is_ve:
        length = 192 + channels * (32 + 8 * samples)
        channel = [struct.pack("<IiIiIIHHI", 32 + 8 * samples, 7, 1, 0, 0, 0, c, 0, 0) for c in range(channels)]
        return head(line, samples, channels, length, True) + b"".join(c + d.tobytes() for c, d in zip(channel, data))
    return b"".join(head(line, samples, channels, 128 + 8 * samples, False) + d.tobytes() for d in data)


def write_twix(path, *measurements, version="VE"):
    """A .dat of (header, lines) each; VB takes one."""
    is_ve, bodies = version == "VE", []
    for text, lines in measurements:
        end = acquisition({"flags": ["ACQEND"]}, is_ve)
        bodies.append(text + b"".join(acquisition(line, is_ve) for line in lines) + end)
    if not is_ve:
        path.write_bytes(bodies[0])
        return path
    table, place, content = struct.pack("<II", 0, len(bodies)), 10240, b""
    for number, body in enumerate(bodies):
        table += struct.pack("<IIQQ64s64s", number, number, place + len(content), len(body), b"xxx", b"gre")
        content += body.ljust(-(-len(body) // 512) * 512, b"\0")
    path.write_bytes(table.ljust(10240, b"\0") + content)
    return path


def lines_of(k_space, kept=None, **fields):
    """A line for each kept column of (coils, H, W), the middle being W // 2."""
    width = k_space.shape[-1]
    return [
        {"data": k_space[..., y], "lin": y, "center_lin": width // 2, **fields}
        for y in (range(width) if kept is None else kept)
    ]


def scanner_file(name, folder):
    """A file that a scanner wrote, unpacked."""
    path = folder / f"{name}.dat"
    path.write_bytes(lzma.decompress((VECTORS / f"siemens_{name}.dat.xz").read_bytes()))
    return path


def good_twix(path, version="VE"):
    pytest.importorskip("twixtools")
    return write_twix(path / "a.dat", (protocol_text(), lines_of(noise((3, 32, 12)).numpy())), version=version)


def good_twix_vb(path):
    return good_twix(path, "VB")


TWIX = {"twix": good_twix, "twix_vb": good_twix_vb}
