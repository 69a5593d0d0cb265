"""A batch in parts: over processes, gradients are exchanged once a step."""

from contextlib import contextmanager

import torch
from training import MASKS, SIZE, write_store

from msm.config.schema import TrainConfig
from msm.data.store import MeasurementStore
from msm.denoiser import PartialDenoiser
from msm.network import ADMNetwork
from msm.schedule import VPSchedule
from msm.train.trainer import Trainer


def test_only_the_last_part_exchanges_gradients(tmp_path, monkeypatch):
    """The loss too is computed where nothing is exchanged: DDP decides in the forward pass."""
    network = ADMNetwork(SIZE, 1, 32, 1, (1, 1), (8,), 32)
    denoiser = PartialDenoiser(network, VPSchedule(), masks=MASKS)
    data = MeasurementStore(write_store(tmp_path / "store.h5"))
    made = Trainer(denoiser, data, TrainConfig(images=8, batch_size=8, accumulate=4))
    apart, seen, loss, backward = [], [], made.loss, made.accelerator.backward

    @contextmanager
    def no_sync(model):
        assert model is denoiser.network
        apart.append(model)
        yield
        apart.pop()

    def recorded(name, function):
        def call(*given, **named):
            seen.append((name, bool(apart)))
            return function(*given, **named)

        return call

    monkeypatch.setattr(made.accelerator, "no_sync", no_sync)
    monkeypatch.setattr(made.accelerator, "backward", recorded("backward", backward))
    made.loss = recorded("loss", loss)
    made._optimise(next(iter(made._loader())))
    assert seen == [("loss", True), ("backward", True)] * 3 + [("loss", False), ("backward", False)]
    assert torch.isfinite(torch.nn.utils.parameters_to_vector(network.parameters())).all()
