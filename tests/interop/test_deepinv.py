"""The model as a denoiser and a reconstructor of deepinv, and as the prior of its samplers."""

from types import SimpleNamespace

import pytest
import torch
from helpers import unit_coils
from oracle import GaussianOracle
from torch import nn

from msm import BoxMasks, Draw, FullMask, PartialDenoiser, Problem, Sampler, reconstruct
from msm.data.samples import portrait
from msm.operators import Undersampling
from msm.transforms import MultiCoil

deepinv = pytest.importorskip("deepinv")

from msm.interop.deepinv import Denoiser, Reconstructor  # noqa: E402

FEW = Sampler(steps=6, draws=1, grid="log")


def oracle(masks=None, size=(4, 4)):
    """The exact denoiser of a Gaussian field, with what a trained one has beside."""
    exact = GaussianOracle(size)
    exact.masks, exact.record = masks or FullMask(size), {}
    return exact


def noisy_field(exact, sigma, batch=3):
    """Fields as deepinv has them, around 0.5, and the same with noise."""
    generator = torch.Generator().manual_seed(0)
    x = (exact.sample(batch, generator) + 1) / 2
    return x, x + sigma.view(-1, 1, 1, 1) * torch.randn(x.shape, generator=generator)


def test_the_estimate_is_the_conditional_mean_in_the_units_of_deepinv():
    exact, sigma = oracle(), torch.tensor([0.05, 0.2, 1.0])
    _, y = noisy_field(exact, sigma)
    prior = Denoiser(exact)
    assert isinstance(prior, deepinv.models.Denoiser)
    covariance = exact.covariance / 4  # of (z + 1)/2
    noise = sigma.double()[:, None, None] ** 2 * torch.eye(16)
    gain = torch.linalg.solve(covariance + noise, covariance.expand(3, -1, -1), left=False)
    expected = 0.5 + (gain @ (y.double().flatten(1) - 0.5)[..., None]).view_as(y)
    torch.testing.assert_close(prior(y, sigma).double(), expected, rtol=0, atol=2e-4)
    torch.testing.assert_close(prior(y[:1].double(), 0.05), expected[:1], rtol=0, atol=2e-4)


def test_under_masks_it_is_their_mean_and_the_same_for_any_batch():
    exact, sigma = oracle(BoxMasks((4, 4), drop=0.4, grid=4)), torch.tensor([0.1, 0.2, 0.2])
    _, y = noisy_field(exact, sigma)
    y.requires_grad_()
    prior = Denoiser(exact, seed=3)
    estimate = prior(y, sigma)
    assert torch.equal(estimate[1:2], prior(y[1:2], 0.2)) and not torch.equal(estimate, Denoiser(exact)(y, sigma))
    exactly = Denoiser(oracle())(y, sigma)
    assert (estimate - exactly).abs().mean() < 0.5 * (y - exactly).abs().mean()  # each mask knows less than all of y
    (gradient,) = torch.autograd.grad(estimate.sum(), y)  # as DPS needs it
    assert gradient.abs().min() > 0


def test_coils_get_the_noise_that_the_image_does_not_reach():
    """The model sees k-space with white noise in all coils, and an image that it leaves alone comes back."""
    transform, seen = unit_coils(batch=1), []

    def leave_alone(z_t, mask, t, transform):
        seen.append(z_t / denoiser.schedule.alpha_bar(t).sqrt().view(-1, 1, 1, 1))
        return torch.where(mask, seen[-1], 0)

    denoiser = SimpleNamespace(schedule=oracle().schedule, masks=FullMask(8), record={})
    proxy = nn.Module()
    proxy.forward, proxy.schedule, proxy.masks, proxy.record = leave_alone, *vars(denoiser).values()
    noise, sigma = torch.randn(400, 2, 8, 8, generator=torch.Generator().manual_seed(0)), 0.3
    for seed in range(400):
        x = sigma * noise[seed : seed + 1]
        torch.testing.assert_close(Denoiser(proxy, maps=transform.maps, seed=seed)(x, sigma), x, rtol=0, atol=1e-5)
    found = torch.view_as_real(torch.cat(seen)).movedim(-1, 2).flatten(1, 2).movedim(0, -1).flatten(1)
    covariance = found @ found.T / found.shape[1]
    assert (covariance / sigma**2 - torch.eye(len(covariance))).abs().max() < 0.05


def test_it_is_the_prior_of_langevin_sampling():
    """Mean and variance of deepinv's ULA are those of the Gaussian posterior in closed form."""
    exact, smooth, noise, step = oracle(), 0.2, 0.3, 4e-3
    generator = torch.Generator().manual_seed(1)
    x = (exact.sample(1, generator) + 1) / 2
    mask = (torch.rand(1, 1, 4, 4, generator=generator) < 0.6).float()
    physics = deepinv.physics.Inpainting((1, 4, 4), mask=mask, noise_model=deepinv.physics.GaussianNoise(noise))
    torch.manual_seed(0)
    y = physics(x)
    sampler = deepinv.sampling.ULA(
        deepinv.optim.ScorePrior(Denoiser(exact)),
        deepinv.optim.L2(sigma=noise),
        step_size=step,
        sigma=smooth,
        alpha=1.0,
        max_iter=8000,
        burnin_ratio=0.1,
        thinning=4,
        clip=(-10, 10),
        thresh_conv=0,
        verbose=False,
    )
    mean, variance = sampler.sample(y, physics, seed=0)
    prior = torch.linalg.inv(exact.covariance / 4 + smooth**2 * torch.eye(16))
    posterior = torch.linalg.inv(torch.diag(mask.flatten().double()) / noise**2 + prior)
    expected = 0.5 + posterior @ ((mask.flatten() * (y.flatten() - 0.5)).double() / noise**2)
    deviation = posterior.diagonal().sqrt()
    assert ((mean.flatten() - expected) / deviation).abs().max() < 0.25
    assert (variance.flatten().sqrt() / deviation - 1).abs().max() < 0.15


@pytest.mark.parametrize("sde", ["VarianceExplodingDiffusion", "VariancePreservingDiffusion"])
def test_it_is_the_prior_of_deepinvs_diffusions(sde):
    """What the reverse SDEs of deepinv draw with it has the mean and the covariance of the field."""
    exact, count = oracle(), 500
    diffusion = getattr(deepinv.sampling, sde)(
        denoiser=Denoiser(exact),
        alpha=1.0,
        solver=deepinv.sampling.EulerSolver(timesteps=torch.linspace(1, 1e-3, 100), rng=torch.Generator()),
        dtype=torch.float32,
    )
    x = diffusion.sample((count, 1, 4, 4), seed=0).flatten(1).double()
    deviations = exact.covariance.diagonal().sqrt() / 2
    assert ((x.mean(0) - 0.5) / deviations).abs().max() < 4 / count**0.5
    expected = exact.covariance / 4
    off = (x.T.cov() - expected).norm() / expected.norm()
    assert off < 0.15


@pytest.fixture(scope="module")
def faces():
    return PartialDenoiser.load("bundled:faces_refined").eval()


@pytest.fixture(scope="module")
def hole():
    """A portrait in [0, 1], the physics of a hole in it, and what that measured."""
    x = (portrait(64).image[None] + 1) / 2
    mask = torch.ones(1, 3, 64, 64)
    mask[..., 24:40, 24:40] = 0
    physics = deepinv.physics.Inpainting((3, 64, 64), mask=mask, noise_model=deepinv.physics.GaussianNoise(0.01))
    torch.manual_seed(0)
    return x, physics, physics(x)


def psnr(estimate, x):
    return -10 * (estimate - x).square().mean().log10().item()


def in_hole(estimate, x):
    return psnr(estimate[..., 24:40, 24:40], x[..., 24:40, 24:40])


def test_a_trained_model_is_the_prior_of_diffpir(faces, hole):
    """deepinv's sampler fills the hole better than the mean of the rest does."""
    x, physics, y = hole
    flat = torch.where(physics.mask > 0, y, (y.sum((2, 3)) / physics.mask.sum((2, 3)))[..., None, None])
    prior, least = Denoiser(faces), in_hole(flat, x)
    torch.manual_seed(0)
    piece = deepinv.sampling.DiffPIR(prior, deepinv.optim.L2(), sigma=0.01, max_iter=20)(y, physics)
    assert in_hole(piece, x) > least + 3


def test_the_reconstructor_is_reconstruct(faces, hole):
    x, physics, y = hole
    model = Reconstructor(faces, sampler=FEW, samples=2, seed=5)
    assert isinstance(model, deepinv.models.Reconstructor)
    found = model(y, physics)
    ours = Problem(2 * y - physics.mask, Undersampling(physics.mask[:, :1].bool()), noise_std=0.02)
    how = {"sampler": FEW, "data_step": Draw(6)}
    both = torch.cat([reconstruct(faces, ours, seeds=[seed], **how) for seed in (5, 6)])
    torch.testing.assert_close(found, (both.mean(0, keepdim=True) + 1) / 2, rtol=0, atol=1e-4)
    assert (found - x)[physics.mask > 0].abs().mean() < 0.02


def test_enlarging(faces):
    """deepinv poses it of images in [0, 1], where H of our black is not 0."""
    x = (portrait(64).image[None] + 1) / 2
    physics = deepinv.physics.Downsampling((3, 64, 64), filter="bicubic", factor=4)
    found = Reconstructor(faces, sampler=FEW, noise_std=0.01)(physics.A(x), physics)
    assert (physics.A(found) - physics.A(x)).abs().mean() < 0.02
    assert psnr(found, x) > psnr(physics.A_adjoint(physics.A(x)), x) + 3


@pytest.mark.parametrize("coils", [1, 3])
def test_k_space_of_deepinv(coils):
    """One coil and several, whose maps have squares that do not add up to 1."""
    network = PartialDenoiser.load("bundled:brain").eval()
    generator = torch.Generator().manual_seed(0)
    y_axis, x_axis = torch.meshgrid(torch.linspace(-1, 1, 64), torch.linspace(-1, 1, 64), indexing="ij")
    image = torch.stack([(x_axis**2 + y_axis**2 < 0.5).float(), torch.zeros(64, 64)])[None]
    mask = (torch.rand(64, generator=generator) < 0.4).float().expand(64, 64).clone()
    mask[:, 28:36] = 1
    noise = {"noise_model": deepinv.physics.GaussianNoise(0.02)}
    if coils == 1:
        physics, maps = deepinv.physics.MRI(mask=mask, **noise), torch.ones(1, 1, 64, 64) + 0j
    else:
        maps = torch.stack([torch.exp(-((x_axis - a) ** 2)) * torch.exp(1j * a * y_axis) for a in (-1, 0, 1)])[None]
        physics = deepinv.physics.MultiCoilMRI(mask=mask, coil_maps=maps, **noise)
    torch.manual_seed(0)
    y = physics(image)
    found = Reconstructor(network, sampler=FEW)(y, physics)
    assert found.shape == image.shape
    assert (found - image).square().mean().sqrt() < 0.09
    gain = maps.abs().square().sum(1, keepdim=True).sqrt()
    transform, kept = MultiCoil(maps / gain), mask[None, None].bool()
    z = torch.where(kept, torch.view_as_complex(y.movedim(1, -1).contiguous()).view(1, coils, 64, 64), 0)
    ours = reconstruct(network, Problem(z, Undersampling(kept), transform, 0.02), seeds=[0], sampler=FEW,
                       data_step=Draw(20))  # fmt: skip
    expected = torch.view_as_real((transform.adjoint(ours) / gain)[:, 0]).movedim(-1, 1)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("physics", "told"),
    [
        (lambda: deepinv.physics.MRI(img_size=(2, 64, 64)), "the physics is one of MRI, the model one of photos"),
        (lambda: deepinv.physics.Haze(), "Haze is not linear"),
        (
            lambda: deepinv.physics.Denoising(noise_model=deepinv.physics.PoissonNoise()),
            "noise of PoissonNoise is not Gaussian: give noise_std",
        ),
    ],
)
def test_what_does_not_fit_is_refused(faces, physics, told):
    with pytest.raises(ValueError, match=told):
        Reconstructor(faces)(torch.zeros(1, 3, 64, 64), physics())


def test_a_model_of_mri_needs_maps_and_slices():
    brain = PartialDenoiser.load("bundled:brain")
    with pytest.raises(ValueError, match="a model of MRI needs maps"):
        Denoiser(brain)
    volume = deepinv.physics.MRI(mask=torch.ones(1, 2, 4, 64, 64), three_d=True)
    with pytest.raises(ValueError, match=r"the mask is of shape \[1, 2, 4, 64, 64\]: the model is one of slices"):
        Reconstructor(brain)(torch.zeros(1, 2, 4, 64, 64), volume)
