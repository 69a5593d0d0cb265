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
from runs import PHOTOS, PROBLEMS, SLICES, run, write_config
from stores import edit

from msm.config.load import load_config
from msm.config.schema import DataConfig
from msm.data.acquire import Source, acquire
from msm.data.store import MeasurementStore, StoreWriter
from msm.masks import BoxMasks, CartesianMasks, VariableDensityMasks
from msm.network import ADMNetwork
from msm.output.run_folder import file_names
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


def test_new_samples_replace_those_of_another_kind(tmp_path, monkeypatch):
    config = write_config(tmp_path, **PHOTOS)
    ADMNetwork(16, 3, 32, 1, [1], [], 32).save(tmp_path / "w")
    where = [f"setting.pretrained_model_dir={tmp_path}/w", f"setting.save_dir={tmp_path}/out"]
    assert run(monkeypatch, "sample", config, *where, "inverse_problem={operator: box, hole: 8}") == 0
    assert run(monkeypatch, "sample", config, *where) == 0
    left = {path.name for path in (tmp_path / "out").rglob("*") if path.is_file()}
    assert left == {"sample_00000.png", "sample_00001.png", "grid.png", "images.npy", "config.yaml", "versions.json"}


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
        ("train", "msm: Missing argument 'config_file' (msm train --help"),
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
    assert "weights: no record of training on sub-masks" in error and error.count("\n") == 1
    assert run(monkeypatch, "train", config, "train.submask_share=0.5", f"setting.save_dir={tmp_path / 'b'}") == 0
    weights = f"setting.pretrained_model_dir={tmp_path / 'b' / 'weights'}"
    assert run(monkeypatch, "sample", config, weights, *sampled, f"setting.save_dir={tmp_path / 'c'}") == 0
    assert not capsys.readouterr().err


def test_weights_of_another_network_are_refused(tmp_path, monkeypatch, capsys):
    config = write_config(tmp_path, **PHOTOS)
    assert run(monkeypatch, "train", config) == 0
    weights = f"setting.pretrained_model_dir={tmp_path}/run/weights"
    assert (
        run(monkeypatch, "sample", config, weights, f"setting.save_dir={tmp_path}/out", "network.num_res_blocks=2") == 2
    )
    assert "num_res_blocks = 1" in capsys.readouterr().err


# Bad input: one line, and nothing written


def write_store(root, kind):
    """A store of five acquisitions that goes with the config."""
    masks = BoxMasks(16) if kind == "images" else CartesianMasks(16, 4, 4)
    generator, maps = torch.Generator().manual_seed(0), None
    with StoreWriter(root / "store.h5", {}) as writer:
        for i in range(5):
            image = torch.rand(3 if kind == "images" else 1, 16, 16, generator=generator)
            if kind == "slices":
                image, maps = image.to(torch.complex64), torch.full((2, 16, 16), 0.5**0.5, dtype=torch.complex64)
            m = acquire(Source(f"item{i}", image, maps), masks, 0.0, seed=0)
            writer.add(f"item{i}", m.values[0], m.mask[0], maps, 0.0)
    return root / "store.h5"


def with_nan(values):
    values[3, 0] = np.nan  # of the whole first channel, so some of it was measured
    return values


def damage(path):
    """Overwrite some bytes of the values of item 2."""
    with h5py.File(path) as file:
        at = file["values"].id.get_chunk_info(2).byte_offset
    content = bytearray(path.read_bytes())
    content[at + 100 : at + 110] = b"x" * 10
    path.write_bytes(content)


def save_network(folder, levels):
    ADMNetwork(16, 3, 32, 1, [1] * levels, [], 32).save(folder)
    return folder


def spoil_store(what):
    def prepare(root, monkeypatch):
        kind = "slices" if "maps" in what else "images"
        store = write_store(root, kind)
        if what == "truncated":
            store.write_bytes(store.read_bytes()[:-5000])
        elif what == "damaged":
            damage(store)
        elif what == "no mask":
            edit(store, "mask", lambda mask: mask * np.array([1, 1, 0, 1, 1], bool)[:, None, None, None])
        elif what == "nan":
            edit(store, "values", with_nan)
        elif what == "maps of another size":
            edit(store, "maps", lambda maps: maps[..., :8])
        choices = SLICES if kind == "slices" else PHOTOS
        return ["train", write_config(root, **choices), f"setting.dataset_dir={store}"]

    return prepare


def spoil_config(command, *overrides):
    return lambda root, monkeypatch: [command, write_config(root, **PHOTOS), *(o.format(root=root) for o in overrides)]


def other_weights(command, damaged=False):
    def prepare(root, monkeypatch):
        folder = save_network(root / "weights", 1 if damaged else 2)
        if damaged:
            file = folder / "model.safetensors"
            file.write_bytes(file.read_bytes()[:-100])
        return [command, write_config(root, **PHOTOS), f"setting.pretrained_model_dir={folder}"]

    return prepare


def other_checkpoint(root, monkeypatch):
    config = write_config(root, **PHOTOS)
    assert run(monkeypatch, "train", config) == 0
    return ["train", config, "network.channel_mult=[1, 1]", "train.images=16"]


def run_for_weights(root, monkeypatch):
    config = write_config(root, **PHOTOS)
    ADMNetwork(16, 3, 32, 1, [1], [], 32).save(root / "run" / "weights")
    out = f"setting.save_dir={root}/out"
    return ["sample", config, out, f"setting.pretrained_model_dir={root}/run"]


def small_config(root, monkeypatch):
    store = write_store(root, "images")
    return [
        "train",
        write_config(root, **PHOTOS),
        f"setting.dataset_dir={store}",
        "data.image_size=32",
        "network.image_size=32",
    ]


BAD = {  # what to do, then what the line must say: the file or field, what was found, what to do
    "truncated store": (spoil_store("truncated"), "store.h5", "cut off", "make it again"),
    "damaged store": (spoil_store("damaged"), "store.h5", "damaged", "make the file again"),
    "mask of zeros": (spoil_store("no mask"), "store.h5", "item 2 (item2)", "mask of zeros", "acquire it again"),
    "NaN in values": (spoil_store("nan"), "store.h5", "item 3 (item3)", "not finite", "acquire it again"),
    "maps of another size": (
        spoil_store("maps of another size"),
        "store.h5",
        "maps has shape (5, 2, 16, 8)",
        "write values, mask and maps",
    ),
    "another image size": (small_config, "store.h5", "(3, 16, 16)", "32 px", "use the config it was made with"),
    "unknown key": (
        spoil_config("train", "train.batchsize=3"),
        "config.yaml",
        "batchsize",
        "did you mean",
        "batch_size",
    ),
    "weights of another network": (other_weights("sample"), "weights", "channel_mult = [1, 1]", "use the config"),
    "start from another network": (other_weights("train"), "weights", "channel_mult = [1, 1]", "use the config"),
    "damaged weights": (other_weights("sample", damaged=True), "model.safetensors", "damaged", "copy or make it again"),
    "checkpoint of another network": (
        other_checkpoint,
        "checkpoints",
        "other settings",
        "use another setting.save_dir",
    ),
    "missing photos, acquire": (
        spoil_config("acquire", "-o", "{root}/out/s.h5", "--truth", "{root}/out/t.h5", "setting.dataset_dir={root}/no"),
        "/no: no such folder",
        "set setting.dataset_dir",
    ),
    "missing photos, train": (
        spoil_config("train", "setting.dataset_dir={root}/no"),
        "/no: no such folder",
        "set setting.dataset_dir",
    ),
    "missing store": (spoil_config("train", "setting.dataset_dir={root}/no.h5"), "no.h5: no such file", "msm acquire"),
    "missing weights": (
        spoil_config("sample", "setting.pretrained_model_dir={root}/no"),
        "/no: no such file or folder",
        "set setting.pretrained_model_dir",
    ),
    "a run for weights": (
        run_for_weights,
        "run: holds a run, not weights",
        "set setting.pretrained_model_dir to",
        "run/weights",
    ),
    "missing test images": (
        lambda root, _: [
            "sample",
            write_config(root, **PHOTOS),
            f"setting.pretrained_model_dir={save_network(root / 'w', 1)}",
            "inverse_problem={operator: box, hole: 8}",
            f"setting.dataset_dir={root}/no",
        ],
        "/no: no such folder",
        "set setting.dataset_dir",
    ),
    "missing config": (lambda root, _: ["train", f"{root}/no.yaml"], "no.yaml"),
}


@pytest.mark.parametrize("what", list(BAD))
def test_bad_input_is_one_line_and_nothing_is_written(tmp_path, monkeypatch, capfd, what):
    prepare, *expected = BAD[what]
    arguments = prepare(tmp_path, monkeypatch)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    capfd.readouterr()
    assert run(monkeypatch, *arguments) == 2
    error = capfd.readouterr().err
    assert error.startswith("msm: ") and error.count("\n") == 1 and "Traceback" not in error
    assert all(words in error for words in expected), error
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


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
        given = [config, weights, f"inverse_problem={problem}", f"setting.save_dir={tmp_path}/out"]
        assert run(monkeypatch, "sample", *given) == 0
        assert torch.equal(torch.get_rng_state(), state)
    new_denoiser(load_config(config))
    assert torch.equal(torch.get_rng_state(), state)
