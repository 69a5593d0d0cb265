"""The laws of the mask families."""

import math

import pytest
import torch
from torch.testing import assert_close

from msm import masks as families
from msm.masks import BoxMasks, CartesianMasks, EmpiricalMasks, FullMask, VariableDensityMasks


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def drawn(masks, batch, draws, covering, seed=0):
    return masks.draw(torch.rand(batch, draws, masks.variates, generator=generator(seed)), covering)


def some_masks():
    return torch.rand(5, 1, 8, 6, generator=generator()) < 0.5


FAMILIES = {
    "box": BoxMasks((16, 8), 0.4),
    "random": CartesianMasks((8, 40), 4, 6),
    "uniform": CartesianMasks((8, 40), 4, 6, "uniform"),
    "empirical": EmpiricalMasks(some_masks()),
    "full": FullMask((16, 8)),
}


@pytest.mark.parametrize("name", FAMILIES)
def test_all_families(name):
    masks = FAMILIES[name]
    sample = masks.sample(5000, generator())
    assert sample.shape == (5000, 1, *masks.size)
    assert sample.dtype == torch.bool
    assert sample.float().mean().item() == pytest.approx(masks.kept, abs=0.01)
    assert torch.equal(masks.sample(4, generator(3)), masks.sample(4, generator(3)))
    keep = torch.linspace(0.1, 1, 5000)
    sub = masks.submask(sample, keep, generator(1))
    assert sub.shape == sample.shape
    assert not (sub & ~sample).any()
    assert torch.equal(sub[-1], sample[-1])


LAWS = {
    **FAMILIES,
    "box of 2 × 2": BoxMasks(8, 0.5, 2),
    "nothing dropped": BoxMasks(8, 0.0, 1),
    "random, no centre": CartesianMasks((8, 12), 2.5, 0),
    "points": VariableDensityMasks((16, 12), 3, 4),
    "points, no corners": VariableDensityMasks((12, 16), 3, 0, "random", False),
    "points, all in the centre": VariableDensityMasks(12, 1, 12),
}


@pytest.mark.parametrize("name", LAWS)
def test_kind_and_settings_are_the_whole_law(name):
    masks = LAWS[name]
    again = families.FAMILIES[masks.kind](**masks.settings)
    assert type(again) is type(masks) and again.size == masks.size and again.kept == masks.kept
    for covering in (False, True):
        assert torch.equal(drawn(again, 20, 3, covering), drawn(masks, 20, 3, covering))
    u = torch.rand(20, masks.variates, generator=generator())
    assert torch.equal(again.chain(u).masks, masks.chain(u).masks)
    sample, keep = masks.sample(20, generator()), torch.full((20,), 0.5)
    assert torch.equal(again.submask(sample, keep, generator(1)), masks.submask(sample, keep, generator(1)))


def test_every_family_is_known_by_its_kind():
    assert {kind: family.kind for kind, family in families.FAMILIES.items()} == {
        kind: kind for kind in ("full", "box", "cartesian", "variable_density", "empirical")
    }
    assert {masks.kind for masks in LAWS.values()} == set(families.FAMILIES)


@pytest.mark.parametrize(
    ("masks", "expected"),
    [
        (FullMask(8), FullMask((16, 24))),
        (BoxMasks(8, 0.5, 2), BoxMasks((16, 24), 0.5, 2)),
        (CartesianMasks(8, 2, 3, "uniform"), CartesianMasks((16, 24), 2, 3, "uniform")),
        (VariableDensityMasks(12, 2, 4, "random", False), VariableDensityMasks((16, 24), 2, 4, "random", False)),
    ],
    ids=lambda masks: masks.kind,
)
def test_a_law_of_another_size(masks, expected):
    resized = masks.resized((16, 24))
    assert resized.size == (16, 24) and resized.settings == expected.settings
    assert torch.equal(drawn(resized, 5, 2, True), drawn(expected, 5, 2, True))
    assert masks.resized(16).size == (16, 16)
    with pytest.raises(ValueError, match="size must be positive"):
        masks.resized((0, 8))


def test_measured_masks_have_one_size():
    masks = EmpiricalMasks(some_masks())
    assert masks.resized((8, 6)) is masks
    with pytest.raises(ValueError, match=r"measured masks are of 8×6, \(8, 8\) is asked for"):
        masks.resized((8, 8))


def test_everything_measured_is_one_mask():
    masks = FullMask((6, 4))
    assert masks.kept == 1 and masks.draw(torch.rand(3, 2, 1), covering=True).all()
    chain = masks.chain(torch.rand(3, 1))
    assert chain.masks.shape == (3, 1, 1, 6, 4) and chain.masks.all() and chain.weights.tolist() == [1]
    keep = torch.tensor([0.2, 0.7])
    sub = FullMask(64).submask(FullMask(64).sample(2, generator()), keep, generator(1))
    assert_close(sub.float().mean((1, 2, 3)), keep, rtol=0, atol=0.04)  # 5 standard deviations


@pytest.mark.parametrize("covering", [False, True])
@pytest.mark.parametrize("draw", [0, 2])
@pytest.mark.parametrize("name", ["box", "random", "uniform"])
def test_every_draw_has_the_same_inclusion_frequencies(name, draw, covering):
    masks = FAMILIES[name]
    frequency = drawn(masks, 5000, 3, covering)[:, draw, 0].float().mean(0)
    expected = torch.full(masks.size, masks.kept)
    if name != "box":
        outside = 1 / masks.acceleration
        expected = torch.where(masks.middle, 1.0, outside).expand(masks.size)
    assert_close(frequency, expected, rtol=0, atol=0.035)  # 5 standard deviations


# Boxes


@pytest.mark.parametrize(("drop", "boxes"), [(0, 16), (0.35, 11), (0.4, 10), (0.5, 8), (0.7, 5), (0.9, 2)])
def test_exact_number_of_boxes(drop, boxes):
    masks = BoxMasks((16, 8), drop)
    assert masks.boxes_kept == boxes
    counts = masks.sample(300, generator()).flatten(1).sum(1)
    assert torch.equal(counts, torch.full_like(counts, boxes * 8))


@pytest.mark.parametrize("drop", [0.4, 0.5, 0.7])
def test_covering_boxes(drop):
    masks = BoxMasks((16, 16), drop)
    number = -(-16 // masks.boxes_kept)
    cover = drawn(masks, 50, number, True)
    assert cover.shape == (50, number, 1, 16, 16)
    times = cover.sum(1)
    assert times.min() == 1
    assert times.max() <= 2
    assert (cover.flatten(2).sum(2) == masks.boxes_kept * 16).all()


def test_all_shifts_occur_and_boxes_are_whole():
    masks = BoxMasks(16, 0.4)
    u = torch.rand(16, 1, masks.variates, generator=generator())
    u[..., 16] = (torch.arange(16)[:, None] // 4 + 0.5) / 4
    u[..., 17] = (torch.arange(16)[:, None] % 4 + 0.5) / 4
    for k, mask in enumerate(masks.draw(u)[:, 0, 0]):
        boxes = mask.roll((-(k // 4), -(k % 4)), (0, 1)).unflatten(0, (4, 4)).unflatten(2, (4, 4))
        assert torch.equal(boxes.all(1).all(-1), boxes.any(1).any(-1))


@pytest.mark.parametrize("drop", [0, 0.4, 0.7, 0.9])
def test_box_submask_has_whole_boxes_of_the_mask(drop):
    masks = BoxMasks((16, 16), drop)
    sample = masks.sample(200, generator())
    keep = torch.rand(200, generator=generator(5))
    sub = masks.submask(sample, keep, generator(1))
    assert not (sub & ~sample).any()
    expected = (keep * masks.boxes_kept).round().clamp(min=1) * 16
    assert torch.equal(sub.flatten(1).sum(1).float(), expected)
    # boxes of the sub-mask lie on one of the 16 rolled grids
    aligned = torch.zeros(200, dtype=torch.bool)
    for r in range(4):
        for c in range(4):
            boxes = sub[:, 0].roll((-r, -c), (1, 2)).unflatten(1, (4, 4)).unflatten(3, (4, 4))
            aligned |= (boxes.all(2).all(-1) == boxes.any(2).any(-1)).flatten(1).all(1)
    assert aligned.all()


# Cartesian


@pytest.mark.parametrize("pattern", ["random", "uniform"])
def test_cartesian_columns_and_centre(pattern):
    masks = CartesianMasks((4, 40), 4, 6, pattern)
    sample = masks.sample(200, generator())
    assert (sample == sample[:, :, :1]).all()
    assert sample[..., 17:23].all()
    assert masks.kept == pytest.approx(6 / 40 + 34 / 40 / 4)
    sub = masks.submask(sample, torch.zeros(200), generator())
    assert torch.equal(sub, masks.middle.expand(200, 1, 4, 40))


def test_uniform_pattern_has_every_rth_column():
    sample = CartesianMasks((4, 40), 4, 0, "uniform").sample(200, generator())[:, 0, 0]
    offsets = sample.int().argmax(1)
    assert set(offsets.tolist()) == {0, 1, 2, 3}
    assert torch.equal(sample, torch.arange(40) % 4 == offsets[:, None])


@pytest.mark.parametrize("acceleration", [1, 3, 4, 2.5])
def test_covering_columns(acceleration):
    patterns = ["random", "uniform"] if acceleration == int(acceleration) else ["random"]
    for pattern in patterns:
        masks = CartesianMasks((4, 40), acceleration, 4, pattern)
        assert drawn(masks, 100, -(-acceleration // 1).__int__(), True).any(1).all()


# Empirical


def test_empirical_masks_come_from_the_set():
    known = some_masks()
    sample = EmpiricalMasks(known).sample(1000, generator())
    same = (sample[:, None] == known[None]).flatten(2).all(2)
    assert same.any(1).all()
    assert_close(same.float().mean(0), torch.full((5,), 0.2), rtol=0, atol=0.07)


def test_empirical_covering_covers_what_the_set_can():
    known = torch.eye(4, dtype=torch.bool)[:, None, None, :].expand(4, 1, 3, 4).contiguous()
    masks = EmpiricalMasks(known)
    assert drawn(masks, 20, 4, True).any(1).all()
    assert torch.equal(drawn(masks, 20, 4, True)[:, 0], drawn(masks, 20, 4, False)[:, 0])


@pytest.mark.parametrize("draws", [1, 2, 3, 9])
def test_empirical_covering_takes_what_adds_most_and_a_random_mask_once_nothing_does(draws):
    known = torch.rand(7, 1, 6, 5, generator=generator(1)) < 0.4
    u = torch.rand(30, draws, 1, generator=generator(2))
    found = EmpiricalMasks(known).draw(u, covering=True)
    for variates, masks in zip(u[..., 0], found):
        covered = torch.zeros_like(known[0])
        for k, (v, mask) in enumerate(zip(variates, masks)):
            added = (known & ~covered).sum((1, 2, 3))
            number = added.argmax() if k and added.any() else int(v * 7)
            assert torch.equal(mask, known[number])
            covered |= mask


@pytest.mark.gpu
def test_empirical_masks_are_the_same_on_another_device():
    masks, u = EmpiricalMasks(some_masks()), torch.rand(20, 4, 1, generator=generator())
    assert torch.equal(masks.draw(u.cuda(), True).cpu(), masks.draw(u, True))
    assert torch.equal(masks.covers(u[:, 0].cuda()).cpu(), masks.covers(u[:, 0]))


def test_empirical_submask_of_columns_keeps_columns():
    columns = torch.rand(5, 1, 1, 12, generator=generator()) < 0.5
    columns[..., 5:7] = True
    masks = EmpiricalMasks(columns.expand(5, 1, 6, 12).contiguous())
    sample = masks.sample(100, generator())
    sub = masks.submask(sample, torch.full((100,), 0.5), generator())
    assert (sub == sub[:, :, :1]).all()
    assert sub[..., 5:7].all()


# Bad arguments


@pytest.mark.parametrize(
    "make",
    [
        lambda: BoxMasks((15, 16)),
        lambda: BoxMasks(16, 1.0),
        lambda: BoxMasks(16, -0.1),
        lambda: BoxMasks(16, grid=0),
        lambda: BoxMasks(0),
        lambda: CartesianMasks(16, pattern="radial"),
        lambda: CartesianMasks(16, 0.5, 4),
        lambda: CartesianMasks(16, 2.5, 4, "uniform"),
        lambda: CartesianMasks(16, 4, 17),
        lambda: CartesianMasks(16, 4, -1),
        lambda: EmpiricalMasks(torch.ones(2, 1, 4, 4)),
        lambda: EmpiricalMasks(torch.ones(2, 4, 4, dtype=torch.bool)),
        lambda: EmpiricalMasks(torch.zeros(0, 1, 4, 4, dtype=torch.bool)),
        lambda: EmpiricalMasks(torch.zeros(2, 1, 4, 4, dtype=torch.bool)),
    ],
)
def test_bad_arguments(make):
    with pytest.raises(ValueError):
        make()


@pytest.mark.parametrize("acceleration", [2.5, 6, 8])
def test_covering_columns_leave_no_gap_at_the_edges_of_windows(acceleration):
    edges = torch.arange(1, 8) / acceleration
    edges = edges[edges < 1]
    u = torch.cat([torch.nextafter(edges, torch.zeros(())), edges, torch.nextafter(edges, torch.ones(()))])
    masks = CartesianMasks((1, len(u)), acceleration, 0)
    draws = masks.draw(u.expand(1, math.ceil(acceleration), -1), covering=True)
    assert draws.any(1).all()


def test_columns_are_expanded_so_that_the_transform_along_them_can_be_left_out():
    family, u = CartesianMasks((8, 12), 4, 2), torch.rand(2, 3, CartesianMasks((8, 12), 4, 2).variates)
    for masks in (family.draw(u, True), family.draw(u, False), family.chain(u[:, 0]).masks):
        assert masks.flatten(0, 1).stride(-2) == 0
