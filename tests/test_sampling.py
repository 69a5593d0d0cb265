"""The samplers: against formulas written out by hand, the published steps, and a Gaussian field known exactly."""

from math import sqrt

import pytest
import torch
from helpers import Keep, golden_complex, golden_denoiser, golden_maps, half, random_tensor, unit_coils
from oracle import GaussianOracle
from torch.testing import assert_close

from msm.data_step import GradientStep, Proximal
from msm.masks import BoxMasks, CartesianMasks, EmpiricalMasks, FullMask
from msm.operators import Problem
from msm.sampling import Level, ReverseProcess, Sampler, aggregate, ddim, generate, posterior_update, reconstruct
from msm.transforms import Identity, MultiCoil

SHAPE = (1, 8, 8)
FULL = FullMask(8)
BOXES = BoxMasks(8, 0.4)


# The oracle itself


def test_oracle_is_the_conditional_mean():
    """Residuals are uncorrelated with what was measured, and smaller than the prior."""
    oracle, generator = GaussianOracle(), torch.Generator().manual_seed(0)
    z = oracle.sample(3000, generator)
    mask = BOXES.sample(3000, generator)
    a = oracle.schedule.alpha_bar(torch.tensor(300.0))
    z_t = a.sqrt() * z + (1 - a).sqrt() * torch.randn(z.shape, generator=generator)
    s_hat = oracle(z_t, mask, torch.tensor(300.0))
    assert not s_hat[~mask].any()
    error = torch.where(mask, z - s_hat, 0)
    scale = (error.square().sum() * s_hat.square().sum()).sqrt()
    assert abs((error * s_hat).sum() / scale).item() < 0.02
    assert abs((error * torch.where(mask, z_t, 0)).sum() / scale).item() < 0.1
    assert error.square().sum() < 0.8 * z[mask].square().sum()


def test_oracle_handles_each_item_by_itself():
    oracle = GaussianOracle()
    z, mask = random_tensor((3, *SHAPE), torch.float32), BOXES.sample(3, torch.Generator().manual_seed(1))
    t = torch.tensor([5.0, 200.0, 900.0])
    poisoned = torch.where(mask, z, torch.nan)
    together = oracle(poisoned, mask, t)
    for k in range(3):
        kept = mask[k].flatten()
        cov = oracle.covariance[kept][:, kept]
        a = oracle.schedule.alpha_bar(t[k]).double()
        gain = a.sqrt() * cov @ torch.linalg.inv(a * cov + (1 - a) * torch.eye(len(cov)))
        expected = torch.zeros(64, dtype=torch.float64)
        expected[kept] = gain @ z[k].flatten()[kept].double()
        assert_close(together[k].flatten(), expected.float(), rtol=1e-4, atol=1e-6)


# Generation


def test_full_mask_is_ddim_written_by_hand():
    """One full mask re-noises z first: z <- sqrt(a) ŝ + sqrt(1−a−s²) ε + s n_0, then the DDIM step with n_1."""
    oracle, steps = GaussianOracle(), 12
    actual = generate(oracle, SHAPE, seeds=[7], masks=FULL, sampler=Sampler(steps=steps, draws=1))

    stream = torch.Generator().manual_seed(7)
    torch.rand(steps, 1, 1, generator=stream)  # the masks
    z = torch.randn(1, *SHAPE, generator=stream)
    times = [k * 1000 / steps for k in range(steps)]
    a_of = [oracle.schedule.alpha_bar(torch.tensor(t)).item() for t in times]
    for i in reversed(range(steps)):
        n = torch.randn(2, *SHAPE, generator=stream)
        a, below = a_of[i], a_of[i - 1] if i else 1.0
        above = a_of[i + 1] if i + 1 < steps else 0.0
        s_hat = oracle(z, torch.ones(1, 1, 8, 8, dtype=torch.bool), torch.tensor(times[i]))
        eps = (z - sqrt(a) * s_hat) / sqrt(1 - a)
        s2 = (1 - a) / (1 - above) * (1 - above / a)
        z = sqrt(a) * s_hat + sqrt(max(1 - a - s2, 0)) * eps + (i > 0) * sqrt(s2) * n[:1]
        eps = (z - sqrt(a) * s_hat) / sqrt(1 - a)
        v = (1 - below) / (1 - a) * (1 - a / below)
        z = sqrt(below) * s_hat + sqrt(max(1 - below - v, 0)) * eps + (i > 0) * sqrt(v) * n[1:]
    assert_close(actual, z, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("score", ["average", "chain"])
def test_the_full_mask_is_the_only_one_of_a_set(score):
    one = EmpiricalMasks(torch.ones(1, 1, 8, 8, dtype=torch.bool))
    sampler = Sampler(steps=4, draws=2, score=score)
    z, other = (generate(GaussianOracle(), SHAPE, seeds=[1, 2], masks=m, sampler=sampler) for m in (FULL, one))
    assert torch.equal(z, other)


@pytest.mark.parametrize("maps", [None, torch.ones(1, 1, 8, 8, dtype=torch.complex64)])
def test_only_the_last_level_gets_no_fresh_noise(maps):
    transform = Identity() if maps is None else MultiCoil(maps)
    process = ReverseProcess(GaussianOracle(), SHAPE, [1, 2], transform, BOXES, Sampler(steps=3, draws=2, eta=1.0))
    *before, last = [noise for _, _, noise in process]
    assert last.dtype == before[0].dtype and last.shape == before[0].shape == (2, 3, *SHAPE)
    assert all(noise.abs().min() > 0 for noise in before) and last.abs().max() == 0


def run_both(seeds, batch_size, covering):
    """Samples of both samplers, `batch_size` at a time, stacked."""
    oracle = GaussianOracle()
    common = {"masks": BOXES, "sampler": Sampler(steps=5, draws=2, covering=covering)}
    y = random_tensor((100, *SHAPE), torch.float32)
    out = []
    for k in range(0, len(seeds), batch_size):
        part = seeds[k : k + batch_size]
        a = generate(oracle, SHAPE, seeds=part, **common)
        b = reconstruct(oracle, Problem(y[part], Keep()), seeds=part, data_step=GradientStep(0.5), **common)
        out.append(torch.cat([a, b], 1))
    return torch.cat(out)


@pytest.mark.parametrize("covering", [True, False])
@pytest.mark.parametrize("batch_size", [1, 3])
def test_a_sample_depends_on_its_own_seed_only(batch_size, covering):
    seeds = [11, 5, 99, 0, 42, 6, 7, 8]
    together = run_both(seeds, 8, covering)
    assert_close(run_both(seeds, batch_size, covering), together, rtol=0, atol=1e-6)
    assert (together[1:] - together[:-1]).flatten(1).norm(dim=1).min() > 0.1


def test_network_samples_do_not_depend_on_the_batch(golden, tmp_path):
    denoiser = golden_denoiser(golden, "adm_tiny_rgb", tmp_path)
    masks, sampler = BoxMasks(32, 0.4), Sampler(steps=2, draws=2)

    def run(seeds):
        return generate(denoiser, (3, 32, 32), seeds=seeds, masks=masks, sampler=sampler)

    together = run([3, 1, 4])
    assert_close(run([1]), together[1:2], rtol=1e-4, atol=1e-4 * together.abs().max().item())


def test_callback_sees_every_step():
    seen = []
    options = {"masks": BOXES, "sampler": Sampler(steps=4), "callback": lambda *a: seen.append(a)}
    z = generate(GaussianOracle(), SHAPE, seeds=[1, 2], **options)
    assert [index for index, _, _ in seen] == [3, 2, 1, 0]
    assert torch.equal(seen[-1][1], z)
    assert torch.equal(seen[-1][2], z)  # nothing but the estimate is left at the end
    assert not z.requires_grad


def test_one_seed_per_observation():
    with pytest.raises(ValueError, match="one seed"):
        reconstruct(GaussianOracle(), Problem(torch.zeros(2, *SHAPE), Keep()), seeds=[0], masks=BOXES)


def test_uncovered_entries_keep_the_estimate_of_the_step_before():
    z, before = random_tensor((2, *SHAPE), torch.float32), random_tensor((2, *SHAPE), torch.float32, 1)
    masks = BOXES.draw(torch.rand(2, 2, BOXES.variates, generator=torch.Generator().manual_seed(0)))
    level = Level(3, torch.tensor(500.0), 0.078, 0.074, 0.082)
    noise = random_tensor((2, 2, *SHAPE), torch.float32, 2)
    z_new, z_hat = aggregate(GaussianOracle(), z, before, masks, noise, Identity(), level, 1.0)
    open_ = ~masks.any(1)
    assert open_.any()
    assert torch.equal(z_hat[open_], before[open_])
    assert torch.equal(z_new[open_], z[open_])
    assert (z_new != z)[~open_].all()


# Posterior sampling


@pytest.mark.parametrize("data_step", [GradientStep(1.0), Proximal()])
@pytest.mark.parametrize("masks", [FULL, BOXES])
def test_identity_operator_returns_the_observation(masks, data_step):
    y = GaussianOracle().sample(3, torch.Generator().manual_seed(0))
    how = {"masks": masks, "sampler": Sampler(steps=6), "data_step": data_step}
    z = reconstruct(GaussianOracle(), Problem(y, Keep()), seeds=[1, 2, 3], **how)
    assert_close(z, y, rtol=1e-5, atol=1e-5)


def test_inpainting_is_consistent_and_better_than_nothing():
    oracle = GaussianOracle(length=8.0)
    truth = oracle.sample(8, torch.Generator().manual_seed(0))
    mask = torch.rand(8, 1, 8, 8, generator=torch.Generator().manual_seed(1)) < 0.5
    operator = Keep(mask)
    how = {"masks": FULL, "sampler": Sampler(steps=50, draws=1), "data_step": GradientStep(1.0)}
    z = reconstruct(oracle, Problem(operator.A(truth), operator), seeds=range(8), **how)
    assert_close(z[mask], truth[mask], rtol=0, atol=1e-4)
    assert (z - truth)[~mask].square().mean() < 0.7 * truth[~mask].square().mean()


def test_complex_measurements():
    transform, masks = unit_coils(), CartesianMasks(8, 2, 2)
    z = generate(half, (3, 8, 8), seeds=[1, 2], transform=transform, masks=masks, sampler=Sampler(steps=4))
    assert z.shape == (2, 3, 8, 8)
    assert z.dtype == torch.complex64
    assert z.isfinite().all()
    y = transform.forward(random_tensor((2, 1, 8, 8), torch.complex64))
    how = {"masks": masks, "sampler": Sampler(steps=4, draws=2), "data_step": GradientStep(1.0)}
    z = reconstruct(half, Problem(y, Keep(), transform), seeds=[1, 2], **how)
    assert_close(z, y, rtol=1e-5, atol=1e-5)  # the two masks cover everything, and each draw becomes y


def test_proximal_samples_have_the_posterior_mean():
    """White z of variance v seen in white noise: the mean is v/(v + σ_y²) y. 12,800 independent pixels."""
    noise_std, y = 0.05, 0.8
    problem = Problem(torch.full((200, *SHAPE), y), Keep(), noise_std=noise_std)
    how = {"seeds": range(200), "masks": FULL, "sampler": Sampler(steps=20, draws=1), "data_step": Proximal()}
    z = reconstruct(GaussianOracle(length=1e-3), problem, **how)
    assert z.mean().item() == pytest.approx(0.25 / (0.25 + noise_std**2) * y, rel=0.005)
    assert z.std() < 1.5 * noise_std


# The published steps


def golden_step(golden, folder, name, index):
    """(stored value by name, ours) of run `index`."""
    vectors, facts = golden(name)
    run, w = facts["runs"][index], facts["w"]
    level = Level(
        run["respaced_index"],
        torch.tensor(run["net_time"][0]),
        run["alpha_bar_t"],
        run["alpha_bar_t_plus_1"],
        run["alpha_bar_t_minus_1"],
    )
    masks = torch.stack([vectors[f"mask_{j}"] for j in range(w)], 1).bool()
    noise = torch.stack([vectors[f"loop_noise_{j}"] for j in range(w)], 1) * (level.index > 0)
    z = vectors["z_in"]
    before = vectors.get(f"run{index}_carried_prediction_before", torch.zeros_like(z))
    denoiser = golden_denoiser(golden, "adm_tiny_rgb", folder)
    with torch.no_grad():
        z, z_hat = aggregate(denoiser, z, before, masks, noise, Identity(), level, run["eta"])
    ours = {"z_modified_in_place": z, "carried_prediction_after": z_hat}
    if run["lam"] is not None:
        operator = Keep(vectors["inverse_mask"].bool())
        z_hat = z_hat - run["lam"] * operator.A_dagger(operator.A(z_hat) - vectors["inverse_y"])
    # With clip_denoised the published update takes the clipped estimate, the inverse one in its first term only;
    # this project does not clip.
    clipped = z_hat.clamp(-1, 1) if run["clip_denoised"] else z_hat
    if run["lam"] is None:
        z_next = ddim(z, clipped, level, run["eta"], vectors["ddim_noise"])
    else:
        z_next = posterior_update(z, z_hat, level, run["eta"], vectors["ddim_noise"])
        z_next = z_next + sqrt(level.below) * (clipped - z_hat)
    return vectors, ours | {"z_next": z_next}


@pytest.mark.parametrize(
    ("name", "index"), [("sampler_gen_img", k) for k in range(4)] + [("sampler_inv_img", k) for k in range(2)]
)
def test_golden_steps(golden, tmp_path, name, index):
    vectors, ours = golden_step(golden, tmp_path, name, index)
    for key, value in ours.items():
        expected = vectors[f"run{index}_{key}"]
        assert_close(value, expected, rtol=1e-4, atol=1e-4 * expected.abs().max().item(), msg=f"{name} {key}")


@pytest.mark.parametrize(("name", "index"), [(n, k) for n in ("sampler_gen_mri", "sampler_inv_mri") for k in range(2)])
def test_golden_mri_steps_differ_by_the_noise_of_the_renoising_only(golden, tmp_path, monkeypatch, name, index):
    """The published re-noising of k-space uses F C ε̂ (SPEC §11, fault 5); with that put in, all vectors match."""
    vectors, facts = golden(name)
    run, w = facts["runs"][index], facts["w"]
    t = torch.tensor(run["net_time"][0])
    alpha_bars = run["alpha_bar_t"], run["alpha_bar_t_plus_1"], run["alpha_bar_t_minus_1"]
    level = Level(run["respaced_index"], t, *alpha_bars)
    masks = torch.stack([vectors[f"mask_{j}"] for j in range(w)], 1).bool()
    noise = torch.stack([golden_complex(vectors[f"loop_noise_{j}"]) for j in range(w)], 1) * (level.index > 0)
    z, transform = golden_complex(vectors["z_in"]), MultiCoil(golden_maps(vectors["smps"]))
    before = vectors.get(f"run{index}_carried_prediction_before")
    before = torch.zeros_like(z) if before is None else golden_complex(before)
    denoiser = golden_denoiser(golden, "adm_tiny_mri", tmp_path)
    seen = []

    def recorded(z_t, mask, t, transform):
        seen.append((z_t, mask))
        return denoiser(z_t, mask, t, transform)

    def published_mix(z, s_hat, level, noise, clean, old, fresh):
        z_t, mask = seen[-1]
        sigma = denoiser.schedule.sigma(t)
        x_hat = denoiser.parametrisation.estimate(denoiser.network, z_t, mask, t.expand(1), sigma, transform)
        u = transform.adjoint(torch.where(mask, z_t, 0))
        eps = transform.forward((u - sqrt(level.alpha_bar) * x_hat) / sqrt(1 - level.alpha_bar))
        return clean * s_hat + old * eps + fresh * noise

    likelihood = None
    if run["lam"] is not None:
        operator, y = Keep(vectors["inverse_mask"].bool()), golden_complex(vectors["inverse_y"])

        def likelihood(s_hat, sigma):
            return s_hat - run["lam"] * operator.A_dagger(operator.A(s_hat) - y)

    def close(ours, key):
        expected = golden_complex(vectors[f"run{index}_{key}"])
        return torch.allclose(ours, expected, rtol=1e-4, atol=1e-4 * expected.abs().max().item())

    with torch.no_grad():
        arguments = (recorded, z, before, masks, noise, transform, level, run["eta"], likelihood)
        correct, _ = aggregate(*arguments)
        with monkeypatch.context() as patch:
            patch.setattr("msm.sampling.mix", published_mix)
            z, z_hat = aggregate(*arguments)
        update = ddim if run["lam"] is None else posterior_update
        z_next = update(z, z_hat, level, run["eta"], golden_complex(vectors["ddim_noise"]))
    assert close(z, "z_modified_in_place") and close(z_hat, "carried_prediction_after") and close(z_next, "z_next")
    assert not close(correct, "z_modified_in_place")
