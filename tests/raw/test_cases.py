"""Raw files that once failed, made by ../shared/cases/make.py: what comes out of each."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from msm.errors import DataError
from msm.raw.prepare import prepare
from msm.raw.readers import import_scans
from msm.raw.scan import padded_size

MAKE = Path(__file__).resolve().parents[3] / "shared" / "cases" / "make.py"
NOISE = 0.002  # of all files
FILES = {  # name: grid, share measured
    "acs_8_lines.npy": ((64, 64), 22 / 64),
    "asymmetric_echo.npy": ((64, 64), 56 / 64),
    "asymmetric_echo.h5": ((48, 40), 36 / 48),
    "full.npy": ((64, 64), 1.0),
    "v73.mat": ((64, 64), 1.0),
    "plain.mat": ((64, 64), 48 * 40 / 64**2),  # cut on one side of each axis: padded
    "string_beside_kdata.mat": ((64, 64), 48 * 40 / 64**2),
}


@pytest.fixture(scope="module")
def cases(tmp_path_factory):
    pytest.importorskip("sigpy")
    if not MAKE.is_file():
        pytest.skip(f"{MAKE} is absent")
    folder = tmp_path_factory.mktemp("cases")
    subprocess.run([sys.executable, str(MAKE), str(folder)], check=True)
    return folder


@pytest.mark.parametrize("name", FILES)
def test_what_comes_out(cases, name):
    """The grid and the points measured, maps of all that is bright, and the noise."""
    (scan,) = import_scans([cases / name])
    shape, share = FILES[name]
    assert scan.k_space.shape == (4, *shape) and float(scan.mask.float().mean()) == pytest.approx(share)
    done = prepare(scan, padded_size(scan, 8))
    assert (done.maps.abs().sum(0) > 0).float().mean() > 0.4  # the object covers 39 % of the image
    assert done.residual < 0.02
    scale = done.scan.provenance["scale"]
    assert done.noise_std / scale == pytest.approx(NOISE, rel=0.15)


def test_the_same_array_in_any_file_is_the_same_scan(cases):
    for one, other in (("full.npy", "v73.mat"), ("plain.mat", "string_beside_kdata.mat")):
        (first,), (second,) = import_scans([cases / one]), import_scans([cases / other])
        assert torch.equal(first.k_space, second.k_space) and torch.equal(first.mask, second.mask)


def test_a_shift_along_one_axis_is_refused(cases):
    with pytest.raises(DataError, match="along the axis of the rows k-space has its centre at 0 of 64, expected 32"):
        list(import_scans([cases / "shifted_along_one_axis.npy"]))
