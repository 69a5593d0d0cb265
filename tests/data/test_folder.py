"""Which files of a folder are taken, and what is said of the others."""

import os

import numpy as np
import pytest
from PIL import Image

from msm.data.folder import Account, image_files, of_split
from msm.errors import DataError


def picture(path, value=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((8, 8), value, dtype=np.uint8)).save(path)
    return path


def found(folder, **options):
    account = Account()
    return list(image_files(folder, account, **options)), account


def test_what_begins_with_a_dot_is_left_out_and_counted(tmp_path):
    for name in ("a.png", "deep/b.PNG", ".c.png", ".ipynb_checkpoints/a-checkpoint.png", "deep/.d/e.png", "._a.png"):
        picture(tmp_path / name)
    names, account = found(tmp_path)
    assert names == ["a.png", "deep/b.PNG"]
    assert account.line(tmp_path) == f"{tmp_path}: 0 of 2 images read, as they are; left out: 4 hidden"


def test_other_formats_are_counted_by_suffix(tmp_path):
    for name in ("a.heic", "b.heic", "notes.txt", "README"):
        (tmp_path / name).touch()
    with pytest.raises(DataError, match=r"holds no images .*\(left out: 1 without a suffix, 2 \*.heic, 1 \*.txt\)"):
        found(tmp_path)
    picture(tmp_path / "a.png")
    assert "left out: 1 without a suffix, 2 *.heic, 1 *.txt" in found(tmp_path)[1].line(tmp_path)


def test_links_are_followed_once(tmp_path):
    """A folder of links gives its images; a link to what is there, or to a folder above, gives none again."""
    picture(tmp_path / "store" / "b.png")
    picture(tmp_path / "photos" / "a.png")
    photos = tmp_path / "photos"
    (photos / "0").symlink_to(photos)  # a circle, and first by name
    (photos / "0.png").symlink_to(photos / "a.png")
    (photos / "linked").symlink_to(tmp_path / "store")
    (photos / "linked2").symlink_to(tmp_path / "store")
    (photos / "gone.png").symlink_to(tmp_path / "nowhere.png")
    names, account = found(photos)
    assert names == ["a.png", "linked/b.png"]
    assert account.left_out == {"links to what is there already": 3, "broken links": 1}
    (tmp_path / "link").symlink_to(photos)
    assert found(tmp_path / "link")[0] == names


def test_a_pipe_named_a_photo_is_not_waited_for(tmp_path):
    picture(tmp_path / "a.png")
    os.mkfifo(tmp_path / "b.png")
    assert found(tmp_path)[0] == ["a.png"]


def test_a_folder_of_masks_inside_holds_no_photos(tmp_path):
    picture(tmp_path / "a.png")
    picture(tmp_path / "masks" / "a.png")
    assert found(tmp_path, besides=tmp_path / "masks")[0] == ["a.png"]


def test_splits_share_no_photo(tmp_path):
    files = {f"{n:03}": tmp_path / f"{n:03}.png" for n in range(100)}
    train, test = (list(of_split(files, split, 30)) for split in ("train", "test"))
    assert test + train == list(files) and len(test) == 30
    assert of_split(files, "test", 0) == of_split(files, "train", 0) == files
    with pytest.raises(DataError, match="all 100 images are held out"):
        of_split(files, "train", 100)
