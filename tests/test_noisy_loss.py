"""The noisy loss: unbiased where it claims to be, blind where it must be, and the published one fault by fault."""

import pytest
import torch
from helpers import golden_complex, golden_denoiser, golden_maps, random_tensor
from oracle import GaussianOracle
from torch import nn
from torch.testing import assert_close

from msm.denoiser import PartialDenoiser, run_network
from msm.losses import mean_square, noiseless_loss, noisy_loss, pseudo_clean, sure
from msm.masks import BoxMasks
from msm.measurement import Measurement, standard_normal
from msm.network import ADMNetwork
from msm.schedule import VPSchedule

SCHEDULE = VPSchedule()
RHO = 0.3
MASKS = BoxMasks(4)


class Toy:
    """A denoiser from a function (s_t on the scale of s, mask, t), with the weight 1/σ²; counts its items."""

    def __init__(self, function):
        self.function, self.schedule, self.items = function, SCHEDULE, []

    def __call__(self, z_t, mask, t, transform=None):
        self.items.append(len(z_t))
        scale = self.schedule.alpha_bar(t.expand(len(z_t))).sqrt()[:, None, None, None]
        return torch.where(mask, self.function(z_t / scale, mask, t), 0)

    def loss_weight(self, t):
        return self.schedule.sigma(t) ** -2


def exact(oracle):
    def function(s_t, mask, t):
        scale = oracle.schedule.alpha_bar(t.expand(len(s_t))).sqrt()[:, None, None, None]
        return oracle(s_t * scale, mask, t)

    return function


def times(levels, batch=1):
    return SCHEDULE.time(levels).expand(batch)


def acquire(oracle, batch, generator, rho=RHO, masks=MASKS):
    """z and a noisy measurement of it."""
    z, mask = oracle.sample(batch, generator), masks.sample(batch, generator)
    return z, Measurement(z + rho * standard_normal(z, generator), mask, noise_std=rho)


def score(samples):
    """Mean in units of its standard error, per column."""
    return samples.mean(0) / (samples.std(0) / len(samples) ** 0.5)


# What the loss estimates


@pytest.mark.parametrize("shrink", [1.0, 0.6])
def test_sure_is_the_true_error_on_average(shrink):
    oracle, generator = GaussianOracle((4, 4)), torch.Generator().manual_seed(0)
    z, measurement = acquire(oracle, 20_000, generator)
    denoiser = Toy(lambda *args: shrink * exact(oracle)(*args))
    estimate = sure(denoiser, measurement, generator)
    z_t = measurement.values * (1 + RHO**2) ** -0.5
    s_hat = denoiser(z_t, measurement.mask, times(RHO, len(z)))
    error = mean_square(torch.where(measurement.mask, z, 0) - s_hat) / measurement.mask.float().mean((1, 2, 3))
    assert error.mean().item() > 0.02
    assert abs(score(estimate - error).item()) < 3


def test_sure_counts_a_complex_entry_as_two():
    generator = torch.Generator().manual_seed(0)
    z = 0.5 * standard_normal(torch.zeros(5000, 3, 4, 4, dtype=torch.complex64), generator)
    mask = torch.rand(5000, 1, 4, 4, generator=generator) < 0.5
    mask[:, :, 0] = True
    measurement = Measurement(z + RHO * standard_normal(z, generator), mask, noise_std=RHO)
    estimate = sure(Toy(lambda s_t, mask, t: 0.7 * s_t), measurement, generator)
    assert estimate.mean().item() == pytest.approx(0.3**2 * 0.25 + 0.7**2 * RHO**2, rel=0.01)


def directional_gradients(denoise, loss, batch=20_000, seed=0, **options):
    """Per item, the derivative of a loss with respect to five affine perturbations of a denoiser (B, 5)."""
    generator = torch.Generator().manual_seed(seed)
    _, measurement = acquire(GaussianOracle((4, 4)), batch, generator)
    matrices, offsets = torch.zeros(5, 16, 16), torch.zeros(5, 16)
    matrices[0], matrices[1], matrices[2] = torch.eye(16), 1 / 16, torch.randn(16, 16, generator=generator) / 4
    offsets[3], offsets[4] = 1, torch.randn(16, generator=generator)
    size = torch.zeros(batch, 5, requires_grad=True)

    def perturbed(s_t, mask, t):
        moved = torch.einsum("kij,bj->bki", matrices, s_t.flatten(1)) + offsets
        return denoise(s_t, mask, t) + torch.einsum("bk,bki->bi", size, moved).view_as(s_t)

    value = loss(Toy(perturbed), measurement, generator=generator, **options)
    return torch.autograd.grad(value.sum(), size)[0]


@pytest.mark.parametrize("sure_weight", [0.0, 1.0])
@pytest.mark.parametrize("level", [0.1, 0.2, 0.31, 0.5, 2.0])
def test_exact_denoiser_is_stationary(level, sure_weight):
    options = {"t": times(level, 20_000), "sure_weight": sure_weight, "target_steps": 2}
    gradients = directional_gradients(exact(GaussianOracle((4, 4))), noisy_loss, **options)
    assert score(gradients).abs().max().item() < 3


@pytest.mark.parametrize("level", [0.1, 0.5, 2.0])
def test_exact_denoiser_is_not_stationary_for_the_naive_loss(level):
    gradients = directional_gradients(exact(GaussianOracle((4, 4))), noiseless_loss, t=times(level, 20_000))
    assert score(gradients).abs().max().item() > 25


def test_published_target_teaches_the_law_of_the_conditional_mean():
    """Below ρ the minimiser is the denoiser of E[Sz | s], covariance C (C + ρ²)⁻¹ C: narrower than Sz."""
    oracle = GaussianOracle((4, 4))

    def of_the_mean(s_t, mask, t):
        keep, eye = mask.flatten(1).double(), torch.eye(16, dtype=torch.float64)
        cov = keep[:, :, None] * oracle.covariance * keep[:, None, :]
        sigma = oracle.schedule.sigma(t).double()[:, None, None]
        narrow = cov @ torch.linalg.solve(cov + RHO**2 * eye, cov)
        cov = torch.where(sigma < 0.99 * RHO, narrow, cov)
        s_hat = cov @ torch.linalg.solve(cov + sigma**2 * eye, s_t.flatten(1).double()[..., None])
        return s_hat.view_as(s_t).float()

    options = {"t": times(0.2, 20_000), "sure_weight": 0.0}
    assert score(directional_gradients(of_the_mean, noisy_loss, **options)).abs().max().item() < 3
    assert score(directional_gradients(exact(oracle), noisy_loss, **options)).abs().max().item() > 25


# Training by it


class LinearNetwork(nn.Module):
    """One matrix for each of a few levels and masks; a batch is of one level and one mask."""

    def __init__(self, levels, patterns):
        super().__init__()
        self.times, self.patterns = SCHEDULE.time(torch.tensor(levels)), patterns
        self.matrices = nn.Parameter(torch.eye(16).repeat(len(levels), len(patterns), 1, 1))  # ŝ = s, as ε̂ = 0 gives

    def forward(self, s_t, mask, t):
        level = (self.times - t[0]).abs().argmin()
        pattern = (self.patterns == mask[0]).flatten(1).all(1).int().argmax()
        return (s_t.flatten(1) @ self.matrices[level, pattern].T).view_as(s_t)


LEVELS = [0.25 * RHO, 0.5 * RHO, 0.75 * RHO, RHO, 1.2 * RHO, 2 * RHO, 3 * RHO]  # those of two midpoint steps, and more


def train_linear(loss, steps=1000, batch=4096, **options):
    """Relative error of the matrices of each level, after training on fixed acquisitions."""
    oracle, generator = GaussianOracle((4, 4)), torch.Generator().manual_seed(0)
    patterns = MASKS.sample(2, generator)
    network = LinearNetwork(LEVELS, patterns)
    denoiser = Toy(network)
    data = [
        Measurement(z + RHO * standard_normal(z, generator), mask.expand(len(z), -1, -1, -1), noise_std=RHO)
        for mask in patterns[:, None]
        for z in [oracle.sample(100_000, generator)]
    ]
    trained = [i for i, level in enumerate(LEVELS) if level != RHO or loss is noiseless_loss]  # ρ is left to SURE
    optimizer = torch.optim.Adam(network.parameters(), lr=0.01, betas=(0.9, 0.99))
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for step in range(steps):
        start = torch.randint(len(data[0]) - batch, (), generator=generator).item()
        measurement = data[step % 2][start : start + batch]
        t = times(LEVELS[trained[step // 2 % len(trained)]], batch)
        value = loss(denoiser, measurement, t, generator, **options).mean()
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
        schedule.step()
    return [relative_error(denoiser, oracle, level, patterns) for level in LEVELS]


def relative_error(denoiser, oracle, level, patterns):
    """Root-mean-square difference from the exact denoiser, over the root-mean-square of that."""
    generator, got, true = torch.Generator().manual_seed(1), [], []
    for mask in patterns[:, None]:
        z = oracle.sample(5000, generator)
        z_t = (z + level * standard_normal(z, generator)) * (1 + level**2) ** -0.5
        for function, outputs in ((denoiser, got), (oracle, true)):
            with torch.no_grad():
                outputs.append(function(z_t, mask.expand(5000, -1, -1, -1), times(level, 5000)))
    got, true = torch.cat(got), torch.cat(true)
    return ((got - true).norm() / true.norm()).item()


def test_linear_denoiser_learns_the_exact_one_from_noisy_data():
    assert max(train_linear(noisy_loss, sure_weight=1.0, target_steps=2)) < 0.03


def test_naive_loss_does_not():
    assert min(train_linear(noiseless_loss)[3:]) > 0.1  # at ρ, 1.2 ρ, 2 ρ, 3 ρ


# Without noise, item by item, and what it may not see


@pytest.fixture(scope="module")
def small():
    """A PartialDenoiser with random weights and a batch of four complex acquisitions."""
    torch.manual_seed(0)
    settings = {"num_channels": 32, "num_res_blocks": 1, "channel_mult": (1,), "attention_resolutions": ()}
    network = ADMNetwork(image_size=8, in_channels=2, num_head_channels=32, **settings)
    for parameter in network.parameters():
        nn.init.normal_(parameter, std=0.05)
    maps = random_tensor((1, 3, 8, 8), torch.complex64, 1)
    maps = maps / maps.abs().square().sum(1, keepdim=True).sqrt()
    mask = torch.rand(4, 1, 8, 8, generator=torch.Generator().manual_seed(2)) < 0.5
    noise, probe = (random_tensor((4, 3, 8, 8), torch.complex64, seed) * 2**0.5 for seed in (3, 4))
    values = random_tensor((4, 3, 8, 8), torch.complex64, 5)
    return PartialDenoiser(network, SCHEDULE), Measurement(values, mask, maps), {"noise": noise, "probe": probe}


T = torch.tensor([10.0, 20.0, 300.0, 600.0])


@pytest.mark.parametrize("rho", [0.0, torch.zeros(4)])
def test_without_noise_it_is_the_noiseless_loss(small, rho):
    denoiser, m, draws = small
    quiet = Measurement(m.values, m.mask, m.maps, rho)
    with torch.no_grad():
        expected = noiseless_loss(denoiser, m, T, noise=draws["noise"])
        assert torch.equal(noisy_loss(denoiser, quiet, T, **draws), expected)
        seeds = [torch.Generator().manual_seed(0) for _ in range(2)]
        assert torch.equal(noisy_loss(denoiser, quiet, T, seeds[0]), noiseless_loss(denoiser, m, T, seeds[1]))


@pytest.mark.parametrize("steps", [0, 1])
def test_items_of_one_batch_do_not_meet(small, steps):
    denoiser, m, draws = small
    m = Measurement(m.values, m.mask, m.maps, torch.tensor([0.2, 0.0, 0.1, 0.5]))
    with torch.no_grad():
        together = noisy_loss(denoiser, m, T, target_steps=steps, **draws)
        alone = [
            noisy_loss(
                denoiser, m[i : i + 1], T[i : i + 1], target_steps=steps, **{k: v[i : i + 1] for k, v in draws.items()}
            )
            for i in range(4)
        ]
    assert_close(together, torch.cat(alone), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, [1, 4, 3, 3]),
        ({"target_steps": 1}, [1, 1, 4, 3, 3]),
        ({"sure_weight": 0.0}, [1, 4]),
        ({"sure_weight": torch.tensor([0.1, 0.1, 0.0, 0.1])}, [1, 4, 2, 2]),
    ],
)
def test_extra_passes_are_of_the_items_that_need_them(options, expected):
    rho = torch.tensor([0.2, 0.0, 0.1, 0.5])
    measurement = Measurement(torch.randn(4, 1, 4, 4), torch.ones(4, 1, 4, 4).bool(), noise_std=rho)
    denoiser = Toy(lambda s_t, mask, t: 0.5 * s_t)
    noisy_loss(denoiser, measurement, T, **options)
    assert denoiser.items == expected


def test_sure_counts_as_much_as_each_item_s_weight_says(small):
    denoiser, m, draws = small
    m = Measurement(m.values, m.mask, m.maps, 0.2)

    def loss(weight):
        return noisy_loss(denoiser, m, T, sure_weight=weight, **draws)

    weight = torch.tensor([0.0, 0.05, 0.3, 1.0])
    with torch.no_grad():
        assert_close(loss(weight), loss(0.0) + weight * (loss(1.0) - loss(0.0)), rtol=1e-4, atol=1e-5)
        assert torch.equal(loss(torch.full((4,), 0.05)), loss(0.05))


def test_target_has_no_gradient_and_may_come_from_another_denoiser(small):
    denoiser, m, draws = small
    m, t = Measurement(m.values, m.mask, m.maps, 0.2), torch.full((4,), 20.0)
    weights = list(denoiser.parameters())

    def gradient(**options):
        loss = noisy_loss(denoiser, m, t, sure_weight=0.0, **draws, **options)
        return loss.detach(), torch.autograd.grad(loss.sum(), weights)

    fixed = pseudo_clean(denoiser, denoiser.schedule, m)
    loss, gradients = gradient()
    again, others = gradient(target_denoiser=lambda *_: fixed)
    assert torch.equal(loss, again) and all(torch.equal(a, b) for a, b in zip(gradients, others))
    noiseless = noiseless_loss(denoiser, Measurement(fixed, m.mask, m.maps), t, noise=draws["noise"])
    assert torch.equal(loss, noiseless)


def test_unmeasured_entries_do_not_reach_the_noisy_loss(small):
    denoiser, m, draws = small
    rho, weights = torch.tensor([0.2, 0.0, 0.1, 0.5]), list(denoiser.parameters())
    results = []
    for bad in (0.0, torch.nan):
        values, *noises = (torch.where(m.mask, x, bad) for x in (m.values, *draws.values()))
        measurement = Measurement(values, m.mask, m.maps, rho)
        loss = noisy_loss(denoiser, measurement, T, noise=noises[0], probe=noises[1])
        results.append((loss.detach(), *torch.autograd.grad(loss.sum(), weights)))
    assert all(torch.equal(a, b) and a.isfinite().all() for a, b in zip(*results))


def test_nothing_measured_is_finite():
    measurement = Measurement(torch.ones(1, 1, 4, 4), torch.zeros(1, 1, 4, 4).bool(), noise_std=0.1)
    assert noisy_loss(Toy(lambda s_t, mask, t: s_t), measurement, T[:1]).isfinite().all()


@pytest.mark.parametrize("rho", [0.02, 0.1, 0.3])
def test_loss_is_of_order_one_at_every_time(rho):
    """For a signal the denoiser knows nothing about (ŝ = s_t is the best there is): never above one."""
    generator, t = torch.Generator().manual_seed(0), SCHEDULE.grid(200)
    z = 100 * torch.randn(200, 1, 16, 16, generator=generator)
    s = z + rho * standard_normal(z, generator)
    measurement = Measurement(s, torch.ones(200, 1, 16, 16).bool(), noise_std=rho)
    loss = noisy_loss(Toy(lambda s_t, mask, t: s_t), measurement, t, generator, sure_weight=0.0)
    assert loss.min().item() > 0.7 and loss.max().item() < 1.4


# The published loss, and which correction changes what

CORRECTIONS = ("count", "scale", "mix", "weight")


def published_estimate(denoiser, u, t):
    """x̂ from u on the scale of the network, as the published denoiser forms it."""
    t = t.expand(len(u))
    sigma = denoiser.schedule.sigma(t)[:, None, None, None]
    return u * (1 + sigma**2).sqrt() - sigma * run_network(denoiser.network, u, t)


def published_sure(denoiser, measurement, probe, corrections, tau=0.005):
    """SURE and its two passes, of a batch of items with 1024 pixels."""
    y, mask, rho, transform = measurement.values, measurement.mask, measurement.noise_std, measurement.transform
    probe, t = torch.where(mask, probe, 0), denoiser.schedule.time(rho)
    root = denoiser.schedule.alpha_bar(t).sqrt()
    inputs = (root * y, root * (y + tau * probe)) if "scale" in corrections else (y, root * y + tau * probe)
    first, second = (
        torch.where(mask, transform.forward(published_estimate(denoiser, transform.adjoint(u), t)), 0) for u in inputs
    )
    m = 2 * 1024 / 4 if y.is_complex() else 3 * 1024 / 0.4  # of one item, as the published code counts
    if "count" in corrections:
        m = mask.sum() * y.shape[1] * (2 if y.is_complex() else 1) / len(y)
    total = m * len(y)
    error = (first - y).abs().square().sum() / total
    divergence = (probe.conj() * (second - first)).real.sum() / (tau * total)
    return error - rho**2 + 2 * rho**2 * divergence, first, second


def published_loss(denoiser, measurement, index, noise, probe, corrections=(), sure_weight=0.05):
    """(main term (B,), SURE, its weight, the two SURE passes) of the published loss, faults included.

    Every name in `corrections` mends one fault:
        count: m is C·H·W / rate, where rate is p for images and R for MRI; it should be the measured real values
        scale: the second pass is scaled by sqrt(ᾱ), the first not, nor the probe in the difference quotient
        mix: the Tweedie mix is made of x̂ and u in image space, u on the scale of the network, instead of ŝ and s_t
        weight: SURE is weighted by 1/σ_t² though it does not depend on t; here it is by 1/ρ²
    That the pseudo-clean target is not detached shows in gradients only.
    """
    y, mask, rho, transform = measurement.values, measurement.mask, measurement.noise_std, measurement.transform
    estimate, first, second = published_sure(denoiser, measurement, probe, corrections)
    t = torch.tensor(5.0 * index)
    sigma = denoiser.schedule.sigma(t)
    part = torch.where(sigma > rho, rho**2 / sigma**2, 0)
    reference, added = (y, sigma**2 - rho**2) if sigma > rho else (first, sigma**2)
    s_t = torch.where(mask, reference + added.sqrt() * noise, 0)
    u = transform.adjoint(s_t) * denoiser.schedule.alpha_bar(t).sqrt()
    x_hat = published_estimate(denoiser, u, t)
    if "mix" in corrections:
        mixed = (1 - part) * transform.forward(x_hat) + part * s_t
    else:
        mixed = transform.forward((1 - part) * x_hat + part * u)
    main = mean_square(reference - torch.where(mask, mixed, 0)) / sigma**2
    return main, estimate, sure_weight / (rho**2 if "weight" in corrections else sigma**2), (first, second)


@pytest.fixture(scope="module")
def published(golden, tmp_path_factory):
    folder = tmp_path_factory.mktemp("networks")

    def case(name):
        vectors, facts = golden(f"loss_noisy_{name}")
        read = golden_complex if name == "mri" else lambda v: v
        maps = golden_maps(vectors["smps"]) if name == "mri" else None
        measurement = Measurement(read(vectors["y"]), vectors["mask"].bool(), maps, 0.1)
        denoiser = golden_denoiser(golden, {"img": "adm_tiny_rgb", "mri": "adm_tiny_mri"}[name], folder)
        noises = [read(vectors[key]) for key in ("diffusion_noise", "sure_noise")]
        passes = [read(vectors[key]) for key in ("y1", "y2")]
        return denoiser, measurement, noises, passes, vectors, facts["per_t"]

    return {name: case(name) for name in ("img", "mri")}


@pytest.mark.parametrize("index", [0, 3, 5, 6, 10, 40, 101, 199])
@pytest.mark.parametrize("name", ["img", "mri"])
def test_golden_published_loss(published, name, index):
    denoiser, measurement, noises, passes, vectors, facts = published[name]
    with torch.no_grad():
        main, estimate, weight, made = published_loss(denoiser, measurement, index, *noises)
    for ours, stored in zip(made, passes):
        assert_close(ours, stored, rtol=1e-4, atol=1e-5)
    stored = facts[str(index)]
    assert_close(main, torch.tensor(stored["main_term"]), rtol=1e-4, atol=0)
    assert estimate.item() == pytest.approx(stored["sure"], rel=2e-3)  # a difference divided by τ, in float32
    assert_close(main + weight * estimate, vectors[f"t{index}_loss"], rtol=1e-3 if index == 0 else 1e-4, atol=0)


@pytest.mark.parametrize("index", [0, 5, 6, 10, 40, 199])
@pytest.mark.parametrize("name", ["img", "mri"])
def test_the_published_loss_with_its_faults_mended_is_the_library_s(published, name, index):
    denoiser, measurement, (noise, probe), *_ = published[name]
    t = torch.full((2,), 5.0 * index)
    with torch.no_grad():
        main, estimate, weight, _ = published_loss(denoiser, measurement, index, noise, probe, CORRECTIONS)
        sigma, rho = denoiser.schedule.sigma(t), measurement.noise_std
        kept = torch.where(sigma > rho, 1 - rho**2 / sigma**2, 1)  # the library divides by it, see there
        loss = noisy_loss(denoiser, measurement, t, noise=noise, probe=probe)
    assert_close(loss.mean(), (main / kept).mean() + weight * estimate, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("name", ["img", "mri"])
@pytest.mark.parametrize(("index", "changed"), [(3, {"count", "scale", "weight"}), (6, set(CORRECTIONS))])
def test_what_each_correction_changes(published, name, index, changed):
    """count, scale: SURE's value. weight: its weight. mix: the main term, above ρ only."""
    denoiser, measurement, noises, *_ = published[name]

    def parts(*corrections):
        return [torch.as_tensor(p) for p in published_loss(denoiser, measurement, index, *noises, corrections)[:3]]

    with torch.no_grad():
        for fault in CORRECTIONS:
            differ = [not torch.equal(a, b) for a, b in zip(parts(), parts(fault))]
            part = {"count": 1, "scale": 1, "mix": 0, "weight": 2}[fault]
            # The first pass is the pseudo-clean target, so its scale also moves the main term below ρ.
            also = fault == "scale" and index == 3
            assert differ == [(i == part and fault in changed) or (i == 0 and also) for i in range(3)]
