"""The scores that benchmarks/studies/chain_images.py gives to generated sets, and the page that shows them."""

import json
import sys
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "benchmarks" / "studies"))

from chain_images import judge, nearest, set_table, step_table  # noqa: E402
from chain_inverse import table as inverse_table  # noqa: E402
from small_networks import table as network_table  # noqa: E402


@pytest.fixture
def photos():
    return torch.rand(30, 3, 16, 16, generator=torch.Generator().manual_seed(0)) * 2 - 1


def test_the_photos_themselves_are_a_perfect_set(photos):
    found = judge(photos.flip(0), photos)
    assert found["fd_wavelet"]["value"] < 1e-3 and found["covariance_error"] < 1e-6
    assert all(abs(ratio - 1) < 1e-6 for ratio in found["variance_over_real"].values())


def test_half_of_the_contrast_is_a_quarter_of_the_variance(photos):
    found = judge(photos / 2, photos)
    assert abs(found["covariance_error"] - 0.75) < 1e-6
    assert all(abs(ratio - 0.25) < 1e-6 for ratio in found["variance_over_real"].values())


def test_photos_that_are_repeated_are_near(photos):
    new = torch.rand(30, 3, 16, 16, generator=torch.Generator().manual_seed(1)) * 2 - 1
    assert nearest(photos + 0.001, photos) < 0.01
    assert nearest(new, photos) == pytest.approx(nearest(photos, photos), rel=0.05)


@pytest.mark.parametrize(
    ("name", "table"),
    [
        ("fashion", set_table),
        ("fashion", step_table),
        ("16px_160000", set_table),
        ("16px_160000", step_table),
        ("16px_16000", set_table),
        ("16px_16000", step_table),
        ("32px_64000", set_table),
        ("32px_16000", set_table),
    ],
)
def test_the_page_holds_the_stored_records(name, table):
    records = json.loads((ROOT / f"docs/studies/results/chain_images_{name}.json").read_text())
    assert table(records) in (ROOT / "docs/studies/chain.md").read_text()


def test_the_page_of_small_networks_holds_the_stored_records():
    records = json.loads((ROOT / "docs/studies/results/small_networks.json").read_text())
    assert network_table(records) in (ROOT / "docs/studies/speed.md").read_text()


def test_the_page_holds_the_record_of_inverse_problems():
    records = json.loads((ROOT / "docs/studies/results/chain_inverse_fashion.json").read_text())
    assert inverse_table(records) in (ROOT / "docs/studies/chain.md").read_text()
