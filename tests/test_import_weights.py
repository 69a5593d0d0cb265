"""`msm import-weights`: published weights, plain or in a checkpoint, as a folder to sample with."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from networks import SETTINGS, busy_weights
from published_layout import published
from runs import PHOTOS, msm, write_config

from msm.denoiser import PartialDenoiser
from msm.masks import BoxMasks, CartesianMasks
from msm.network import ADMNetwork, published_shapes
from msm.network.published import FULL_SIZE
from msm.runs.published_weights import told_by_name

SMALL = {
    **{"image_size": 16, "in_channels": 3, "num_channels": 32, "num_res_blocks": 1, "channel_mult": [1]},
    **{"attention_resolutions": [], "num_head_channels": 32, "num_groups": 32, "patch_size": 1},
}


@pytest.mark.parametrize(
    ("name", "is_mri", "size", "mask", "noise"),
    [
        ("ffhq_uncond_p00_noise0_0_img128.pt", False, 128, {"kind": "box", "drop": 0.0}, 0.0),
        ("ffhq_msm_p04_noise0_0_img128.pt", False, 128, {"kind": "box", "drop": 0.4}, 0.0),
        ("ffhq_msm_p04_noise0_1_img128.safetensors", False, 128, {"kind": "box", "drop": 0.4}, 0.1),
        ("fmri_uncond_R1_noise0_0_img256.pt", True, 256, {"kind": "cartesian", "acceleration": 1, "center": 20}, 0.0),
        ("fmri_msm_R4_noise0_0_img256.pt", True, 256, {"kind": "cartesian", "acceleration": 4, "center": 20}, 0.0),
        ("ema_fmri_msm_R12_noise0_05_img256_final.pt", True, 256, {"kind": "cartesian", "acceleration": 12}, 0.05),
        ("ffhq_msm_p025_noise1_5_img64.pt", False, 64, {"kind": "box", "drop": 0.25}, 1.5),
    ],
)
def test_what_the_name_of_a_published_file_says(name, is_mri, size, mask, noise):
    told = told_by_name(Path("folder") / name)
    assert (told.is_mri, told.image_size, told.noise_std) == (is_mri, size, noise)
    assert told.mask.model_dump().items() >= mask.items()


@pytest.mark.parametrize("name", ["weights.pt", "ffhq_msm_R4_noise0_0_img128.pt", "fmri_msm_R0_noise0_0_img256.pt"])
def test_other_names_say_nothing(name):
    assert told_by_name(Path(name)) is None


def checkpoint(tmp_path, name="weights.pt", settings=SMALL):
    """A checkpoint of weights and their average, with a prefix, an optimiser and a step; returns it and the average."""
    plain = busy_weights(settings)
    average = {f"module.{key}": value + 1 for key, value in plain.items()}
    optimiser = {"state": {0: {"exp_avg": torch.zeros(2)}}, "param_groups": [{"lr": 1e-4}]}
    torch.save({"model": plain, "ema": average, "opt": optimiser, "step": 7}, tmp_path / name)
    return tmp_path / name, plain


def test_import_sample_and_train_on_by_a_config(tmp_path, capsys):
    """The average of a checkpoint is imported; the file itself gives the same samples as the folder."""
    config = write_config(tmp_path, kind="images", channels=3, mask="{kind: box}")
    file, plain = checkpoint(tmp_path)
    assert msm("import-weights", file, tmp_path / "imported", "--config", config) == 0
    said = capsys.readouterr()
    assert said.err == f"msm: note: {file}: took the weights under 'ema.module'; left out: model, opt, step\n"
    count = sum(value.numel() for value in plain.values())
    assert said.out.splitlines() == [
        f"{file}: the network of 16 px, 3 channels, levels [1], 32 channels a head, {count:,} weights",
        f"{file}: by --config, trained on photos of 16 px, masks box, drop 0.4, noise 0",
        f"{tmp_path / 'imported'}: config.json, model.safetensors and denoiser.json, for setting.pretrained_model_dir",
    ]
    denoiser = PartialDenoiser.load(tmp_path / "imported")
    torch.testing.assert_close(denoiser.network.unet.conv_out.weight.data, plain["out.2.weight"] + 1, rtol=0, atol=0)
    assert denoiser.masks.settings == BoxMasks(16, 0.4).settings
    assert denoiser.record == {"scale": "real, in [-1, 1]", "imported": "weights.pt", "data": {"noise_std": 0.0}}
    for weights in ("imported", "weights.pt"):
        where = [f"setting.pretrained_model_dir={tmp_path / weights}", f"setting.save_dir={tmp_path / weights}.run"]
        assert msm("sample", config, *where) == 0
    assert "took the weights under 'ema.module'" in capsys.readouterr().err
    images = [np.load(tmp_path / f"{weights}.run" / "images.npy") for weights in ("imported", "weights.pt")]
    np.testing.assert_array_equal(*images)
    assert msm("train", config, f"setting.pretrained_model_dir={tmp_path / 'imported'}", "train.images=4") == 0


def test_a_config_that_says_otherwise_than_the_name_counts_and_is_told(tmp_path, capsys):
    config = write_config(tmp_path, kind="images", channels=3, mask="{kind: box, drop: 0.2}")
    file, _ = checkpoint(tmp_path, "ffhq_msm_p04_noise0_1_img16.pt")
    assert msm("import-weights", file, tmp_path / "imported", "--config", config) == 0
    told = capsys.readouterr().err
    assert "its name says photos of 16 px, masks box, drop 0.4, noise 0.1; the config says" in told
    assert PartialDenoiser.load(tmp_path / "imported").masks.settings == BoxMasks(16, 0.2).settings
    assert msm("sample", config, f"setting.pretrained_model_dir={file}") == 0
    assert "drop 0.2, noise 0, which counts" in capsys.readouterr().err


def thin(size, channels):
    """Published tensors of a full size that take no room: every value is the same zero."""
    settings = {**FULL_SIZE[size], "in_channels": channels}
    return {name: torch.zeros(1).expand(shape) for name, shape in published_shapes(**settings).items()}


def without_weights(monkeypatch):
    """Save what the network is, not its half gigabyte of zeros."""
    monkeypatch.setattr(ADMNetwork, "filled", lambda network, tensors: network)
    monkeypatch.setattr(ADMNetwork, "write", lambda network, folder: None)


@pytest.mark.parametrize(
    ("size", "channels", "name", "law", "words"),
    [
        (
            128,
            3,
            "ffhq_msm_p04_noise0_1_img128",
            BoxMasks(128, 0.4),
            "photos of 128 px, masks box, drop 0.4, noise 0.1",
        ),
        (
            256,
            2,
            "fmri_msm_R4_noise0_0_img256",
            CartesianMasks(256, 4),
            "MRI of 256 px, masks cartesian, acceleration 4",
        ),
        (128, 3, "weights", None, "neither tensors nor name say which masks"),
    ],
)
def test_full_sizes_need_no_config(tmp_path, monkeypatch, capsys, size, channels, name, law, words):
    """Everything but the half gigabyte of weights; with these: tests/test_full_size.py."""
    without_weights(monkeypatch)
    torch.save(thin(size, channels), tmp_path / f"{name}.pt")
    assert msm("import-weights", tmp_path / f"{name}.pt", tmp_path / "out") == 0
    said = capsys.readouterr().out
    assert f"the network of {size} px, {channels} channels, levels [1, 1, 2, " in said and words in said
    monkeypatch.setattr(ADMNetwork, "load", lambda folder: ADMNetwork(**SETTINGS))
    found = PartialDenoiser.load(tmp_path / "out").masks
    assert (found and found.settings) == (law and law.settings)


def test_a_name_that_the_tensors_contradict_is_refused(tmp_path, monkeypatch, capsys):
    without_weights(monkeypatch)
    torch.save(thin(128, 3), tmp_path / "fmri_msm_R4_noise0_0_img256.pt")
    assert msm("import-weights", tmp_path / "fmri_msm_R4_noise0_0_img256.pt", tmp_path / "out") == 2
    assert "its tensors are of 128 px and 3 channels; give it the name it had, or --config" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_another_network_needs_a_config(tmp_path, capsys):
    torch.save(busy_weights(SETTINGS), tmp_path / "weights.pt")
    assert msm("import-weights", tmp_path / "weights.pt", tmp_path / "out") == 2
    told = capsys.readouterr().err
    assert "tensors do not fit" in told and "(taken for the published one of" in told
    assert "; give --config, whose network block it fits" in told and not (tmp_path / "out").exists()


def test_their_files_from_first_to_last(tmp_path, monkeypatch):
    """Each step of the page on migration with their YAML and their .pt as they lie there, on a small network.

    At full size: tests/test_full_size.py.
    """
    monkeypatch.chdir(tmp_path)
    write_config(tmp_path, **PHOTOS)
    Path("data").symlink_to("photos")
    Path("pretrained_models").mkdir()
    torch.save(busy_weights(SMALL), "pretrained_models/ffhq_msm_p04_noise0_0_img128.pt")
    network = f"network={json.dumps(SMALL)}"
    few = [network, "data.image_size=16", "sample.steps=2", "sample.count=1"]
    runs = {
        "train/ffhq_msm_p04_noise0_0_img128": ["train.images=2"],
        "generation/ffhq_msm_p04_noise0_0_img128": [],
        "inverseproblem/ffhq_BOX_msm_p04_img128_EPS": ["inverse_problem.hole=8"],
        "inverseproblem/ffhq_SR4_msm_p04_img128_EPS": [],
    }
    for name, more in runs.items():
        Path("theirs.yaml").write_text(published(name))
        command, folder = "train" if name.startswith("train/") else "sample", Path(name)
        assert msm(command, "theirs.yaml", *few, *more, f"setting.save_dir={folder}") == 0
        assert (folder / ("weights" if command == "train" else "images.npy")).exists()
    trained = "setting.pretrained_model_dir=train/ffhq_msm_p04_noise0_0_img128"
    assert msm("sample", "theirs.yaml", *few, trained, "setting.save_dir=ours") == 0
    assert msm("evaluate", "ours") == 0 and "published" in Path("ours/records.jsonl").read_text()
