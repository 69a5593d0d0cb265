"""The parametrisations, and the score."""

import pytest
import torch

from msm.denoiser import PartialDenoiser, Sense
from msm.schedule import VPSchedule
from msm.transforms import Identity, MultiCoil, fft2c, ifft2c


def coils(batch, number, size):
    maps = torch.randn(batch, number, size, size, dtype=torch.complex64)
    return MultiCoil(maps / maps.abs().square().sum(1, keepdim=True).sqrt())


class Nothing(torch.nn.Module):
    """A network that predicts zero."""

    def forward(self, u, t):
        return torch.zeros_like(u)


def test_sense_starts_from_the_linear_minimum_mean_square_estimate():
    torch.manual_seed(0)
    transform, mask = coils(2, 3, 4), torch.rand(2, 1, 4, 4) < 0.7
    s = torch.where(mask, torch.randn(2, 3, 4, 4, dtype=torch.complex64), 0)
    sigma = torch.tensor([0.1, 1.0])[:, None, None, None]
    found = Sense(iterations=16).linear_estimate(s, mask, sigma, transform)
    k = torch.arange(4) - 2
    power = 16 * 0.0021 / (torch.pi * (k[:, None] ** 2 + k**2 + 0.25**2))
    basis = torch.eye(16, dtype=torch.complex64).reshape(16, 1, 4, 4)
    spectrum = fft2c(basis).flatten(1).T
    for i in range(2):
        one = MultiCoil(transform.maps[i : i + 1].expand(16, -1, -1, -1))
        a = torch.where(mask[i], one.forward(basis), 0).flatten(1).T
        precision = spectrum.mH @ (spectrum / power.reshape(16, 1))
        expected = torch.linalg.solve(a.mH @ a + sigma[i].item() ** 2 * precision, a.mH @ s[i].flatten())
        torch.testing.assert_close(found[i].flatten(), expected, rtol=1e-3, atol=1e-4)


def test_sense_estimates_are_as_exact_as_a_gaussian_image_allows():
    """c is the error of x_0 for an image with the spectrum P, all of it measured."""
    size, coil = 64, MultiCoil(torch.ones(1, 1, 64, 64, dtype=torch.complex64))
    sense, generator = Sense(), torch.Generator().manual_seed(0)
    k = torch.arange(size) - size // 2
    power = size**2 * 0.0021 / (torch.pi * (k[:, None] ** 2 + k**2 + 0.25**2))
    z, n = torch.randn(2, 8, 1, size, size, dtype=torch.complex64, generator=generator) * 2**0.5
    x = ifft2c(power.sqrt() * z)
    for level in (0.01, 0.1, 1.0):
        sigma = torch.full((8, 1, 1, 1), level)
        estimate = sense.linear_estimate(coil.forward(x) + level * n, torch.ones(8, 1, 64, 64) > 0, sigma, coil)
        error = torch.view_as_real(estimate - x).square().mean()
        assert error == pytest.approx(1 / sense.loss_weight(torch.tensor(level)).item(), rel=0.05)


@pytest.mark.parametrize("parametrisation", ["epsilon", "sense"])
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


def test_unknown_parametrisation_is_refused():
    with pytest.raises(ValueError, match="epsilon, sense"):
        PartialDenoiser(Nothing(), VPSchedule(), "v")
