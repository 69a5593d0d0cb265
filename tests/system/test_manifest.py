"""SHA256SUMS: what is read is what was written, and only what is ours is replaced."""

import subprocess
from pathlib import Path

import pytest

from msm.errors import ConfigError, DataError
from msm.system import manifest
from msm.system.manifest import (
    MANIFEST,
    check,
    check_finished,
    check_ours,
    check_seal,
    listed,
    read_json,
    replacing,
    seal,
    write_listed,
)


def everything(name):
    return True


def write(folder, **files):
    with replacing(folder, everything) as filled:
        for name, text in files.items():
            (filled / name).write_text(text)


def test_sha256sum_reads_it(tmp_path):
    write(tmp_path, a="first", b="second")
    assert subprocess.run(["sha256sum", "-c", MANIFEST], cwd=tmp_path, capture_output=True).returncode == 0
    (tmp_path / "a").write_text("First")
    assert subprocess.run(["sha256sum", "-c", MANIFEST], cwd=tmp_path, capture_output=True).returncode == 1


def test_a_changed_byte_is_refused_in_one_line(tmp_path):
    write(tmp_path, a="first")
    check(tmp_path / "a", "do it again")
    (tmp_path / "a").write_text("firsT")
    with pytest.raises(DataError, match=r"a: is not as it was written .*do it again") as told:
        check(tmp_path / "a", "do it again")
    assert "\n" not in str(told.value)
    (tmp_path / "others").write_text("nobody wrote down what this was")
    check(tmp_path / "others", "do it again")


def test_files_of_others_are_neither_replaced_nor_removed(tmp_path):
    (tmp_path / "mine").write_text("mine")
    with pytest.raises(ConfigError, match="mine: is there, and not listed as ours"):
        write(tmp_path, mine="ours", more="ours")
    assert [path.name for path in tmp_path.iterdir()] == ["mine"] and (tmp_path / "mine").read_text() == "mine"
    write(tmp_path, a="1", b="2")
    write(tmp_path, b="3")
    assert {path.name for path in tmp_path.iterdir()} == {"mine", "b", MANIFEST} and listed(tmp_path).keys() == {"b"}
    with replacing(tmp_path, everything, force=True) as filled:
        (filled / "mine").write_text("ours")
    assert (tmp_path / "mine").read_text() == "ours"


def test_folders_of_others_are_seen_into(tmp_path):
    (tmp_path / "images").mkdir()
    check_ours(tmp_path, ["images", "not there"])
    (tmp_path / "images" / "holiday.png").touch()
    with pytest.raises(ConfigError, match=r"holiday.png: is there"):
        check_ours(tmp_path, ["images"])


def test_a_link_of_others_is_not_followed(tmp_path):
    target = tmp_path / "target"
    target.write_text("precious")
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "a").symlink_to(target)
    with pytest.raises(ConfigError, match="a: is there"):
        write(folder, a="ours")
    (folder / "a").unlink()
    (folder / "a").symlink_to(tmp_path / "not there")  # dangling ones neither
    with pytest.raises(ConfigError, match="a: is there"):
        write(folder, a="ours")
    assert target.read_text() == "precious"


def test_old_files_stay_until_the_new_ones_are_there(tmp_path):
    write(tmp_path, a="old", b="old")
    with pytest.raises(RuntimeError), replacing(tmp_path, everything) as filled:
        (filled / "a").write_text("new")
        raise RuntimeError
    assert (tmp_path / "a").read_text() == (tmp_path / "b").read_text() == "old"
    check_seal(tmp_path)
    assert len(list(tmp_path.iterdir())) == 3


@pytest.mark.parametrize("moves", [0, 1, 2])
def test_a_stop_between_two_files_is_seen(tmp_path, monkeypatch, moves):
    """After none, one or both were moved: each is whole, and the folder says that they may not go together."""
    write(tmp_path, a="old", b="old")
    move, moved = manifest.put, []

    def stopping(source, target):
        if target.name in ("a", "b"):
            if len(moved) == moves:
                raise KeyboardInterrupt
            moved.append(target)
        move(source, target)

    monkeypatch.setattr(manifest, "put", stopping)
    if moves == 2:
        written, write_list = [], manifest._write

        def stopping_at_the_end(*given):
            written.append(given)
            if len(written) == 2:
                raise KeyboardInterrupt
            write_list(*given)

        monkeypatch.setattr(manifest, "_write", stopping_at_the_end)
    with pytest.raises(KeyboardInterrupt):
        write(tmp_path, a="new", b="new")
    monkeypatch.undo()
    check(tmp_path / "a", "")
    check(tmp_path / "b", "")
    with pytest.raises(DataError, match="cut off while it replaced files here; once more"):
        check_finished(tmp_path, "once more")
    write(tmp_path, a="new", b="new")
    check_finished(tmp_path, "")
    check_seal(tmp_path)


def test_names_that_lead_out_of_the_folder_are_not_ours(tmp_path):
    folder = tmp_path / "run"
    folder.mkdir()
    (tmp_path / "outside").write_text("x")
    (folder / MANIFEST).write_text(f"{'0' * 64}  ../outside\n{'0' * 64}  {tmp_path}/outside\nnonsense\n")
    assert listed(folder) == {}
    write(folder, a="1")
    assert (tmp_path / "outside").exists()


def test_a_sealed_folder(tmp_path):
    (tmp_path / "a").write_text("1")
    (tmp_path / "inner").mkdir()
    (tmp_path / "inner" / "b").write_text("2")
    seal(tmp_path)
    check_seal(tmp_path)
    (tmp_path / "inner" / "b").write_text("3")
    with pytest.raises(DataError, match="inner/b is not as it was written"):
        check_seal(tmp_path)
    (tmp_path / "inner" / "b").unlink()
    with pytest.raises(DataError, match="inner/b is missing"):
        check_seal(tmp_path)


@pytest.mark.parametrize("text", ["", "[1]", "nan", "[" * 100_000, '{"a": ', "\x00"])
def test_json_of_another_kind_is_one_line(tmp_path, text):
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(DataError, match=r"a.json: not the facts") as told:
        read_json(tmp_path / "a.json", "the facts")
    assert "\n" not in str(told.value)


def test_no_right_to_read_is_no_damage(tmp_path, monkeypatch):
    write_listed(tmp_path / "a.json", "{}")

    read_text = Path.read_text

    def refused(path, *given, **options):
        if path.name == "a.json":
            raise PermissionError(13, "Permission denied", "a.json")
        return read_text(path, *given, **options)

    monkeypatch.setattr(Path, "read_text", refused)
    with pytest.raises(PermissionError):
        read_json(tmp_path / "a.json", "the facts")
