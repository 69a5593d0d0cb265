"""Networks of others are trained and sampled like ours."""

import pytest
import torch
from diffusers import UNet2DModel
from torch import nn
from training import MASKS, SIZE, write_store

from msm import Epsilon, PartialDenoiser, Sampler, VPSchedule, adapt, generate
from msm.config.trained import TrainConfig
from msm.data.store import MeasurementStore
from msm.errors import DataError
from msm.losses import noiseless_loss
from msm.train.trainer import Trainer


class Own(nn.Module):
    """Somebody's module, called as f(u, t); it keeps the times that it is given."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Conv2d(1, 1, 3, padding=1)
        self.norm = nn.BatchNorm2d(1)  # with a counter, which is no floating-point number

    def forward(self, u, t):
        self.times = t
        return self.norm(self.layer(u)) + t[:, None, None, None] / 1000


def diffusers_unet():
    return UNet2DModel(SIZE, 1, 1, block_out_channels=(8, 8), norm_num_groups=4, layers_per_block=1,
                       down_block_types=("DownBlock2D",) * 2, up_block_types=("UpBlock2D",) * 2)  # fmt: skip


@pytest.mark.parametrize("make", [Own, diffusers_unet])
def test_it_is_trained_saved_loaded_and_sampled(make, tmp_path):
    torch.manual_seed(0)
    denoiser = PartialDenoiser(adapt(make(), divisor=2), VPSchedule(), Epsilon(), MASKS)
    before = [p.clone() for p in denoiser.network.parameters()]
    settings = TrainConfig(images=12, batch_size=4, lr=1e-3, ema_decay=0.5)
    data = MeasurementStore(write_store(tmp_path / "store.h5"))
    assert Trainer(denoiser, data, settings, loss=noiseless_loss).run(tmp_path / "run")
    assert any(not torch.equal(a, b) for a, b in zip(before, denoiser.network.parameters()))
    loaded = PartialDenoiser.load(tmp_path / "run" / "weights", adapt(make(), divisor=2)).eval()
    assert loaded.network.divisor == 2 and loaded.masks.settings == MASKS.settings
    z = generate(loaded, (1, SIZE, SIZE), seeds=[0, 1], sampler=Sampler(steps=2))
    assert z.shape == (2, 1, SIZE, SIZE) and z.isfinite().all()
    with pytest.raises(DataError, match="is of a network"):
        PartialDenoiser.load(tmp_path / "run" / "weights", adapt(nn.Identity()))


def test_times_arrive_as_fractions_for_every_item():
    network = adapt(Own())
    network(torch.zeros(3, 1, 8, 8), torch.tensor(2.5))
    assert network.module.times.tolist() == [2.5, 2.5, 2.5] and network.module.times.dtype == torch.float32


def test_an_output_of_another_shape_is_refused():
    with pytest.raises(ValueError, match=r"makes \[1, 2, 8, 8\] of \[1, 1, 8, 8\]"):
        adapt(Twice())(torch.zeros(1, 1, 8, 8), torch.tensor(0.0))


class Twice(nn.Module):
    def forward(self, u, t):
        return torch.cat([u, u], 1)
