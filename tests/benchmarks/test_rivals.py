"""What the rivals of MSM in the benchmarks draw, and what their losses show the network."""

import json
import sys
from pathlib import Path

import pytest
import torch
from oracle import GaussianOracle

from msm import CartesianMasks, Identity, Measurement, MultiCoil, PartialDenoiser, VPSchedule
from msm.config.build import make_masks
from msm.config.load import load_config
from msm.masks import BoxMasks
from msm.operators import Undersampling
from msm.sampling import ReverseProcess, Sampler

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "benchmarks" / "studies"))

from rival_methods import Bounded, Inpainting, Physics, ambient_loss, ddnm, diffpir, dps, hold_out, ssdu_loss  # noqa: E402
from rival_tables import PAGE, with_tables  # noqa: E402
from rivals import GENERATORS, PROBLEMS, RECORDS, ImageSpace, ambient_masks, data_kind, posed  # noqa: E402

SAMPLERS = {
    "dps": lambda *a: dps(*a, zeta=0.5),
    "ddnm": ddnm,
    "diffpir": lambda *a: diffpir(*a, weight=1.0, zeta=0.5, noise_std=0.01),
}
COUNT = 200


def drawn(sampler, oracle, y, mask, steps=60):
    """Samples (B, 1, 8, 8) with the exact posterior mean of a Gaussian field, B observations."""
    sampler_of_steps = Sampler(steps, 1, 1.0, covering=False)
    process = ReverseProcess(
        oracle, (1, *oracle.size), range(len(y)), Identity(), BoxMasks(oracle.size), sampler_of_steps
    )
    whole = torch.ones(len(y), 1, *oracle.size, dtype=torch.bool)
    physics = Physics(Undersampling(mask), Identity())
    mean = lambda x, level: oracle(x, whole, level.t)  # noqa: E731
    return sampler(mean, y, physics, process.start()[0], process)


@pytest.mark.parametrize("name", SAMPLERS)
def test_without_data_the_prior_is_drawn(name):
    oracle = GaussianOracle()
    nothing = torch.zeros(1, 1, *oracle.size, dtype=torch.bool)
    sampler = SAMPLERS[name] if name != "dps" else lambda *a: dps(*a, zeta=0.0)  # ‖y − A x̂‖ = 0 has no gradient
    x = drawn(sampler, oracle, torch.zeros(COUNT, 1, *oracle.size), nothing).flatten(1).double()
    directions = torch.linalg.eigh(oracle.covariance)
    variance = (x @ directions.eigenvectors[:, -8:]).square().mean(0) / directions.eigenvalues[-8:]
    # The relative variance of a Gaussian direction has a standard error of sqrt(2/COUNT); 60 steps are not exact.
    assert (variance - 1).abs().max() < 5 * (2 / COUNT) ** 0.5 + 0.1


@pytest.mark.parametrize("name", SAMPLERS)
def test_what_is_not_seen_follows_from_what_is(name):
    oracle = GaussianOracle(length=8.0)
    x = oracle.sample(COUNT, torch.Generator().manual_seed(1))
    mask = BoxMasks(oracle.size).sample(1, torch.Generator().manual_seed(2))
    noise = 0.01 * torch.randn(x.shape, generator=torch.Generator().manual_seed(3))
    y = torch.where(mask, x + noise, 0)
    seen, unseen = mask.flatten(), ~mask.flatten()
    known = oracle.covariance[seen][:, seen] + 1e-4 * torch.eye(int(seen.sum()))
    gain = torch.linalg.solve(known, oracle.covariance[seen][:, unseen]).T
    exact = y.flatten(1)[:, seen].double() @ gain.T
    of_mean = (exact - x.flatten(1)[:, unseen]).square().mean()
    x_hat = drawn(SAMPLERS[name], oracle, y, mask).flatten(1)
    error = (x_hat - x.flatten(1))[:, unseen].square().mean()
    # No estimate beats the posterior mean; an exact posterior sample has twice its error. A draw of the prior, twice
    # the prior's variance, has 14 times it here.
    assert of_mean < error < 2.5 * of_mean
    assert (x_hat - y.flatten(1))[:, seen].square().mean().sqrt() < 0.05


class Spy(torch.nn.Module):
    """A network that remembers its input."""

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.tensor(0.1))

    def forward(self, u, t):
        self.seen = u.detach().clone()
        return self.weight * u


def acquisition(batch=2, size=16, coils=3):
    generator = torch.Generator().manual_seed(0)
    maps = torch.randn(batch, coils, size, size, dtype=torch.complex64, generator=generator)
    maps = maps / maps.abs().square().sum(1, keepdim=True).sqrt()
    x = torch.randn(batch, 1, size, size, dtype=torch.complex64, generator=generator)
    masks = CartesianMasks(size, 2, 4)
    return Measurement(MultiCoil(maps).forward(x), masks.sample(batch, generator), maps), masks


def photos(batch=2, size=16):
    """Acquisitions of photos by boxes, and their family."""
    generator, masks = torch.Generator().manual_seed(0), BoxMasks(size)
    mask = masks.sample(batch, generator)
    return Measurement(torch.randn(batch, 3, size, size, generator=generator) * mask, mask), masks


def held_by_ambient(masks, mask):
    return mask & ~masks.submask(mask, torch.full((len(mask),), 0.5), torch.Generator().manual_seed(7))


def held_by_ssdu(masks, mask):
    return hold_out(mask, 0.4, torch.Generator().manual_seed(7))


def ambient(masks):
    return ambient_loss(masks, 0.5, torch.Generator().manual_seed(7))


def ssdu(masks):
    return ssdu_loss(0.4, torch.Generator().manual_seed(7))


LOSSES = {
    "ambient": (acquisition, Bounded, ambient, held_by_ambient),
    "ambient, photos": (photos, Inpainting, ambient, held_by_ambient),
    "ssdu": (acquisition, Bounded, ssdu, held_by_ssdu),
}


@pytest.mark.parametrize("name", LOSSES)
def test_what_is_held_out_reaches_the_loss_but_not_the_network(name):
    acquired, parametrisation, make, held_out = LOSSES[name]
    measurement, masks = acquired()
    held = held_out(masks, measurement.mask)
    assert held.flatten(1).any(1).all()
    assert not (held & ~measurement.mask).any()
    changed = Measurement(
        torch.where(held, measurement.values + 1, measurement.values), measurement.mask, measurement.maps
    )
    denoiser = PartialDenoiser(Spy(), VPSchedule())
    denoiser.parametrisation = parametrisation()
    results = []
    for given in (measurement, changed):
        kind = given.values.dtype
        noise = torch.randn(given.values.shape, dtype=kind, generator=torch.Generator().manual_seed(5))
        loss = make(masks)(denoiser, given, torch.tensor([50.0, 400.0]), noise=noise, probe=noise)
        results.append((denoiser.network.seen, loss))
    (seen, loss), (seen_again, other) = results
    assert torch.equal(seen, seen_again)
    assert (loss - other).abs().min() > 1e-3
    loss.sum().backward()
    assert denoiser.network.weight.grad.abs() > 0


def test_ambient_of_photos_starts_as_the_best_estimate_of_white_images():
    """A network that says nothing estimates what is given as EDM does and the rest as 0, each error counting alike."""
    x, mask = 0.5 * torch.randn(400, 3, 8, 8, generator=torch.Generator().manual_seed(1)), torch.ones(8, 8) > 0
    mask = mask.index_fill(0, torch.arange(2), False).expand(400, 1, 8, 8)
    sigma = torch.full((400, 1, 1, 1), 0.7)
    z_t = (x + sigma * torch.randn(x.shape, generator=torch.Generator().manual_seed(2))) * (1 + sigma**2).rsqrt()
    form = Inpainting()
    x_hat = form.estimate(lambda u, t: torch.zeros_like(u), z_t, mask, torch.zeros(400), sigma, Identity())
    error = (x_hat - x).square() * form.error_weight(sigma, mask)
    for entries in (mask, ~mask):
        assert error[entries.expand_as(error)].mean() == pytest.approx(1, abs=0.03)


def test_ambient_drops_one_box_more_or_a_higher_acceleration():
    for kind, kept in (("faces", 9 / 16), ("brain", None)):
        config = load_config(f"demo/{kind}")
        further, keep = ambient_masks(config)
        mask = make_masks(further, 64).sample(1, torch.Generator().manual_seed(0))
        if kept:
            assert mask.float().mean() == kept and keep == pytest.approx(0.9)
        else:
            assert further.acceleration == 5 and keep == pytest.approx(0.8)
        for name in PROBLEMS[config.data.kind]:
            assert posed(name, config).noise_std == 0.01


def test_the_published_sizes_are_evaluated_too():
    for name, kind in (("fmri_msm_R4_noise0_0_img256", "slices"), ("ffhq_msm_p04_noise0_0_img128", "images")):
        config = load_config(f"train/{name}")
        assert data_kind(config) == kind
        for problem in PROBLEMS[kind]:
            assert posed(problem, config).noise_std == 0.01


@pytest.mark.parametrize("name", GENERATORS)
@pytest.mark.parametrize("kind", ["brain", "faces"])
def test_generators_return_images(kind, name):
    """An estimate that is the same image at every level is what they end with."""
    config = load_config(f"demo/{kind}")
    image = torch.rand(1 if config.data.is_mri else 3, 64, 64, generator=torch.Generator().manual_seed(0))
    maps = torch.ones(2, 1, 64, 64, dtype=torch.complex64)
    transform = MultiCoil(maps) if config.data.is_mri else Identity()

    class Same:
        def estimate(self, network, z_t, mask, t, sigma, transform):
            return image.to(z_t.dtype).expand(len(z_t), -1, -1, -1)

    denoiser = PartialDenoiser(torch.nn.Identity(), VPSchedule())
    denoiser.parametrisation = Same()
    space = ImageSpace(tuple(image.shape), config.data.is_mri)
    found = GENERATORS[name](config, denoiser, space, transform, range(2))
    assert found.dtype == (torch.complex64 if config.data.is_mri else torch.float32)
    assert torch.allclose(found, image.to(found.dtype).expand_as(found), atol=1e-3)


def test_the_page_holds_the_stored_records():
    page = PAGE.read_text()
    assert with_tables(page, json.loads(RECORDS.read_text())) == page
