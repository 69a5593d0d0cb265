"""What is looked at while training goes on: measurements held out, pictures, and how little either disturbs."""

import json
import multiprocessing
import os
import signal

import h5py
import pytest
import torch
from runs import PHOTOS, msm, write_config
from training import COUNT, assert_same, trainer, weights, write_store

from msm.config.trained import TrainConfig
from msm.data.store import MeasurementStore
from msm.errors import ConfigError
from msm.report.charts import loss_chart
from msm.runs.train import _is_due


def validation(folder):
    """Step and loss of the lines of the log about measurements held out."""
    lines = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    return [(line["step"], line["validation_loss"]) for line in lines if "validation_loss" in line]


def test_held_out_measurements_are_not_trained_on_and_disturb_nothing(tmp_path):
    """The same bits as a training on the others alone; also if what is held out is not finite."""
    store = write_store(tmp_path / "all.h5")
    trainer(write_store(tmp_path / "first.h5", COUNT - 2), tmp_path / "first").run()
    trainer(store, tmp_path / "held", validation_share=0.2).run()
    assert_same(weights(tmp_path / "first"), weights(tmp_path / "held"))
    assert not validation(tmp_path / "first")
    assert [step for step, _ in validation(tmp_path / "held")] == [4, 8]

    class Poisoned(MeasurementStore):
        def batch(self, indices, epochs=None):
            found = super().batch(indices, epochs)
            for n, index in enumerate(indices):
                if index >= COUNT - 2:
                    found.values[n] = float("nan")
            return found

    trainer(store, tmp_path / "nan", data=Poisoned(store), validation_share=0.2).run()
    assert_same(weights(tmp_path / "first"), weights(tmp_path / "nan"))


def test_validation_is_the_same_after_a_stop_and_for_the_same_weights(tmp_path):
    store = write_store(tmp_path / "store.h5")
    options = {"validation_share": 0.3, "checkpoint_images": 8}
    trainer(store, tmp_path / "whole", **options).run()
    trainer(store, tmp_path / "cut", **options, images=16).run()
    trainer(store, tmp_path / "cut", **options).run()
    assert validation(tmp_path / "whole") == validation(tmp_path / "cut") and len(validation(tmp_path / "cut")) == 4
    trainer(store, tmp_path / "still", **options, lr=1e-30).run()
    losses = [loss for _, loss in validation(tmp_path / "still")]
    assert len(losses) == 4 and max(losses) == pytest.approx(min(losses), rel=1e-6)  # smooth: nothing else changes


def test_validation_sees_noise_and_nothing_that_was_not_measured(tmp_path):
    store = write_store(tmp_path / "store.h5")
    with h5py.File(store, "r+") as file:
        values, mask = file["values"][:], file["mask"][:]
        file["noise_std"][:] = 0.5
        values[~mask] = float("nan")
        file["values"][:] = values
    trainer(store, tmp_path / "run", validation_share=0.2, images=8, checkpoint_images=4).run()
    assert all(0 < loss < float("inf") for _, loss in validation(tmp_path / "run"))


def test_at_least_one_measurement_is_trained_on(tmp_path):
    store = write_store(tmp_path / "store.h5")
    with pytest.raises(ConfigError, match=r"train\.validation_share: found 0\.95; of 10 acquisitions that leaves none"):
        trainer(store, tmp_path / "run", validation_share=0.95)


def test_a_signal_ends_pictures_at_once_with_the_checkpoint_that_is_there(tmp_path):
    store, drawn = write_store(tmp_path / "store.h5"), []

    def draw(images):
        drawn.append(images)
        os.kill(os.getpid(), signal.SIGINT)
        drawn.append("to the end")

    stopped = trainer(store, tmp_path / "cut", draw)
    assert not stopped.run() and drawn == [16] and stopped.step == 4
    assert [path.name for path in (tmp_path / "cut" / "checkpoints").iterdir()] == ["000000004"]
    trainer(store, tmp_path / "whole").run()
    trainer(store, tmp_path / "cut").run()
    assert_same(weights(tmp_path / "whole"), weights(tmp_path / "cut"))


def test_no_pictures_are_drawn_once_a_stop_is_asked_for(tmp_path):
    class Interrupted(MeasurementStore):
        def batch(self, indices, epochs=None):
            os.kill(os.getpid(), signal.SIGTERM)
            return super().batch(indices, epochs)

    store = write_store(tmp_path / "store.h5")
    run = trainer(store, tmp_path / "run", lambda images: pytest.fail("drawn"), data=Interrupted(store))
    assert not run.run() and run.step == 1


def test_processes_that_load_data_do_not_hear_ctrl_c(tmp_path, capfd):
    """The terminal sends it to all of them."""
    store = write_store(tmp_path / "store.h5")

    def draw(images):
        children = multiprocessing.active_children()
        assert len(children) == 1
        os.kill(children[0].pid, signal.SIGINT)

    assert trainer(store, tmp_path / "run", draw, workers=1).run()
    assert "stopping" not in capfd.readouterr().err


def test_pictures_are_on_the_board(tmp_path):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    config = write_config(tmp_path, **PHOTOS)
    assert msm("train", config, "train.validation_share=0.2", "train.pictures=2") == 0
    board = EventAccumulator(str(tmp_path / "run" / "tensorboard"))
    board.Reload()
    assert "validation_loss" in board.Tags()["scalars"] and board.Images("samples")[0].width == 2 * 16
    assert [path.name for path in (tmp_path / "run" / "images").iterdir()] == ["000000008.png"]
    name, chart = loss_chart(tmp_path / "run" / "log.jsonl")
    assert name == "run" and "held out" in chart


def test_no_pictures_where_none_are_wanted(tmp_path):
    assert msm("train", write_config(tmp_path, **PHOTOS), "train.pictures=0") == 0
    assert not (tmp_path / "run" / "images").exists()


@pytest.mark.parametrize(
    ("pictures", "every", "expected"), [(4, 50_000, 40), (4, 100, 1500), (1, 100, 6000), (0, 9, 0)]
)
def test_pictures_take_a_tenth_of_the_time_at_most(pictures, every, expected):
    settings = TrainConfig(pictures=pictures, checkpoint_images=every)
    count = sum(_is_due(images, settings) for images in range(every, settings.images + 1, every))
    passes = 50 * pictures * count
    assert passes <= 0.1 * 3 * settings.images + 50 * pictures
    assert expected * 0.9 <= count <= max(expected * 2, 0)
    assert _is_due(settings.images, settings) == (pictures > 0)


def test_what_the_loss_of_untrained_weights_is(tmp_path):
    """The network predicts no noise yet: the noise itself is the loss, about one for each measured entry."""
    store = write_store(tmp_path / "store.h5")
    trainer(store, tmp_path / "run", validation_share=0.5, images=4, lr=1e-30).run()
    ((_, loss),) = validation(tmp_path / "run")
    kept = MeasurementStore(store).batch(range(5, 10)).mask.float().mean().item()
    assert loss == pytest.approx(1, rel=0.2) or loss == pytest.approx(kept, rel=0.2)
    assert torch.isfinite(torch.tensor(loss))
