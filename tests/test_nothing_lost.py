"""No file of the user is lost, no result is replaced unasked, and no damage passes in silence."""

import errno
import json
import os
import resource
import shutil
import subprocess
import sys

import h5py
import numpy as np
import pytest
import torch
from PIL import Image
from runs import PHOTOS, PROBLEMS, msm, save_weights, write_config

from msm.data.folder import Account, image_files
from msm.data.store import MeasurementStore
from msm.errors import DataError
from msm.network import ADMNetwork
from msm.output.run_folder import file_names
from msm.raw.readers import raw_files


@pytest.fixture
def given(tmp_path):
    """A config, and the words that sample with untrained weights into the folder "out"."""
    config = write_config(tmp_path, **PHOTOS)
    save_weights(tmp_path / "w")
    where = [f"setting.pretrained_model_dir={tmp_path}/w", f"setting.save_dir={tmp_path}/out"]
    return ["sample", config, *where, f"inverse_problem={PROBLEMS['images']}"]


def contents(folder):
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


# ---- what is there stays


@pytest.mark.parametrize("mine", ["images/holiday.png", "images.npy", "config.yaml", "samples.npy", "report.html"])
def test_files_of_others_in_a_run_folder_are_kept(given, tmp_path, capsys, mine):
    (tmp_path / "out" / mine).parent.mkdir(parents=True)
    (tmp_path / "out" / mine).write_text("mine")
    assert msm(*given) == 2
    said = capsys.readouterr().err
    assert mine in said and "not listed as ours" in said and said.count("\n") == 1
    assert contents(tmp_path / "out") == {mine: b"mine"}
    assert msm(*given, "--force") == 0
    if mine == "images/holiday.png":
        assert (tmp_path / "out" / mine).read_text() == "mine"


def test_finished_samples_are_neither_drawn_again_nor_replaced(given, tmp_path, capsys):
    assert msm(*given) == 0
    before = contents(tmp_path / "out")
    assert msm(*given) == 0
    assert "holds these samples already" in capsys.readouterr().out
    assert msm(*given, "sample.steps=2") == 2
    assert "holds samples of other settings, weights or data" in capsys.readouterr().err
    assert contents(tmp_path / "out") == before
    assert msm(*given, "sample.steps=2", "--force") == 0
    assert contents(tmp_path / "out") != before


def test_samples_do_not_replace_weights(given, tmp_path, capsys):
    weights = contents(tmp_path / "w")
    assert msm(*given, f"setting.save_dir={tmp_path}/w") == 0
    after = contents(tmp_path / "w")
    assert {name: after[name] for name in weights if name != "SHA256SUMS"} == {
        name: held for name, held in weights.items() if name != "SHA256SUMS"
    }


def test_a_store_is_not_replaced_unasked(tmp_path, capsys):
    config, store = write_config(tmp_path, **PHOTOS), tmp_path / "a.h5"
    assert msm("acquire", config, "-o", store) == 0
    before = store.read_bytes()
    assert msm("acquire", config, "-o", store) == 0
    assert "holds these acquisitions already" in capsys.readouterr().out
    for other in ("data.held_out=1", "data.noise_std=0.1", "data.seed=3"):
        assert msm("acquire", config, "-o", store, other) == 2
        assert "is there already; choose another name (--force replaces it)" in capsys.readouterr().err
    assert store.read_bytes() == before
    assert msm("acquire", config, "-o", store, "data.seed=3", "--force") == 0
    assert store.read_bytes() != before
    Image.fromarray(np.zeros((20, 20, 3), np.uint8)).save(tmp_path / "photos" / "z.png")
    assert msm("acquire", config, "-o", store, "data.seed=3") == 2  # of other photos


def test_raw_input_is_not_written_over(tmp_path, capsys):
    with h5py.File(tmp_path / "scan.h5", "w") as file:
        file["kspace"] = np.ones((1, 2, 32, 32), np.complex64)
    before = (tmp_path / "scan.h5").read_bytes()
    for force in ([], ["--force"]):
        assert msm("acquire", tmp_path / "scan.h5", "-o", tmp_path / "scan.h5", *force) == 2
        assert "is read and would be written over" in capsys.readouterr().err
    os.link(tmp_path / "scan.h5", tmp_path / "other.h5")  # by another name, too
    assert msm("acquire", tmp_path / "scan.h5", "-o", tmp_path / "other.h5", "--force") == 2
    assert (tmp_path / "scan.h5").read_bytes() == before


@pytest.mark.parametrize(("option", "name"), [("-o", "photo.html"), ("--figure", "photo.png"), ("-o", "photo.png")])
def test_a_report_does_not_replace_files_of_others(runs, tmp_path, capsys, option, name):
    (tmp_path / name).write_bytes(b"mine")
    more = [] if option == "-o" else ["-o", tmp_path / "page.html"]
    assert msm("report", runs / "hole", option, tmp_path / name, *more) == 2
    assert capsys.readouterr().err.count("\n") == 1
    assert (tmp_path / name).read_bytes() == b"mine" and not (tmp_path / "page.html").exists()


def test_a_report_replaces_its_own(runs, tmp_path):
    words = ["report", runs / "hole", "-o", tmp_path / "page.html", "--figure"]
    for name in ("figure.png", "figure.pdf", "figure.svg"):
        assert msm(*words, tmp_path / name) == 0
        assert msm(*words, tmp_path / name) == 0


def test_old_results_stay_until_new_ones_are_there(given, tmp_path, monkeypatch):
    assert msm(*given) == 0
    before = contents(tmp_path / "out")

    def full(*arguments):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("msm.runs.sample.write_compared", full)
    assert msm(*given, "sample.steps=2", "--force") == 2
    after = contents(tmp_path / "out")
    assert {name: after[name] for name in before} == before
    assert all(name.startswith("parts/") for name in after.keys() - before.keys())


# ---- what is wrong is told


def test_a_network_that_gives_nan_is_refused(given, tmp_path, capsys):
    """shared/cases/nan_weights.py."""
    network = ADMNetwork.load(tmp_path / "w")
    with torch.no_grad():
        next(iter(network.parameters())).view(-1)[0] = float("nan")
    network.save(tmp_path / "w")
    assert msm(*given) == 2
    said = capsys.readouterr().err
    assert "values that are not finite" in said and said.count("\n") == 1 and not (tmp_path / "out").exists()


def test_saturated_pictures_are_warned_of(given, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(ADMNetwork, "forward", lambda network, u, t: torch.full_like(u, 300.0))
    assert msm(*given) == 0
    assert "where 1 is the range" in capsys.readouterr().err


def test_fewer_images_than_asked_for_are_told(given, capsys):
    assert msm(*given, "sample.count=100") == 0
    assert "sample.count asks for 100 test images, there are 5" in capsys.readouterr().err


def test_two_commands_in_one_folder(given, tmp_path, capsys):
    script = (
        "import sys\nfrom pathlib import Path\nfrom msm.system.lock import alone\n"
        "with alone(Path(sys.argv[1]), folder=True):\n    print('held', flush=True)\n    sys.stdin.read()"
    )
    words = [sys.executable, "-c", script, str(tmp_path / "out")]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout.readline() == "held\n"
        assert msm(*given) == 2
        said = capsys.readouterr().err
        assert f"another msm command is writing there (process {other.pid})" in said and said.count("\n") == 1
        other.stdin.close()
    assert msm(*given) == 0


def test_a_store_with_one_other_byte_is_refused_or_the_same(tmp_path):
    """Every byte: names and provenance by their sum, arrays by fletcher32, the rest by HDF5's own sums."""
    config, store = write_config(tmp_path, **PHOTOS), tmp_path / "a.h5"
    assert msm("acquire", config, "-o", store) == 0

    def read():
        opened = MeasurementStore(store)
        everything = range(len(opened))
        batch = opened.batch(everything)
        return [
            json.dumps(opened.provenance),
            *opened.names(everything),
            *(part.numpy().tobytes() for part in (batch.values, batch.mask, batch.noise_std)),
        ]

    right, whole, refused = read(), store.read_bytes(), 0
    for place in range(0, len(whole), max(1, len(whole) // 400)):
        store.write_bytes(whole[:place] + bytes([whole[place] ^ 4]) + whole[place + 1 :])
        try:
            assert read() == right, place
        except DataError:
            refused += 1
    assert refused > 100


# ---- names


def test_results_of_runs_are_no_data(tmp_path):
    run = tmp_path / "photos" / "run"
    (run / "images").mkdir(parents=True)
    (run / "resolved.yaml").touch()
    for path in (tmp_path / "photos" / "a.png", run / "grid.png", run / "images" / "0.png"):
        Image.fromarray(np.zeros((9, 9), np.uint8)).save(path)
    np.save(run / "scan.npy", np.ones((9, 9), np.complex64))
    np.save(tmp_path / "photos" / "b.npy", np.ones((9, 9), np.complex64))
    account = Account()
    assert list(image_files(tmp_path / "photos", account)) == ["a.png"]
    assert account.left_out["folders of runs"] == 1
    assert raw_files([tmp_path / "photos"]) == [tmp_path / "photos" / "b.npy"]


@pytest.mark.parametrize("option", [["-o", "~/a.h5"], ["--output=~/a.h5"]])
def test_a_tilde_that_the_shell_leaves_is_the_home_folder(tmp_path, monkeypatch, option):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert msm("acquire", write_config(tmp_path, **PHOTOS), *option) == 0
    assert (tmp_path / "home" / "a.h5").is_file() and not (tmp_path / "~").exists()


def test_long_names_have_room_for_what_follows():
    long = ["x" * 250 + end for end in ("a", "b")]
    short = file_names([*long, "é" * 120 + ".png"])
    assert len(set(short)) == 3 and all(len(name.encode()) < 240 for name in short)
    assert file_names(["a.png", "b"]) == ["a", "b"]


def test_names_that_are_no_utf8_are_found_before_the_work(tmp_path):
    folder = os.fsencode(tmp_path / "photos")
    os.mkdir(folder)
    Image.fromarray(np.zeros((9, 9), np.uint8)).save(tmp_path / "a.png")
    shutil.copy(os.fsencode(tmp_path / "a.png"), os.path.join(folder, b"\xff.png"))
    with pytest.raises(DataError, match="the name is not UTF-8; rename it"):
        image_files(tmp_path / "photos", Account())


def test_odd_names_reach_neither_markup_nor_mathtext_nor_the_terminal(given, tmp_path, capsys):
    (tmp_path / "photos" / "a[").mkdir()
    for name in ("price_$5_or_$6", "a[/b]", "red\x1b[31m", "[bold]"):
        shutil.copy(tmp_path / "photos" / "0.png", tmp_path / "photos" / f"{name}.png")
    assert msm(*given, "sample.count=9") == 0
    said = capsys.readouterr()
    assert "\x1b[31m" not in said.out + said.err


# ---- the machine


def test_too_few_file_handles_are_no_damage(tmp_path, capsys):
    config = write_config(tmp_path, **PHOTOS)
    assert msm("acquire", config, "-o", tmp_path / "a.h5") == 0
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    free = os.dup(0)
    os.close(free)
    resource.setrlimit(resource.RLIMIT_NOFILE, (free, hard))
    try:
        with pytest.raises(OSError) as told:
            MeasurementStore(tmp_path / "a.h5")
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert told.value.errno == errno.EMFILE and not isinstance(told.value, DataError)


def test_a_network_larger_than_the_machine_is_refused_before_it_is_made(tmp_path, capsys):
    config = write_config(tmp_path, **PHOTOS)
    given = ["network.num_channels=8192", "network.channel_mult=[1,16]", "network.num_head_channels=8192"]
    assert msm("train", config, *given) == 2
    said = capsys.readouterr().err
    assert "bytes to train, this machine has" in said and said.count("\n") == 1 and not (tmp_path / "run").exists()
    assert msm("train", config, "network.num_res_blocks=100000000") == 2
    assert "network.num_res_blocks" in capsys.readouterr().err


def test_aliases_that_expand_are_refused(tmp_path, capsys):
    lists = ", ".join(f"&a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 9))
    (tmp_path / "a.yaml").write_text(f"data: [&a0 [x], {lists}]\n")
    assert msm("train", tmp_path / "a.yaml") == 2
    assert "more aliases than a config needs" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (MemoryError("Unable to allocate 5 TiB"), "memory does not suffice"),
        (RuntimeError("can't start new thread"), "threads"),
    ],
)
def test_want_of_memory_is_one_line(given, monkeypatch, capsys, error, told):
    def failing(*arguments):
        raise error

    monkeypatch.setattr("msm.runs.sample.trained_denoiser", failing)
    assert msm(*given) == 2
    said = capsys.readouterr().err
    assert told in said and said.count("\n") == 1


@pytest.mark.parametrize("room", [512, 4096, 12288])
def test_a_store_for_which_there_is_no_room_is_one_line_and_leaves_nothing(tmp_path, room):
    """In a process of its own: HDF5's library, told of a full disk, would end it by a signal."""
    config = write_config(tmp_path, **PHOTOS)
    before = sorted(os.listdir(tmp_path))

    def with_room():
        resource.setrlimit(resource.RLIMIT_FSIZE, (room, room))

    words = [sys.executable, "-m", "msm", "acquire", config, "-o", str(tmp_path / "a.h5")]
    done = subprocess.run(words, capture_output=True, text=True, preexec_fn=with_room)
    assert done.returncode == 2 and "a.h5'" in done.stderr and done.stderr.count("\n") == 1, done.stderr
    assert sorted(os.listdir(tmp_path)) == before
