"""The loop: bit-exact resume, damaged checkpoints, no clean pixel, whole acquisitions flipped."""

import errno
import json
import os
import resource
import shutil
import signal
from contextlib import contextmanager

import h5py
import pytest
import torch
from torch import nn
from training import MASKS, SIZE, assert_same, trainer, weights, write_store

from msm.config.trained import TrainConfig
from msm.data.store import MeasurementStore, StoreWriter
from msm.denoiser import PartialDenoiser
from msm.errors import ConfigError, TrainingError
from msm.losses import noisy_loss
from msm.measurement import Measurement
from msm.network import ADMNetwork, adapt
from msm.schedule import VPSchedule
from msm.train.batches import flip
from msm.train.checkpoints import save_optimizer
from msm.train.trainer import Trainer
from msm.transforms import MultiCoil


@pytest.fixture
def store(tmp_path):
    return write_store(tmp_path / "store.h5")


def test_times_come_from_the_training_grid(store, tmp_path):
    made = trainer(store, tmp_path)
    denoiser = PartialDenoiser(made.network, VPSchedule(), masks=MASKS)
    grid = denoiser.schedule.training_grid(5, "cosine")
    cosine = Trainer(denoiser, made.data, TrainConfig(images=400, batch_size=40), grid=grid)
    assert set(torch.cat([t for t, _, _ in cosine._loader()]).tolist()) == set(grid.tolist())


def flip_bit(path):
    content = bytearray(path.read_bytes())
    content[-5] ^= 1
    path.write_bytes(content)


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


def test_loading_for_a_gpu_pins_every_tensor(monkeypatch):
    """The loader pins what it gives: here, without a GPU, a double of `Tensor.pin_memory` tells that it was asked."""
    pinned = []
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda tensor: pinned.append(tensor.shape) or tensor.clone())
    maps = torch.randn(2, 4, 8, 8, dtype=torch.complex64)
    mask = torch.rand(2, 1, 8, 8) < 0.5
    whole = Measurement(torch.randn_like(maps), mask, maps, torch.tensor([0.1, 0.2]))
    copy = whole.pin_memory()
    assert pinned == [maps.shape, mask.shape, maps.shape, (2,)]
    for name in ("values", "mask", "maps", "noise_std"):
        assert torch.equal(getattr(copy, name), getattr(whole, name))
    assert Measurement(whole.values, mask).pin_memory().maps is None


def test_damaged_checkpoint_is_named_and_the_one_before_used(store, tmp_path, capsys):
    trainer(store, tmp_path / "run").run()
    final = weights(tmp_path / "run")
    newest = sorted((tmp_path / "run" / "checkpoints").iterdir())[-1]
    (newest / "optimizer.pt").write_bytes(b"cut off")
    again = trainer(store, tmp_path / "run")
    again.run()
    assert f"{newest}: damaged" in capsys.readouterr().err
    assert_same(final, weights(tmp_path / "run"))


def test_flipped_bit_of_a_checkpoint_is_found(store, tmp_path, capsys):
    trainer(store, tmp_path / "run").run()
    final = weights(tmp_path / "run")
    newest = sorted((tmp_path / "run" / "checkpoints").iterdir())[-1]
    flip_bit(newest / "average" / "model.safetensors")
    trainer(store, tmp_path / "run", keep_checkpoints=1).run()
    said = capsys.readouterr().err
    assert f"{newest}: damaged (average/model.safetensors is not as it was written)" in said
    assert [path.name for path in (tmp_path / "run" / "checkpoints").iterdir()] == [newest.name]
    assert_same(final, weights(tmp_path / "run"))


def test_a_damaged_checkpoint_is_not_among_those_kept(store, tmp_path):
    """The run goes on from step 4 and stops at step 6: the damaged one of step 8 does not push that out."""
    trainer(store, tmp_path / "run").run()
    (tmp_path / "run" / "checkpoints" / "000000008" / "optimizer.pt").unlink()
    trainer(store, tmp_path / "run", images=24, keep_checkpoints=1).run()
    assert [path.name for path in (tmp_path / "run" / "checkpoints").iterdir()] == ["000000006"]


def test_only_damaged_checkpoints_are_not_trained_over(store, tmp_path):
    trainer(store, tmp_path / "run").run()
    for folder in (tmp_path / "run" / "checkpoints").iterdir():
        (folder / "state.json").write_text("{")
    with pytest.raises(TrainingError, match="all 2 checkpoints are damaged"):
        trainer(store, tmp_path / "run").run()


@contextmanager
def full_disk(at):
    """No file grows beyond so many bytes."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (at, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize("file", ["network/model.safetensors", "optimizer.pt", "average/model.safetensors"])
def test_full_disk_loses_nothing(store, tmp_path, file):
    trainer(store, tmp_path / "whole").run()
    trainer(store, tmp_path / "cut", images=16).run()
    size = (tmp_path / "cut" / "checkpoints" / "000000004" / file).stat().st_size
    with full_disk(size - 1), pytest.raises(TrainingError, match=r"cannot be written to \(File too large\)") as caught:
        trainer(store, tmp_path / "cut").run()
    assert "\n" not in str(caught.value)
    assert [path.name for path in (tmp_path / "cut" / "checkpoints").iterdir()] == ["000000004"]
    trainer(store, tmp_path / "cut").run()
    assert_same(weights(tmp_path / "whole"), weights(tmp_path / "cut"))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_with_a_checkpoint(store, tmp_path, number):
    class Scheduler(MeasurementStore):
        def batch(self, indices, epochs=()):
            if self.read == 2:  # while the third step is prepared
                os.kill(os.getpid(), number)
            self.read += 1
            return super().batch(indices, epochs)

    before = signal.getsignal(number)
    trainer(store, tmp_path / "whole").run()
    data = Scheduler(store)
    data.read = 0
    stopped = trainer(store, tmp_path / "cut", data=data)
    assert not stopped.run() and stopped.step == 3
    assert [path.name for path in (tmp_path / "cut" / "checkpoints").iterdir()] == ["000000003"]
    assert signal.getsignal(number) == before
    assert trainer(store, tmp_path / "cut").run()
    assert_same(weights(tmp_path / "whole"), weights(tmp_path / "cut"))


@pytest.mark.parametrize("images", [32, 8])
def test_a_run_that_has_seen_as_many_images_is_left_as_it_is(store, tmp_path, capsys, images):
    assert trainer(store, tmp_path).run()
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    again = trainer(store, tmp_path, images=images)
    again.on_start = lambda: pytest.fail("nothing is to be recorded")
    assert again.run()
    assert f"it has seen 32 images, the config asks for {images}" in capsys.readouterr().out.replace("\n", " ")
    assert before == {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}


@pytest.mark.parametrize(
    ("name", "value"), [("batch_size", 8), ("seed", 1), ("submask_share", 0.0), ("augment", False)]
)
def test_checkpoint_of_another_run_is_refused(store, tmp_path, name, value):
    trainer(store, tmp_path, images=16).run()
    with pytest.raises(ValueError, match=f"holds a run with train.{name} = .*, the config says {value}"):
        trainer(store, tmp_path, **{name: value}).run()


def test_checkpoint_of_other_measurements_is_refused(store, tmp_path):
    def identified(by):
        made = trainer(store, tmp_path)
        made.identity |= {"measurements": by}
        return made

    identified("first").run()
    with pytest.raises(ValueError, match="holds a run with measurements = first, the config says second"):
        identified("second").run()
    assert identified("first").run()


def test_what_may_change_does(store, tmp_path):
    trainer(store, tmp_path, images=16).run()
    assert trainer(store, tmp_path, lr=1e-4, accumulate=1, checkpoint_images=4, keep_checkpoints=1).run()


def test_half_a_line_of_the_log_is_dropped(store, tmp_path):
    trainer(store, tmp_path / "run", images=16).run()
    with (tmp_path / "run" / "log.jsonl").open("a") as log:
        log.write('{"step": 5, "im')
    trainer(store, tmp_path / "run").run()
    lines = (tmp_path / "run" / "log.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in lines] == [4, 8]


def test_checkpoint_of_another_network_is_refused(store, tmp_path):
    trainer(store, tmp_path / "run").run()
    other = trainer(store, tmp_path / "run")
    network = ADMNetwork(**{**other.network.settings, "channel_mult": (1,), "attention_resolutions": ()})
    denoiser = PartialDenoiser(network, VPSchedule(), masks=MASKS)
    with pytest.raises(ConfigError, match=r"network.channel_mult = \[1, 1\], the config says \[1\]"):
        Trainer(denoiser, other.data, other.settings).run(tmp_path / "run")


def test_weight_decay_may_change_and_does(store, tmp_path):
    trainer(store, tmp_path / "run", images=16, weight_decay=0.5).run()
    again = trainer(store, tmp_path / "run", images=20, weight_decay=0.25)
    again.run()
    assert [group["weight_decay"] for group in again.optimizer.param_groups] == [0.25]


def test_a_loss_that_does_not_know_of_noise_is_refused(noisy_store):
    denoiser = PartialDenoiser(nn.Identity(), VPSchedule(), masks=MASKS)
    with pytest.raises(ValueError, match="Identity with Epsilon cannot be written"):
        Trainer(denoiser, MeasurementStore(noisy_store), TrainConfig())
    denoiser.network = adapt(nn.Conv2d(1, 1, 1))
    with pytest.raises(ValueError, match=r"the data hold noise, up to 2: train by noisy_loss"):
        Trainer(denoiser, MeasurementStore(noisy_store), TrainConfig())
    denoiser.masks = None
    with pytest.raises(ValueError, match="needs the mask law"):
        Trainer(denoiser, MeasurementStore(noisy_store), TrainConfig(), loss=noisy_loss)


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


def test_too_little_memory_says_what_to_set(store, tmp_path, monkeypatch):
    def without_memory(network, u, t):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB.")

    monkeypatch.setattr(ADMNetwork, "forward", without_memory)
    with pytest.raises(TrainingError, match=r"set train\.accumulate to a larger divisor"):
        trainer(store, tmp_path / "run").run()


def test_gradient_that_is_not_finite_stops_the_run(store, tmp_path):
    """The loss of the very step is finite; its weights would not be, and must not become a checkpoint."""
    run = trainer(store, tmp_path / "run", checkpoint_images=4)
    next(run.network.parameters()).register_hook(lambda gradient: gradient * float("inf"))
    with pytest.raises(TrainingError, match="gradient became nan"):
        run.run()
    assert not (tmp_path / "run" / "checkpoints").exists()


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


@pytest.mark.parametrize("sure_share", [1.0, 0.5, 0.25])
def test_noisy_settings_reach_the_loss(noisy_store, tmp_path, sure_share):
    """Split in two the batch gives the same weights; without SURE, or with averaged targets, others."""
    results = {}
    for name, changes in (
        ("whole", {}),
        ("split", {"accumulate": 2}),
        ("no_sure", {"sure_weight": 0}),
        ("average", {"target_average": True}),
        ("steps", {"target_steps": 1}),
    ):
        fixed = {"submask_share": 0.0, "sure_share": sure_share}
        trainer(noisy_store, tmp_path / name, **NOISY | fixed | changes).run()
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


def test_a_disk_that_is_full_in_the_middle_of_an_archive_is_told_as_one(tmp_path):
    """PyTorch says of it that a position was not expected."""
    path, state = tmp_path / "optimizer.pt", {"moments": torch.zeros(30_000)}
    save_optimizer(state, path)
    room = path.stat().st_size // 2
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (room, before[1]))
        with pytest.raises(OSError) as said:
            save_optimizer(state, path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert said.value.errno in (errno.ENOSPC, errno.EFBIG)
