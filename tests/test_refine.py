"""`msm refine`: rounds from measurements alone, stopped and taken up again to the same bits."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time

import h5py
import numpy as np
import pytest
import torch
from PIL import Image
from runs import CONFIG, PHOTOS, SLICES, msm, unlist, write_config

from msm.config.load import load_config
from msm.data.store import MeasurementStore
from msm.denoiser import PartialDenoiser
from msm.evaluate import rounds
from msm.evaluate.rounds import Standing
from msm.masks import BoxMasks, FullMask
from msm.runs import refine
from msm.sample.complete import write_joined
from msm.sampling import Sampler
from msm.train.completed import Completed

SMALL = ["refine.rounds=2", "refine.images=8", "refine.steps=2", "refine.validation_share=0.4", "data.held_out=0"]
KINDS = {"images": PHOTOS, "slices": {**SLICES, "mask": "{kind: cartesian, acceleration: 2, center: 2}"}}


def weights(folder):
    return {path.name: path.read_bytes() for path in (folder / "weights").iterdir()}


@pytest.fixture(autouse=True, scope="module")
def small():
    """Few images to be judged by, and every round is taken."""
    with pytest.MonkeyPatch.context() as patch:
        for module in (refine, rounds):
            patch.setattr(module, "GENERATED", 2)
        patch.setattr(refine, "PREDICTED", 1)
        patch.setattr(Standing, "worse_than", lambda self, before: None)
        yield


@pytest.fixture(scope="module", params=KINDS)
def trained(request, tmp_path_factory):
    """The run folder of a training."""
    root = tmp_path_factory.mktemp(request.param)
    assert msm("train", write_config(root, **KINDS[request.param]), "data.held_out=0", "train.pictures=0") == 0
    return root / "run"


@pytest.fixture(scope="module")
def refined(trained, tmp_path_factory):
    folder = tmp_path_factory.mktemp("refined")
    assert msm("refine", trained, f"setting.save_dir={folder}", *SMALL) == 0
    return folder


def test_rounds_end_in_weights_that_take_full_measurements(trained, refined):
    denoiser = PartialDenoiser.load(refined)
    assert isinstance(denoiser.masks, FullMask) and denoiser.measured_error is not None
    assert denoiser.record["refined"]["round"] == 2 and str(trained) in denoiser.record["refined"]["from"]
    assert weights(refined) == weights(refined / "round_2") != weights(refined / "round_1")
    assert {path.name for path in (refined / "round_1").iterdir()} >= {"log.jsonl", "standing.json", "generated.png"}
    assert not list(refined.rglob("samples.npy")) and not list(refined.rglob("checkpoints"))


def test_samples_are_drawn_with_them_without_a_word(refined, tmp_path, capsys):
    config = refined / "resolved.yaml"
    is_mri = "kind: slices" in config.read_text()
    problem = "{operator: undersampling, mask: {kind: cartesian, center: 4}}" if is_mri else "{operator: box, hole: 8}"
    given = [f"inverse_problem={problem}", "sample.preset=best", f"setting.save_dir={tmp_path / 'samples'}"]
    source = json.loads((refined / "weights" / "denoiser.json").read_text())["record"]["refined"]["from"]
    data = [f"setting.dataset_dir={source}/../photos", "data.held_out=2", "sample.count=2"]
    assert msm("sample", refined, *given, *data) == 0
    said = capsys.readouterr().err
    assert "one mask take the place of" in said and "was trained on full" not in said
    resolved = (tmp_path / "samples" / "resolved.yaml").read_text()
    assert "draws: 1\n" in resolved and f"steps: {60 if is_mri else 40}\n" in resolved
    assert "draws" not in (tmp_path / "samples" / "config.yaml").read_text().partition("sample:")[2]
    assert np.isfinite(np.load(tmp_path / "samples" / "samples.npy")).all()


def test_nothing_that_was_not_measured_is_reached(trained, refined, tmp_path):
    store = shutil.copy(trained / "measurements.h5", tmp_path / "poisoned.h5")
    with h5py.File(store, "r+") as file:
        values, mask = file["values"][:], file["mask"][:] != 0
        file["values"][:] = np.where(mask, values, np.nan)
    again = tmp_path / "again"
    assert msm("refine", trained, f"setting.save_dir={again}", f"setting.dataset_dir={store}", *SMALL) == 0
    assert weights(again) == weights(refined)


@pytest.mark.parametrize("where", ["complete", "predict", "proximal_distance", "measured_on"])
def test_a_run_that_was_cut_off_ends_in_the_same_bits(trained, refined, tmp_path, monkeypatch, where):
    again = [trained, f"setting.save_dir={tmp_path / 'again'}", *SMALL]
    calls, real = [], getattr(refine, where)

    def cut(*args, **options):
        calls.append(None)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return real(*args, **options)

    with monkeypatch.context() as patch:
        patch.setattr(refine, where, cut)
        assert msm("refine", *again) != 0 and len(calls) == 2
    assert msm("refine", *again) == 0
    assert weights(tmp_path / "again") == weights(refined)


def test_a_killed_run_ends_in_the_same_bits(trained, refined, tmp_path):
    again = tmp_path / "again"
    words = ["refine", str(trained), f"setting.save_dir={again}", *SMALL]
    started = time.monotonic()
    process = subprocess.Popen([sys.executable, "-m", "msm", *words], stdout=subprocess.DEVNULL)
    while not (again / "round_1" / "checkpoints").exists() and process.poll() is None:
        assert time.monotonic() - started < 300
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert not (again / "weights").exists()
    assert msm(*words) == 0 and weights(again) == weights(refined)


def test_a_round_that_makes_it_worse_is_not_taken(trained, tmp_path, monkeypatch, capsys):
    verdicts = iter([None, "its error on hidden entries rose by 3.0 %"])
    monkeypatch.setattr(Standing, "worse_than", lambda self, before: next(verdicts))
    folder = tmp_path / "refined"
    assert msm("refine", trained, f"setting.save_dir={folder}", *SMALL) == 0
    assert "round 2 is not taken, its error" in capsys.readouterr().err
    assert weights(folder) == weights(folder / "round_1")


def test_no_better_round_is_told_in_one_line(trained, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(Standing, "worse_than", lambda self, before: "it is worse")
    assert msm("refine", trained, f"setting.save_dir={tmp_path / 'refined'}", *SMALL) == 2
    assert "no round made the model better; keep" in capsys.readouterr().err
    assert not (tmp_path / "refined" / "weights").exists()


def test_what_the_training_kept_out_is_held_out_again(trained):
    def config(*given):
        return load_config(trained, given)

    assert refine.split(20, config("train.validation_share=0.1")) == (list(range(18)), [18, 19])
    trained_on, held_out = refine.split(20, config("refine.validation_share=0.1"))
    assert held_out == [5, 15] and sorted(trained_on + held_out) == list(range(20))


@pytest.mark.parametrize("steps", [None, 4])
@pytest.mark.parametrize("mri", [True, False])
def test_a_model_of_full_measurements_gets_as_many_calls(mri, steps):
    partial, full = (refine.completing(masks, steps, mri=mri) for masks in (BoxMasks(8), FullMask((8, 8))))
    assert full.draws == 1 and partial.draws > 1
    if steps:
        assert partial.steps == steps and full.steps == steps * partial.draws
    else:
        assert partial == Sampler.preset("best", mri=mri, inverse_problem=True) and full.steps == refine.FULL_STEPS


def test_completed_acquisitions_are_full_but_for_a_share(trained, tmp_path):
    store = MeasurementStore(trained / "measurements.h5")
    channels, kind = (1, torch.complex64) if store.is_mri else (store.shape[0], torch.float32)
    x = torch.randn(len(store), 2, channels, *store.shape[1:], dtype=kind)
    np.save(tmp_path / "x.npy", x.numpy())
    full = Completed(store, tmp_path / "x.npy", [3, 1])
    m = full.batch([1, 0], [0, 3])
    assert len(full) == 2 and m.mask.all() and full.largest_noise_std == 0
    torch.testing.assert_close(m.values, m.transform.forward(torch.stack([x[1, 0], x[3, 1]])))
    mixed = Completed(store, tmp_path / "x.npy", [1], measured_share=0.5)
    found = [mixed.batch([0], [epoch]) for epoch in range(200)]
    real = [m for m in found if not m.mask.all()]
    assert 70 < len(real) < 130
    assert all(torch.equal(m.values, store[1].values) and torch.equal(m.mask, store[1].mask) for m in real)


@pytest.mark.parametrize("share", [0, 0.5])
def test_measurements_with_noise_are_refined(tmp_path, share):
    config = write_config(tmp_path, **PHOTOS)
    noisy = ["data.held_out=0", "train.pictures=0", "data.noise_std=0.1"]
    assert msm("train", config, *noisy) == 0
    assert msm("refine", tmp_path / "run", *SMALL, f"refine.measured_share={share}", "refine.rounds=1") == 0
    assert isinstance(PartialDenoiser.load(tmp_path / "run" / "refined").masks, FullMask)


def test_photos_that_miss_pixels_are_refined(tmp_path):
    rng = np.random.default_rng(0)
    (tmp_path / "photos").mkdir()
    for i in range(5):
        pixels = rng.integers(0, 255, (16, 16, 4), dtype=np.uint8)
        pixels[..., 3] = np.where(rng.uniform(size=(16, 16)) < 0.7, 255, 0)
        Image.fromarray(pixels).save(tmp_path / "photos" / f"{i}.png")
    config = tmp_path / "config.yaml"
    config.write_text(CONFIG.format(root=tmp_path, kind="masked", channels=3, mask="{kind: empirical}"))
    assert msm("train", config, "data.held_out=0", "train.pictures=0") == 0
    assert msm("refine", tmp_path / "run", *SMALL, "refine.rounds=1") == 0
    assert msm("sample", tmp_path / "run" / "refined", "inverse_problem={operator: missing}", "sample.preset=best") == 0


def test_another_refinement_is_not_mixed_in(trained, refined, tmp_path, capsys):
    folder = tmp_path / "refined"
    shutil.copytree(refined, folder)
    given = [trained, f"setting.save_dir={folder}", *SMALL]
    before = (folder / "resolved.yaml").read_bytes()
    for other in ("refine.lr=0.5", "refine.samples=2", "sample.seed=7", "sample.mixed_precision=bf16", "train.seed=3"):
        assert msm("refine", *given, other) == 2
        assert "is of another refinement" in capsys.readouterr().err
        assert (folder / "resolved.yaml").read_bytes() == before
    assert msm("refine", *given, "refine.rounds=1") == 0
    unlist(folder / "round_1")
    (folder / "round_1" / "standing.json").write_text("{}")
    assert msm("refine", *given) == 2
    assert "standing.json: damaged" in capsys.readouterr().err


def test_mistakes_are_one_line(trained, tmp_path, capsys):
    given = [f"setting.save_dir={tmp_path / 'refined'}", *SMALL]
    assert msm("refine", trained, *given, "refine.validation_share=0.99") == 2
    assert "refine.validation_share: found 0.99" in capsys.readouterr().err
    assert msm("refine", trained, *given, f"setting.save_dir={trained}") == 2
    assert "holds another kind of run (checkpoints)" in capsys.readouterr().err
    assert msm("refine", trained, *given, "setting.pretrained_model_dir=null") == 2
    assert "pretrained_model_dir: missing" in capsys.readouterr().err


def test_samples_are_joined_in_order(tmp_path):
    batches = torch.arange(12.0).reshape(6, 1, 1, 2).split([2, 2, 1, 1])
    write_joined(tmp_path / "a.npy", batches, (3, 2))
    assert np.array_equal(np.load(tmp_path / "a.npy"), np.arange(12.0).reshape(3, 2, 1, 1, 2))
