"""What is held out of a measurement: as a mask could have left it out, out of everyone's reach, settings apart."""

import pytest
import torch

from msm.data.acquire import item_generator
from msm.errors import DataError
from msm.masks import BoxMasks, CartesianMasks, VariableDensityMasks
from msm.measurement import Measurement
from msm.sample.shares import of_k_space, of_photo

SIZE = 96
MASKS = {
    "columns": (CartesianMasks(SIZE, 4, 10), (SIZE, 10), "lines"),
    "uniform columns": (CartesianMasks(SIZE, 4, 10, "uniform"), (SIZE, 10), "lines"),
    "all columns": (CartesianMasks(SIZE, 1, 10), (24, 24), "lines"),
    "points": (VariableDensityMasks(SIZE, 8, 16), (16, 16), "points"),
}


def scan(law, rows=False, coils=2):
    mask = law.sample(1, torch.Generator().manual_seed(0))
    mask = mask.transpose(-2, -1) if rows else mask
    k_space = torch.randn(1, coils, SIZE, SIZE, dtype=torch.complex64, generator=torch.Generator().manual_seed(1))
    return Measurement(k_space, mask, torch.ones(1, coils, SIZE, SIZE, dtype=torch.complex64), 0.1)


def around_the_middle(height, width):
    return tuple(slice(SIZE // 2 - side // 2, SIZE // 2 - side // 2 + side) for side in (height, width))


def check(shares, share):
    """Only what was measured, never for both purposes, and in nobody's hands."""
    judged, tuning, measured = shares.judged, shares.tuning, shares.measurement.mask
    assert not (judged & ~measured).any() and not (tuning & ~measured).any() and not (judged & tuning).any()
    assert torch.equal(shares.seen.mask, measured & ~judged)
    assert torch.equal(shares.less.mask, measured & ~judged & ~tuning)
    for given, hidden in ((shares.seen, judged), (shares.less, judged | tuning)):
        assert not given.values[hidden.expand_as(given.values)].any()
    for held in (judged, tuning):
        assert float(held.sum() / measured.sum()) == pytest.approx(share, rel=0.5)


@pytest.mark.parametrize("rows", [False, True])
@pytest.mark.parametrize("name", MASKS)
def test_lines_or_points_of_k_space(name, rows):
    """Of 22 lines off the middle there are three; of many lines or points every tenth. The middle is everyone's."""
    law, middle, unit = MASKS[name]
    if rows and name == "all columns":
        pytest.skip("a full mask has no direction: columns are taken")
    shares = of_k_space(scan(law, rows), around_the_middle(*(middle[::-1] if rows else middle)), "a")
    check(shares, 0.1)
    assert shares.unit == unit
    lines = shares.judged[0, 0].any(1 if rows else 0)
    if unit == "lines":
        whole = shares.judged[0, 0].all(1 if rows else 0)
        assert torch.equal(whole, lines) and int(lines.sum()) >= 3
    core = shares.judged[0, 0][around_the_middle(*middle)]
    assert rows or not core.any()


def test_too_few_lines_are_one_clear_line():
    with pytest.raises(DataError, match=r"^a: \d measured lines outside of the middle of k-space are too few"):
        of_k_space(scan(CartesianMasks(SIZE, 40, 10)), around_the_middle(SIZE, 10), "a")


def photo(mask):
    return Measurement(torch.rand(1, 3, *mask.shape[-2:]), mask, noise_std=0.01)


@pytest.mark.parametrize("kind", ["boxes", "scratches", "dead pixels"])
def test_pixels_are_held_out_as_holes_are(kind):
    """Patches of its own holes: a tenth of the pixels, or what a few dead ones hide; for a photo always the same."""
    mask = torch.ones(1, 1, SIZE, SIZE, dtype=torch.bool)
    if kind == "boxes":
        mask = BoxMasks(SIZE).sample(1, torch.Generator().manual_seed(0))
    elif kind == "scratches":
        mask[..., torch.arange(SIZE), torch.arange(SIZE)] = False
        mask[..., torch.arange(SIZE), torch.arange(SIZE).flip(0) // 2] = False
    else:
        mask[..., torch.randint(SIZE, (9,)), torch.randint(SIZE, (9,))] = False
    shares, again = (of_photo(photo(mask), item_generator("a", 0), "a") for _ in range(2))
    assert torch.equal(shares.judged, again.judged) and torch.equal(shares.tuning, again.tuning)
    check(shares, 0.1) if kind != "dead pixels" else check(shares, float(shares.judged.sum() / mask.sum()))
    neighbours = torch.nn.functional.avg_pool2d(shares.judged[0].float(), 5, 1, 2)[shares.judged[0]].mean()
    assert (float(neighbours) > 0.5) == (kind == "boxes")  # boxes stay boxes, single pixels stay single


def test_a_complete_photo_has_nothing_to_hold_out():
    with pytest.raises(DataError, match=r"^a: no pixel is missing, so there is nothing to hold out"):
        of_photo(photo(torch.ones(1, 1, 16, 16, dtype=torch.bool)), item_generator("a", 0), "a")
