"""The benchmarks: each can be loaded, explains itself, and stands in the index with its record."""

import runpy
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SCRIPTS = sorted((ROOT / "benchmarks").rglob("*.py"))
PROGRAMS = [script for script in SCRIPTS if "__main__" in script.read_text()]
INDEX = (ROOT / "benchmarks/README.md").read_text()


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)
def test_it_loads_and_is_in_the_index(script, monkeypatch):
    monkeypatch.setattr(sys, "path", [str(script.parent), *sys.path])
    runpy.run_path(str(script), run_name="benchmark")
    section = INDEX.partition(f"## {script.parent.name}/")[2].partition("\n## ")[0]
    assert f"| `{script.name}` |" in section


@pytest.mark.parametrize("script", PROGRAMS, ids=lambda path: path.stem)
def test_it_explains_itself(script, monkeypatch, capsys):
    monkeypatch.setattr(sys, "path", [str(script.parent), *sys.path])
    monkeypatch.setattr(sys, "argv", [str(script), "--help"])
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(str(script), run_name="__main__")
    assert ended.value.code == 0 and f"usage: {script.name}" in capsys.readouterr().out


def test_every_record_is_named_by_a_page_or_the_index():
    pages = INDEX + "".join(page.read_text() for page in (ROOT / "docs").rglob("*.md"))
    for record in (ROOT / "docs/studies/results").iterdir():
        family = next((name for name in ("chain_images_", "noise_training") if record.name.startswith(name)), None)
        named = f"{family}*.json" if family and record.suffix == ".json" else record.name
        assert named in pages, record.name
