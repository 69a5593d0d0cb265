"""Whatever is read back, and whichever command writes: one other byte is refused, the machine's want is no damage."""

import errno
import fcntl
import json
import os
import resource
import shutil
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import scipy.io
import torch
from PIL import Image
from runs import PHOTOS, msm, write_config
from training import COUNT, trainer, write_store

from msm.config.load import load_config
from msm.data.decode import Rules, decode
from msm.data.folder import Account
from msm.data.noise_level import noise_record
from msm.data.store import MeasurementStore
from msm.errors import DataError
from msm.evaluate.records import Evaluation, Record, read_evaluation, read_records
from msm.network.stored import read_tensors
from msm.output.files import read_arrays
from msm.output.run_folder import record_run, run_config
from msm.raw.readers import raw_files, read_scans
from msm.raw.volume_files import VolumeWriter
from msm.system.files import lock_name
from msm.system.manifest import read_json, seal
from msm.train.completed import Completed

DISTANCE = np.hypot(*(np.indices((32, 32)) - 16))
NOISE = np.random.default_rng(0).normal(size=(2, 3, 32, 32))
SCAN = ((NOISE[0] + 1j * NOISE[1]) / (1 + DISTANCE)).astype(np.complex64)  # 3 coils
TENSORS = {"a": torch.arange(1.0, 50.0)}


def a_volume(path):
    writer = VolumeWriter(path, 1, {})
    facts = {"noise_std": 0.1, "maps_residual": 0.2, "scale": 3.0}
    writer.add(0, torch.ones(4, 3), torch.ones(4, 3), b"png", **facts)
    writer.finish(None, None)


def evaluation(path):
    record = Record(image="1", kind="generated", method="MSM", network_calls=1111)
    (path.parent / "records.jsonl").write_text(record.model_dump_json() + "\n")
    facts = Evaluation(kind="generation", layers={}, pixels="1111")
    (path.parent / "evaluation.json").write_text(facts.model_dump_json())


def noise(path):
    write_store(path.parent / "store.h5")
    lines = [{"name": f"item{n}", "noise_std": 0.1111, "standard_error": 0.01} for n in range(COUNT)]
    path.write_text("".join(f"{json.dumps(line)}\n" for line in lines))


OURS = {  # how a file is made, and read
    "model.safetensors": (lambda path: safetensors.torch.save_file(TENSORS, path), read_tensors),
    "weights.pt": (lambda path: torch.save(TENSORS, path), read_tensors),
    "facts.json": (lambda path: path.write_text('{"a": 1111}'), lambda path: read_json(path, "the facts")),
    "samples.npy": (lambda path: np.save(path, np.ones(50)), lambda path: read_arrays(path, "again")),
    "measured.npz": (lambda path: np.savez(path, a=np.ones(50)), lambda path: read_arrays(path, "again")),
    "records.jsonl": (evaluation, lambda path: read_records(path.parent)),
    "evaluation.json": (evaluation, lambda path: read_evaluation(path.parent)),
    "noise.jsonl": (noise, lambda path: noise_record(MeasurementStore(path.parent / "store.h5"), path)),
    "completed.npy": (
        lambda path: np.save(path, np.ones((10, 1, 1, 16, 16))),
        lambda path: Completed(MeasurementStore(write_store(path.parent / "store.h5")), path, [0]),
    ),
    "head.h5": (a_volume, lambda path: VolumeWriter(path, 1, {})),
}


def another_byte(path):
    """One that the format itself does not tell from the one that was written."""
    held = bytearray(path.read_bytes())
    if path.suffix in (".json", ".jsonl"):
        place = max(held.rfind(b"1,"), held.rfind(b"1}"), held.find(b"1111"))
        held[place] = ord("2")
    elif path.suffix in (".npz", ".pt"):  # in the comment at the end, which nobody reads
        held[-1] = 0
        held += b"\0"
    else:
        held[-1] ^= 1
    path.write_bytes(held)


@pytest.mark.parametrize("name", OURS)
def test_one_other_byte_is_refused_by_every_reader(tmp_path, name):
    make, read = OURS[name]
    path = tmp_path / name
    make(path)
    seal(tmp_path)
    read(path)
    another_byte(path)
    with pytest.raises(DataError, match=rf"{name}: is not as it was written") as told:
        read(path)
    assert "\n" not in str(told.value)


THEIRS = {  # how a file is made, and read
    "photo.png": (lambda path: Image.new("RGB", (9, 9)).save(path), lambda path: decode(path, Rules(3), Account())),
    "photo.npy": (lambda path: np.save(path, np.ones((9, 9))), lambda path: decode(path, Rules(1), Account())),
    "store.h5": (write_store, MeasurementStore),
    "scan.npy": (lambda path: np.save(path, SCAN), lambda path: list(read_scans(path))),
    "scan.mat": (lambda path: scipy.io.savemat(path, {"kspace": SCAN}), lambda path: list(read_scans(path))),
}


@contextmanager
def no_handles():
    """Not one more file can be opened."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    free = os.dup(0)
    os.close(free)
    resource.setrlimit(resource.RLIMIT_NOFILE, (free, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.parametrize("name", [name for name in (*OURS, *THEIRS) if name != "noise.jsonl"])  # reads a store first
def test_too_few_file_handles_are_no_damage(tmp_path, monkeypatch, name):
    for module in ("network.stored", "output.files", "raw.volume_files", "system.manifest"):
        monkeypatch.setattr(f"msm.{module}.check", lambda *given: None)  # which opens files itself, and first
    make, read = {**OURS, **THEIRS}[name]
    path = tmp_path / name
    make(path)
    if name == "completed.npy":
        store = MeasurementStore(write_store(tmp_path / "store.h5"))
        read = partial(Completed, store, items=[0])
    read(path)
    with no_handles(), pytest.raises(OSError) as told:
        read(path)
    assert told.value.errno == errno.EMFILE and not isinstance(told.value, DataError)


def test_a_checkpoint_that_cannot_be_opened_is_not_damaged(tmp_path, monkeypatch, capsys):
    """Nor are those before it tried, and written over."""
    trainer(write_store(tmp_path / "store.h5"), tmp_path / "run", images=16).run()
    again = trainer(tmp_path / "store.h5", tmp_path / "run")

    def refused(*given, **options):
        raise PermissionError(errno.EACCES, "Permission denied", "optimizer.pt")

    monkeypatch.setattr(torch, "load", refused)
    with pytest.raises(PermissionError):
        again.run()
    assert "damaged" not in capsys.readouterr().err


@contextmanager
def locked(place, folder):
    """As another command has it: a lock is of an open file, not of a process."""
    with lock_name(place, folder=folder).open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        file.write("1234")
        file.flush()
        yield
    lock_name(place, folder=folder).unlink()


WRITES = {  # a command, and what it writes to
    "train": (["train", "{root}/config.yaml"], "run"),
    "refine": (["refine", "{root}/config.yaml"], "run"),
    "calibrate": (["calibrate", "{root}/config.yaml"], "run"),
    "sample": (["sample", "{root}/config.yaml"], "run"),
    "evaluate": (["evaluate", "{root}/run"], "run"),
    "acquire": (["acquire", "{root}/config.yaml", "-o", "{root}/a.h5"], "a.h5"),
    "import": (["acquire", "{root}/scan.npy", "-o", "{root}/a.h5"], "a.h5"),
    "report": (["report", "{root}/run"], "run"),
}


@pytest.mark.parametrize("command", WRITES)
def test_every_command_leaves_a_place_to_another_that_is_at_work_there(tmp_path, capsys, command):
    config = write_config(tmp_path, **PHOTOS)
    np.save(tmp_path / "scan.npy", SCAN)
    record_run(load_config(config), tmp_path / "run")
    log = {"images": 1, "loss": 0.5}
    (tmp_path / "run" / "log.jsonl").write_text(f"{json.dumps(log)}\n")  # for a page
    words, place = WRITES[command]
    before = sorted(path.name for path in tmp_path.rglob("*"))
    given = [f"setting.pretrained_model_dir={tmp_path}/w"] if command in ("refine", "sample") else []
    with locked(tmp_path / place, folder=place == "run"):
        assert msm(*(word.format(root=tmp_path) for word in words), *given) == 2
    said = capsys.readouterr().err
    assert "another msm command is writing there (process 1234)" in said and said.count("\n") == 1, said
    assert sorted(path.name for path in tmp_path.rglob("*")) == before


def test_paths_of_a_run_mean_the_same_from_another_folder(tmp_path, monkeypatch):
    config = load_config(write_config(tmp_path, **PHOTOS))
    setting = config.setting.model_copy(update={"dataset_dir": Path("photos"), "save_dir": Path("run")})
    monkeypatch.chdir(tmp_path)
    record_run(config.model_copy(update={"setting": setting}), Path("run"))
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    found = run_config(tmp_path / "run").setting
    assert (found.dataset_dir, found.save_dir) == (tmp_path / "photos", tmp_path / "run")


def test_swapped_or_changed_parts_of_an_import_are_made_anew(tmp_path, monkeypatch):
    """Parts that a stopped import left: another order than the manifest's would be taken for good."""
    for n in range(2):
        np.save(tmp_path / f"{n}.npy", SCAN * (n + 1) + n)
    words = ["acquire", tmp_path / "0.npy", tmp_path / "1.npy", "-o"]
    assert msm(*words, tmp_path / "whole.h5") == 0
    monkeypatch.setattr(shutil, "rmtree", lambda *given, **options: None)
    assert msm(*words, tmp_path / "a.h5") == 0
    monkeypatch.undo()
    (tmp_path / "a.h5").unlink()
    (tmp_path / "a.manifest.jsonl").unlink()
    first, second = sorted((tmp_path / "a.h5.parts").glob("*.h5"))
    held = first.read_bytes()
    first.write_bytes(second.read_bytes())
    second.write_bytes(held)
    assert msm(*words, tmp_path / "a.h5") == 0
    assert (tmp_path / "a.h5").read_bytes() == (tmp_path / "whole.h5").read_bytes()


def test_scans_whose_names_are_no_utf8_are_found_before_the_work(tmp_path):
    np.save(tmp_path / "a.npy", SCAN)
    shutil.copy(os.fsencode(tmp_path / "a.npy"), os.path.join(os.fsencode(tmp_path), b"\xff.npy"))
    with pytest.raises(DataError, match="the name is not UTF-8; rename it"):
        raw_files([tmp_path])


@pytest.mark.parametrize("code", [errno.ENOMEM, errno.EIO, errno.EMFILE, errno.ENOSPC])
def test_what_the_machine_lacks_is_one_line_without_a_name_too(tmp_path, monkeypatch, capsys, code):
    def lacking(*given):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr("msm.runs.train.new_denoiser", lacking)
    assert msm("train", write_config(tmp_path, **PHOTOS)) == 2
    said = capsys.readouterr().err
    assert os.strerror(code) in said and said.count("\n") == 1
