"""What comes with the package is found by name; a run's folder is config and weights in one."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from runs import PHOTOS, msm, save_weights, write_config

from msm.config.load import load_config
from msm.denoiser import PartialDenoiser
from msm.errors import ConfigError
from msm.system.places import bundled_configs, bundled_models, config_file, is_config, purpose


@pytest.mark.parametrize("name", [*bundled_configs(), *bundled_models()])
def test_what_comes_with_the_package_is_told_by_its_first_line(name, capsys):
    load_config(name)
    assert is_config(Path(name)) and 20 < len(purpose(name)) < 130
    assert msm("configs") == 0
    assert f"\n{name} " in f"\n{capsys.readouterr().out}"
    assert msm("configs", name) == 0
    assert capsys.readouterr().out.startswith(f"# {purpose(name)}\n")


@pytest.mark.parametrize("name", bundled_models())
def test_a_bundled_model_knows_its_weights_and_a_folder_of_its_own(name):
    setting = load_config(name).setting
    assert str(setting.pretrained_model_dir) == name
    assert str(setting.save_dir) == f"runs/{name.replace(':', '_')}"
    assert PartialDenoiser.load(name).masks is not None


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("demo/face", "demo/face: no such file; did you mean demo/faces?"),
        ("configs/demo/brain.yaml", "did you mean demo/brain?"),
        ("mine.yaml", "mine.yaml: no such file; check the path; `msm configs` lists"),
        (
            "bundled:brian",
            "bundled:brian: no such model; there are bundled:brain, bundled:brain_refined, bundled:faces",
        ),
        (".", "is a folder without config.yaml; name a YAML file, or the folder of a run"),
    ],
)
def test_names_of_nothing(tmp_path, monkeypatch, name, told):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError) as raised:
        config_file(Path(name))
    assert told in str(raised.value)


def test_a_file_of_ones_own_goes_before_a_bundled_one(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert config_file(Path("demo/brain")).name == "brain.yaml"
    Path("demo").mkdir()
    Path("demo/brain").touch()
    assert config_file(Path("demo/brain")) == Path("demo/brain")


def test_the_folder_of_a_training_run_is_enough(tmp_path, capsys):
    """To go on, and to sample; also where it was moved to, as what its config says of folders is of before."""
    config, moved = write_config(tmp_path, **PHOTOS), tmp_path / "mo'ved: # to"
    assert msm("train", config) == 0
    (tmp_path / "run").rename(moved)
    assert msm("train", moved, "train.images=16") == 0 and (moved / "checkpoints" / "000000004").is_dir()
    assert msm("sample", moved) == 0
    assert f"setting.pretrained_model_dir={moved}, setting.save_dir={moved}/samples" in capsys.readouterr().err
    weights = f"setting.pretrained_model_dir={moved / 'weights'}"
    assert msm("sample", config, weights, f"setting.save_dir={tmp_path}/same") == 0
    assert np.array_equal(np.load(moved / "samples" / "images.npy"), np.load(tmp_path / "same" / "images.npy"))
    assert msm("sample", moved / "samples") == 0  # a run of samples once more
    run, there = f"setting.pretrained_model_dir='{str(moved).replace(chr(39), chr(39) * 2)}'", tmp_path / "there"
    assert msm("sample", config, run, f"setting.save_dir={there}", "inverse_problem={operator: box, hole: 8}") == 0
    assert "not held out, the model was trained on them" in capsys.readouterr().err  # its store is found too
    shutil.rmtree(moved / "weights")
    assert msm("sample", moved) == 2
    assert "has no weights yet; its first checkpoint writes them" in capsys.readouterr().err


def test_acquire_takes_a_config_by_name(tmp_path, capsys):
    write_config(tmp_path, **PHOTOS)
    assert msm("acquire", "demo/faces", "-o", tmp_path / "s.h5", f"setting.dataset_dir={tmp_path}/photos") == 0
    assert "5 acquisitions" in capsys.readouterr().out


def test_a_network_without_the_record_of_a_denoiser(tmp_path, capsys):
    config = write_config(tmp_path, **PHOTOS)
    (save_weights(tmp_path / "w") / "denoiser.json").unlink()
    assert msm("sample", config, f"setting.pretrained_model_dir={tmp_path}/w", f"setting.save_dir={tmp_path}/o") == 2
    assert "denoiser.json: not the record of a denoiser" in capsys.readouterr().err
