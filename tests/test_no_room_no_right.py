"""Full disks, read-only folders and files of other users: one line each, nothing is lost or left over."""

import os
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from runs import PHOTOS, PROBLEMS, msm, save_weights, write_config

from msm.output.files import write_array

NOBODY = 65534
WRITES = ["acquire", "train", "sample", "evaluate", "report"]


@pytest.fixture(scope="module")
def root():
    """A folder that other users may see into, with a config, a store, weights and a judged run."""
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o755)
    config, hole = write_config(folder, **PHOTOS), f"inverse_problem={PROBLEMS['images']}"
    save_weights(folder / "w")
    assert msm("acquire", config, "-o", folder / "store.h5") == 0
    assert msm("train", config) == 0  # all modules are loaded, while that is allowed
    assert (
        msm("sample", config, f"setting.pretrained_model_dir={folder}/w", f"setting.save_dir={folder}/judged", hole)
        == 0
    )
    assert msm("evaluate", folder / "judged") == 0
    yield folder
    shutil.rmtree(folder)


def words(command, root, out):
    """A command that writes to the folder `out`, and what it makes there."""
    config = root / "config.yaml"
    return {
        "acquire": ["acquire", config, "-o", out / "a.h5"],
        "train": ["train", config, f"setting.save_dir={out}"],
        "sample": ["sample", config, f"setting.pretrained_model_dir={root}/w", f"setting.save_dir={out}"],
        "evaluate": ["evaluate", out],
        "report": ["report", root / "judged", "-o", out / "page.html"],
    }[command]


@contextmanager
def mounted(folder, options):
    """An empty file system in memory, if whoever runs this may make one."""
    folder.mkdir(exist_ok=True)
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", folder], capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"no right to mount a small disk: {done.stderr.strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", folder], check=True)


def files(folder):
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def one_line(capsys, *expected):
    said = capsys.readouterr().err
    lines = [line for line in said.splitlines() if not line.startswith(("msm: note", "msm: warning"))]
    assert len(lines) == 1 and lines[0].startswith("msm: "), said
    assert not any(word in lines[0] for word in ("damaged", "mend", "remove", "not a readable")), said
    assert any(text in lines[0] for text in expected), said


@pytest.mark.skipif(sys.platform != "linux", reason="mounts as Linux does")
@pytest.mark.parametrize("kilobytes", [8, 40, 120])
@pytest.mark.parametrize("command", WRITES)
def test_a_full_disk_is_one_line_and_with_room_the_same_command_ends_well(root, capsys, command, kilobytes):
    with mounted(root / "disk", "size=64m") as disk:
        out = disk / "out"
        if command == "evaluate":
            shutil.copytree(root / "judged", out)
            for name in ("records.jsonl", "evaluation.json", "gallery.npz"):
                (out / name).unlink()
        before = files(disk)
        taken = shutil.disk_usage(disk).used // 1024
        subprocess.run(["mount", "-o", f"remount,size={taken + kilobytes}k", disk], check=True)
        if (code := msm(*words(command, root, out))) != 0:
            assert code == 2
            one_line(capsys, "No space left on device", "as on a full disk")
            after = files(disk)
            assert {name: after[name] for name in before} == before
            assert not [name for name in after if ".tmp" in name or "lock" in name]
        subprocess.run(["mount", "-o", "remount,size=64m", disk], check=True)
        assert msm(*words(command, root, out)) == 0


@pytest.mark.skipif(sys.platform != "linux", reason="mounts as Linux does")
@pytest.mark.parametrize("command", WRITES)
def test_a_read_only_folder_is_one_line(root, capsys, command):
    with mounted(root / "disk", "size=64m") as disk:
        if command == "evaluate":
            shutil.copytree(root / "judged", disk / "out")
        before = files(disk)
        subprocess.run(["mount", "-o", "remount,ro", disk], check=True)
        assert msm(*words(command, root, disk / "out")) == 2
        one_line(capsys, "Read-only file system")
        assert files(disk) == before


@contextmanager
def as_nobody():
    """Without the rights of root, who may read everything."""
    if not hasattr(os, "geteuid"):
        pytest.skip("no users here")
    was_root = os.geteuid() == 0
    if was_root:
        os.seteuid(NOBODY)
    try:
        yield
    finally:
        if was_root:
            os.seteuid(0)


@pytest.mark.parametrize("command", WRITES)
def test_a_folder_of_another_user_is_one_line(root, capsys, command):
    out = root / "theirs"
    shutil.copytree(root / "judged", out, dirs_exist_ok=True)
    if command != "evaluate":
        shutil.rmtree(out)
        out.mkdir()
    before = files(root)
    with locked(out, 0o555), as_nobody():
        assert msm(*words(command, root, out)) == 2
    one_line(capsys, "Permission denied")
    assert files(root) == before


@contextmanager
def locked(path, mode):
    """A file or folder with other permissions."""
    usual = path.stat().st_mode
    path.chmod(mode)
    try:
        yield
    finally:
        path.chmod(usual)


UNREADABLE = {
    "config.yaml": ["train", "{root}/config.yaml"],
    "store.h5": ["train", "{root}/config.yaml", "setting.dataset_dir={root}/store.h5"],
    "w/model.safetensors": ["sample", "{root}/config.yaml", "setting.pretrained_model_dir={root}/w"],
    "w/denoiser.json": ["sample", "{root}/config.yaml", "setting.pretrained_model_dir={root}/w"],
    "w/SHA256SUMS": ["sample", "{root}/config.yaml", "setting.pretrained_model_dir={root}/w"],
    "photos/1.png": ["acquire", "{root}/config.yaml", "-o", "{root}/new/a.h5"],
    "judged/records.jsonl": ["report", "{root}/judged", "-o", "{root}/new/page.html"],
    "judged/samples.npy": ["evaluate", "{root}/judged"],
}


@pytest.mark.parametrize("name", UNREADABLE)
def test_a_file_of_another_user_is_no_damage(root, capsys, name):
    (root / "new").mkdir(exist_ok=True)
    before = files(root)
    given = [word.format(root=root) for word in UNREADABLE[name]]
    given += [f"setting.save_dir={root}/new/run"] if given[0] in ("train", "sample") else []
    with locked(root / "new", 0o777), locked(root / name, 0), as_nobody():
        assert msm(*given) == 2
    one_line(capsys, "Permission denied")
    assert files(root) == before


@pytest.mark.parametrize("missing", [1, 2000, 4000])
def test_the_end_of_an_array_does_not_get_lost(tmp_path, missing):
    """NumPy itself says nothing of the last few kilobytes that have no room."""
    array, before = torch.ones(1, 3, 64, 64), resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (128 + array.nbytes - missing, before[1]))
    try:
        with pytest.raises(OSError, match="too large"):
            write_array(tmp_path / "a.npy", array)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)
    assert not list(tmp_path.iterdir())


def test_joined_samples_on_a_full_disk(tmp_path):
    """Through a memory map they end the process, by SIGBUS."""
    code = "write_joined(Path('a.npy'), (torch.ones(1, 1, 64, 64) for _ in range(9)), (9, 1))"
    lines = ["from pathlib import Path", "import torch", "from msm.sample.complete import write_joined", code]
    with mounted(tmp_path / "disk", "size=64k") as folder:
        done = subprocess.run([sys.executable, "-c", "\n".join(lines)], cwd=folder, capture_output=True, text=True)
        assert done.returncode == 1 and "No space left on device" in done.stderr.splitlines()[-1]
        assert not list(folder.iterdir())
