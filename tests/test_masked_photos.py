"""Photos that miss pixels, by the command line: acquired as they are, trained on, filled in."""

import json

import h5py
import numpy as np
import pytest
import torch
from PIL import Image
from runs import msm

from msm.data.store import MeasurementStore
from msm.denoiser import PartialDenoiser

CONFIG = """
setting: {{save_dir: {root}/run, dataset_dir: {root}/photos}}
data: {{kind: masked, image_size: 16, channels: 1}}
network: {{image_size: 16, in_channels: 1, num_channels: 16, num_res_blocks: 1, channel_mult: [1],
  attention_resolutions: [], num_head_channels: 16, num_groups: 4}}
train: {{images: 4, batch_size: 4, checkpoint_images: 4, augment: true}}
sample: {{count: 2, steps: 2, samples: 2, batch_size: 3}}
"""
FILL = "inverse_problem={operator: missing}"


def write_photos(folder, hidden=0, count=3):
    """Photos with a hole each, at another place."""
    rng = np.random.default_rng(0)
    folder.mkdir(parents=True)
    for n in range(count):
        grey, alpha = rng.integers(0, 256, (16, 16)), np.full((16, 16), 255)
        alpha[4 * n : 4 * n + 8, 2:9] = 0
        pixels = np.dstack([np.where(alpha == 0, hidden, grey), alpha]).astype(np.uint8)
        Image.fromarray(pixels).save(folder / f"{n}.png")


@pytest.fixture
def config(tmp_path):
    write_photos(tmp_path / "photos")
    path = tmp_path / "masked.yaml"
    path.write_text(CONFIG.format(root=tmp_path))
    return path


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run folder beside its photos and config."""
    root = tmp_path_factory.mktemp("masked")
    write_photos(root / "photos")
    (root / "masked.yaml").write_text(CONFIG.format(root=root))
    assert msm("train", root / "masked.yaml") == 0
    return root


def test_training_sees_each_photo_with_its_own_mask(trained):
    store = MeasurementStore(trained / "run/measurements.h5")
    masks = store.batch(range(3)).mask
    for n in range(3):
        hole = torch.zeros(16, 16, dtype=torch.bool)
        hole[4 * n : 4 * n + 8, 2:9] = True
        assert torch.equal(masks[n, 0], ~hole)
    law = PartialDenoiser.load(trained / "run/weights").masks
    assert torch.equal(law.masks, torch.cat([masks, masks.flip(-1)]))  # it was trained on both


def test_the_law_and_what_was_done_are_said(config, capsys):
    assert msm("train", config) == 0
    out = capsys.readouterr().out
    assert "3 of 3 images read, as they are; 78.1% of the pixels are there, 78.1% at the size of the network" in out
    assert "p(S) is the empirical law of the 3 masks, and of their mirror images; they keep 78.1% of the pixels" in out


def test_pixels_that_no_photo_has_are_warned_of(config, tmp_path, capsys):
    (tmp_path / "photos/2.png").unlink()
    assert msm("train", config, "train.augment=false") == 0
    assert "28 pixels are missing in all of these masks" in capsys.readouterr().err


def test_what_is_hidden_changes_no_bit_of_store_and_weights(trained, tmp_path):
    write_photos(tmp_path / "photos", hidden=201)
    a, b = ((root / "photos/0.png").read_bytes() for root in (trained, tmp_path))
    assert a != b
    (tmp_path / "masked.yaml").write_text(CONFIG.format(root=tmp_path))
    assert msm("train", tmp_path / "masked.yaml") == 0
    with h5py.File(trained / "run/measurements.h5") as one, h5py.File(tmp_path / "run/measurements.h5") as two:
        assert one.keys() == two.keys()
        assert all(np.array_equal(one[name][:], two[name][:]) for name in one)
    for file in ("model.safetensors", "masks.safetensors"):
        assert (trained / "run/weights" / file).read_bytes() == (tmp_path / "run/weights" / file).read_bytes()


@pytest.mark.parametrize("source", ["photos", "store"])
def test_photos_are_filled_in_and_what_is_there_stays(trained, tmp_path, source, capsys):
    """From the folder, or by posterior draws from a store of it: the operator is each photo's own mask."""
    preset = () if source == "photos" else ("sample.preset=best", "sample.steps=2")
    folder = trained / ("photos" if source == "photos" else "run/measurements.h5")
    where = (f"setting.dataset_dir={folder}", f"setting.save_dir={tmp_path / 'fill'}")
    weights = f"setting.pretrained_model_dir={trained}/run/weights"
    assert msm("sample", trained / "masked.yaml", *where, weights, FILL, *preset) == 0
    assert "2 photos filled in, of which 21.9% of the pixels were missing" in " ".join(capsys.readouterr().out.split())
    store = MeasurementStore(trained / "run/measurements.h5").batch([0, 1])
    with np.load(tmp_path / "fill/measured.npz") as kept:
        assert list(kept["names"]) == ["0.png", "1.png"]
        assert torch.equal(torch.from_numpy(kept["values"]), store.values)
        assert torch.equal(torch.from_numpy(kept["mask"]), store.mask)
        assert kept["noise_std"].tolist() == [0, 0]
    samples = torch.from_numpy(np.load(tmp_path / "fill/samples.npy"))
    assert samples.shape == (2, 2, 1, 16, 16)
    there = store.mask[:, None].expand_as(samples)
    torch.testing.assert_close(samples[there], store.values[:, None].expand_as(samples)[there], atol=1e-5, rtol=0)
    assert (samples[:, 0] != samples[:, 1])[~store.mask].all() and samples.isfinite().all()
    assert {path.name for path in (tmp_path / "fill/images").iterdir()} == {"0.png", "1.png"}
    assert (tmp_path / "fill/compare.png").exists()


def test_new_images_are_drawn_with_either_score(trained, tmp_path):
    for score in ("average", "chain"):
        where = f"setting.save_dir={tmp_path / score}", f"setting.pretrained_model_dir={trained}/run/weights"
        assert msm("sample", trained / "masked.yaml", *where, f"sample.score={score}") == 0
        assert np.isfinite(np.load(tmp_path / score / "images.npy")).all()
    assert msm("evaluate", tmp_path / "chain") == 0
    assert json.loads((tmp_path / "chain/records.jsonl").read_text().splitlines()[0])["network_calls"] > 2


def test_a_run_goes_on_only_with_the_photos_that_it_began_with(config, tmp_path, capsys):
    """One of which nothing is there is not in the store, and not missed in it."""
    Image.new("LA", (16, 16), (9, 0)).save(tmp_path / "photos/9.png")
    assert msm("train", config) == 0
    assert "left out: 1 with nothing there" in capsys.readouterr().out
    assert msm("train", config, "train.images=8") == 0
    Image.new("LA", (16, 16), (9, 255)).save(tmp_path / "photos/5.png")
    assert msm("train", config, "train.images=12") == 2
    assert "its 3 items are not the 4 of" in capsys.readouterr().err


def test_masks_that_the_weights_hold_are_bounded(config, monkeypatch, capsys):
    monkeypatch.setattr("msm.runs.inputs.MASK_ENTRIES", 4 * 16 * 16)
    assert msm("train", config) == 0
    assert "empirical law of 2 of the 3 masks, and of their mirror images" in capsys.readouterr().out


def test_what_is_lost_or_not_missing_is_warned_of(config, tmp_path, capsys):
    """Dead pixels all over a large photo leave little of a small one; a folder without a hole was perhaps not meant."""
    dots = np.full((64, 64), 255, dtype=np.uint8)
    dots[::4, ::4] = 0
    for name, alpha, message in (("dots", dots, "loses more than half"), ("all", 255, "no photo misses a pixel")):
        (tmp_path / name).mkdir()
        pixels = np.dstack([dots, np.broadcast_to(np.uint8(alpha), dots.shape)])
        pixels[:8, :8, 1] = 255
        Image.fromarray(pixels).save(tmp_path / name / "a.png")
        assert msm("acquire", config, "-o", tmp_path / f"{name}.h5", f"setting.dataset_dir={tmp_path / name}") == 0
        assert message in capsys.readouterr().err


REFUSED = {
    "data.kind=images": r"data.mask: missing; set it to p\(S\)",
    "data.mask={kind: empirical} data.kind=images": "data.mask.kind: found 'empirical'; it is for data.kind masked",
    "data.masks_dir=masks data.kind=images data.mask={kind: box}": "data.masks_dir: found masks; it is for data.kind m",
    "data.noise_std=auto data.kind=images data.mask={kind: box}": "data.noise_std: found 'auto'",
    "data.value_range=[1,0]": r"data.value_range: found \[1.0, 0.0\]; write \[black, white\]",
    "train.remask=true": "train.remask: found True; masked photos",
    "inverse_problem={operator: box, hole: 4}": "inverse_problem.operator: found 'box'; data.kind masked takes missing",
}


@pytest.mark.parametrize("settings", REFUSED)
def test_settings_that_do_not_go_with_masked_photos_are_refused(tmp_path, settings):
    from msm.config.load import ConfigError, load_config

    path = tmp_path / "masked.yaml"
    path.write_text(CONFIG.format(root=tmp_path))
    overrides = [f"{part.strip()}" for part in settings.replace(" data.", "\ndata.").splitlines()]
    with pytest.raises(ConfigError, match=REFUSED[settings]):
        load_config(path, overrides)


def test_masked_photos_have_no_truth(config, tmp_path, capsys):
    assert msm("acquire", config, "-o", tmp_path / "a.h5", "--truth", tmp_path / "t.h5") == 2
    assert "--truth: of photos that miss pixels nobody has the complete ones" in capsys.readouterr().err
    assert not (tmp_path / "a.h5").exists()
