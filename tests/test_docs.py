"""What the pages say: Python blocks run, links lead somewhere, settings, modules and sections of the method exist."""

import importlib
import io
import re
import sys
import time
from contextlib import redirect_stdout
from pathlib import Path

import numpy as np
import pytest
from pydantic import BaseModel
from runs import msm

from msm.config.schema import Config
from msm.evaluate.rounds import Standing

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "docs"))

from pages import TUTORIALS, notebook, parts  # noqa: E402
from pages import run as run_tutorial  # noqa: E402

DOCS = sorted((ROOT / "docs").rglob("*.md"))
PAGES = sorted([*ROOT.glob("*.md"), *DOCS, *(ROOT / "benchmarks").glob("*.md"), *(ROOT / "src").rglob("*.md")])
SOURCES = sorted(file for folder in ("src", "benchmarks") for file in (ROOT / folder).rglob("*.py"))
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$\n?", re.DOTALL | re.MULTILINE)
BUDGET = 60  # seconds of CPU time that the blocks of a page may take
OF_TUTORIALS = 90  # that those of a tutorial may take with its commands: one evaluates four runs


def name(page: Path) -> str:
    return str(page.relative_to(ROOT))


def prose(page: Path) -> str:
    """The page without its fenced blocks."""
    return BLOCK.sub("", page.read_text())


def every(pattern: str, pages: list[Path]) -> list:
    """Each match with its page."""
    found = [(name(page), match) for page in pages for match in sorted(set(re.findall(pattern, page.read_text())))]
    return [pytest.param(page, match, id=f"{page}: {match}") for page, match in found]


@pytest.fixture
def folder(tmp_path, monkeypatch, request):
    """Where the blocks of a page run: a checkout, with the files that the page says are there."""
    (tmp_path / "src").symlink_to(ROOT / "src")
    monkeypatch.chdir(tmp_path)
    if (given := GIVEN.get(request.node.callspec.id)) is not None:
        given(tmp_path)
    return tmp_path


def a_raw_scan(folder: Path) -> None:
    """scan.npy: a disc in four coils, with noise; half of the lines beyond the centre are not measured."""
    import torch

    from msm.data.acquire import simulate_scan
    from msm.transforms import MultiCoil

    y, x = torch.meshgrid(torch.linspace(-1, 1, 48), torch.linspace(-1, 1, 48), indexing="ij")
    source = simulate_scan("disc", (x**2 + y**2 < 0.6).float(), 4, 0)
    k_space = MultiCoil(source.maps[None]).forward(source.image[None])[0]
    k_space += 0.01 * torch.randn(k_space.shape, dtype=k_space.dtype, generator=torch.Generator().manual_seed(0))
    columns = torch.arange(48)
    k_space[..., (columns % 2 == 1) & ((columns - 24).abs() > 10)] = 0
    np.save(folder / "scan.npy", k_space.numpy())


GIVEN = {"docs/how-to/raw_scans.md": a_raw_scan}
ELSEWHERE = {"docs/how-to/evaluate.md"}  # in tests/report/test_page.py, on evaluated runs
WITH_PYTHON = [
    page for page in PAGES if "```python" in page.read_text() and name(page) not in ELSEWHERE and page not in TUTORIALS
]


@pytest.mark.parametrize("page", WITH_PYTHON, ids=name)
def test_python_blocks_run(page, folder):
    """In order, in one namespace; a block of text after one is what it prints."""
    namespace: dict = {"__name__": "page"}
    printed, started = None, time.process_time()
    for language, code in BLOCK.findall(page.read_text()):
        if language == "text":
            assert printed == code, f"{name(page)}: the block above prints {printed!r}"
        if language == "python":
            out = io.StringIO()
            with redirect_stdout(out):
                exec(compile(code, name(page), "exec"), namespace)
            printed = out.getvalue()
    assert time.process_time() - started < BUDGET


SMALL = {
    "train": ["train.images=16", "train.warmup_images=0", "train.checkpoint_images=16"],
    "refine": ["refine.images=16", "refine.steps=2"],
    "sample": ["sample.steps=2"],
}


@pytest.mark.parametrize("page", TUTORIALS, ids=name)
def test_tutorials_run(tmp_path, monkeypatch, page):
    """Word by word, with less training and fewer steps: Python prints what the page says, its pictures are made."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(Standing, "worse_than", lambda self, before: None)  # so little training makes no model better
    given = []

    def command(words: list[str]) -> None:
        given.append(words)
        assert msm(*words, *SMALL.get(words[0], [])) == 0

    started = time.process_time()
    run_tutorial(page, command)
    assert time.process_time() - started < OF_TUTORIALS
    text = page.read_text()
    assert len(given) == len(re.findall(r"^ +msm ", text, re.MULTILINE))
    for named in re.findall(r"`(runs/[\w/.]+)`", text):
        assert Path(named).exists(), named


@pytest.mark.parametrize("page", TUTORIALS, ids=name)
def test_pictures_of_tutorials_are_small_and_used(page):
    kept = {file for file in (page.parent / "images" / page.stem).rglob("*") if file.is_file()}
    assert kept == {page.parent / "images" / page.stem / part.name for part in parts(page) if part.kind == "picture"}
    assert all(file.stat().st_size <= 150_000 for file in kept)


@pytest.mark.parametrize("page", TUTORIALS, ids=name)
def test_notebooks_hold_what_the_page_does(page):
    """Code that Python accepts, but for the commands, and every command."""
    cells = [cell.source for cell in notebook(page).cells if cell.cell_type == "code"]
    for source in cells:
        if not source.startswith(("!", "%%")):
            compile(source, page.name, "exec")
    commands = re.findall(r"^ +(msm .*)$", page.read_text(), re.MULTILINE)
    assert [line[1:] for source in cells for line in source.splitlines() if line.startswith("!")] == commands


def test_the_readme_begins_with_a_picture_and_is_short():
    lines = (ROOT / "README.md").read_text().splitlines()
    assert lines[0].startswith("![") and len(lines) <= 100


def anchors(page: Path) -> set[str]:
    """Anchors of the headings, as GitHub makes them: lower case, no punctuation, hyphens for spaces."""
    headings = re.findall(r"^#+ (.*)$", prose(page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_links_lead_somewhere(page):
    for link in re.findall(r"\]\(([^)\s]+)\)", prose(page)):
        if link.startswith(("http:", "https:")):
            continue
        path, _, anchor = link.partition("#")
        target = page.parent / path if path else page
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link


def test_every_page_is_in_the_index():
    index = (ROOT / "docs" / "README.md").read_text()
    for page in DOCS[1:]:
        assert f"({page.relative_to(ROOT / 'docs')})" in index, name(page)


@pytest.mark.parametrize(("page", "path"), every(r"`((?:configs|benchmarks|tests|docs)/[\w/.]+)`", PAGES))
def test_files_that_pages_name_exist(page, path):
    assert (ROOT / path).exists()


@pytest.mark.parametrize(("file", "path"), every(r"\bdocs/[\w/-]+\.(?:md|json|png)", SOURCES))
def test_pages_that_the_source_names_exist(file, path):
    assert (ROOT / path).exists()


@pytest.mark.parametrize(("page", "dotted"), every(r"\bmsm(?:\.[a-zA-Z_]\w*)+", PAGES))
def test_modules_and_names_that_pages_name_exist(page, dotted):
    """`msm.a.b` is a module, or a name in one."""
    module, _, last = dotted.rpartition(".")
    try:
        importlib.import_module(dotted)
    except ModuleNotFoundError:
        assert hasattr(importlib.import_module(module), last)


def fields(model) -> dict[str, object]:
    """The fields of a block of settings, or of any of the blocks that stand there."""
    if isinstance(model, type) and issubclass(model, BaseModel):
        return {key: field.annotation for key, field in model.model_fields.items()}
    inner = [fields(part) for part in getattr(model, "__args__", ())]
    return {key: value for part in inner for key, value in part.items()}


KEY = rf"(?<![\w./])((?:{'|'.join(Config.model_fields)})\.[a-z_]+(?:\.[a-z_]+)*)(?![\w(/])"
NOT_SETTINGS = {".py", ".h5", ".md"}


@pytest.mark.parametrize(("page", "key"), every(KEY, [page for page in PAGES if page.name != "CHANGELOG.md"]))
def test_settings_that_pages_name_exist(page, key):
    if f".{key.rpartition('.')[2]}" in NOT_SETTINGS:
        return
    block = Config
    for part in key.split("."):
        assert part in fields(block), f"{part} of {key}"
        block = fields(block)[part]


def test_the_moved_modules_are_where_the_table_says():
    table = (ROOT / "CONTRIBUTING.md").read_text().partition("## Where things went")[2]
    rows = re.findall(r"^\| (`.*) \| (`.*) \|$", table, re.MULTILINE)
    assert len(rows) > 40
    for old, new in rows:
        place = Path()
        for path in map(Path, re.findall(r"`([\w/.]+)`", new)):
            place = path if len(path.parts) > 1 else place.parent / path  # a name alone: beside the one before
            if (ROOT / "src/msm" / path).exists():
                place = path
            assert (ROOT / "src/msm" / place).exists(), new
        for path in re.findall(r"`([\w/.]+\.py)`", old):
            assert not (ROOT / "src/msm" / path).exists() or path in new, old


def test_every_section_of_the_method_that_is_cited_exists():
    page = (ROOT / "docs/reference/method.md").read_text()
    assert "SPEC" in page.splitlines()[0]
    sections = set(re.findall(r"^## (\d+)\.", page, re.MULTILINE))
    for file in sorted(f for folder in ("src", "tests", "benchmarks", "docs") for f in (ROOT / folder).rglob("*.py")):
        for cited in re.findall(r"SPEC (§\d+(?:(?:, | to | and )+§\d+)*)", file.read_text()):
            assert set(re.findall(r"\d+", cited)) <= sections, f"{file.name}: SPEC {cited}"
