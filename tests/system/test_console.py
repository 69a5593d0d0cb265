"""What a person sees comes from one place, once however many processes there are."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import msm
from msm.system.console import Cost, fail, note, progress, say, table, track, warn

SOURCE = Path(msm.__file__).parent
SCRIPT = """
from msm.system.console import fail, note, say, table, track, warn
say("said"), note("noted"), warn("warned"), fail("failed"), table("rows", [{"a": "1"}])
assert list(track(range(3), "counting")) == [0, 1, 2]
"""


def test_one_place_prints():
    prints = re.compile(r"(?<![\w])print\(|sys\.std(out|err)\.write|rich\.(progress|console|table)")
    found = {path.relative_to(SOURCE).as_posix() for path in SOURCE.rglob("*.py") if prints.search(path.read_text())}
    assert found == {"system/console.py"}


def test_of_two_processes_one_speaks(tmp_path):
    (tmp_path / "script.py").write_text(SCRIPT)
    start = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(SOURCE.parent)}
    command = [*start, tmp_path / "script.py"]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=120)
    assert done.returncode == 0, done.stderr
    lines = [line for line in done.stderr.splitlines() if line.startswith("msm")]
    assert sorted(lines) == ["msm: failed", "msm: failed", "msm: note: noted", "msm: warning: warned"]
    assert done.stdout.count("said") == done.stdout.count("rows") == done.stdout.count("counting: 100%") == 1


@pytest.mark.parametrize("rank", ["0", "1"])
def test_the_others_are_silent(monkeypatch, capsys, rank):
    monkeypatch.setenv("RANK", rank)
    say("said"), note("noted"), warn("warned"), table("rows", [{"a": "1"}])
    with progress("counting", 2) as advance:
        advance(2, "all of it")
    out, err = capsys.readouterr()
    assert err == ("msm: note: noted\nmsm: warning: warned\n" if rank == "0" else "")
    assert (out == "") == (rank == "1")
    fail("failed")
    assert capsys.readouterr().err == "msm: failed\n"


@pytest.fixture
def clock(monkeypatch):
    """Seconds that pass only when a test says so."""
    now = [0.0]
    monkeypatch.setattr("msm.system.console.monotonic", lambda: now[0])
    return now


def test_without_a_terminal_progress_is_a_line_now_and_then(clock, capsys):
    with progress("training", 2000, begun=1000) as advance:
        for n in range(500):
            clock[0] += 10
            advance(1, f"{n} images")
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "training: 50% · 2 images · 2 h 46 min left"
    assert lines[-1] == "training: 75% · 499 images · 1 h 23 min left"
    assert 20 < len(lines) < 45 and not any("\x1b" in line or "\r" in line for line in lines)


def test_what_a_run_takes_is_said_after_its_second_step(clock, capsys):
    """Not by the first, which loads and compiles, nor by steps that an earlier run did."""
    looked = []

    def memory():
        looked.append(clock[0])
        return "1.5 GB of memory"

    with progress("sampling", 1000, cost=Cost(4, memory)) as advance:
        advance(200)  # kept
        clock[0] += 20
        advance(4)
        for _ in range(9):
            clock[0] += 0.4
            advance(4)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "sampling: about 1 min from here, 1.5 GB of memory, measured on one step"
    assert len(lines) == 2 and looked == [20, 20.4]
    with progress("sampling", 4, cost=Cost(4, memory)) as advance:
        advance(4)
    assert capsys.readouterr().out == "sampling: 100%\n"


def test_a_table_marks_the_best_with_or_without_a_terminal(capsys):
    table("scores", [{"Method": "a[/b]", "PSNR": "1.0"}, {"Method": "[red]c", "PSNR": "* 2.0"}])
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "scores" and any("a[/b]" in line and "│   1.0 │" in line for line in lines)
    assert any("[red]c" in line and "│ * 2.0 │" in line for line in lines) and lines[-1] == "* the best of its column"
    table("plain", [{"Method": "a"}])
    assert "best" not in capsys.readouterr().out


def test_quick_work_is_one_line(monkeypatch, capsys):
    monkeypatch.setenv("WORLD_SIZE", "2")
    with progress("sampling", 5, shared=True) as advance:
        advance(3)
    assert list(track(iter("abc"), "of a number not known")) == ["a", "b", "c"]
    assert list(track("abc", "of three")) == ["a", "b", "c"]
    assert list(track("", "of none")) == []
    assert capsys.readouterr().out == "sampling: 100%\nof a number not known: 3\nof three: 100%\n"


@pytest.mark.parametrize(
    ("step", "left"), [(0.1, "1 s left"), (50, "7 min left"), (4000, "10 h 0 min left"), (90_000, "9 d 9 h left")]
)
def test_the_time_left_is_known_however_slow_a_step_is(clock, monkeypatch, capsys, step, left):
    """In a bar, too: rich's own forgets steps of over half a minute."""
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "120")
    with progress("training", 10) as advance:
        clock[0] += step
        advance(1, "loss 0.5")
    shown = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", capsys.readouterr().out)
    assert f"10% loss 0.5 · {left}" in shown


def test_saying_something_is_quick():
    code = "import sys, msm.system.console; sys.exit(any(m in sys.modules for m in ('torch', 'accelerate', 'rich')))"
    subprocess.run([sys.executable, "-c", code], check=True, env=os.environ | {"PYTHONPATH": str(SOURCE.parent)})


def test_what_steers_a_terminal_does_not_reach_it(capsys):
    """Names of files may hold anything."""
    odd = "red\x1b[31m \x9b2J \r bell\x07 \ud800"
    for tell in (say, note, warn, fail):
        tell(odd)
    table(odd, [{"Method": odd}])
    said = capsys.readouterr()
    assert all(c.isprintable() or c == "\n" for c in said.out + said.err) and "red\\x1b[31m" in said.out
