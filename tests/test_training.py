"""The loop: bit-exact resume, damaged checkpoints, no clean pixel, whole acquisitions flipped."""

import shutil

import h5py
import pytest
import torch

from msm.data.store import MeasurementStore, StoreWriter
from msm.denoiser import PartialDenoiser
from msm.masks import BoxMasks
from msm.measurement import Measurement
from msm.network import ADMNetwork
from msm.schedule import VPSchedule
from msm.settings import TrainConfig
from msm.training import Trainer, TrainingError, flip
from msm.transforms import MultiCoil

SIZE, COUNT = 16, 10
MASKS = BoxMasks(SIZE)


def write_store(path):
    generator = torch.Generator().manual_seed(0)
    with StoreWriter(path, {}) as writer:
        for i in range(COUNT):
            values = torch.randn(1, SIZE, SIZE, generator=generator)
            writer.add(f"item{i}", values, MASKS.sample(1, generator)[0], None, 0.0)
    return path


@pytest.fixture
def store(tmp_path):
    return write_store(tmp_path / "store.h5")


def trainer(store, folder, on_checkpoint=None, data=None, **changes):
    torch.manual_seed(0)
    network = ADMNetwork(
        image_size=SIZE,
        in_channels=1,
        num_channels=32,
        num_res_blocks=1,
        channel_mult=(1, 1),
        attention_resolutions=(8,),
        num_head_channels=32,
    )
    settings = {"images": 32, "batch_size": 4, "lr": 1e-3, "checkpoint_images": 16, "submask_share": 0.5}
    settings |= {"augment": True, "accumulate": 2} | changes
    denoiser = PartialDenoiser(network, VPSchedule())
    data = data or MeasurementStore(store)
    return Trainer(denoiser, data, MASKS, folder, TrainConfig(**settings), on_checkpoint=on_checkpoint)


def weights(folder):
    return ADMNetwork.load(folder / "weights").state_dict()


def assert_same(first, second):
    assert all(torch.equal(first[key], second[key]) for key in first)


def test_resumed_run_has_the_same_bits(store, tmp_path):
    trainer(store, tmp_path / "whole").run()

    def stop(images):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        trainer(store, tmp_path / "cut", stop).run()
    resumed = trainer(store, tmp_path / "cut")
    resumed.run()
    assert resumed.step == 8
    assert_same(weights(tmp_path / "whole"), weights(tmp_path / "cut"))


def test_training_moves_the_weights(store, tmp_path):
    run = trainer(store, tmp_path / "run")
    before = {key: value.clone() for key, value in run.network.state_dict().items()}
    run.run()
    assert any(not torch.equal(before[key], value) for key, value in run.network.state_dict().items())


def test_damaged_checkpoint_is_named_and_the_one_before_used(store, tmp_path, capsys):
    trainer(store, tmp_path / "run").run()
    final = weights(tmp_path / "run")
    newest = sorted((tmp_path / "run" / "checkpoints").iterdir())[-1]
    (newest / "optimizer.pt").write_bytes(b"cut off")
    again = trainer(store, tmp_path / "run")
    again.run()
    assert f"{newest}: damaged" in capsys.readouterr().out.replace("\n", "")
    assert_same(final, weights(tmp_path / "run"))


def test_checkpoint_of_another_network_is_refused(store, tmp_path):
    trainer(store, tmp_path / "run").run()
    other = trainer(store, tmp_path / "run")
    other.network = ADMNetwork(
        image_size=SIZE,
        in_channels=1,
        num_channels=32,
        num_res_blocks=1,
        channel_mult=(1,),
        attention_resolutions=(),
        num_head_channels=32,
    )
    with pytest.raises(ValueError, match="other settings"):
        other.run()


def test_no_unmeasured_entry_reaches_the_loss(store, tmp_path):
    poisoned = tmp_path / "poisoned.h5"
    shutil.copy(store, poisoned)
    with h5py.File(poisoned, "r+") as file:
        values = file["values"][:]
        values[~file["mask"][:]] = float("nan")
        file["values"][:] = values
    trainer(store, tmp_path / "clean").run()
    trainer(poisoned, tmp_path / "nan").run()
    assert_same(weights(tmp_path / "clean"), weights(tmp_path / "nan"))
    log = [(tmp_path / name / "log.jsonl").read_text().split('"seconds')[0] for name in ("clean", "nan")]
    assert log[0] == log[1]


def test_exploding_loss_stops_the_run(store, tmp_path):
    run = trainer(store, tmp_path / "run", lr=0.5, checkpoint_images=4)
    with torch.no_grad():
        run.network.unet.conv_out.bias.fill_(float("nan"))
    with pytest.raises(TrainingError, match="loss became nan"):
        run.run()
    assert not (tmp_path / "run" / "weights").exists()


def test_flipped_acquisition_is_the_acquisition_of_the_flipped_scan():
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(4, 1, 8, 6, dtype=torch.complex64, generator=generator)
    maps = torch.randn(4, 3, 8, 6, dtype=torch.complex64, generator=generator)
    mask = torch.rand(4, 1, 8, 6, generator=generator) < 0.5
    turn = torch.tensor([[False, False], [True, False], [False, True], [True, True]])
    flipped = flip(Measurement(MultiCoil(maps).forward(x), mask, maps), turn)
    for i, axes in enumerate([(), (2,), (3,), (2, 3)]):
        image = x[i : i + 1]
        for axis in axes:
            image = image.flip(axis).roll(1, axis)
        z = MultiCoil(flipped.maps[i : i + 1]).forward(image)
        torch.testing.assert_close(torch.where(flipped.mask[i], z, 0)[0], flipped.values[i], rtol=1e-4, atol=1e-5)


@pytest.fixture
def noisy_store(tmp_path):
    generator = torch.Generator().manual_seed(0)
    with StoreWriter(tmp_path / "noisy.h5", {}) as writer:
        for i in range(6):
            values = torch.randn(1, SIZE, SIZE, generator=generator)
            writer.add(f"item{i}", values, MASKS.sample(1, generator)[0], None, 1.0 * (i % 3))
    return tmp_path / "noisy.h5"


NOISY = {"images": 16, "checkpoint_images": 8, "accumulate": 1}


@pytest.mark.parametrize("options", [{}, {"target_average": True, "target_steps": 1, "sure_share": 0.5}])
def test_resumed_noisy_training_has_the_same_bits(noisy_store, tmp_path, options):
    trainer(noisy_store, tmp_path / "whole", **NOISY, **options).run()
    run = trainer(noisy_store, tmp_path / "cut", **NOISY, **options)
    run.on_checkpoint = lambda images: (_ for _ in ()).throw(KeyboardInterrupt)
    with pytest.raises(KeyboardInterrupt):
        run.run()
    trainer(noisy_store, tmp_path / "cut", **NOISY, **options).run()
    assert_same(weights(tmp_path / "whole"), weights(tmp_path / "cut"))


def test_noisy_settings_reach_the_loss(noisy_store, tmp_path):
    """Split in two the batch gives the same weights; without SURE, or with averaged targets, others."""
    results = {}
    for name, changes in (
        ("whole", {}),
        ("split", {"accumulate": 2}),
        ("no_sure", {"sure_weight": 0}),
        ("average", {"target_average": True}),
        ("steps", {"target_steps": 1}),
    ):
        trainer(noisy_store, tmp_path / name, **NOISY | {"submask_share": 0.0} | changes).run()
        results[name] = weights(tmp_path / name)

    def distance(name):
        return sum((results["whole"][key] - value).abs().sum().item() for key, value in results[name].items())

    assert 10 * distance("split") < min(distance(name) for name in ("no_sure", "average", "steps"))


def test_averaged_targets_come_from_the_running_average(noisy_store, tmp_path):
    run = trainer(noisy_store, tmp_path / "run", **NOISY, target_average=True)
    run.run()
    target = run.loss.keywords["target_denoiser"].network
    assert_same(dict(enumerate(target.parameters())), dict(enumerate(run.ema.shadow_params)))
    assert_same(weights(tmp_path / "run"), target.state_dict())
    assert not torch.equal(next(target.parameters()), next(run.network.parameters()))
