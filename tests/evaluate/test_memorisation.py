"""A repeated training image is found from its measurement, whatever its phase; another image is not near."""

import pytest
import torch

from msm.data.acquire import Source, acquire, birdcage
from msm.data.store import MeasurementStore, StoreWriter
from msm.evaluate.memorisation import distances, nearest
from msm.masks import BoxMasks, CartesianMasks
from msm.measurement import Measurement

NOISE = 0.05


def training_store(path, is_mri):
    generator = torch.Generator().manual_seed(0)
    kind = torch.complex64 if is_mri else torch.float32
    images = torch.randn(5, 1, 16, 16, dtype=kind, generator=generator) / 3
    masks = CartesianMasks(16, 4, 4) if is_mri else BoxMasks(16, 0.4)
    with StoreWriter(path, {}) as store:
        for i, image in enumerate(images):
            maps = birdcage(3, 16, 16, generator) if is_mri else None
            m = acquire(Source(f"{i}.png", image, maps), masks, NOISE, 0)
            store.add(f"{i}.png", m.values[0], m.mask[0], maps, NOISE)
    return images, MeasurementStore(path)


@pytest.mark.parametrize("is_mri", [False, True])
def test_a_repeated_image_is_as_near_as_the_noise(tmp_path, is_mri):
    if is_mri:
        pytest.importorskip("sigpy")
    images, store = training_store(tmp_path / "store.h5", is_mri)
    phase = torch.exp(torch.tensor(2j)) if is_mri else 1
    repeated, other = images[3:4] * phase, images[3:4].flip(-1)
    found, far = nearest(torch.cat([repeated, other]), store, batch_size=2)
    s = store.batch([3])
    entries = s.mask.sum() * (6 if is_mri else 1)  # three coils, two parts
    assert found.name == "3.png"
    assert found.distance == pytest.approx(NOISE * entries.sqrt().item() / s.values.norm().item(), rel=0.2)
    assert found.second > 0.8 and far.distance > 0.8


def test_photos_have_no_phase(tmp_path):
    images, store = training_store(tmp_path / "store.h5", False)
    assert nearest(-images[3:4], store)[0].distance > 0.8


def test_distances_of_photos_are_those_of_the_definition():
    """And a repeated image has none, though the terms of its square are as large as the image."""
    generator = torch.Generator().manual_seed(0)
    x, s = (torch.randn(n, 3, 32, 32, generator=generator) for n in (4, 5))
    mask = torch.rand(5, 1, 32, 32, generator=generator) < 0.6
    s[2] = x[1]
    measurement = Measurement(s, mask)
    difference = torch.where(mask, x.double()[:, None], 0) - measurement.values.double()
    expected = difference.flatten(2).norm(dim=2) / measurement.values.double().flatten(1).norm(dim=1)
    found = distances(x, measurement)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-7)
    assert found[1, 2] < 1e-7


def test_images_of_another_kind_are_refused(tmp_path):
    _, store = training_store(tmp_path / "store.h5", False)
    with pytest.raises(ValueError, match=r"store\.h5: holds photos"):
        nearest(torch.zeros(1, 1, 8, 8), store)
