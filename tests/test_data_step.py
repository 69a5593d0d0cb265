"""The data steps: against their closed forms; the samplers' own tests are in test_sampling.py."""

from dataclasses import FrozenInstanceError

import pytest
import torch
from helpers import Keep, random_tensor, unit_coils
from torch.testing import assert_close

from msm.data_step import Draw, GradientStep, Proximal, preset_data_step
from msm.mri_prior import ImagePrior
from msm.operators import Problem, super_resolution
from msm.transforms import Identity, MultiCoil, fft2c


def test_the_gradient_step_moves_measured_entries_only():
    mask = torch.rand(2, 1, 8, 8, generator=torch.Generator().manual_seed(0)) < 0.5
    operator, z_hat = Keep(mask), random_tensor((2, 3, 8, 8), torch.float32)
    y = operator.A(random_tensor((2, 3, 8, 8), torch.float32, 1))
    step = GradientStep(0.25).of(Problem(y, operator))
    expected = torch.where(mask, 0.75 * z_hat + 0.25 * y, z_hat)
    for sigma in (0.01, 10.0):
        assert_close(step(z_hat, sigma, torch.randn_like), expected)


def test_the_proximal_step_minimises_its_objective():
    """Photos: the closed-form minimiser of ‖H x − y‖²/σ_y² + ‖x − x̂‖²/σ_t²."""
    operator = super_resolution((1, 8, 8), factor=2)
    x_hat, y = random_tensor((2, 1, 8, 8), torch.float32), random_tensor((2, 1, 4, 4), torch.float32)
    found = Proximal().of(Problem(y, operator, noise_std=0.3))(x_hat, 0.5, torch.randn_like)
    a = operator.A(torch.eye(64).reshape(64, 1, 8, 8)).flatten(1).T
    right = a.T @ y.flatten(1).T / 0.3**2 + x_hat.flatten(1).T / 0.5**2
    expected = torch.linalg.solve(a.T @ a / 0.3**2 + torch.eye(64) / 0.5**2, right).T
    assert_close(found.flatten(1), expected, rtol=1e-3, atol=1e-3)


def test_the_proximal_step_of_mri_is_the_posterior_mean_of_a_gaussian_image():
    """x̂ + C Aᴴ (A C Aᴴ + σ_y²)⁻¹ (y − A x̂) in real arithmetic, A = S T e^{iφ}; a smooth phase, few entries measured."""
    size, noise_std, sigma = 4, 0.3, 0.5
    transform, prior = unit_coils(3, size), ImagePrior()
    operator = Keep(torch.rand(1, 1, size, size, generator=torch.Generator().manual_seed(3)) < 0.6)
    x_hat = random_tensor((1, 1, size, size), torch.complex64)
    y = operator.A(random_tensor((1, 3, size, size), torch.complex64))
    step = Proximal().of(Problem(y, operator, transform, noise_std))
    found = transform.adjoint(step(transform.forward(x_hat), sigma, torch.randn_like))
    phase = prior.phase(y, transform, noise_std)
    basis = torch.eye(size**2, dtype=torch.complex64).reshape(-1, 1, size, size)
    of_coils = MultiCoil(transform.maps.expand(size**2, -1, -1, -1))
    columns = [operator.A(of_coils.forward(phase * part * basis)).flatten(1).T for part in (1, 1j)]
    a = torch.cat([torch.cat([c.real, c.imag]) for c in columns], 1)  # of (Re m, Im m)
    spectrum = fft2c(basis).flatten(1).T
    power = prior.spectrum(y.shape[-2:], y.device).reshape(-1, 1)
    precisions = [(spectrum.mH @ (spectrum / (power * share))).real for share in (1, prior.phase_residual)]
    precision = torch.block_diag(*precisions) + torch.eye(2 * size**2) / sigma**2
    residual = (y - operator.A(transform.forward(x_hat))).flatten()
    right = a.T @ torch.cat([residual.real, residual.imag]) / noise_std**2
    m = torch.linalg.solve(a.T @ a / noise_std**2 + precision, right)
    expected = x_hat.flatten() + phase.flatten() * torch.complex(*m.chunk(2))
    assert_close(found.flatten(), expected, rtol=2e-2, atol=2e-2)


@pytest.mark.parametrize("is_complex", [False, True])
def test_a_tempered_likelihood_is_one_of_less_noise(is_complex):
    """p(y|z)^4 of noise σ_y is that of noise σ_y/2, up to a constant."""
    transform = unit_coils() if is_complex else Identity()
    dtype, channels = (torch.complex64, 3) if is_complex else (torch.float32, 1)
    mask = torch.rand(1, 1, 8, 8, generator=torch.Generator().manual_seed(0)) < 0.5
    z_hat, y = random_tensor((1, channels, 8, 8), dtype), Keep(mask).A(random_tensor((1, channels, 8, 8), dtype, 1))
    steps = [
        Proximal(likelihood_weight=weight).of(Problem(y, Keep(mask), transform, noise))(z_hat, 0.5, torch.randn_like)
        for weight, noise in ((4.0, 0.2), (1.0, 0.1), (1.0, 0.2))
    ]
    assert torch.equal(steps[0], steps[1]) and not torch.allclose(steps[0], steps[2])


@pytest.mark.parametrize("iterations", [1, 2, 30])
def test_more_iterations_come_nearer_to_the_minimiser(iterations):
    operator = super_resolution((1, 8, 8), factor=2)
    x_hat, y = random_tensor((1, 1, 8, 8), torch.float32), random_tensor((1, 1, 4, 4), torch.float32)
    problem = Problem(y, operator, noise_std=0.01)
    exact = Proximal(100).of(problem)(x_hat, 0.5, torch.randn_like)
    error = (Proximal(iterations).of(problem)(x_hat, 0.5, torch.randn_like) - exact).norm() / exact.norm()
    assert error > 1e-3 if iterations < 3 else error < 1e-4


@pytest.mark.parametrize(
    "make",
    [
        lambda: GradientStep(0.0),
        lambda: GradientStep(-1.0),
        lambda: GradientStep(float("nan")),
        lambda: Proximal(0),
        lambda: Proximal(likelihood_weight=0.0),
        lambda: Proximal(likelihood_weight=float("nan")),
    ],
)
def test_values_out_of_range_are_refused(make):
    with pytest.raises(ValueError, match=r"must be at|above 0"):
        make()


@pytest.mark.parametrize("step", [GradientStep(1.0), Proximal(), Draw()])
def test_data_steps_are_frozen_and_equal_by_value(step):
    with pytest.raises(FrozenInstanceError):
        step.gamma = step.iterations = 2
    assert step in (GradientStep(1.0), Proximal(6, 1.0), Draw(6, 1.0)) and Proximal() != Draw()


def test_presets():
    steps = {(name, mri): preset_data_step(name, mri=mri) for name in ("paper", "published", "best") for mri in (0, 1)}
    assert steps == {
        **{(name, 0): GradientStep(1.75) for name in ("paper", "published")},
        **{(name, 1): GradientStep(2.0) for name in ("paper", "published")},
        **{("best", 0): Draw(6), ("best", 1): Draw(20)},
    }
    with pytest.raises(ValueError, match="preset must be paper, published or best, got 'fast'"):
        preset_data_step("fast")
