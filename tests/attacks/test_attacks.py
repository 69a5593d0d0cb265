"""What comes of attacks on every file that is read back, and of kills: `make test` makes a few, -m attack many.

What little memory does depends on where it ends, which no seed decides: -m attack only. By kind: system/test_memory.py.
"""

import json
import subprocess
import sys
from pathlib import Path

import pytest

HARNESS = Path(__file__).with_name("harness.py")


def counted(tmp_path, flips, kills, starved, seed):
    """The record of the harness, which runs on its own: it forks, and pytest has threads."""
    out = tmp_path / "attacks.json"
    words = [sys.executable, str(HARNESS), str(out), "--flips", str(flips), "--kills", str(kills), "--seed", str(seed)]
    words += ["--starved", str(starved)]
    done = subprocess.run(words, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(out.read_text())


@pytest.mark.parametrize(
    ("flips", "kills", "starved"),
    [(24, 12, 0), pytest.param(1000, 200, 200, marks=pytest.mark.attack)],
    ids=["some", "many"],
)
def test_nothing_is_lost_or_wrong_in_silence(tmp_path, flips, kills, starved):
    found = counted(tmp_path, flips, kills, starved, seed=1)
    assert found["bad"] == []
    assert sum(found["spoilt"].values()) == flips
    assert all(sum(found[kind].values()) == kills for kind in ("killed", "full disk"))
    assert sum(found.get("low memory", {}).values()) == starved
    assert found["spoilt"]["detected"] > flips / 5  # most of the rest is made anew
