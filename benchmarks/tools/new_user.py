"""Take new users' ways by the clock, from a clone, by what README, tutorials and how-tos say.

    python benchmarks/tools/new_user.py FOLDER demo
    python benchmarks/tools/new_user.py FOLDER scan SCAN
    python benchmarks/tools/new_user.py FOLDER photos PHOTOS
    python benchmarks/tools/new_user.py FOLDER old_photos
    python benchmarks/tools/new_user.py FOLDER published WEIGHTS.pt SETTINGS.yaml PHOTOS

`demo` comes first: it clones this checkout's last commit into FOLDER, which it makes, and runs `make demo` there. Then,
in any order: `scan`, the README's command for a raw file; `photos`, training and refinement of 200 of PHOTOS by the
settings of the tutorial; `old_photos`, the tutorial of photos that miss pixels, until they are filled in; `published`,
import of weights in the layout of the authors' code, and one image by two steps with a YAML file of theirs. Seconds by
the clock and of CPU time of each command, and how many processes wanted a core at its end, go to new_user.json among
the results of the studies.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "docs"))

import pages  # noqa: E402

RECORD = ROOT / "docs" / "studies" / "results" / "new_user.json"
NUMBER = 200  # of photos
REFINE = "msm refine runs/photos refine.rounds=1 refine.images=4000"


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


def demo(folder: Path) -> Iterator[str]:
    subprocess.run(["git", "clone", "-q", ROOT, folder], check=True)
    yield "make demo"


def scan(folder: Path, file: Path) -> Iterator[str]:
    """The README's command, its lines joined."""
    own = folder / f"scan{file.suffix}"
    shutil.copy(file, own)
    text = (ROOT / "README.md").read_text()
    start = text.index("    msm sample bundled:scan")
    yield " ".join(text[start : text.index("\n\n", start)].replace("\\\n", "").split()).replace("scan.mrd", own.name)
    assert all((folder / "runs/scan" / name).is_file() for name in ("scan.nii", "scan_std.nii"))


def photos(folder: Path, source: Path) -> Iterator[str]:
    (folder / "photos").mkdir()
    for photo in sorted(source.iterdir())[:NUMBER]:
        shutil.copy(photo, folder / "photos")
    (settings,) = (part for part in pages.parts(ROOT / "docs/tutorials/photos.md") if part.kind == "file")
    (folder / settings.name).write_text(settings.text)
    yield f"msm train {settings.name}"
    yield REFINE
    assert (folder / "runs/photos/refined/weights").is_dir()


def old_photos(folder: Path) -> Iterator[str]:
    """The tutorial, until the photos are filled in."""
    for part in pages.parts(ROOT / "docs/tutorials/old_photos.md"):
        if part.kind == "python":
            (folder / "damage.py").write_text(part.text)
            yield "python damage.py"
        elif part.kind == "file":
            (folder / part.name).write_text(part.text)
        elif part.kind == "commands":
            yield " ".join(part.text.replace("\\\n", "").split())
            if (folder / "runs/filled/images").is_dir():
                return


def published(folder: Path, weights: Path, settings: Path, images: Path) -> Iterator[str]:
    shutil.copy(weights, folder)
    shutil.copy(settings, folder)
    shutil.copytree(images, folder / "faces")
    yield f"msm import-weights {weights.name} weights/published"
    given = "setting.pretrained_model_dir=weights/published setting.dataset_dir=faces"
    yield f"msm sample {settings.name} {given} setting.save_dir=runs/published sample.steps=2 sample.count=1"
    assert (folder / "runs/published/images").is_dir()


WAYS: dict[str, Callable[..., Iterator[str]]] = {
    way.__name__: way for way in (demo, scan, photos, old_photos, published)
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("way", choices=WAYS)
    parser.add_argument("paths", type=Path, nargs="*")
    options = parser.parse_args()
    folder = options.folder.resolve()
    found = [timed(command, folder) for command in WAYS[options.way](folder, *options.paths)]
    record = json.loads(RECORD.read_text()) if RECORD.is_file() else {}
    record[options.way] = found
    RECORD.write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
