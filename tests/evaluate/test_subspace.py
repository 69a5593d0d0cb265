"""Calibration inside and outside of what was measured: exact samples are exact in both, wrong ones where they are."""

import pytest
import torch
from oracle import GaussianOracle

from msm.data.samples import brain_slices
from msm.evaluate.calibration import intervals
from msm.evaluate.subspace import part_names, ranks_in_parts
from msm.operators import Problem, Undersampling, box_inpainting, colorization, super_resolution
from msm.transforms import MultiCoil

NOISE = 0.1
SIZE = (8, 8)


def exact(operator, channels=1, number=19, batch=400, seed=0):
    """Truth, exact posterior samples and the problem, of Gaussian fields seen through any linear operator."""
    oracle, generator = GaussianOracle(SIZE), torch.Generator().manual_seed(seed)
    shape = (channels, *SIZE)
    cov = torch.block_diag(*[oracle.covariance] * channels)
    h = operator.A(torch.eye(len(cov)).view(-1, *shape)).flatten(1).T.double()
    root = torch.linalg.cholesky(cov + 1e-9 * torch.eye(len(cov)))
    x = torch.randn(batch, len(cov), dtype=torch.float64, generator=generator) @ root.T
    y = x @ h.T
    y = y + NOISE * torch.randn(y.shape, dtype=y.dtype, generator=generator)
    gain = torch.linalg.solve(h @ cov @ h.T + NOISE**2 * torch.eye(len(h)), h @ cov).T
    left = torch.linalg.cholesky(cov - gain @ h @ cov + 1e-9 * torch.eye(len(cov)))
    white = torch.randn(batch, number, len(cov), dtype=torch.float64, generator=generator)
    samples = (y @ gain.T)[:, None] + white @ left.T
    seen = operator.A(torch.zeros(1, *shape))
    problem = Problem(y.view(batch, *seen.shape[1:]).float(), operator, noise_std=NOISE)
    return x.view(batch, *shape).float(), samples.view(batch, number, *shape).float(), problem


def observed(counts, level):
    return next(c.observed for c in intervals(counts.sum(0).tolist()) if abs(c.expected - level) < 1e-9)


@pytest.mark.parametrize(
    ("make", "channels"),
    [(lambda: box_inpainting((1, *SIZE), hole=4), 1), (lambda: super_resolution((1, *SIZE), factor=2), 1),
     (lambda: colorization((3, *SIZE)), 3)],
)  # fmt: skip
def test_exact_samples_are_calibrated_in_both_parts(make, channels):
    x, samples, problem = exact(make(), channels)
    for counts in ranks_in_parts(samples, x, problem):
        for level in (0.9, 0.5):
            assert observed(counts, level) == pytest.approx(level, abs=0.03)


def test_samples_are_too_sure_only_where_they_are():
    """Deviations halved in what the small image does not show: the rest is as calibrated as before."""
    x, samples, problem = exact(super_resolution((1, *SIZE), factor=2))
    mean = samples.mean(1, keepdim=True)
    h = problem.operator
    deviation = (samples - mean).flatten(0, 1)
    seen = h.A_dagger(h.A(deviation))
    wrong = mean + (seen + 0.5 * (deviation - seen)).view_as(samples)
    inside, outside = ranks_in_parts(wrong, x, problem)
    assert observed(inside, 0.9) == pytest.approx(0.9, abs=0.03) and observed(outside, 0.9) < 0.75


def test_the_parts_of_k_space_are_the_coils_entries():
    item, generator = brain_slices(16, 3)[0], torch.Generator().manual_seed(0)
    mask = torch.rand(1, 1, 16, 16, generator=generator) < 0.3
    transform = MultiCoil(item.maps[None])
    x = item.image[None]
    samples = x[:, None] + 0.1 * torch.randn(1, 4, 1, 16, 16, dtype=x.dtype, generator=generator)
    problem = Problem(torch.where(mask, transform.forward(x), 0), Undersampling(mask), transform, NOISE)
    inside, outside = ranks_in_parts(samples, x, problem)
    z = torch.view_as_real(transform.forward(x))
    drawn = torch.stack([torch.view_as_real(transform.forward(samples[:, k])) for k in range(4)])
    below = (drawn < z).sum(0)
    for counts, where in ((inside, mask), (outside, ~mask)):
        chosen = below[where[..., None].expand_as(below)]
        assert counts.tolist() == [[float((chosen == rank).sum()) for rank in range(5)]]
    assert part_names(problem) == ("measured k-space", "unmeasured k-space")


def test_what_is_known_or_empty_is_not_counted():
    x = torch.rand(1, 1, *SIZE, generator=torch.Generator().manual_seed(0))
    samples = x[:, None] + torch.randn(1, 4, 1, *SIZE, generator=torch.Generator().manual_seed(1))
    hole = box_inpainting((1, *SIZE), hole=4)
    inside, outside = ranks_in_parts(samples, x, Problem(hole.A(x), hole))  # without noise
    assert inside is None and outside.sum() == 16
    everything = Undersampling(torch.ones(1, 1, *SIZE, dtype=torch.bool))
    inside, outside = ranks_in_parts(samples, x, Problem(x, everything, noise_std=NOISE))
    assert outside is None and inside.sum() == 64
    same = super_resolution((1, *SIZE), factor=1)
    inside, outside = ranks_in_parts(samples, x, Problem(same.A(x), same, noise_std=NOISE))
    assert outside is None and inside.sum() == 64
