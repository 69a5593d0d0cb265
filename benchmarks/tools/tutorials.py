"""Run the tutorials word by word, measure how long they take, and keep the pictures that they make.

    python benchmarks/tools/tutorials.py [photos scan …]

Each runs in a folder of its own, on one thread. Its pictures go to docs/tutorials/images, no larger than 150 kB; CPU
seconds of each command, and of the runs that it evaluates the mean PSNR of each method, coverage and verdict, to
docs/studies/results/tutorials.json.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = "1"

from PIL import Image

from msm.evaluate.calibration import intervals
from msm.evaluate.held_out import in_words
from msm.evaluate.records import read_evaluation, read_records
from msm.system.files import write_text

DOCS = Path(__file__).parents[2] / "docs"
sys.path.insert(0, str(DOCS))

import pages  # noqa: E402

RECORD, IMAGES = DOCS / "studies/results/tutorials.json", DOCS / "tutorials/images"
LARGEST = 150_000  # bytes of a picture
SHOWN = 800  # pixels of a page's width


def cpu() -> float:
    """Seconds that this process and those it started have computed."""
    return sum(os.times()[:4])


def take(page: Path) -> dict[str, object]:
    """Run a tutorial in the current folder: seconds of its commands and of all, and what it measured."""
    commands: list[list[object]] = []

    def msm(words: list[str]) -> None:
        before = cpu()
        subprocess.run([sys.executable, "-m", "msm", *words], check=True)
        commands.append([f"msm {words[0]}", round(cpu() - before)])

    began = cpu()
    pages.run(page, msm)
    found: dict[str, object] = {"cpu_seconds": round(cpu() - began), "commands": commands}
    for file in sorted(Path().glob("runs/*/records.jsonl")):
        scores: dict[str, list[float]] = {}
        for record in read_records(file.parent):
            if record.plain is not None:
                scores.setdefault(record.method, []).append(record.plain.psnr)
        found[str(file.parent)] = {
            **{method: round(sum(each) / len(each), 1) for method, each in scores.items()},
            **certainty(file.parent),
        }
    return found


def certainty(run: Path) -> dict[str, object]:
    """How often the intervals of a run's samples held the truth, in %, by what was due; of a scan, what is said."""
    if verdicts := read_evaluation(run).verdicts:
        return {"verdict": in_words(verdicts)}
    ranks = [record.ranks for record in read_records(run) if record.kind == "mean" and record.ranks]
    levels = intervals([sum(each) for each in zip(*ranks)]) if ranks else []
    return {f"{100 * level.expected:.0f} %": round(100 * level.observed) for level in levels}


def keep(made: Path, kept: Path) -> None:
    """A copy of a picture in few colours: enlarged where a page would show it too small, or made small enough."""
    kept.parent.mkdir(parents=True, exist_ok=True)
    picture = Image.open(made).convert("RGB")
    factor = max(1, SHOWN // picture.width)
    picture = picture.resize((factor * picture.width, factor * picture.height), Image.Resampling.NEAREST)
    while True:
        picture.quantize(128, Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE).save(kept, optimize=True)
        if kept.stat().st_size <= LARGEST:
            return
        picture = picture.resize([round(0.95 * side) for side in picture.size], Image.Resampling.LANCZOS)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help="pages of docs/tutorials; all if none is given")
    names = parser.parse_args().names
    for page in pages.TUTORIALS:
        if names and page.stem not in names:
            continue
        with tempfile.TemporaryDirectory() as folder:
            os.chdir(folder)
            found = take(page)
            for part in pages.parts(page):
                if part.kind == "picture":
                    keep(Path(part.name), IMAGES / page.stem / part.name)
            os.chdir(DOCS)
        record = json.loads(RECORD.read_text()) if RECORD.exists() else {}
        write_text(RECORD, json.dumps(dict(sorted({**record, page.stem: found}.items())), indent=1) + "\n")
        print(page.stem, found)


if __name__ == "__main__":
    main()
