"""The README's example runs, links between pages lead somewhere, and every section of docs/SPEC.md cited exists."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGES = sorted([ROOT / "README.md", *(ROOT / "docs").glob("*.md"), *(ROOT / "src").rglob("*.md")])


def test_the_python_example_runs(capsys):
    (example,) = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    exec(example, {})
    assert capsys.readouterr().out == "torch.Size([2, 3, 32, 32])\n"


def anchors(page: Path) -> set[str]:
    """Anchors of the headings, as GitHub makes them: lower case, no punctuation, hyphens for spaces."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page):
    for link in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
        if link.startswith(("http:", "https:")):
            continue
        path, _, anchor = link.partition("#")
        target = page.parent / path if path else page
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link


def test_every_section_of_the_method_that_is_cited_exists():
    sections = set(re.findall(r"^## (\d+)\.", (ROOT / "docs" / "SPEC.md").read_text(), re.MULTILINE))
    for file in sorted(f for folder in ("src", "tests", "benchmarks", "docs") for f in (ROOT / folder).rglob("*.py")):
        for cited in re.findall(r"SPEC (§\d+(?:(?:, | to | and )+§\d+)*)", file.read_text()):
            assert set(re.findall(r"\d+", cited)) <= sections, f"{file.name}: SPEC {cited}"
