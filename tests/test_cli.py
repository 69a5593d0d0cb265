"""The command line, end to end on made-up data, and its errors: one line, exit code 2."""

import csv
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from msm.cli import main

CONFIG = """
setting: {{save_dir: {root}/run, dataset_dir: {root}/photos}}
data: {{kind: {kind}, image_size: 16, held_out: 2, mask: {mask}}}
network: {{image_size: 16, in_channels: {channels}, num_channels: 32, num_res_blocks: 1, channel_mult: [1],
  attention_resolutions: [], num_head_channels: 32}}
train: {{images: 8, batch_size: 4, checkpoint_images: 4}}
sample: {{count: 2, steps: 3, batch_size: 2}}
"""
PHOTOS = {"kind": "images", "channels": 3, "mask": "{kind: box}"}
SLICES = {"kind": "slices", "channels": 2, "mask": "{kind: cartesian, center: 4}"}


def write_config(root, **choices):
    (root / "photos").mkdir(exist_ok=True)
    rng = np.random.default_rng(0)
    for i in range(5):
        Image.fromarray(rng.integers(0, 255, (20, 24, 3), dtype=np.uint8)).save(root / "photos" / f"{i}.png")
    path = root / "config.yaml"
    path.write_text(CONFIG.format(root=root, **choices))
    return str(path)


def run(monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", ["msm", *arguments])
    try:
        main()
    except SystemExit as stop:
        return stop.code or 0
    return 0


PROBLEMS = {
    "images": "{operator: box, hole: 8}",
    "slices": "{operator: undersampling, mask: {kind: cartesian, center: 4}}",
}


@pytest.mark.parametrize("choices", [PHOTOS, SLICES], ids=["images", "slices"])
def test_acquire_train_sample(tmp_path, monkeypatch, choices):
    if choices is SLICES:
        pytest.importorskip("sigpy")
    config, store = write_config(tmp_path, **choices), f"{tmp_path}/store.h5"
    assert run(monkeypatch, "acquire", config, "-o", store) == 0
    assert run(monkeypatch, "train", config, f"setting.dataset_dir={store}") == 0
    made = {path.name for path in (tmp_path / "run").iterdir()}
    assert made >= {"config.yaml", "versions.json", "log.jsonl", "weights", "checkpoints", "images"}
    assert not list((tmp_path / "run").rglob("*tmp*"))
    weights = f"setting.pretrained_model_dir={tmp_path}/run/weights"
    assert run(monkeypatch, "sample", config, weights, f"setting.save_dir={tmp_path}/gen") == 0
    assert np.load(tmp_path / "gen" / "images.npy").shape == (2, 3 if choices is PHOTOS else 1, 16, 16)
    problem = f"inverse_problem={PROBLEMS[choices['kind']]}"
    assert run(monkeypatch, "sample", config, weights, problem, f"setting.save_dir={tmp_path}/inv") == 0
    low = [f"setting.save_dir={tmp_path}/low", "sample.mixed_precision=bf16"]
    assert run(monkeypatch, "sample", config, weights, problem, *low) == 0
    assert not np.array_equal(np.load(tmp_path / "low" / "images.npy"), np.load(tmp_path / "inv" / "images.npy"))
    rows = list(csv.DictReader((tmp_path / "inv" / "metrics.csv").read_text().splitlines()))
    assert {(row["method"], row["convention"]) for row in rows} == {
        (method, convention) for method in ("input", "msm") for convention in ("plain", "published")
    }
    assert len(rows) == 8 and all(np.isfinite(float(row["psnr"])) for row in rows)


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("setting.dataset_dir=/does/not/exist", "/does/not/exist"),
        ("data.noise_std=0.1", "data.noise_std"),
        ("train.remask=true", "train.remask"),
        ("train.batchsize=3", "did you mean"),
        ("setting.dataset_dir=/does/not/exist.h5", "no such file"),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_2(tmp_path, monkeypatch, capsys, override, expected):
    config = write_config(tmp_path, **PHOTOS)
    assert run(monkeypatch, "train", config, override) == 2
    error = capsys.readouterr().err
    assert expected in error and error.count("\n") == 1


def test_measurements_of_another_data_block_are_refused(tmp_path, monkeypatch, capsys):
    config = write_config(tmp_path, **PHOTOS)
    assert run(monkeypatch, "train", config) == 0
    assert run(monkeypatch, "train", config, "data.mask.drop=0.2") == 2
    assert "another `data` block" in capsys.readouterr().err


def test_a_noisy_store_is_refused(tmp_path, monkeypatch, capsys):
    config, store = write_config(tmp_path, **PHOTOS), f"{tmp_path}/store.h5"
    assert run(monkeypatch, "acquire", config, "-o", store, "data.noise_std=0.1") == 0
    assert run(monkeypatch, "train", config, f"setting.dataset_dir={store}") == 2
    assert "noise_std: found 0.1" in capsys.readouterr().err


def test_weights_of_another_network_are_refused(tmp_path, monkeypatch, capsys):
    config = write_config(tmp_path, **PHOTOS)
    assert run(monkeypatch, "train", config) == 0
    weights = f"setting.pretrained_model_dir={tmp_path}/run/weights"
    assert run(monkeypatch, "sample", config, weights, "network.num_res_blocks=2") == 2
    assert "num_res_blocks = 1" in capsys.readouterr().err


def test_help_imports_nothing_heavy():
    code = "import sys, msm.cli; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
