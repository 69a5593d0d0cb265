"""What samplers are asked and refuse: settings, presets, the law of masks, denoisers and transforms of one's own."""

from dataclasses import FrozenInstanceError, fields, replace

import pytest
import torch
from helpers import Keep, half, random_tensor, scheduled, unit_coils
from oracle import GaussianOracle

from msm.data_step import GradientStep, preset_data_step
from msm.denoiser import PartialDenoiser
from msm.masks import BoxMasks, CartesianMasks, EmpiricalMasks, FullMask
from msm.operators import Problem, Undersampling
from msm.sampling import ReverseProcess, Sampler, generate, reconstruct
from msm.schedule import VPSchedule
from msm.transforms import Identity

SHAPE, BOXES = (1, 8, 8), BoxMasks(8, 0.4)
LEFT = Keep(torch.arange(8) < 4)
PROBLEM = Problem(LEFT.A(torch.ones(1, *SHAPE)), LEFT)
BOTH = {
    "generate": lambda denoiser, **options: generate(denoiser, SHAPE, seeds=[0], **options),
    "reconstruct": lambda denoiser, **options: reconstruct(denoiser, PROBLEM, seeds=[0], **options),
}
both = pytest.mark.parametrize("sample", BOTH.values(), ids=BOTH)


# Settings


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ({"draws": 0}, "draws must be at least 1, got 0"),
        ({"eta": 1.5}, "eta must be between 0 and 1, got 1.5"),
        ({"eta": -0.1}, "eta must be between 0 and 1, got -0.1"),
        ({"score": "sum"}, 'score must be "average" or "chain", got \'sum\''),
        ({"order": 3}, "order must be 1 or 2, got 3"),
        ({"steps": 0}, "steps must be"),
        ({"steps": 1001}, "steps must be"),
        ({"grid": "cosine"}, "grid must be"),
    ],
)
@both
def test_settings_out_of_range_are_refused(sample, bad, message):
    with pytest.raises(ValueError, match=message):
        sample(GaussianOracle(), masks=BOXES, sampler=Sampler(**bad))


def test_settings_are_frozen():
    for field in fields(Sampler):
        with pytest.raises(FrozenInstanceError):
            setattr(Sampler(), field.name, 1)
    assert Sampler() == Sampler() and replace(Sampler(), steps=3) == Sampler(steps=3)


def test_what_only_the_other_sampler_takes_is_refused():
    with pytest.raises(ValueError, match=r"warm_start is for inverse problems, to generate use None, got 1\.0"):
        BOTH["generate"](GaussianOracle(), masks=BOXES, sampler=Sampler(warm_start=1.0))
    with pytest.raises(ValueError, match="order 2 is to generate, for inverse problems use 1"):
        BOTH["reconstruct"](GaussianOracle(), masks=BOXES, sampler=Sampler(order=2))


@both
def test_the_automatic_eta_is_that_of_the_task(sample):
    """No setting says η: 1 to generate, 0.85 for inverse problems."""
    eta, other = (1.0, 0.85) if sample is BOTH["generate"] else (0.85, 1.0)
    z = sample(GaussianOracle(), masks=BOXES, sampler=Sampler(steps=4))
    assert torch.equal(z, sample(GaussianOracle(), masks=BOXES, sampler=Sampler(steps=4, eta=eta)))
    assert not torch.equal(z, sample(GaussianOracle(), masks=BOXES, sampler=Sampler(steps=4, eta=other)))
    assert Sampler().resolved(sample is BOTH["reconstruct"]) == Sampler(eta=eta)
    assert Sampler(eta=0.3).resolved(True) == Sampler(eta=0.3)


@pytest.mark.parametrize(
    ("sampler", "masks", "calls"),
    [
        (Sampler(steps=5, draws=3), BOXES, 15),
        (Sampler(steps=5, score="chain"), BOXES, 15),
        (Sampler(steps=5, score="chain"), CartesianMasks((4, 40), 4, 6), 25),
        (Sampler(steps=5, score="chain"), FullMask(8), 5),
    ],
)
def test_calls_are_counted(sampler, masks, calls):
    assert sampler.calls(masks) == calls
    counted = []

    @scheduled
    def counting(z_t, mask, t, transform):
        counted.append(len(z_t))
        return half(z_t, mask, t, transform)

    state = torch.get_rng_state()
    generate(counting, (1, *masks.size), seeds=[0], masks=masks, sampler=sampler)
    assert sum(counted) == calls
    sampler.calls(masks)
    assert torch.equal(torch.get_rng_state(), state)  # nobody's random numbers are used up


# Presets


def test_presets():
    published = Sampler(steps=200, draws=3, covering=True, score="average", grid="time", order=1)
    assert Sampler.preset("paper") == replace(published, draws=1, covering=False)
    assert Sampler.preset("published") == published
    assert Sampler.preset("best") == Sampler.preset("best", mri=True) == Sampler(steps=20, grid="log", order=2)
    solve = {"inverse_problem": True}
    assert Sampler.preset("paper", **solve) == replace(published, draws=2, covering=False)
    assert Sampler.preset("paper", mri=True, **solve) == replace(published, covering=False)
    assert Sampler.preset("published", **solve) == replace(published, draws=2)
    assert Sampler.preset("published", mri=True, **solve) == published
    assert Sampler.preset("best", **solve) == Sampler(steps=20, draws=2, grid="log")
    assert Sampler.preset("best", mri=True, **solve) == Sampler(steps=12, draws=5, grid="log")
    with pytest.raises(ValueError, match="preset must be paper, published or best, got 'fast'"):
        Sampler.preset("fast")


@pytest.mark.parametrize("name", ["paper", "published", "best"])
def test_the_samplers_take_presets(name):
    few = replace(Sampler.preset(name), steps=4)
    assert generate(GaussianOracle(), SHAPE, seeds=[0], masks=BOXES, sampler=few).isfinite().all()
    masks, transform = CartesianMasks(8, 2, 2), unit_coils(4)
    operator = Undersampling(masks.sample(1, torch.Generator().manual_seed(0)))
    y = operator.A(transform.forward(torch.ones(1, 1, 8, 8, dtype=torch.complex64)))
    few = replace(Sampler.preset(name, inverse_problem=True, mri=True), steps=4)
    how = {"masks": masks, "sampler": few, "data_step": preset_data_step(name, mri=True)}
    assert reconstruct(half, Problem(y, operator, transform, 0.1), seeds=[0], **how).isfinite().all()


# The law of masks


class Twice(torch.nn.Module):
    """A network for any shape."""

    def forward(self, u, t):
        return 2 * u


def trained(masks):
    return PartialDenoiser(Twice(), VPSchedule(), masks=masks)


FEW = Sampler(steps=3)


@both
@pytest.mark.parametrize("denoiser", [GaussianOracle(), trained(None)], ids=["function", "of an unknown law"])
def test_without_a_law_of_masks_one_is_asked_for(sample, denoiser):
    with pytest.raises(ValueError, match="does not say which masks it was trained on: give masks"):
        sample(denoiser)


@both
def test_masks_of_another_size_are_refused(sample):
    for denoiser in (GaussianOracle(), trained(BOXES)):
        with pytest.raises(ValueError, match="masks are of 16×8, z is of 8×8"):
            sample(denoiser, masks=BoxMasks((16, 8), 0.4))


@both
def test_the_denoisers_own_law_is_taken(sample):
    z = sample(trained(BOXES), sampler=FEW)
    assert torch.equal(z, sample(trained(None), masks=BOXES, sampler=FEW))
    others = BoxMasks(8, 0.7)
    given = sample(trained(BOXES), masks=others, sampler=FEW)  # what is given comes first
    assert torch.equal(given, sample(trained(others), sampler=FEW))
    assert not torch.equal(z, given)


@both
def test_the_denoisers_own_law_is_taken_to_the_size_of_z(sample):
    law = BoxMasks((32, 16), 0.5, 2)
    z = sample(trained(law), sampler=FEW)
    assert law.size == (32, 16)  # itself it stays as it was
    assert torch.equal(z, sample(trained(None), masks=BoxMasks(8, 0.5, 2), sampler=FEW))
    with pytest.raises(ValueError, match=r"measured masks are of 16×8, .* is asked for"):
        sample(trained(EmpiricalMasks(torch.ones(1, 1, 16, 8, dtype=torch.bool))), sampler=FEW)


# Denoisers and transforms of one's own


@both
def test_a_denoiser_without_a_schedule_fails(sample):
    """It is not sampled with a schedule that is not its own."""

    def denoiser(z_t, mask, t, transform):
        return torch.where(mask, z_t / 2, 0)

    with pytest.raises(AttributeError, match="schedule"):
        sample(denoiser, masks=BOXES)
    denoiser.schedule = VPSchedule()
    assert sample(denoiser, masks=BOXES, sampler=FEW).isfinite().all()


class Fourier:
    """T of one coil that sees everything alike: complex, and without coil maps."""

    dtype = torch.complex64

    def forward(self, x):
        return torch.fft.fft2(x, norm="ortho")

    def adjoint(self, z):
        return torch.fft.ifft2(z, norm="ortho")

    def normal(self, x, mask):
        return self.adjoint(torch.where(mask, self.forward(x), 0))

    def repeat(self, times):
        return self


@pytest.mark.parametrize("score", ["average", "chain"])
def test_a_complex_transform_needs_no_coil_maps(score):
    sampler, masks = Sampler(steps=4, score=score), CartesianMasks(8, 2, 2)
    z = generate(half, SHAPE, seeds=[1, 2], transform=Fourier(), masks=masks, sampler=sampler)
    assert z.shape == (2, *SHAPE) and z.dtype == torch.complex64 and z.isfinite().all()
    assert z.real.std() > 0 and z.imag.std() > 0
    y = random_tensor((2, *SHAPE), torch.complex64)
    how = {"masks": masks, "sampler": sampler, "data_step": GradientStep(1.0)}
    torch.testing.assert_close(reconstruct(half, Problem(y, Keep(), Fourier()), seeds=[1, 2], **how), y)


def test_noise_of_a_complex_transform_has_unit_variance_per_part():
    z, _ = ReverseProcess(half, (1, 64, 64), [0, 1], Fourier(), FullMask(64), Sampler(steps=2, eta=1.0)).start()
    assert torch.view_as_real(z).std((0, 1, 2, 3)) == pytest.approx([1, 1], abs=0.03)
    z, _ = ReverseProcess(half, (1, 64, 64), [0, 1], Identity(), FullMask(64), Sampler(steps=2, eta=1.0)).start()
    assert z.dtype == torch.float32


def test_full_masks_take_one_mask_a_step():
    few, full = Sampler(steps=12, draws=5, grid="log"), FullMask(8)
    assert few.fitted(full) == replace(few, steps=60, draws=1)
    assert few.fitted(BoxMasks(8)) == few and few.fitted(full).fitted(full) == few.fitted(full)
    assert replace(few, score="chain").fitted(full) == replace(few, score="chain")
    assert Sampler(steps=500, draws=3).fitted(full).steps == 1000
