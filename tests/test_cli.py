"""The command line, end to end on made-up data, and its errors: one line, exit code 2."""

import csv
import json
import shutil
import subprocess
import sys

import h5py
import numpy as np
import pytest
import torch
from runs import PHOTOS, PROBLEMS, SLICES, run, save_weights, write_config

from msm.config.load import load_config
from msm.config.schema import DataConfig
from msm.data.store import MeasurementStore, StoreWriter
from msm.masks import CartesianMasks, VariableDensityMasks
from msm.output.run_folder import STORE, file_names
from msm.runs.inputs import check_masks
from msm.runs.weights import new_denoiser
from msm.system.processes import usable


def test_weights_of_sense_are_used_with_the_prior_they_were_trained_with(tmp_path, monkeypatch, capfd):
    pytest.importorskip("sigpy")
    config = write_config(tmp_path, **SLICES)
    prior = ["diffusion={parametrisation: sense, phase_width: 4}"]
    assert run(monkeypatch, "train", config, *prior) == 0
    sample = ["sample", config, *prior, f"setting.pretrained_model_dir={tmp_path}/run/weights"]
    sample += [f"inverse_problem={PROBLEMS['slices']}", f"setting.save_dir={tmp_path}/sampled"]
    assert run(monkeypatch, *sample) == 0
    assert run(monkeypatch, *sample, "diffusion.phase_residual=0.3") == 2
    assert "trained with diffusion.phase_residual = 0.02, the config says 0.3" in capfd.readouterr().err


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
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX512")  # what half precision needs
    usable.cache_clear()
    low = [f"setting.save_dir={tmp_path}/low", "sample.mixed_precision=bf16"]
    assert run(monkeypatch, "sample", config, weights, problem, *low) == 0
    assert not np.array_equal(np.load(tmp_path / "low" / "images.npy"), np.load(tmp_path / "inv" / "images.npy"))
    usable.cache_clear()
    rows = list(csv.DictReader((tmp_path / "inv" / "metrics.csv").read_text().splitlines()))
    assert {(row["method"], row["convention"]) for row in rows} == {
        (method, convention) for method in ("input", "msm") for convention in ("plain", "published")
    }
    assert len(rows) == 8 and all(np.isfinite(float(row["psnr"])) for row in rows)


def test_training_and_sampling_do_not_share_a_folder(tmp_path, monkeypatch, capsys):
    config = write_config(tmp_path, **PHOTOS)
    assert run(monkeypatch, "train", config) == 0
    before = (tmp_path / "run" / "config.yaml").read_bytes()
    weights, gen = f"setting.pretrained_model_dir={tmp_path}/run/weights", f"setting.save_dir={tmp_path}/gen"
    assert run(monkeypatch, "sample", config, weights) == 2
    assert "run holds another kind of run (checkpoints); choose another folder" in capsys.readouterr().err
    assert (tmp_path / "run" / "config.yaml").read_bytes() == before
    assert run(monkeypatch, "sample", config, weights, gen) == 0
    assert run(monkeypatch, "train", config, gen) == 2
    assert "gen holds another kind of run (images.npy)" in capsys.readouterr().err


def test_new_samples_replace_those_of_another_kind_if_forced(tmp_path, monkeypatch, capsys):
    config = write_config(tmp_path, **PHOTOS)
    save_weights(tmp_path / "w")
    where = [f"setting.pretrained_model_dir={tmp_path}/w", f"setting.save_dir={tmp_path}/out"]
    assert run(monkeypatch, "sample", config, *where, "inverse_problem={operator: box, hole: 8}") == 0
    assert run(monkeypatch, "sample", config, *where) == 2
    assert "holds samples of other settings, weights or data" in capsys.readouterr().err
    assert run(monkeypatch, "sample", config, *where, "--force") == 0
    left = {path.name for path in (tmp_path / "out").rglob("*") if path.is_file()}
    of_run = {"config.yaml", "resolved.yaml", "versions.json", "SHA256SUMS"}
    assert left == {"sample_00000.png", "sample_00001.png", "grid.png", "images.npy", *of_run}


@pytest.mark.parametrize("command", ["train", "sample"])
def test_a_folder_that_cannot_be_written_to_is_found_before_the_work(tmp_path, monkeypatch, capsys, command):
    config = write_config(tmp_path, **PHOTOS)
    (tmp_path / "file").touch()
    assert run(monkeypatch, command, config, f"setting.save_dir={tmp_path}/file/run") == 2
    error = capsys.readouterr().err
    assert "setting.save_dir: " in error and "Not a directory); choose another folder" in error


def test_test_images_that_were_trained_on_are_named(tmp_path, monkeypatch, capsys):
    config = write_config(tmp_path, **PHOTOS)
    assert run(monkeypatch, "train", config) == 0
    where = [f"setting.pretrained_model_dir={tmp_path}/run/weights", f"setting.save_dir={tmp_path}/out"]
    assert run(monkeypatch, "sample", config, *where, "inverse_problem={operator: box, hole: 8}") == 0
    assert "warning: 2 of 2 images are not held out, the model was trained on them" in capsys.readouterr().err


@pytest.mark.parametrize("change", ["another photo", "another parametrisation"])
def test_a_run_goes_on_with_what_it_began_with_only(tmp_path, monkeypatch, capsys, change):
    config = write_config(tmp_path, **PHOTOS)
    assert run(monkeypatch, "train", config) == 0
    before = {path: path.read_bytes() for path in (tmp_path / "run").rglob("*") if path.is_file()}
    if change == "another photo":
        shutil.copy(tmp_path / "photos" / "0.png", tmp_path / "photos" / "new.png")
        assert run(monkeypatch, "train", config, "train.images=16") == 2
        assert "measurements.h5: its 5 items are not the 6 of" in capsys.readouterr().err
    else:
        assert run(monkeypatch, "train", config, "train.images=16", "diffusion.parametrisation=edm") == 2
        assert "holds a run with diffusion.parametrisation = epsilon, the config says edm" in capsys.readouterr().err
    assert before == {path: path.read_bytes() for path in (tmp_path / "run").rglob("*") if path.is_file()}


def test_a_store_of_other_masks_is_refused(tmp_path, monkeypatch, capsys):
    config, store = write_config(tmp_path, **PHOTOS), f"{tmp_path}/store.h5"
    assert run(monkeypatch, "acquire", config, "-o", store) == 0
    assert run(monkeypatch, "train", config, f"setting.dataset_dir={store}", "data.mask.drop=0.2") == 2
    assert "store.h5: was measured with data.mask {" in capsys.readouterr().err


def test_files_of_items_have_names_of_their_own():
    assert file_names(["b/a.png", "scan.2021:0", "scan.2021:1"]) == ["b_a", "scan.2021_0", "scan.2021_1"]
    assert file_names(["a.png", "a.jpg", "b/a.png", "b_a.png"]) == ["a_0", "a_1", "b_a_2", "b_a_3"]


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("setting.dataset_dir=/does/not/exist", "/does/not/exist"),
        ("train.batchsize=3", "did you mean"),
        ("setting.dataset_dir=/does/not/exist.h5", "no such file"),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_2(tmp_path, monkeypatch, capsys, override, expected):
    config = write_config(tmp_path, **PHOTOS)
    assert run(monkeypatch, "train", config, override) == 2
    error = capsys.readouterr().err
    assert expected in error and error.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ("train", "msm: Missing argument 'CONFIG' (msm train --help"),
        ("train cfg --train.lr=1", "msm: No such option: --train.lr; write train.lr=… without -- (msm train --help"),
        ("acquire a.npy -o s.h5 --siz 8 8", "msm: No such option: --siz (Possible options: --size"),
        ("acquire a.npy -o s.h5 --coils 0", "msm: Invalid value for '--coils': "),
        ("acquire a.npy -o s.h5 --size 8", "msm: Option '--size' requires 2 arguments (msm"),
        ("trian", "msm: No such command 'trian'"),
    ],
)
def test_wrong_usage_is_one_line_and_exit_code_2(monkeypatch, capsys, arguments, expected):
    assert run(monkeypatch, *arguments.split()) == 2
    output = capsys.readouterr()
    assert output.err.startswith(expected) and output.err.count("\n") == 1 and not output.out, output.err


@pytest.mark.parametrize("arguments", [(), ("--help",), ("train", "--help")])
def test_help_is_no_error(monkeypatch, capsys, arguments):
    assert run(monkeypatch, *arguments) == 0
    output = capsys.readouterr()
    assert "Usage: msm" in output.out and not output.err


def test_measurements_of_another_data_block_are_refused(tmp_path, monkeypatch, capsys):
    config = write_config(tmp_path, **PHOTOS)
    assert run(monkeypatch, "train", config) == 0
    assert run(monkeypatch, "train", config, "data.mask.drop=0.2") == 2
    assert "another `data` block" in capsys.readouterr().err


def test_measurements_of_a_version_with_fewer_settings_serve_on(tmp_path, monkeypatch):
    config, store = write_config(tmp_path, **PHOTOS), tmp_path / "run" / STORE
    assert run(monkeypatch, "acquire", config, "-o", store) == 0
    with h5py.File(store, "r+") as file:
        provenance = json.loads(file.attrs["provenance"])
        del provenance["data"]["demo"]
        file.attrs["provenance"] = json.dumps(provenance)
        del file.attrs["sha256"]  # nor had that version
    assert run(monkeypatch, "train", config) == 0


def test_a_noisy_store_trains_by_the_noisy_loss(tmp_path, monkeypatch):
    config, store = write_config(tmp_path, **PHOTOS), f"{tmp_path}/store.h5"
    assert run(monkeypatch, "acquire", config, "-o", store, "data.noise_std=0.1") == 0
    assert run(monkeypatch, "train", config, f"setting.dataset_dir={store}") == 0
    assert (tmp_path / "run" / "weights" / "model.safetensors").exists()


def test_unknown_noise_is_estimated_and_recorded(tmp_path, monkeypatch, capsys):
    config, store = write_config(tmp_path, **PHOTOS), f"setting.dataset_dir={tmp_path}/store.h5"
    boxes = "data.mask={kind: box, drop: 0}"
    assert run(monkeypatch, "acquire", config, "-o", f"{tmp_path}/store.h5", "data.noise_std=0.1", boxes) == 0
    assert run(monkeypatch, "train", config, store, boxes, "train.noise_std=auto") == 0
    lines = (tmp_path / "run" / "noise.jsonl").read_text().splitlines()
    assert len(lines) == 5 and {"name", "noise_std", "standard_error"} <= json.loads(lines[0]).keys()
    capsys.readouterr()
    assert run(monkeypatch, "train", config, "train.noise_std=auto", f"setting.save_dir={tmp_path}/b") == 2
    assert "set train.noise_std to a number" in capsys.readouterr().err


def test_the_chain_warns_of_weights_that_never_saw_sparse_masks(tmp_path, monkeypatch, capsys):
    config, sampled = write_config(tmp_path, **PHOTOS), ("sample.score=chain", "sample.count=1", "sample.steps=2")
    weights = f"setting.pretrained_model_dir={tmp_path / 'run' / 'weights'}"
    assert run(monkeypatch, "train", config) == 0
    assert run(monkeypatch, "sample", config, weights, *sampled, f"setting.save_dir={tmp_path / 'a'}") == 0
    error = capsys.readouterr().err
    assert "weights: no record of training on sub-masks" in error
    assert run(monkeypatch, "train", config, "train.submask_share=0.5", f"setting.save_dir={tmp_path / 'b'}") == 0
    weights = f"setting.pretrained_model_dir={tmp_path / 'b' / 'weights'}"
    assert run(monkeypatch, "sample", config, weights, *sampled, f"setting.save_dir={tmp_path / 'c'}") == 0
    assert "sub-masks" not in capsys.readouterr().err


def test_weights_of_another_network_are_refused(tmp_path, monkeypatch, capsys):
    config = write_config(tmp_path, **PHOTOS)
    assert run(monkeypatch, "train", config) == 0
    weights = f"setting.pretrained_model_dir={tmp_path}/run/weights"
    assert (
        run(monkeypatch, "sample", config, weights, f"setting.save_dir={tmp_path}/out", "network.num_res_blocks=2") == 2
    )
    assert "num_res_blocks = 1" in capsys.readouterr().err


def test_help_imports_nothing_heavy():
    code = "import sys, msm.cli; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize(
    ("family", "warned"),
    [(CartesianMasks(32, 4, 4), False), (CartesianMasks(32, 1.5, 4), True), (VariableDensityMasks(32, 3, 8), True)],
    ids=["the config's", "denser", "points"],
)
def test_raw_masks_unlike_those_of_the_config_are_warned_of(tmp_path, capsys, family, warned):
    masks = family.sample(16, torch.Generator().manual_seed(0))
    with StoreWriter(tmp_path / "raw.h5", {"source": "raw"}) as writer:
        for n, mask in enumerate(masks):
            values = torch.ones(2, 32, 32, dtype=torch.complex64) * mask
            writer.add(f"{n}", values, mask, values, 0.0)
    data = DataConfig(kind="raw", image_size=32, mask={"kind": "cartesian", "acceleration": 4, "center": 4})
    check_masks(data, MeasurementStore(tmp_path / "raw.h5"))
    said = capsys.readouterr().err
    assert ("raw.h5: its masks keep" in said and "set data.mask to what was measured" in said) == warned


def test_sampling_leaves_the_generator_of_torch_alone(tmp_path, monkeypatch):
    """Sampling and reconstruction; nor does training draw from it, whose weights are seeded apart."""
    config = write_config(tmp_path, **PHOTOS)
    new_denoiser(load_config(config)).save(tmp_path / "w")
    torch.manual_seed(1234)
    state = torch.get_rng_state()
    weights = f"setting.pretrained_model_dir={tmp_path}/w"
    for problem in ("null", PROBLEMS["images"]):
        given = [config, weights, f"inverse_problem={problem}", f"setting.save_dir={tmp_path}/{problem[:4]}"]
        assert run(monkeypatch, "sample", *given) == 0
        assert torch.equal(torch.get_rng_state(), state)
    new_denoiser(load_config(config))
    assert torch.equal(torch.get_rng_state(), state)
