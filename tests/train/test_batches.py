"""What a training step is made of follows from the seed and the place in the run, each part on its own."""

import pytest
import torch
from training import COUNT, MASKS

from msm.config.schema import TrainConfig
from msm.data.store import MeasurementStore, StoreWriter
from msm.schedule import VPSchedule
from msm.train.batches import TrainingItems


@pytest.fixture
def items(tmp_path):
    """items(**settings) -> the steps of a run on ten acquisitions, whose values are their numbers."""
    with StoreWriter(tmp_path / "store.h5", {}) as writer:
        for i in range(COUNT):
            mask = MASKS.sample(1, torch.Generator().manual_seed(i))[0]
            writer.add(f"item{i}", (i + 1) * mask.float(), mask, None, 0.0)

    def make(**settings):
        data = MeasurementStore(tmp_path / "store.h5")
        return TrainingItems(data, MASKS, VPSchedule().training_grid(200), TrainConfig(**settings), len(data))

    return make


def steps(items, number):
    size = items.settings.batch_size
    times, measurements, noises = zip(*(items[step, range(size)] for step in range(number)))
    values = torch.cat([m.values.amax((1, 2, 3)) for m in measurements])
    return {
        "times": torch.cat(times),
        "order": values,
        "kept": torch.cat([m.mask.float().mean((1, 2, 3)) for m in measurements]),
        "noise": torch.cat([n["noise"].mean((1, 2, 3)) for n in noises]),
    }


@pytest.mark.parametrize("seed", [1, 2**30, 2**32 - 1])
def test_another_seed_draws_everything_anew(items, seed):
    settings = {"batch_size": 4, "submask_share": 0.5}
    first, second, again = (steps(items(seed=s, **settings), 10) for s in (0, seed, 0))
    for name, values in first.items():
        assert torch.equal(values, again[name])
        assert not torch.equal(values, second[name]), name


@pytest.mark.parametrize("batch_size", [1, 4])
def test_times_order_noise_and_submasks_do_not_know_of_each_other(items, batch_size):
    drawn = steps(items(batch_size=batch_size, submask_share=0.5), 800 // batch_size)
    correlation = torch.corrcoef(torch.stack(list(drawn.values())))
    assert (correlation - torch.eye(len(drawn))).abs().max() < 0.15  # four standard deviations


def test_every_epoch_has_every_item_once_in_an_order_of_its_own(items):
    order = steps(items(batch_size=2), 15)["order"].unflatten(0, (3, COUNT))
    assert torch.equal(order.sort(1).values, torch.arange(1.0, COUNT + 1).expand(3, -1))
    assert not torch.equal(order[0], order[1]) and not torch.equal(order[1], order[2])


@pytest.mark.parametrize(("share", "count"), [(0.01, 1), (0.25, 3), (0.5, 6), (0.8, 10), (1.0, 12)])
def test_sure_is_spread_over_a_batch_and_weighs_as_much_as_on_all_of_it(items, share, count):
    weights = items(batch_size=12, sure_share=share, sure_weight=0.3)._sure_weights()
    assert weights.mean().item() == pytest.approx(0.3)
    for parts in (1, 2, 3, 4, 6, 12):
        numbers = (weights > 0).unflatten(0, (parts, -1)).sum(1)
        assert numbers.sum() == count and numbers.max() - numbers.min() <= 1
