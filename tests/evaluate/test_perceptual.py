"""Fréchet distances against closed forms, features against hand-made images, weights that are not there."""

import pytest
import torch

from msm.evaluate.bootstrap import difference, mean, of_sets
from msm.evaluate.perceptual import (
    GROUPS,
    LPIPS_WEIGHTS,
    MissingWeights,
    _lpips,
    frechet_distance,
    gaussian_distance,
    inception_features,
    lpips,
    wavelet_distance,
    wavelet_features,
)


def white(*shape, seed=0):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def test_the_distance_of_commuting_gaussians_is_that_of_their_standard_deviations():
    rotation = torch.linalg.qr(white(4, 4))[0]
    s_a, s_b = torch.tensor([1.0, 2.0, 0.5, 0.0]).double(), torch.tensor([0.3, 2.0, 1.5, 1.0]).double()
    cov_a, cov_b = (rotation @ s.square().diag() @ rotation.T for s in (s_a, s_b))
    shift = white(4, seed=1)
    expected = (shift.square().sum() + (s_a - s_b).square().sum()).item()
    assert gaussian_distance(shift, cov_a, 0 * shift, cov_b) == pytest.approx(expected, abs=1e-10)


def test_the_distance_is_the_transport_cost_of_a_linear_map():
    """N(0, Σ) is transported to N(m, A Σ A) by x -> A x + m, A symmetric positive; the cost is exact."""
    cov, a, m = white(3, 3), white(3, 3, seed=1), white(3, seed=2)
    cov, a = cov @ cov.T, a @ a.T
    cost = m.square().sum() + torch.trace((a - torch.eye(3)) @ cov @ (a - torch.eye(3)))
    assert gaussian_distance(0 * m, cov, m, a @ cov @ a) == pytest.approx(cost.item(), rel=1e-9)


def test_sets_have_the_distance_of_their_gaussians():
    a, m = white(3, 3, seed=1), white(3, seed=2)
    a = a @ a.T
    x = white(50, 3)
    centred = x - x.mean(0)
    cost = (
        (x.mean(0) @ (a - torch.eye(3)) + m).square().sum()
        + torch.trace((a - torch.eye(3)) @ torch.cov(centred.T) @ (a - torch.eye(3)))
    ).item()
    assert frechet_distance(x, x @ a + m) == pytest.approx(cost, rel=1e-9)
    assert frechet_distance(x, x) == pytest.approx(0, abs=1e-12)


def test_wavelet_features_of_simple_images():
    ramp = torch.zeros(1, 1, 16, 16)
    ramp[..., 1::2] = 1  # columns 0, 1, 0, 1: detail across at the finest scale only
    (found,) = wavelet_features(ramp)
    thumbnail, *scales = found.split(GROUPS)
    assert thumbnail.tolist() == [0.5] * 16
    across, down, diagonal = scales[0].split(4)
    assert across.tolist() == [1.0] * 4 and not down.any() and not diagonal.any()
    assert not scales[1].any() and not scales[2].any()
    assert torch.equal(wavelet_features(ramp * 1j), wavelet_features(ramp))
    assert wavelet_features(torch.rand(2, 3, 20, 18)).shape == (2, 3 * sum(GROUPS))


def test_the_wavelet_distance_has_the_unit_of_the_reference_and_sees_blur():
    images = white(60, 1, 16, 16)
    reference = wavelet_features(images)
    assert wavelet_distance(reference, reference) == pytest.approx(0, abs=1e-9)
    assert wavelet_distance(7 * reference, 7 * (reference + 1)) == pytest.approx(
        wavelet_distance(reference, reference + 1)
    )
    blurred = torch.nn.functional.avg_pool2d(images, 3, 1, 1)
    other = wavelet_distance(wavelet_features(white(60, 1, 16, 16, seed=9)), reference)
    assert wavelet_distance(wavelet_features(blurred), reference) > 10 * other


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: frechet_distance(white(1, 3), white(5, 3)), "N, M > 1"),
        (lambda: frechet_distance(white(4, 3) / 0, white(5, 3)), "not finite"),
        (lambda: wavelet_features(white(1, 1, 4, 16)), "at least 8 pixels"),
        (lambda: wavelet_distance(white(4, 52), torch.ones(5, 52).double()), "all alike"),
        (lambda: mean([]), "no records"),
        (lambda: difference([1.0], [1.0, 2.0]), "same images"),
    ],
)
def test_errors_are_one_line(call, message):
    with pytest.raises(ValueError, match=message) as error:
        call()
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "measure",
    [lambda: lpips(white(1, 3, 64, 64), white(1, 3, 64, 64)), lambda: inception_features(white(1, 3, 64, 64))],
)
def test_weights_that_are_not_there_are_named(measure, tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    with pytest.raises(MissingWeights, match=f"not measured: {tmp_path}/hub/checkpoints/.* is missing; copy"):
        measure()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_lpips_on_random_weights_is_a_distance(tmp_path, monkeypatch):
    """AlexNet with random weights: the real ones cannot be had in the tests."""
    from torchvision.models import alexnet

    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    weights = tmp_path / "hub" / "checkpoints" / LPIPS_WEIGHTS
    weights.parent.mkdir(parents=True)
    torch.save(alexnet().state_dict(), weights)
    assert _lpips(weights) is _lpips(weights)  # built once
    x = torch.rand(2, 1, 64, 64)
    assert lpips(x, x) == pytest.approx([0, 0], abs=1e-7)
    near, far = lpips(x + 0.01 * x.flip(-1), x), lpips(1 - x, x)
    assert all(0 < a < b for a, b in zip(near, far))
    x = (x + 0.5) / 2
    assert lpips(x.clone() * 1j, x + 0j) == pytest.approx([0, 0], abs=1e-7)


# Intervals


def test_the_interval_of_a_mean_holds_it_in_about_95_of_100_repetitions():
    samples = torch.distributions.Exponential(1.0)
    torch.manual_seed(0)
    held = 0
    for _ in range(100):
        found = mean(samples.sample((25,)).tolist())
        assert found.low <= found.value <= found.high and found.count == 25
        held += found.low <= 1 <= found.high
    assert 86 <= held <= 99


def test_what_has_no_spread_has_no_width():
    assert (mean([2.0]).low, mean([2.0]).high) == (None, None)
    assert (mean([2.0, 2.0]).low, mean([2.0, 2.0]).high) == (2.0, 2.0)


def test_pairs_are_compared_as_pairs():
    """Images differ by 10 dB, methods by 0.1: only the paired interval sees it."""
    b = (10 * white(20)).tolist()
    a = [y + 0.1 + 0.01 * e for y, e in zip(b, white(20, seed=1).tolist())]
    found = difference(a, b)
    assert 0.08 < found.low < 0.1 < found.high < 0.12


def test_the_interval_of_a_frechet_distance_holds_the_distance_of_the_laws():
    held = 0
    for seed in range(20):
        a, b = white(100, 4, seed=2 * seed), white(100, 4, seed=2 * seed + 1) + 0.5
        found = of_sets(frechet_distance, a, b, resamples=100)
        held += found.low <= 4 * 0.25 <= found.high
    assert held >= 16
