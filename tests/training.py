"""A small training on ten made-up images."""

from functools import partial

import torch

from msm.config.build import make_loss
from msm.config.trained import TrainConfig
from msm.data.store import MeasurementStore, StoreWriter
from msm.denoiser import PartialDenoiser
from msm.masks import BoxMasks
from msm.network import ADMNetwork
from msm.schedule import VPSchedule
from msm.train.trainer import Trainer

SIZE, COUNT = 16, 10
MASKS = BoxMasks(SIZE)


def write_store(path, count=COUNT):
    generator = torch.Generator().manual_seed(0)
    with StoreWriter(path, {}) as writer:
        for i in range(count):
            values = torch.randn(1, SIZE, SIZE, generator=generator)
            writer.add(f"item{i}", values, MASKS.sample(1, generator)[0], None, 0.0)
    return path


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
    denoiser, data = PartialDenoiser(network, VPSchedule(), masks=MASKS), data or MeasurementStore(store)
    given = TrainConfig(**settings)
    loss = make_loss(given, data.largest_noise_std)
    made = Trainer(denoiser, data, given, loss=loss, on_checkpoint=on_checkpoint)
    made.run = partial(made.run, folder)
    return made


def weights(folder):
    return ADMNetwork.load(folder / "weights").state_dict()


def assert_same(first, second):
    assert all(torch.equal(first[key], second[key]) for key in first)
