"""The tutorial of old photos, run word by word, and compared with what the damage hid. Writes JSON and a picture.

    python benchmarks/studies/masked_tutorial.py FOLDER OUT.json

FOLDER is made, and gets what the page docs/tutorials/old_photos.md makes: its Python block and its commands up to
"Fill in" run there, on one core. Then the hidden pixels of the photos that were filled in are compared with the faces
before the damage: PSNR over them of each photo, its mean, and paired differences with 95 % intervals, beside
biharmonic interpolation. Seconds are of CPU time.
"""

import argparse
import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from skimage.data import lfw_subset

from msm.evaluate.bootstrap import difference, mean
from msm.evaluate.classical import biharmonic
from msm.output.figures import Column, spread, write_comparison
from msm.system.files import write_text

PAGE = Path(__file__).parents[2] / "docs/tutorials/old_photos.md"
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$\n?", re.DOTALL | re.MULTILINE)
COMMAND = re.compile(r"^    msm ((?:.*\\\n)*.*)$", re.MULTILINE)
SHOWN = [0, 4, 7, 12, 16, 19]


def run_page(folder: Path) -> dict[str, float]:
    """What the page says, in a folder; seconds of each command."""
    text = PAGE.read_text()
    given = dict(BLOCK.findall(text))
    folder.mkdir()
    os.chdir(folder)
    exec(given["python"], {})
    Path("old.yaml").write_text(given["yaml"])
    seconds: dict[str, float] = {}
    for command in COMMAND.findall(BLOCK.sub("", text))[:2]:
        words, before = shlex.split(command.replace("\\\n", "")), os.times()
        subprocess.run([sys.executable, "-m", "msm", *words], check=True)
        after = os.times()
        used = after.children_user + after.children_system - before.children_user - before.children_system
        seconds[words[0]] = round(used)
    return seconds


def psnr(x_hat: torch.Tensor, truth: torch.Tensor, where: torch.Tensor) -> list[float]:
    """PSNR of each image over some of its pixels, for values in [-1, 1]."""
    error = (((x_hat - truth) / 2) ** 2 * where).sum((1, 2, 3)) / where.sum((1, 2, 3))
    return (-10 * error.log10()).tolist()


def judge() -> tuple[dict[str, object], list[Column]]:
    """Scores in the holes, and what a picture shows."""
    with np.load("runs/filled/measured.npz", allow_pickle=False) as kept:
        values, mask, names = torch.from_numpy(kept["values"]), torch.from_numpy(kept["mask"]), kept["names"]
    samples = torch.from_numpy(np.load("runs/filled/samples.npy"))
    faces = [np.array(Image.fromarray(np.uint8(255 * face)).resize((32, 32))) for face in lfw_subset()[: len(names)]]
    truth = torch.from_numpy(np.stack(faces))[:, None] / 127.5 - 1
    assert torch.equal(truth[mask], values[mask])
    smooth = biharmonic(values, mask)
    scores = {"biharmonic": psnr(smooth, truth, ~mask), "one sample": psnr(samples[:, 0], truth, ~mask)}
    scores["mean of 4"] = psnr(samples.mean(1), truth, ~mask)
    found: dict[str, object] = {"photos": len(names), "missing": round(1 - mask.float().mean().item(), 3)}
    for name, each in scores.items():
        e, d = mean(each), difference(each, scores["biharmonic"])
        found[name] = {"psnr": round(e.value, 2), "above_biharmonic": [round(x, 2) for x in (d.value, *d.bounds)]}
    made = {"damaged": values, "biharmonic": smooth, "one sample": samples[:, 0], "mean of 4": samples.mean(1)}
    columns = [Column(title, images[SHOWN]) for title, images in {**made, "before the damage": truth}.items()]
    return found, [*columns, Column("std. deviation", spread(samples)[SHOWN], is_map=True)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("out", type=Path)
    options = parser.parse_args()
    out = options.out.absolute()
    seconds = run_page(options.folder)
    found, columns = judge()
    write_text(out, json.dumps({"cpu_seconds": seconds, **found}, indent=1) + "\n")
    write_comparison(out.with_suffix(".png"), "Old photos, filled in", [""] * len(SHOWN), columns)
    print(out.read_text())


if __name__ == "__main__":
    main()
