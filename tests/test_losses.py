"""The training loss against the published one, and its blindness to unmeasured entries."""

import pytest
import torch
from helpers import golden_complex, golden_denoiser, golden_maps, random_tensor
from torch.testing import assert_close

from msm.losses import mean_square, noiseless_loss
from msm.measurement import Measurement


@pytest.fixture(scope="module")
def cases(golden, tmp_path_factory):
    """name -> (denoiser, measurement, diffusion noise, stored vectors)."""
    folder = tmp_path_factory.mktemp("networks")

    def case(name):
        vectors, _ = golden(f"loss_noiseless_{name}")
        mask = vectors["mask"].bool()
        if name == "img":
            values, noise, maps = vectors["y"], vectors["diffusion_noise"], None
        else:
            values, noise = golden_complex(vectors["y"]), golden_complex(vectors["diffusion_noise"])
            maps = golden_maps(vectors["smps"])
        denoiser = golden_denoiser(golden, {"img": "adm_tiny_rgb", "mri": "adm_tiny_mri"}[name], folder)
        return denoiser, Measurement(values, mask, maps), noise, vectors

    return {name: case(name) for name in ("img", "mri")}


@pytest.mark.parametrize("index", [0, 1, 10, 100, 199])
@pytest.mark.parametrize("name", ["img", "mri"])
def test_golden_loss(cases, name, index):
    denoiser, measurement, noise, vectors = cases[name]
    t = torch.full((2,), 5.0 * index)
    with torch.no_grad():
        loss = noiseless_loss(denoiser, measurement, t, noise=noise)
    assert_close(loss, vectors[f"t{index}_loss"], rtol=1e-3, atol=0)


@pytest.mark.parametrize("name", ["img", "mri"])
def test_golden_gradient(cases, name):
    denoiser, measurement, noise, vectors = cases[name]
    expected = vectors["t10_grad_out_conv"]
    loss = noiseless_loss(denoiser, measurement, torch.full((2,), 50.0), noise=noise).mean()
    parameters = [p for p in denoiser.parameters() if p.shape == expected.shape]
    gradients = torch.autograd.grad(loss, parameters)
    closest = min(gradients, key=lambda g: (g - expected).norm().item())
    assert_close(closest, expected, rtol=1e-3, atol=1e-4 * expected.abs().max().item())


@pytest.mark.parametrize("name", ["img", "mri"])
def test_unmeasured_entries_do_not_reach_loss_or_gradient(cases, name):
    denoiser, measurement, noise, _ = cases[name]
    t = torch.tensor([50.0, 700.0])
    nan = torch.full_like(measurement.values, torch.nan)
    poisoned = Measurement(torch.where(measurement.mask, measurement.values, nan), measurement.mask, measurement.maps)
    weights = list(denoiser.parameters())
    results = []
    for m, n in ((measurement, noise), (poisoned, torch.where(measurement.mask, noise, nan))):
        loss = noiseless_loss(denoiser, m, t, noise=n)
        results.append((loss.detach(), torch.autograd.grad(loss.sum(), weights)))
    (loss, gradients), (poisoned_loss, poisoned_gradients) = results
    assert torch.equal(loss, poisoned_loss)
    assert loss.isfinite().all()
    assert all(torch.equal(a, b) for a, b in zip(gradients, poisoned_gradients))


def test_generator_decides_the_noise(cases):
    denoiser, measurement, _, _ = cases["mri"]
    t = torch.tensor([50.0, 700.0])
    with torch.no_grad():
        a, b, c = (noiseless_loss(denoiser, measurement, t, torch.Generator().manual_seed(s)) for s in (1, 1, 2))
    assert torch.equal(a, b)
    assert not torch.equal(a, c)


def test_mean_square_counts_a_complex_entry_as_two():
    z = random_tensor((3, 2, 4, 4), torch.complex128)
    assert_close(mean_square(z), z.abs().square().flatten(1).mean(1) / 2)
