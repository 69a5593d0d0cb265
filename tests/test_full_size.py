"""The published files at full size by the command line: import, generate, solve, train (made-up weights and data)."""

import csv
import math
import shutil

import numpy as np
import pytest
import torch
from PIL import Image
from prepared_files import write
from published_layout import NAMES, published
from runs import msm

from msm.denoiser import PartialDenoiser
from msm.output.run_folder import CHECKPOINTS

pytestmark = pytest.mark.slow
WEIGHTS = {
    "ffhq": ("adm_keys_ffhq128", "ffhq_msm_p04_noise0_0_img128"),
    "fmri": ("adm_keys_fastmri256", "fmri_msm_R4_noise0_0_img256"),
}


def made_up(shapes):
    """Random weights of a size that keeps signals at order one; norms are the identity."""
    generator = torch.Generator().manual_seed(0)
    weights = {}
    for name, shape in shapes.items():
        if len(shape) > 1:
            weights[name] = torch.randn(shape, generator=generator) / math.sqrt(math.prod(shape[1:]))
        else:
            is_scale = name.endswith("weight")
            weights[name] = torch.full(shape, float(is_scale))
    return weights


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Two photos, and a prepared volume of two slices to keep with the authors' two tables."""
    root = tmp_path_factory.mktemp("data")
    (root / "photos").mkdir()
    ramp = np.linspace(0, 255, 128)
    for n in range(2):
        photo = np.stack([np.roll(np.add.outer(ramp, ramp) / 2, 40 * k + 9 * n, k % 2) for k in range(3)], -1)
        Image.fromarray(photo.astype(np.uint8)).save(root / "photos" / f"{n:05d}.png")
    (root / "prepared").mkdir()
    write(root / "prepared", "file_brain_1", slices=7, height=256, width=256)
    header = "INDEX,FILE,DROP,SLICE_START,SLICE_END,NUM_OF_COIL,Memo\n"
    (root / "prepared" / "DEMO_TABLE.csv").write_text(header + "0,file_brain_1,0,,,16,\n1,file_brain_2,,,,16,\n")
    (root / "prepared" / "TABLE.csv").write_text(header + "0,file_brain_2,0,,,16,\n")
    return root


@pytest.fixture(scope="module", params=["ffhq", "fmri"])
def imported(request, golden, tmp_path_factory):
    """The weights of a published file, imported without a config."""
    root = tmp_path_factory.mktemp("weights")
    keys, name = WEIGHTS[request.param]
    shapes = golden(keys)[1]["state_dict"]
    prefix, weights = ("", made_up(shapes)) if request.param == "ffhq" else ("module.", made_up(shapes))
    content = {f"{prefix}{key}": value for key, value in weights.items()}
    torch.save({"state_dict": content} if prefix else content, root / f"{name}.pt")
    assert msm("import-weights", root / f"{name}.pt", root / "imported") == 0
    (root / f"{name}.pt").unlink()
    yield request.param, root / "imported"
    shutil.rmtree(root)


def write_settings(tmp_path, data, name):
    path = tmp_path / "published.yaml"
    folder = data / ("prepared" if "fmri" in name else "photos")
    text = published(name).replace("dataset_dir: data", f"dataset_dir: {folder}")
    path.write_text(text.replace("save_dir: experiment", f"save_dir: {tmp_path / 'experiment'}"))
    return path


@pytest.mark.parametrize("name", [name for name in NAMES if not name.startswith("train/") and "noise0_1" not in name])
def test_generate_and_solve_by_two_steps(tmp_path, data, imported, name):
    """One image: new, BOX, SR4 or CSMRI4."""
    which, weights = imported
    if which not in name:
        pytest.skip("of the other size")
    settings = [f"setting.pretrained_model_dir={weights}", "sample.steps=2", "sample.count=1"]
    assert msm("sample", write_settings(tmp_path, data, name), *settings) == 0
    folder = tmp_path / "experiment"
    image = np.load(folder / "images.npy")
    size = 128 if which == "ffhq" else 256
    assert image.shape == (1, 3 if which == "ffhq" else 1, size, size) and np.isfinite(image).all() and image.std() > 0
    if name.startswith("inverseproblem/"):
        with (folder / "metrics.csv").open(newline="") as file:
            rows = list(csv.DictReader(file))
        assert rows and all(math.isfinite(float(row["psnr"])) for row in rows)


@pytest.mark.parametrize("name", [name for name in NAMES if name.startswith("train/")])
def test_train_by_one_step(tmp_path, monkeypatch, data, name):
    """With its checkpoint; not what follows for hundreds of network calls: pictures, the error of the weights."""
    monkeypatch.setattr("msm.runs.train.generate", lambda denoiser, shape, **_: torch.zeros(4, *shape))
    monkeypatch.setattr("msm.runs.train.calibrate", lambda *_, **__: None)
    apart = ["train.accumulate=2"] if "fmri" in name and "noise0_1" in name else []  # at once they take over 20 GB
    assert msm("train", write_settings(tmp_path, data, name), "train.images=2", *apart) == 0
    folder = tmp_path / "experiment"
    assert [path.name for path in (folder / CHECKPOINTS).iterdir()] == ["000000001"]
    denoiser = PartialDenoiser.load(folder / "weights")
    assert all(torch.isfinite(weights).all() for weights in denoiser.parameters())
    shutil.rmtree(folder)  # gigabytes
