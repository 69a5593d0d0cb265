"""The chain-rule score (SPEC §12): its masks, its exactness on Markov fields, and the law of what it samples."""

from itertools import permutations, product
from math import ceil, sqrt

import pytest
import torch
from helpers import Keep, half, random_tensor, unit_coils
from oracle import SIZE, STEPS, Dense, GaussianOracle, Recursion, assert_law, by_mask
from torch.testing import assert_close

from msm.data_step import GradientStep, Proximal
from msm.masks import BoxMasks, CartesianMasks, Chain, EmpiricalMasks
from msm.operators import Problem
from msm.sampling import Level, Sampler, combine, generate, reconstruct
from msm.transforms import Identity, MultiCoil

SHAPE, NUMBER = (1, 8, 8), 5_000
BOXES = BoxMasks(8, 0.4)


def some_masks():
    return torch.rand(12, 1, 8, 6, generator=torch.Generator().manual_seed(0)) < 0.5


FAMILIES = {  # masks, calls a step
    "boxes": (BoxMasks(16, 0.4), 3),
    "boxes, two axes": (BoxMasks((16, 8), 0.35), 3),
    "half of the boxes": (BoxMasks(16, 0.5), 5),
    "few boxes": (BoxMasks(16, 0.7), 9),
    "single boxes": (BoxMasks(8, 0.75, 2), 7),
    "all boxes": (BoxMasks(8, 0.0), 1),
    "random": (CartesianMasks((4, 40), 4, 6), 5),
    "random, R = 2.5": (CartesianMasks((4, 40), 2.5, 6), 4),
    "random, no centre": (CartesianMasks((4, 40), 4, 0), 4),
    "uniform": (CartesianMasks((4, 40), 4, 6, "uniform"), 5),
    "all columns": (CartesianMasks((4, 40), 1, 6), 1),
    "empirical": (EmpiricalMasks(some_masks()), None),
}


def chains(masks, number=200, seed=0):
    return masks.chain(torch.rand(number, masks.variates, generator=torch.Generator().manual_seed(seed)))


def level_at(oracle, t):
    a = oracle.schedule.alpha_bar(torch.tensor(t)).item()
    return Level(3, torch.tensor(t), a, 0.9 * a, 1.1 * a)


def noisy(oracle, level, number=4):
    generator = torch.Generator().manual_seed(7)
    z = oracle.sample(number, generator)
    return sqrt(level.alpha_bar) * z + sqrt(1 - level.alpha_bar) * torch.randn(z.shape, generator=generator)


# Masks


@pytest.mark.parametrize("name", FAMILIES)
def test_covers_minus_separators_count_every_entry_once(name):
    masks, calls = FAMILIES[name]
    chain = chains(masks)
    assert chain.masks.shape == (200, calls or chain.masks.shape[1], 1, *masks.size)
    assert chain.masks.dtype == torch.bool
    count = (chain.weights[:, None, None, None] * chain.masks).sum(1)
    possible = masks.masks.any(0) if name == "empirical" else torch.ones(1, *masks.size, dtype=torch.bool)
    assert torch.equal(count, possible.float().expand_as(count))


@pytest.mark.parametrize("name", FAMILIES)
def test_separators_are_what_a_cover_shares_with_the_ones_before(name):
    masks, _ = FAMILIES[name]
    chain = chains(masks)
    number = int((chain.weights == 1).sum())
    covers, separators = chain.masks[:, :number], chain.masks[:, number:]
    for k in range(1, number):
        shared = covers[:, k] & covers[:, :k].any(1)
        if not isinstance(masks, CartesianMasks):
            assert torch.equal(separators[:, k - 1], shared)
        else:  # one separator for all
            assert torch.equal(shared, masks.middle.expand_as(shared))
            assert torch.equal(chain.masks[:, -1], shared) == bool(masks.middle.any())


@pytest.mark.parametrize("drop", [0.35, 0.4, 0.5, 0.7])
def test_the_covers_of_boxes_have_the_boxes_of_training_and_a_third_is_context(drop):
    masks = BoxMasks(16, drop)
    chain = chains(masks)
    boxes = chain.masks.flatten(2).sum(2).float() / 16
    number = (len(chain.weights) + 1) // 2
    kept = masks.boxes_kept
    assert (boxes[:, :number] == kept).all()
    assert boxes[:, number:].min() >= kept / 3
    assert number == 1 + ceil((16 - kept) / (2 * kept // 3))
    if drop == 0.4:
        assert (boxes == torch.tensor([10, 10, 4])).all()


def pixel_owners(size, grid, shift):
    """Number (size, size) of the box that holds each pixel, rolled by a shift in pixels."""
    box = torch.arange(size) // (size // grid)
    return (box[:, None] * grid + box).roll(shift, (0, 1))


def reference_chain(size, grid, kept, order, shift):
    """The covers by pixels: boxes that share the longest border with the new ones are the context."""
    owner = pixel_owners(size, grid, shift)
    borders = torch.zeros(grid**2, grid**2)
    for a, b in ((owner[:-1], owner[1:]), (owner[:, :-1], owner[:, 1:])):
        i, j = torch.cat([a.flatten(), b.flatten()]), torch.cat([b.flatten(), a.flatten()])
        borders.index_put_((i, j), (i != j).float(), accumulate=True)
    order = [int(box) for box in order]
    later = ceil((len(order) - kept) / max(1, 2 * kept // 3))
    covers, known = [order[:kept]], kept
    for k in range(later):
        end = kept + (len(order) - kept) * (k + 1) // later
        new = order[known:end]
        near = sorted(order[:known], key=lambda box: -borders[box, new].sum())  # a stable sort
        covers.append(new + near[: kept - len(new)])
        known = end
    return torch.stack([torch.isin(owner, torch.tensor(cover)) for cover in covers])[:, None]


@pytest.mark.parametrize("drop", [0.4, 0.7])
def test_the_context_touches_the_new_boxes_round_the_edge_of_the_image_too(drop):
    masks = BoxMasks(16, drop)
    u = torch.rand(40, masks.variates, generator=torch.Generator().manual_seed(0))
    shifts = (u[:, 16:] * 4).long()
    assert {bool(s) for s in shifts.flatten()} == {True, False}
    covers = masks.covers(u)
    assert torch.equal(covers[:, :1], masks.draw(u[:, None]))
    for order, shift, cover in zip(u[:, :16].argsort(1), shifts.tolist(), covers):
        assert torch.equal(cover, reference_chain(16, 4, masks.boxes_kept, order, tuple(shift)))


@pytest.mark.parametrize("acceleration", [2.5, 4])
def test_every_column_is_in_each_part_equally_often(acceleration):
    masks = CartesianMasks((4, 40), acceleration, 6)
    covers = masks.covers(torch.rand(3000, 40, generator=torch.Generator().manual_seed(0)))
    frequency = covers[:, :, 0].float().mean(0)
    expected = torch.where(masks.middle, 1.0, 1 / ceil(acceleration)).expand_as(frequency)
    assert_close(frequency, expected, rtol=0, atol=0.045)  # 5 standard deviations


def test_empirical_covers_are_masks_of_the_set_and_begin_with_its_law():
    masks = EmpiricalMasks(some_masks())
    u = torch.rand(200, 1, generator=torch.Generator().manual_seed(0))
    covers = masks.covers(u)
    assert torch.equal(covers[:, :1], masks.draw(u[:, None]))
    assert (covers[:, :, None] == masks.masks).flatten(3).all(3).any(2).all()


# The estimate


def one_by_one(denoiser, z, z_hat, chain, transforms, level):
    """The sum of SPEC §12, a sample and a mask at a time."""
    out = z_hat.clone()
    for b in range(len(z)):
        total = sum(
            w * denoiser(z[b : b + 1], m[None], level.t, transforms[b]) for w, m in zip(chain.weights, chain.masks[b])
        )
        out[b : b + 1] = torch.where(chain.masks[b].any(0), total, out[b : b + 1])
    return out


def test_one_batch_says_what_one_mask_after_the_other_says():
    oracle = GaussianOracle()
    level, before = level_at(oracle, 300.0), random_tensor((4, *SHAPE), torch.float32)
    masks = torch.rand(3, *SHAPE, generator=torch.Generator().manual_seed(2)) < 0.4
    for family in (BOXES, EmpiricalMasks(masks)):
        z, chain = noisy(oracle, level), chains(family, 4)
        found = combine(oracle, z, before, chain.masks, chain.weights[:, None, None, None], Identity(), level)
        assert_close(found, one_by_one(oracle, z, before, chain, [Identity()] * 4, level), rtol=1e-5, atol=1e-6)
    open_ = ~masks.any(0).expand_as(z)
    assert open_.any() and torch.equal(found[open_], before[open_])


@pytest.mark.parametrize("maps_of_batch", [1, 2])
def test_each_sample_is_seen_through_its_own_coil_maps(maps_of_batch):
    maps = random_tensor((maps_of_batch, 3, 8, 8), torch.complex64)

    def project(z_t, mask, t, transform):
        return torch.where(mask, transform.forward(transform.adjoint(torch.where(mask, z_t, 0))), 0)

    z, level = random_tensor((2, 3, 8, 8), torch.complex64, 1), level_at(GaussianOracle(), 300.0)
    chain = chains(CartesianMasks(8, 3, 2), 2)
    found = combine(
        project, z, torch.zeros_like(z), chain.masks, chain.weights[:, None, None, None], MultiCoil(maps), level
    )
    each = [MultiCoil(maps[b % maps_of_batch][None]) for b in range(2)]
    assert_close(found, one_by_one(project, z, torch.zeros_like(z), chain, each, level), rtol=1e-4, atol=1e-4)


def windows(*ends):
    """Masks of columns first … last − 1 of eight."""
    columns = torch.arange(8)
    chosen = torch.stack([(first <= columns) & (columns < last) for first, last in ends])
    return EmpiricalMasks(chosen[:, None, None, :].expand(-1, 1, 4, 8).contiguous())


def exact_and_chained(covariance, noise, masks):
    """ẑ from everything, and by the chain, of a field that has this covariance with noise 1 − ᾱ in it."""
    oracle = GaussianOracle((4, 8))
    a = 1 - noise
    oracle.covariance = (covariance - noise * torch.eye(32)) / a
    assert torch.linalg.eigvalsh(oracle.covariance)[0] > 0
    level = level_at(oracle, oracle.schedule.time(torch.tensor(sqrt(noise / a))).item())
    z, chain = noisy(oracle, level, 12), chains(masks, 12)
    full = torch.ones(12, 1, 4, 8, dtype=torch.bool)
    return oracle(z, full, level.t), combine(
        oracle, z, torch.zeros_like(z), chain.masks, chain.weights[:, None, None, None], Identity(), level
    )


def decay(length, ratio):
    points = torch.arange(length).double()
    return ratio ** (points[:, None] - points).abs()


def test_the_chain_is_exact_if_separators_separate_at_this_noise():
    """z_t is Markov along the columns, and windows that follow one another share a column or more."""
    covariance = torch.kron(decay(4, 0.3), decay(8, 0.5))
    exact, chained = exact_and_chained(covariance, 0.15, windows((0, 4), (3, 7), (5, 8)))
    assert_close(chained, exact, rtol=1e-4, atol=1e-5)
    exact, chained = exact_and_chained(covariance, 0.15, windows((0, 4), (4, 7), (5, 8)))  # nothing between 3 and 4
    assert (chained - exact).norm() > 0.01 * exact.norm()


def test_the_chain_is_exact_if_the_new_entries_are_independent():
    covariance = torch.kron(decay(4, 0.3), torch.block_diag(decay(3, 0.5), decay(5, 0.5)))
    exact, chained = exact_and_chained(covariance, 0.15, windows((0, 3), (3, 8)))
    assert_close(chained, exact, rtol=1e-4, atol=1e-5)


# The samplers


def run_both(seeds, batch_size):
    """Samples of both samplers, `batch_size` at a time, stacked."""
    oracle, y, out = GaussianOracle(), random_tensor((100, *SHAPE), torch.float32), []
    for k in range(0, len(seeds), batch_size):
        part = seeds[k : k + batch_size]
        common = {"seeds": part, "masks": BOXES, "sampler": Sampler(steps=5, score="chain")}
        a = generate(oracle, SHAPE, **common)
        b = reconstruct(oracle, Problem(y[part], Keep()), data_step=GradientStep(0.5), **common)
        out.append(torch.cat([a, b], 1))
    return torch.cat(out)


def test_a_sample_depends_on_its_own_seed_only():
    seeds = [11, 5, 99, 0, 42, 6, 7]
    together = run_both(seeds, 7)
    assert_close(run_both(seeds, 3), together, rtol=0, atol=1e-6)
    assert (together[1:] - together[:-1]).flatten(1).norm(dim=1).min() > 0.1


@pytest.mark.parametrize("data_step", [GradientStep(1.0), Proximal()])
def test_identity_operator_returns_the_observation(data_step):
    y = random_tensor((2, *SHAPE), torch.float32)
    how = {"seeds": [1, 2], "sampler": Sampler(steps=4, score="chain"), "data_step": data_step}
    assert_close(reconstruct(GaussianOracle(), Problem(y, Keep()), masks=BOXES, **how), y, rtol=1e-5, atol=1e-5)
    transform = unit_coils(batch=2)
    y = transform.forward(random_tensor((2, 1, 8, 8), torch.complex64))
    z = reconstruct(half, Problem(y, Keep(), transform), masks=CartesianMasks(8, 2, 2), **how)
    if data_step == GradientStep(1.0):
        assert_close(z, y, rtol=1e-5, atol=1e-5)
    assert z.isfinite().all()


class ChainRecursion(Recursion):
    """The recursion with ẑ = Σ_c weight_c D_c z_t at one z_t, no re-noising between masks."""

    def __init__(self, oracle, masks, weights, probability, eta, problem=None):
        super().__init__(oracle, masks, probability, eta, problem)
        self.weights = weights

    def _reverse_step(self, moments, above, a, below, last):
        z, _, total, _ = self._parts()
        change = torch.eye(3 * self.d + 1, dtype=torch.float64).repeat(len(self.keep), 1, 1)
        for weight, keep in zip(self.weights, self.keep.unbind(1)):
            diagonal = torch.diag_embed(keep)
            covariance = diagonal @ self.oracle.covariance @ diagonal
            change[:, total, z] += (
                weight * sqrt(a) * covariance @ torch.linalg.inv(a * covariance + (1 - a) * torch.eye(self.d))
            )
        moments = change @ moments @ change.mT
        moments = self._update(moments, torch.ones_like(self.keep[:, 0]), a, below, last)
        return (self.probability[:, None, None] * moments).sum(0)


def box_chains():
    """Every chain of 2 of 2×2 boxes, each equally likely, from `reference_chain`."""
    outcomes = []
    for order, shift in product(permutations(range(4)), product(range(2), range(2))):
        covers = reference_chain(SIZE, 2, 2, order, shift)
        outcomes.append(torch.cat([covers, covers[1:] & (covers.cumsum(0) > 0)[:-1]]))
    return torch.stack(outcomes), [1.0, 1.0, 1.0, -1.0, -1.0]


def two_windows():
    """The chain of two overlapping masks, each of which may come first."""
    first, second = (m.expand(1, SIZE, SIZE) for m in torch.tensor([[1, 1, 1, 0], [0, 1, 1, 1]]).bool())
    chains = [torch.stack([a, b, a & b]) for a, b in ((first, second), (second, first))]
    return torch.stack(chains), [1.0, 1.0, -1.0]


LAWS = {
    "boxes": (BoxMasks(SIZE, 0.5, 2), box_chains),
    "two of a set": (EmpiricalMasks(two_windows()[0][0, :2]), two_windows),
}


@pytest.mark.parametrize("law", list(LAWS))
def test_generated_samples_have_the_covariance_of_the_recursion(law):
    masks, outcomes = LAWS[law]
    oracle, (every, weights) = GaussianOracle((SIZE, SIZE)), outcomes()
    assert isinstance(masks.chain(torch.rand(1, masks.variates)), Chain)
    sampler = Sampler(steps=STEPS, score="chain")
    z = generate(by_mask(oracle), (1, SIZE, SIZE), seeds=range(NUMBER), masks=masks, sampler=sampler)
    probability = torch.full((len(every),), 1 / len(every), dtype=torch.float64)
    mean, covariance = ChainRecursion(oracle, every, weights, probability, eta=1.0).run(STEPS)
    assert not mean.any()
    assert_law(z.flatten(1), mean, covariance)


@pytest.mark.parametrize("law", list(LAWS))
def test_posterior_samples_have_the_moments_of_the_recursion(law):
    """H sees 6 sums of pixels."""
    masks, outcomes = LAWS[law]
    oracle, (every, weights) = GaussianOracle((SIZE, SIZE)), outcomes()
    generator = torch.Generator().manual_seed(1)
    matrix = torch.randn(6, SIZE**2, dtype=torch.float64, generator=generator) / 4
    y = (oracle.sample(1, generator).flatten(1).double() @ matrix.T).float()
    how = {"masks": masks, "sampler": Sampler(steps=STEPS, score="chain"), "data_step": GradientStep(1.5)}
    z = reconstruct(by_mask(oracle), Problem(y.expand(NUMBER, -1), Dense(matrix)), seeds=range(NUMBER), **how)
    probability = torch.full((len(every),), 1 / len(every), dtype=torch.float64)
    problem = (matrix, torch.linalg.pinv(matrix), y[0].double(), 1.5, False)
    recursion = ChainRecursion(oracle, every, weights, probability, eta=0.85, problem=problem)
    assert_law(z.flatten(1), *recursion.run(STEPS))
