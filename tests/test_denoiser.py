"""The parametrisations, and the score."""

import pytest
import torch

from msm.denoiser import EDM, Epsilon, PartialDenoiser, Sense
from msm.mri_prior import ImagePrior
from msm.schedule import VPSchedule
from msm.transforms import Identity, MultiCoil, fft2c, ifft2c


def coils(batch, number, size):
    maps = torch.randn(batch, number, size, size, dtype=torch.complex64)
    return MultiCoil(maps / maps.abs().square().sum(1, keepdim=True).sqrt())


class Nothing(torch.nn.Module):
    """A network that predicts zero."""

    def forward(self, u, t):
        return torch.zeros_like(u)


def test_sense_estimates_are_as_exact_as_a_gaussian_image_allows():
    """c is the error of m_0, per real component, for a real image with the spectrum P, all of it measured."""
    size, coil = 64, MultiCoil(torch.ones(1, 1, 64, 64, dtype=torch.complex64))
    prior, generator = ImagePrior(phase_residual=1e-6), torch.Generator().manual_seed(0)
    power = prior.spectrum(torch.Size((size, size)), torch.device("cpu"))
    white, n = torch.randn(2, 8, 1, size, size, dtype=torch.complex64, generator=generator) * 2**0.5
    x = ifft2c(power.sqrt() * fft2c(white.real)).real + 1.0  # the offset makes the phase zero
    everything, sense = torch.ones(8, 1, size, size) > 0, Sense(prior, iterations=20)
    for level in (0.01, 0.03, 0.1):
        s = coil.forward(x.to(torch.complex64)) + level * n
        phase, m_0 = sense.linear_estimate(s, everything, torch.full((8, 1, 1, 1), level), coil)
        error = torch.view_as_real(phase * m_0 - x).square().mean()
        assert error == pytest.approx(1 / sense.loss_weight(torch.tensor(level)).item(), rel=0.15)


def test_edm_counts_the_network_by_what_a_linear_estimate_leaves():
    """White images of standard deviation σ_x: the network that predicts zero is their exact denoiser, of error c²."""
    generator, sigma_x = torch.Generator().manual_seed(0), 0.5
    x, n = torch.randn(2, 1, 3, 200, 200, generator=generator).unbind()
    x, mask = sigma_x * x, torch.rand(1, 1, 200, 200, generator=generator) < 0.4
    denoiser = PartialDenoiser(Nothing(), VPSchedule(), EDM(sigma_x))
    for level in (0.02, 0.5, 3.0, 100.0):
        t = denoiser.schedule.time(torch.tensor([level]))
        s_t = torch.where(mask, x + level * n, 0)
        s_hat = denoiser(s_t / (1 + level**2) ** 0.5, mask, t, Identity())
        torch.testing.assert_close(s_hat, sigma_x**2 / (sigma_x**2 + level**2) * s_t, rtol=1e-4, atol=1e-5)
        error = (s_hat - x)[mask.expand_as(x)].square().mean()
        assert error * denoiser.loss_weight(t)[0] == pytest.approx(1, rel=0.02)


@pytest.mark.parametrize("parametrisation", [Epsilon(), EDM(), Sense()])
def test_estimate_is_zero_off_the_mask_and_ignores_what_is_there(parametrisation):
    torch.manual_seed(0)
    transform, mask = coils(2, 3, 8), torch.rand(2, 1, 8, 8) < 0.5
    denoiser = PartialDenoiser(Nothing(), VPSchedule(), parametrisation)
    z = torch.randn(2, 3, 8, 8, dtype=torch.complex64)
    estimate = denoiser(z, mask, torch.tensor([3.0, 700.0]), transform)
    poisoned = denoiser(torch.where(mask, z, torch.nan), mask, torch.tensor([3.0, 700.0]), transform)
    assert torch.equal(estimate, poisoned) and not estimate[(~mask).expand_as(z)].any()


def test_score_is_tweedies_formula():
    torch.manual_seed(0)
    t, mask, z = torch.tensor(300.0), torch.rand(2, 1, 4, 4) < 0.5, torch.randn(2, 1, 4, 4)
    denoiser = PartialDenoiser(Nothing(), VPSchedule())
    sigma, alpha_bar = denoiser.schedule.sigma(t), denoiser.schedule.alpha_bar(t)
    expected = (denoiser(z, mask, t, Identity()) - torch.where(mask, z, 0) / alpha_bar.sqrt()) / sigma**2
    torch.testing.assert_close(denoiser.score(z, mask, t, Identity()), expected)


def test_the_prior_decides_how_much_of_the_imaginary_part_is_believed():
    torch.manual_seed(0)
    transform, z = coils(2, 3, 16), torch.randn(2, 3, 16, 16, dtype=torch.complex64)
    mask, t = torch.rand(2, 1, 16, 16) < 0.5, torch.tensor([30.0, 30.0])
    imaginary = []
    for kappa in (0.01, 0.5):
        prior = ImagePrior(phase_residual=kappa)
        denoiser = PartialDenoiser(Nothing(), VPSchedule(), Sense(prior, iterations=20))
        sigma = denoiser.schedule.sigma(t)[:, None, None, None]
        s = torch.where(mask, z, 0) * (1 + sigma**2).sqrt()
        imaginary.append(denoiser.parametrisation.linear_estimate(s, mask, sigma, transform)[1].imag.std())
    assert denoiser.prior == prior and imaginary[0] < 0.5 * imaginary[1]
