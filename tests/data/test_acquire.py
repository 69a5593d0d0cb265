"""train.remask, the published behaviour: mask and noise anew at every step, off unless asked for, and on record."""

import json

import pytest
import torch
from runs import PHOTOS, run, write_config
from training import MASKS, SIZE, assert_same, trainer, weights

from msm.data.acquire import RemaskedAcquisitions, Source, acquire
from msm.data.store import MeasurementStore, StoreWriter
from msm.denoiser import PartialDenoiser
from msm.errors import DataError
from msm.masks import BoxMasks, CartesianMasks

EVERYTHING = BoxMasks(SIZE, 0, 1)


def write_clean(path, masks=EVERYTHING, noise_std=0.0, coils=None):
    generator = torch.Generator().manual_seed(0)
    with StoreWriter(path, {}) as writer:
        for i in range(10):
            image, maps = torch.randn(1, SIZE, SIZE, generator=generator), None
            if coils:
                image = image * torch.ones((), dtype=torch.complex64)
                maps = torch.full((coils, SIZE, SIZE), coils**-0.5, dtype=torch.complex64)
            m = acquire(Source(f"item{i}", image, maps), masks, noise_std, seed=0)
            writer.add(f"item{i}", m.values[0], m.mask[0], maps, noise_std)
    return path


@pytest.fixture
def clean(tmp_path):
    return MeasurementStore(write_clean(tmp_path / "clean.h5"))


def test_each_epoch_has_another_mask_and_noise(clean):
    data = RemaskedAcquisitions(clean, MASKS, 0.1, seed=3)
    first, again, later = data.batch([4, 2], [0, 0]), data.batch([2, 4], [0, 0]), data.batch([4, 2], [1, 1])
    assert torch.equal(first.values, again.values.flip(0)) and torch.equal(first.mask, again.mask.flip(0))
    assert all((first.mask[k] != later.mask[k]).any() for k in range(2))
    assert (first.mask.float().mean((1, 2, 3)) == 10 / 16).all()
    both = first.mask & later.mask
    assert (first.values != later.values)[both].all()
    noise = (first.values - clean.batch([4, 2]).values)[first.mask]
    assert abs(noise.std().item() - 0.1) < 3 * 0.1 / (2 * len(noise)) ** 0.5  # 3 standard errors
    assert data.largest_noise_std == 0.1 and (first.noise_std == 0.1).all() and len(data) == 10


def test_over_epochs_every_pixel_is_seen(clean):
    data = RemaskedAcquisitions(clean, MASKS, 0.0, seed=0)
    m = data.batch([0] * 20, range(20))
    assert m.mask.any(0).all()
    assert torch.equal(m.values, torch.where(m.mask, clean.batch([0]).values, 0))


def test_without_remask_the_mask_is_the_same_for_ever(tmp_path):
    store = MeasurementStore(write_clean(tmp_path / "store.h5", MASKS))
    first, later = store.batch([4, 2], [0, 0]), store.batch([4, 2], [5, 6])
    assert torch.equal(first.values, later.values) and torch.equal(first.mask, later.mask)


def test_mri_keeps_its_coil_maps(tmp_path):
    store = MeasurementStore(write_clean(tmp_path / "scans.h5", coils=2))
    m = RemaskedAcquisitions(store, CartesianMasks(SIZE, 2, 4), 0.1, seed=0).batch([1, 1], [0, 1])
    assert m.values.is_complex() and m.maps.shape == (2, 2, SIZE, SIZE) and (m.mask[0] != m.mask[1]).any()


@pytest.mark.parametrize(("masks", "noise_std"), [(MASKS, 0.0), (EVERYTHING, 0.1)])
def test_measurements_are_no_clean_images(tmp_path, masks, noise_std):
    store = MeasurementStore(write_clean(tmp_path / "store.h5", masks, noise_std))
    with pytest.raises(DataError, match=r"store.h5: .*set setting\.dataset_dir"):
        RemaskedAcquisitions(store, MASKS, 0.0, seed=0)


def test_resume_and_workers_change_no_bit(clean, tmp_path):
    def remasked(folder, on_checkpoint=None, **changes):
        data = RemaskedAcquisitions(MeasurementStore(clean.path), MASKS, 0.0, seed=0)
        return trainer(None, tmp_path / folder, on_checkpoint, data, **changes)

    def stop(images):
        raise KeyboardInterrupt

    remasked("whole").run()  # 32 images of 10: three epochs and a bit
    with pytest.raises(KeyboardInterrupt):
        remasked("cut", stop).run()
    remasked("cut").run()
    remasked("workers", workers=2).run()
    assert_same(weights(tmp_path / "whole"), weights(tmp_path / "cut"))
    assert_same(weights(tmp_path / "whole"), weights(tmp_path / "workers"))
    trainer(clean.path, tmp_path / "fixed").run()
    fixed, whole = weights(tmp_path / "fixed"), weights(tmp_path / "whole")
    assert any(not torch.equal(fixed[key], whole[key]) for key in fixed)


def test_command_line_warns_and_keeps_it_on_record(tmp_path, monkeypatch, capsys):
    config = write_config(tmp_path, **PHOTOS)
    assert run(monkeypatch, "train", config, "train.remask=true") == 0
    error = capsys.readouterr().err
    assert error.startswith("msm: warning: train.remask") and error.count("\n") == 1
    folder = tmp_path / "run"
    assert "remask: true" in (folder / "config.yaml").read_text()
    assert json.loads((folder / "versions.json").read_text())["remask"] is True
    assert PartialDenoiser.load(folder / "weights").record["train"]["remask"] is True
    assert MeasurementStore(folder / "measurements.h5").masks().all()
    assert run(monkeypatch, "train", config) == 2  # clean images never become the acquisitions of an honest run
    assert "another `data` block" in capsys.readouterr().err


def test_it_is_off_by_default(tmp_path, monkeypatch, capsys):
    config = write_config(tmp_path, **PHOTOS)
    assert run(monkeypatch, "train", config) == 0
    assert not capsys.readouterr().err
    assert "remask" not in json.loads((tmp_path / "run" / "versions.json").read_text())
    assert not MeasurementStore(tmp_path / "run" / "measurements.h5").masks().all()
