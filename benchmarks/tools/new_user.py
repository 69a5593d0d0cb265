"""Take a new user's two ways by the clock: from a clone to a scan with error bars, and to a refined model of photos.

    python benchmarks/tools/new_user.py SCAN PHOTOS

In a folder of its own the checkout's last commit is cloned and `make demo` run, as the README says; then its commands
for a raw file, with SCAN; then training and refinement of 200 of PHOTOS by the settings of the tutorials. Seconds by
the clock and of CPU time of each command, and how many processes wanted a core at its end, go to
new_user.json among the results of the studies.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "docs"))

import pages  # noqa: E402

RECORD = ROOT / "docs" / "studies" / "results" / "new_user.json"
NUMBER = 200  # of photos
REFINE = "msm refine runs/photos refine.rounds=1 refine.images=4000"


def readme_command(begins: str) -> str:
    """A command of the README, its lines joined."""
    text = (ROOT / "README.md").read_text()
    start = text.index(f"    {begins}")
    return text[start : text.index("\n\n", start)].replace("\\\n", "").strip()


def timed(command: str, folder: Path) -> dict[str, object]:
    """Run a command in a folder, in the environment that `make` made there; what it took."""
    path = f"{folder / '.venv/bin'}{os.pathsep}{os.environ['PATH']}"
    environment = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}
    before, began = os.times(), time.monotonic()
    subprocess.run(command, shell=True, check=True, cwd=folder, env=environment | {"PATH": path})
    after, ended = os.times(), time.monotonic()
    cpu = after.children_user + after.children_system - before.children_user - before.children_system
    load = round(os.getloadavg()[1], 1)
    return {"command": command, "seconds": round(ended - began), "cpu_seconds": round(cpu), "load": load}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("scan", type=Path)
    parser.add_argument("photos", type=Path)
    options = parser.parse_args()
    found = []

    def take(command: str, folder: Path) -> None:
        found.append(timed(command, folder))
        RECORD.write_text(json.dumps(found, indent=1) + "\n")

    with tempfile.TemporaryDirectory() as temporary:
        clone = Path(temporary, "msm")
        subprocess.run(["git", "clone", "-q", ROOT, clone], check=True)
        take("make demo", clone)
        scan = clone / f"scan{options.scan.suffix}"
        shutil.copy(options.scan, scan)
        take(readme_command("msm sample bundled:scan").replace("scan.mrd", scan.name), clone)
        assert all((clone / "runs/scan" / name).is_file() for name in ("scan.nii", "scan_std.nii"))
        (clone / "photos").mkdir()
        for photo in sorted(options.photos.iterdir())[:NUMBER]:
            shutil.copy(photo, clone / "photos")
        (settings,) = (part for part in pages.parts(ROOT / "docs/tutorials/photos.md") if part.kind == "file")
        (clone / settings.name).write_text(settings.text)
        take(f"msm train {settings.name}", clone)
        take(REFINE, clone)
        assert (clone / "runs/photos/refined/weights").is_dir()


if __name__ == "__main__":
    main()
