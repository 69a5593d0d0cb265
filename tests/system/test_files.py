"""Files and folders are written whole or not at all, in one place of the source."""

import errno
import os
import re
import stat
from pathlib import Path

import pytest

import msm
from msm.system.files import new_name, whole, whole_folder, write_text

SOURCE = Path(msm.__file__).parent


def test_one_place_moves_files_into_place():
    rename = re.compile(r"os\.(replace|rename)|shutil\.move|\.rename\(|[a-z]\.replace\((self\.)?\w*path\)")
    found = {path.relative_to(SOURCE).as_posix() for path in SOURCE.rglob("*.py") if rename.search(path.read_text())}
    assert found == {"system/files.py"}


def test_whole(tmp_path):
    path = tmp_path / "new" / "array.npy"
    with whole(path) as temporary:
        assert temporary.parent == path.parent and temporary.suffix == ".npy" and temporary.is_file()
        with whole(path) as other:
            assert other != temporary
            other.write_text("first")
        assert path.read_text() == "first"
        temporary.write_text("second")
    assert path.read_text() == "second"
    assert [p.name for p in path.parent.iterdir()] == ["array.npy"]


@pytest.mark.parametrize("error", [ValueError("a bug"), KeyboardInterrupt(), SystemExit(143)])
def test_what_fails_leaves_what_was_there(tmp_path, error):
    path = tmp_path / "a.txt"
    write_text(path, "before")
    with pytest.raises(type(error)), whole(path) as temporary:
        temporary.write_text("half")
        raise error
    assert path.read_text() == "before" and len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize("umask", [0o022, 0o077, 0o002])
def test_permissions_are_the_usual_ones(tmp_path, umask):
    before = os.umask(umask)
    try:
        write_text(tmp_path / "a.txt", "text")
        with whole_folder(tmp_path / "folder"):
            pass
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "a.txt").stat().st_mode) == 0o666 & ~umask
    assert stat.S_IMODE((tmp_path / "folder").stat().st_mode) == 0o777 & ~umask


def test_nobody_can_put_a_link_where_is_written(tmp_path, monkeypatch):
    """The temporary name is unpredictable; were it guessed, the file is made exclusively."""
    (tmp_path / "victim").write_text("precious")
    monkeypatch.setattr("secrets.token_hex", lambda _: "guessed")
    new_name(tmp_path / "a.txt").symlink_to(tmp_path / "victim")
    with pytest.raises(FileExistsError):
        write_text(tmp_path / "a.txt", "text")
    assert (tmp_path / "victim").read_text() == "precious"


@pytest.mark.parametrize(
    "error", [OSError(errno.ENOSPC, "No space left on device"), OSError("8192 requested and 0 written")]
)
def test_a_full_disk_is_told_with_the_name_of_the_file(tmp_path, error):
    path = tmp_path / "a.npy"
    with pytest.raises(OSError) as caught, whole(path):
        raise error
    assert caught.value.filename == str(path) and caught.value.errno == errno.ENOSPC
    assert (error.strerror or str(error)) in str(caught.value)


def test_whole_folder(tmp_path):
    path = tmp_path / "000000001"
    for text in ("first", "second"):
        with whole_folder(path) as temporary:
            (temporary / "state").write_text(text)
            (temporary / text).touch()
        assert {p.name for p in path.iterdir()} == {"state", text}
    with pytest.raises(ValueError), whole_folder(path) as temporary:
        (temporary / "state").write_text("half")
        raise ValueError
    assert (path / "state").read_text() == "second" and list(tmp_path.iterdir()) == [path]
    (tmp_path / "000000001.tmp").mkdir()  # a killed run's
    (tmp_path / "000000001.tmp" / "half").touch()
    with whole_folder(path) as temporary:
        assert not list(temporary.iterdir())
    assert list(tmp_path.iterdir()) == [path]
