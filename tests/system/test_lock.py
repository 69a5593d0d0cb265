"""One command at a time writes to a place; what killed ones left half-written goes."""

import os
import subprocess
import sys

import pytest

from msm.errors import ConfigError
from msm.system.files import new_name, whole
from msm.system.lock import alone

HOLD = """
import sys
from pathlib import Path
from msm.system.lock import alone
with alone(Path(sys.argv[1]), folder=sys.argv[2] == "folder"):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.mark.parametrize("kind", ["folder", "file"])
def test_a_second_command_is_told(tmp_path, kind):
    place = tmp_path / ("run" if kind == "folder" else "store.h5")
    other = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(place), kind], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert other.stdout.readline() == "held\n"
    with (
        pytest.raises(ConfigError, match=rf"{place.name}: another msm command .*process {other.pid}\)") as told,
        alone(place, folder=kind == "folder"),
    ):
        pass
    assert "\n" not in str(told.value)
    other.kill()  # a lock that was left by a kill is none
    other.wait()
    other.stdin.close()
    other.stdout.close()
    with alone(place, folder=kind == "folder"), alone(place, folder=kind == "folder"):
        (tmp_path / "ours").touch()
    assert (tmp_path / "ours").exists() and not list(tmp_path.rglob("*lock"))


def test_half_written_files_of_killed_commands_are_removed(tmp_path):
    run, store = tmp_path / "run", tmp_path / "store.h5"
    left = [new_name(run / "weights" / "model.safetensors"), new_name(run / "images.npy"), new_name(store)]
    others = [new_name(tmp_path / "other.h5"), run / ".hidden.tmp", new_name(run / "inner" / "a")]
    for path in (*left, *others):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    new_name(run / "SHA256SUMS").mkdir()
    (run / "inner" / ".lock").touch()  # another command is at work in there
    with alone(run, folder=True), alone(store, folder=False):
        assert not any(path.exists() for path in left) and all(path.exists() for path in others)
        assert sorted(p.name for p in run.iterdir()) == sorted([".hidden.tmp", ".lock", "inner", "weights"])


def test_a_refused_command_leaves_no_folder(tmp_path):
    with pytest.raises(RuntimeError), alone(tmp_path / "a" / "b", folder=True):
        raise RuntimeError
    assert not any(tmp_path.iterdir())


def test_other_processes_of_a_run_do_not_wait_for_the_first(tmp_path, monkeypatch):
    with alone(tmp_path / "run", folder=True):
        monkeypatch.setenv("RANK", "1")
        monkeypatch.setattr("msm.system.lock._held", set())
        with alone(tmp_path / "run", folder=True):
            pass


def test_a_planted_link_is_not_followed(tmp_path):
    (tmp_path / "precious").write_text("precious")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / ".lock").symlink_to(tmp_path / "precious")
    with pytest.raises(OSError), alone(tmp_path / "run", folder=True):
        pass
    assert (tmp_path / "precious").read_text() == "precious"


def test_names_as_long_as_can_be(tmp_path):
    path = tmp_path / ("x" * 251 + ".png")
    with whole(path) as temporary:
        temporary.write_text("whole")
    with alone(path, folder=False):
        pass
    assert os.listdir(tmp_path) == [path.name]
