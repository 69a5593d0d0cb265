"""What a user can mend is one line and exit code 2; everything else is a bug and shows its traceback."""

import errno
import pickle
import sys

import numpy as np
import pytest
import torch
from PIL import Image
from runs import PHOTOS, SLICES, run, unlist, write_config

from msm.cli import main
from msm.config.build import make_masks
from msm.config.load import load_config
from msm.config.measured import CartesianMaskConfig, VariableDensityMaskConfig
from msm.data.store import StoreWriter
from msm.errors import ConfigError, DataError, MissingPackage, MsmError, TrainingError, optional
from msm.runs.weights import new_denoiser


@pytest.mark.parametrize("kind", [MsmError, DataError, ConfigError, TrainingError, MissingPackage])
def test_messages_are_one_printable_line(kind):
    error = kind("a.png:\n  not\x1b[2J\u202e an\timage")
    assert str(error) == "a.png: not\\x1b[2J\\u202e an image" and isinstance(error, MsmError)
    again = pickle.loads(pickle.dumps(error))  # as worker processes hand it over
    assert type(again) is kind and str(again) == str(error)


def test_a_missing_package_names_the_extra(monkeypatch):
    assert optional("numpy.linalg", "algebra", "mri") is np.linalg
    monkeypatch.setitem(sys.modules, "torch_fidelity", None)
    with pytest.raises(MissingPackage, match=r"^FID needs torch-fidelity: pip install 'msm-diffusion\[perceptual\]'$"):
        optional("torch_fidelity.feature_extractor_inceptionv3", "FID", "perceptual")


def test_a_missing_package_is_one_line(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "sigpy.mri", None)
    config = write_config(tmp_path, **SLICES)
    assert run(monkeypatch, "acquire", config, "-o", f"{tmp_path}/store.h5") == 2
    assert capsys.readouterr().err == (
        "msm: simulating coils needs sigpy: pip install 'msm-diffusion[mri]' (--debug shows where)\n"
    )


def fails(monkeypatch, error):
    """Have every command end in an error of this kind."""

    def training_config(*_):
        raise error

    monkeypatch.setattr("msm.runs.settings.training_config", training_config)
    monkeypatch.setattr(sys, "argv", ["msm", "train", "config.yaml"])


USERS = [
    DataError("a.png: black"),
    ConfigError("train.lr: 0"),
    OSError(errno.ENOENT, "No such file or directory", "a.png"),
    OSError(errno.ENOSPC, "No space left on device"),
    OSError(errno.EROFS, "Read-only file system"),
]
BUGS = [ValueError("too few values to unpack"), ImportError("no name x"), OSError("?"), OSError(errno.EBADF, "bad")]


@pytest.mark.parametrize("error", USERS, ids=str)
def test_mistakes_of_a_user(monkeypatch, capsys, error):
    fails(monkeypatch, error)
    with pytest.raises(SystemExit) as stop:
        main()
    assert stop.value.code == 2
    assert capsys.readouterr().err == f"msm: {error} (--debug shows where)\n"


@pytest.mark.parametrize("error", BUGS, ids=str)
def test_bugs_show_their_traceback(monkeypatch, error):
    fails(monkeypatch, error)
    with pytest.raises(type(error)) as caught:
        main()
    assert caught.value is error


WEIGHTS = "setting.pretrained_model_dir={root}/w"
BOX = "inverse_problem={{operator: box, hole: 8}}"
MISTAKES = {  # what a user may do, by command: where the line leads
    "blur": (
        ["sample", WEIGHTS, "inverse_problem={{operator: gaussian_blur, blur_sigma: 90}}"],
        "blur_sigma: sigma must",
    ),
    "line": (
        ["sample", WEIGHTS, "inverse_problem={{operator: motion_blur, blur_length: 90, blur_angle: 0}}"],
        "inverse_problem.blur_length and blur_angle: length must",
    ),
    "kept": (["sample", WEIGHTS, "inverse_problem={{operator: random, keep: 1.0e-9}}"], "inverse_problem.keep: kept"),
    "density": (["train", "data.mask={{kind: variable_density, acceleration: 1.0e+9, center: 4}}"], "data.mask: accel"),
    "batch": (["train", "train.batch_size=3", "train.accumulate=2"], "train.accumulate: found 2"),
    "weights": (["sample", "setting.pretrained_model_dir={root}/nowhere"], "nowhere: no such file or folder"),
    "record": (
        ["sample", "setting.pretrained_model_dir={root}/damaged"],
        "denoiser.json: not the record of a denoiser",
    ),
    "network": (["sample", "setting.pretrained_model_dir={root}/half"], "model.safetensors: no such file"),
    "run": (["evaluate", "{root}"], "no run folder, "),
}


@pytest.mark.parametrize(("arguments", "told"), MISTAKES.values(), ids=MISTAKES)
def test_settings_and_files(tmp_path, monkeypatch, capsys, arguments, told):
    config = write_config(tmp_path, **PHOTOS)
    for name in ("w", "damaged", "half"):
        new_denoiser(load_config(config)).save(tmp_path / name)
    (tmp_path / "damaged" / "denoiser.json").write_text("{")
    unlist(tmp_path / "damaged")
    (tmp_path / "half" / "model.safetensors").unlink()
    command, *rest = (argument.format(root=tmp_path) for argument in arguments)
    given = rest if command == "evaluate" else [config, *rest, f"setting.save_dir={tmp_path}/out"]
    assert run(monkeypatch, command, *given) == 2
    said = capsys.readouterr().err
    assert said.startswith("msm: ") and said.count("\n") == 1 and told in said


def test_a_black_image_cannot_be_judged(tmp_path, monkeypatch, capsys):
    config = write_config(tmp_path, **PHOTOS)
    new_denoiser(load_config(config)).save(tmp_path / "w")
    Image.fromarray(np.zeros((20, 20, 3), dtype=np.uint8)).save(tmp_path / "photos" / "0.png")
    given = [WEIGHTS.format(root=tmp_path), BOX.format(), f"setting.save_dir={tmp_path}/out"]
    assert run(monkeypatch, "sample", config, *given) == 2
    assert "image 0: the truth is constant" in capsys.readouterr().err


def test_a_store_that_the_network_cannot_halve(tmp_path, monkeypatch, capsys):
    config = write_config(tmp_path, kind="raw", channels=2, mask="{kind: cartesian, center: 4}")
    with StoreWriter(tmp_path / "raw.h5", {}) as store:
        ones = torch.ones(1, 18, 18, dtype=torch.complex64)
        store.add("a:0", ones, torch.ones(1, 18, 18, dtype=torch.bool), ones, 0.1)
    given = ["network.channel_mult=[1, 1, 1]", f"setting.dataset_dir={tmp_path}/raw.h5"]
    assert run(monkeypatch, "train", config, *given) == 2
    assert "raw.h5: holds items of 18×18, the levels of network.channel_mult need multiples of 4" in (
        capsys.readouterr().err
    )


@pytest.mark.parametrize("mask", [VariableDensityMaskConfig(acceleration=1e9), CartesianMaskConfig(center=20)])
def test_masks_name_their_field(mask):
    with pytest.raises(ConfigError, match=r"^inverse_problem\.mask: "):
        make_masks(mask, 16, "inverse_problem.mask")
