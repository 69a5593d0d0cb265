"""Photos that miss pixels: what a file lacks is not measured, the rest is as it would be in a complete photo."""

import numpy as np
import pytest
import tifffile
import torch
from PIL import Image

from msm.data.decode import Rules
from msm.data.folder import Account
from msm.data.masked import MaskedFolder
from msm.errors import DataError
from msm.measurement import joined

SIZE = 16
RNG = np.random.default_rng(0)
PHOTO = RNG.integers(0, 256, (48, 64, 3), dtype=np.uint8)
HOLE = np.zeros((48, 64), dtype=bool)
HOLE[10:25, 20:41] = True
HOLE[30, :] = True
BLOTS = RNG.uniform(size=(48, 64)) < 0.01


def read(folder, masks=None, channels=3, noise_std=0.0, **rules):
    """Measurements by name, and the account of them."""
    account = Account()
    photos = MaskedFolder(folder, masks, "train", 0, SIZE, Rules(channels, complete=False, **rules), noise_std)
    return dict(photos.items(account)), account


def alpha(hole):
    return np.where(hole, 0, 255).astype(np.uint8)


def with_alpha(path, hole, hidden=None):
    pixels = PHOTO if hidden is None else np.where(hole[..., None], hidden, PHOTO)
    Image.fromarray(np.dstack([pixels, alpha(hole)]).astype(np.uint8)).save(path)


def with_nan(path, hole):
    values = np.where(hole[..., None], np.nan, PHOTO / 255).astype(np.float32)
    (np.save if path.suffix == ".npy" else tifffile.imwrite)(path, values)


def complete(tmp_path):
    (tmp_path / "whole").mkdir()
    Image.fromarray(PHOTO).save(tmp_path / "whole" / "a.png")
    (photo,) = read(tmp_path / "whole")[0].values()
    assert photo.mask.all()
    return photo.values


WAYS = {
    "a.png": with_alpha,
    "a.webp": lambda path, hole: Image.fromarray(np.dstack([PHOTO, alpha(hole)])).save(path, lossless=True, exact=True),
    "a.tif": with_nan,
    "a.npy": with_nan,
}


@pytest.mark.parametrize("name", WAYS)
@pytest.mark.parametrize("hole", [HOLE, BLOTS], ids=["hole", "blots"])
def test_what_is_there_is_what_a_complete_photo_has(tmp_path, name, hole):
    """Shrunk three times: a pixel is measured where the nine below it were, and is their mean."""
    (tmp_path / "photos").mkdir()
    WAYS[name](tmp_path / "photos" / name, hole)
    photos, account = read(tmp_path / "photos")
    assert list(photos) == [name]
    gap = torch.from_numpy(hole[:, 8:56]).float()[None, None]
    expected = torch.nn.functional.max_pool2d(gap, 3) == 0
    assert torch.equal(photos[name].mask, expected) and not expected.all()
    there = expected.expand(1, 3, -1, -1)
    torch.testing.assert_close(photos[name].values[there], complete(tmp_path)[there], atol=2e-6, rtol=0)
    mean = torch.nn.functional.avg_pool2d(torch.from_numpy(PHOTO[:, 8:56]).movedim(-1, 0)[None].float(), 3) / 127.5 - 1
    torch.testing.assert_close(photos[name].values[there], mean[there], atol=2e-6, rtol=0)
    assert f"{1 - hole.mean():.1%} of the pixels are there" in account.line(tmp_path)


@pytest.mark.parametrize("white", [255, 1, "bool", "npy", "16 bits", "jpg"])
def test_a_mask_beside_a_photo(tmp_path, white):
    """White was measured. The photo itself hides nothing, and what is hidden may be anything."""
    photos, masks = tmp_path / "photos" / "deep", tmp_path / "masks" / "deep"
    photos.mkdir(parents=True)
    masks.mkdir(parents=True)
    Image.fromarray(PHOTO).save(photos / "a.b.png")
    Image.fromarray(PHOTO).save(photos / "c.png")
    if white == "npy":
        np.save(masks / "a.b.npy", ~HOLE)
    elif white == "jpg":
        Image.fromarray(alpha(HOLE)).save(masks / "a.b.jpg", quality=95)
    else:
        values = {"bool": ~HOLE, "16 bits": (~HOLE).astype(np.uint16) * 65535}.get(white)
        Image.fromarray((~HOLE).astype(np.uint8) * white if values is None else values).save(masks / "a.b.tif")
    found, account = read(tmp_path / "photos", tmp_path / "masks")
    assert list(found) == ["deep/a.b.png", "deep/c.png"]
    with_alpha(photos / "c.png", HOLE)
    alone = read(tmp_path / "photos")[0]["deep/c.png"]
    if white == "jpg":  # its grey, near edges, is missing
        assert not (found["deep/a.b.png"].mask & ~alone.mask).any()
        assert account.done["with grey in the mask, taken for missing"] == 1
    else:
        assert torch.equal(found["deep/a.b.png"].mask, alone.mask)
        assert torch.equal(found["deep/a.b.png"].values, alone.values)
    assert found["deep/c.png"].mask.all()
    assert account.done["without a mask beside them"] == account.done["complete"] == 1
    assert (account.done["with a mask of 0 and 1"] == 1) == (white == 1)


def test_partly_transparent_is_missing_and_said(tmp_path):
    soft = alpha(HOLE)
    soft[9] = 254
    Image.fromarray(np.dstack([PHOTO, soft])).save(tmp_path / "a.png")
    photos, account = read(tmp_path)
    assert account.done["with partly transparent pixels, taken for missing"] == 1
    assert not photos["a.png"].mask[0, 0, 3].any() and photos["a.png"].mask[0, 0, 2].any()


def test_a_tiffs_no_data_value_is_missing(tmp_path):
    values = np.where(HOLE, -9999, PHOTO[..., 0] / 255).astype(np.float32)
    for name, pixels in (("grey.tif", values), ("colour.tif", np.stack([values] * 3, -1))):
        tifffile.imwrite(tmp_path / name, pixels, extratags=[(42113, "s", 0, "-9999", True)])
    tifffile.imwrite(
        tmp_path / "bytes.tif", np.where(HOLE, 7, PHOTO[..., 0].clip(8)), extratags=[(42113, "s", 0, "7", True)]
    )
    with_alpha(tmp_path / "z.png", HOLE)
    photos, _ = read(tmp_path, channels=1)
    assert all(torch.equal(photo.mask, photos["z.png"].mask) for photo in photos.values())


@pytest.mark.parametrize("hidden", [0, 255, "noise"])
def test_nothing_of_what_is_hidden_is_kept(tmp_path, hidden):
    """Three copies that hide other things are the same, to the last bit; so is one whose size changes."""
    with_alpha(tmp_path / "a.png", HOLE)
    values = RNG.integers(0, 256, PHOTO.shape, dtype=np.uint8) if hidden == "noise" else hidden
    with_alpha(tmp_path / "b.png", HOLE, values)
    photos, _ = read(tmp_path)
    a, b = photos.values()
    assert torch.equal(a.values, b.values) and torch.equal(a.mask, b.mask)
    assert a.values[~a.mask.expand_as(a.values)].eq(0).all()


def test_hidden_values_have_no_part_in_the_range(tmp_path):
    (tmp_path / "photos").mkdir()
    (tmp_path / "masks").mkdir()
    np.save(tmp_path / "photos" / "a.npy", np.where(HOLE[..., None], 1e9, PHOTO / 255).astype(np.float32))
    Image.fromarray(alpha(HOLE)).save(tmp_path / "masks" / "a.png")
    with pytest.raises(DataError, match=r"values from .* to 1e\+09, beyond 0 to 1"):
        read(tmp_path / "photos")
    (photo,) = read(tmp_path / "photos", tmp_path / "masks")[0].values()
    torch.testing.assert_close(photo.values, photo.mask * complete(tmp_path), atol=2e-6, rtol=0)


def test_photos_with_nothing_there_are_left_out_and_counted(tmp_path):
    with_alpha(tmp_path / "a.png", HOLE)
    with_alpha(tmp_path / "b.png", np.ones_like(HOLE))
    with_alpha(tmp_path / "c.png", np.arange(64)[None] % 2 + np.zeros((48, 1)) > 0)  # no nine pixels at a place
    photos, account = read(tmp_path)
    assert list(photos) == ["a.png"] and "left out: 2 with nothing there" in account.line(tmp_path)


def test_larger_than_the_file(tmp_path):
    small = PHOTO[:8, :8]
    hole = np.zeros((8, 8), dtype=bool)
    hole[3, 4] = True
    Image.fromarray(np.dstack([np.where(hole[..., None], 0, small), alpha(hole)])).save(tmp_path / "a.png")
    Image.fromarray(np.dstack([np.where(hole[..., None], 255, small), alpha(hole)])).save(tmp_path / "b.png")
    a, b = read(tmp_path)[0].values()
    assert torch.equal(a.values, b.values) and 0 < (~a.mask).sum() < 36


MISTAKES = {
    "size": (
        lambda m: Image.new("L", (8, 8), 255).save(m / "a.png"),
        "a.png: is 48×64, its mask 8×8",
    ),
    "name": (lambda m: Image.new("L", (64, 48)).save(m / "b.png"), r"no mask has the name of a photo .*b.png beside a"),
    "twice": (
        lambda m: [Image.new("L", (64, 48), 255).save(m / name) for name in ("a.png", "a.tif")],
        "a.tif: a.png has the same name before the suffix",
    ),
    "transparency": (lambda m: with_alpha(m / "a.png", HOLE), "has transparency or NaN; a mask is black and white"),
    "none": (lambda m: m.rmdir(), "masks: no such folder; set data.masks_dir"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_masks_that_do_not_go_with_photos_are_refused(tmp_path, mistake):
    make, message = MISTAKES[mistake]
    (tmp_path / "photos").mkdir()
    (tmp_path / "masks").mkdir()
    Image.fromarray(PHOTO).save(tmp_path / "photos" / "a.png")
    make(tmp_path / "masks")
    with pytest.raises(DataError, match=message):
        read(tmp_path / "photos", tmp_path / "masks")


def test_noise_is_known_or_estimated(tmp_path):
    for n, rho in enumerate((0.05, 0.2)):
        noisy = 0.5 + rho / 2 * np.random.default_rng(n).standard_normal((256, 256, 3))
        noisy[100:130, 40:60] = np.nan
        np.save(tmp_path / f"{n}.npy", noisy.astype(np.float32))
    account = Account()
    rules = Rules(3, (-1, 2), complete=False)
    known, estimated = (
        joined([m for _, m in MaskedFolder(tmp_path, None, "train", 0, 256, rules, rho).items(account)])
        for rho in (0.1, None)
    )
    assert torch.equal(known.noise_std, torch.tensor([0.1, 0.1]))
    torch.testing.assert_close(estimated.noise_std, torch.tensor([0.05, 0.2]) / 3, rtol=0.03, atol=0)


def test_noise_that_cannot_be_estimated_needs_a_number(tmp_path):
    with_alpha(tmp_path / "a.png", np.arange(64)[None] % 20 + np.arange(48)[:, None] % 20 == 0)
    with pytest.raises(DataError, match=r"a.png: no 8 × 8 patch was wholly measured.*; set data.noise_std to a number"):
        read(tmp_path, noise_std=None)
