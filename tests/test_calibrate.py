"""The error of weights is measured at the end of training, and by `msm calibrate`; draws are made with it."""

import numpy as np
import pytest
from runs import PHOTOS, PROBLEMS, SLICES, msm, write_config

from msm.denoiser import PartialDenoiser

KINDS = {"images": PHOTOS, "slices": SLICES}


def files(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.fixture(scope="module", params=KINDS)
def trained(request, tmp_path_factory):
    """A config, and the run folder of its training."""
    root = tmp_path_factory.mktemp(request.param)
    config = write_config(root, **KINDS[request.param])
    assert msm("train", config) == 0
    return request.param, config, root / "run"


def test_training_ends_with_the_measured_error(trained, capsys):
    kind, config, run = trained
    measured = PartialDenoiser.load(run / "weights").measured_error
    assert measured.power.shape[1] == (3 if kind == "images" else 1)
    before = files(run / "weights")
    assert msm("train", config) == 0 and files(run / "weights") == before
    assert "measuring the error" not in capsys.readouterr().out  # the run was complete


def test_calibrate_measures_the_same_again(trained, capsys):
    _, config, run = trained
    before = files(run / "weights")
    denoiser = PartialDenoiser.load(run / "weights")
    denoiser.measured_error = None
    denoiser.save_error(run / "weights")
    assert not (run / "weights" / "error.safetensors").exists()
    assert PartialDenoiser.load(run / "weights").measured_error is None
    assert msm("calibrate", config) == 0
    assert files(run / "weights") == before
    assert "error.safetensors" in capsys.readouterr().out


def test_what_was_held_out_is_measured_on(trained, tmp_path, capsys):
    given = [f"setting.save_dir={tmp_path / 'run'}", "train.validation_share=0.4"]
    assert msm("train", trained[1], *given) == 0
    said = capsys.readouterr()
    assert "measured on 2 of 2 measurements that were held out" in said.out and "keeps some out" not in said.out


def test_draws_are_made_with_it_or_warn(trained, tmp_path, capsys):
    kind, config, run = trained
    problem = [f"inverse_problem={PROBLEMS[kind]}", "sample.data_step.kind=draw"]
    given = [f"setting.pretrained_model_dir={run / 'weights'}", f"setting.save_dir={tmp_path / 'samples'}", *problem]
    assert msm("sample", config, *given) == 0
    assert "was not measured" not in capsys.readouterr().err
    denoiser = PartialDenoiser.load(run / "weights")
    denoiser.measured_error = None
    denoiser.save(tmp_path / "bare")
    given[:2] = [f"setting.pretrained_model_dir={tmp_path / 'bare'}", f"setting.save_dir={tmp_path / 'others'}"]
    code, err = msm("sample", config, *given), capsys.readouterr().err
    assert "was not measured" in err and "msm calibrate" in err
    if kind == "images":  # nothing good can be assumed
        assert code == 2 and "data_step.kind=proximal" in err and not (tmp_path / "others").exists()
    else:
        samples = [np.load(tmp_path / name / "samples.npy") for name in ("samples", "others")]
        assert code == 0 and not np.allclose(*samples)


def test_samples_of_another_error_are_not_taken_up(trained):
    denoiser = PartialDenoiser.load(trained[2] / "weights")
    before = denoiser.tensors()
    denoiser.measured_error = None
    assert len(denoiser.tensors()) == len(before) - 3


def test_nothing_to_calibrate_is_one_line(trained, tmp_path, capsys):
    assert msm("calibrate", trained[1], f"setting.save_dir={tmp_path}") == 2
    err = capsys.readouterr().err
    assert "denoiser.json" in err and len(err.splitlines()) == 1
