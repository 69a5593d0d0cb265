"""What an inverse problem is given of a test image: it follows from the image's name and the seed."""

import pytest
import torch

from msm.config.measured import DataConfig, RandomProblem, SuperResolutionProblem, UndersamplingProblem
from msm.data.acquire import Source
from msm.data.samples import brain_slices
from msm.sample.observe import observe

PHOTOS = DataConfig(kind="images", image_size=16, mask={"kind": "box"})
SLICES = DataConfig(kind="slices", image_size=16, coils=3, mask={"kind": "cartesian", "center": 3})
MASK = {"kind": "cartesian", "acceleration": 4, "center": 3}


def photos(number):
    images = torch.rand(number, 3, 16, 16, generator=torch.Generator().manual_seed(0)) * 2 - 1
    return [Source(f"{n}.png", image, None) for n, image in enumerate(images)]


CASES = {
    "random": (lambda: photos(3), PHOTOS, RandomProblem(keep=0.3)),
    "super_resolution": (lambda: photos(3), PHOTOS, SuperResolutionProblem(factor=4)),
    "undersampling": (lambda: brain_slices(16, 3)[:3], SLICES, UndersamplingProblem(mask=MASK)),
}


@pytest.mark.parametrize("name", CASES)
def test_an_items_observation_follows_from_its_name_and_the_seed(name):
    make, data, problem = CASES[name]
    items = make()
    together, other = observe(items, problem, data), observe(items, problem, data, seed=1)
    for n in range(3):
        alone = observe(items[n : n + 1], problem, data)
        assert torch.equal(together.y[n : n + 1], alone.y) and not torch.equal(other.y[n], alone.y[0])
        if name != "super_resolution":
            assert torch.equal(together.operator.mask[n : n + 1], alone.operator.mask)
    twice = observe([items[1], items[1]], problem, data)
    assert torch.equal(twice.y[0], twice.y[1]) and torch.equal(twice.y[0], together.y[1])


@pytest.mark.parametrize("name", ["random", "undersampling"])
def test_items_have_masks_of_their_own(name):
    make, data, problem = CASES[name]
    mask = observe(make(), problem, data).operator.mask
    assert len(mask) == 3 and len(mask.flatten(1).unique(dim=0)) == 3
    other = observe(make(), problem, data, seed=1).operator.mask
    assert not (mask == other).flatten(1).all(1).any()
    if name == "random":
        assert (mask.flatten(1).sum(1) == round(0.3 * 256)).all()


@pytest.mark.parametrize("name", CASES)
def test_what_is_observed_is_the_image_in_noise(name):
    make, data, problem = CASES[name]
    items = make()
    seen = observe(items, problem, data)
    assert seen.noise_std == problem.noise_std == 0.01
    images = torch.stack([item.image for item in items])
    noise = seen.y - seen.operator.A(seen.transform.forward(images))
    if name != "super_resolution":
        mask = seen.operator.mask.expand_as(noise)
        noise = noise[mask]
    if name == "undersampling":
        assert not seen.y[~mask].any()  # no noise where nothing is measured
    parts = torch.view_as_real(noise) if noise.is_complex() else noise
    assert parts.std().item() == pytest.approx(0.01, rel=0.1)
    clean = observe(items, problem.model_copy(update={"noise_std": 0.0}), data)
    assert torch.equal(clean.y, clean.operator.A(clean.transform.forward(images)))
