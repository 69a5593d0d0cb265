"""The parametrisations, and the score."""

import pytest
import torch

from msm.denoiser import PartialDenoiser, regularised_least_squares
from msm.schedule import VPSchedule
from msm.transforms import Identity, MultiCoil


def coils(batch, number, size):
    maps = torch.randn(batch, number, size, size, dtype=torch.complex64)
    return MultiCoil(maps / maps.abs().square().sum(1, keepdim=True).sqrt())


class Nothing(torch.nn.Module):
    """A network that predicts zero."""

    def forward(self, u, t):
        return torch.zeros_like(u)


def test_least_squares_is_the_dense_solution_of_each_item():
    torch.manual_seed(0)
    transform, mask = coils(2, 3, 4), torch.rand(2, 1, 4, 4) < 0.7
    s = torch.where(mask, torch.randn(2, 3, 4, 4, dtype=torch.complex64), 0)
    ridge = torch.tensor([0.1, 1.0])[:, None, None, None]
    found = regularised_least_squares(s, mask, transform, ridge, iterations=16)
    for i in range(2):
        one = MultiCoil(transform.maps[i : i + 1].expand(16, -1, -1, -1))
        basis = torch.eye(16, dtype=torch.complex64).reshape(16, 1, 4, 4)
        a = torch.where(mask[i], one.forward(basis), 0).flatten(1).T
        normal = a.mH @ a + ridge[i].item() * torch.eye(16)
        expected = torch.linalg.solve(normal, a.mH @ s[i].flatten())
        torch.testing.assert_close(found[i].flatten(), expected, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("parametrisation", ["epsilon", "sense"])
def test_estimate_is_zero_off_the_mask_and_ignores_what_is_there(parametrisation):
    torch.manual_seed(0)
    transform, mask = coils(2, 3, 8), torch.rand(2, 1, 8, 8) < 0.5
    denoiser = PartialDenoiser(Nothing(), VPSchedule(), parametrisation)
    z = torch.randn(2, 3, 8, 8, dtype=torch.complex64)
    estimate = denoiser(z, mask, torch.tensor([3.0, 700.0]), transform)
    poisoned = denoiser(torch.where(mask, z, torch.nan), mask, torch.tensor([3.0, 700.0]), transform)
    assert torch.equal(estimate, poisoned) and not estimate[(~mask).expand_as(z)].any()


def test_sense_corrections_stay_of_the_size_of_the_image():
    denoiser = PartialDenoiser(Nothing(), VPSchedule(), "sense")
    size = denoiser.loss_weight(torch.tensor([0.0, 100.0, 999.0])).rsqrt()
    assert (size > 0.05).all() and (size <= denoiser.parametrisation.prior_std).all()


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
