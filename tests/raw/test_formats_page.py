"""What docs/reference/raw_formats.md says is tested, is."""

import re
from pathlib import Path

import pytest

from msm.raw.readers import READERS

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs/reference/raw_formats.md").read_text()
TESTS = {
    name
    for file in (ROOT / "tests/raw").glob("test_*.py")
    for name in re.findall(r"^def (test_\w+)", file.read_text(), re.M)
}
FEATURES = ["noise scan", "oversampling", "partial Fourier", "averages", "multi-slice", "orientation"]
NO_TEST = ("–", "one file each")


def table() -> list[list[str]]:
    """Rows of the table of features."""
    lines = PAGE.split("### Which features")[1].split("\n### ")[0].splitlines()
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith("|")]
    assert rows[0] == ["", *FEATURES]
    return rows[2:]


@pytest.mark.parametrize("row", table(), ids=lambda row: row[0])
def test_each_feature_of_a_format_names_a_test(row):
    assert len(row) == len(FEATURES) + 1
    for cell in row[1:]:
        assert cell in NO_TEST or re.fullmatch(r"`test_\w+`(, `test_\w+`)*", cell), cell


def test_the_tests_that_the_page_names_are_there():
    named = set(re.findall(r"`(test_\w+)`", PAGE))
    assert len(named) > 20 and not named - TESTS


def test_every_kind_of_file_is_on_the_page():
    assert all(suffix in PAGE for suffix in READERS if suffix != ".hdf5")
    named = PAGE.split("## Formats")[1].split("### What is taken")[0]
    for row in table():
        assert all(name.strip().split()[0] in named for name in row[0].split(",") if name.strip() not in ("VE",))
