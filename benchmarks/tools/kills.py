"""Kill a training again and again at random moments, and compare its weights with those of one left alone.

    python benchmarks/tools/kills.py [OUT.json] [--kills 30] [--seed 0]
    python benchmarks/tools/kills.py OUT.json --refine --kills 20 --life 8 --images 240

Both run `msm train` on the same made-up photos, on one thread, with a checkpoint every third step; or two rounds of
`msm refine` from the same weights. A life begins with the first step and ends by SIGKILL after a random time of up to
--life seconds; of trainings every other one then lives on until a checkpoint is being written, and for a random part of
the time that takes. Prints and stores what each kill met, and whether the weights are the same bytes.
"""

import argparse
import hashlib
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TypedDict

import numpy as np
import torch
from PIL import Image

CONFIG = """
setting: {{save_dir: {root}/{name}, dataset_dir: {root}/photos}}
data: {{kind: images, image_size: 16, mask: {{kind: box}}}}
network: {{image_size: 16, in_channels: 3, num_channels: 32, num_res_blocks: 1, channel_mult: [1, 1],
  attention_resolutions: [8], num_head_channels: 32}}
train: {{images: {images}, batch_size: 4, lr: 1.0e-4, checkpoint_images: 12, submask_share: 0.5, augment: true}}
"""
EVERY_ROUND = """
from msm.cli import main
from msm.evaluate.rounds import Standing
Standing.worse_than = lambda self, before: None
main()
"""


class Life(TypedDict):
    """What a life of the run "killed" left."""

    seconds: float
    into_a_write: float | None
    damaged: int
    newest: int
    half_written: list[str]


def start(root: Path, name: str, images: int, refine: bool = False) -> subprocess.Popen:
    config = root / f"{name}.yaml"
    config.write_text(CONFIG.format(root=root, name=name, images=images))
    program, words = ["-m", "msm"], ["train", str(config)]
    if refine:
        given = {"setting.save_dir": root / name, "refine.images": images, "refine.steps": 20, "sample.batch_size": 2}
        words = ["refine", str(root / "model"), *(f"{key}={value}" for key, value in given.items())]
        words += ["refine.validation_share=0.3", "train.checkpoint_images=12"]
        program = ["-c", EVERY_ROUND]  # of networks that have learned nothing yet a round may make a worse one
    environment = os.environ | {"CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, *program, *words]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment)


def digest(run: Path) -> str:
    return hashlib.sha256((run / "weights" / "model.safetensors").read_bytes()).hexdigest()


def newest(run: Path) -> int:
    """The newest checkpoint; of a refinement, how many parts of its rounds are there."""
    if rounds := list(run.glob("round_*")):
        return sum(len(list(folder.rglob("*"))) for folder in rounds)
    return max((int(p.name) for p in (run / "checkpoints").glob("*") if p.name.isdigit()), default=0)


def kill(root: Path, images: int, wait: float, writing: float | None, refine: bool) -> Life | None:
    """One life of the run "killed", ended so many seconds after its start, or then into a write; None if it ended."""
    run = root / "killed"
    before = time.time()
    process = start(root, "killed", images, refine)
    while process.poll() is None:  # until this life writes config.yaml, right before its first step
        if (run / "config.yaml").exists() and (run / "config.yaml").stat().st_mtime > before:
            break
        time.sleep(0.005)
    time.sleep(wait)
    if writing is not None:
        while process.poll() is None and not list((run / "checkpoints").glob("*.tmp")):
            time.sleep(0.0005)
        time.sleep(writing)
    process.kill()
    said = process.communicate()[0]
    if process.returncode == 0:
        return None
    assert process.returncode == -9, said
    halves = sorted(p.relative_to(run).as_posix() for p in run.rglob("*") if p.suffix in (".tmp", ".partial"))
    return {
        "seconds": wait,
        "into_a_write": writing,
        "damaged": said.count("damaged"),
        "newest": newest(run),
        "half_written": halves,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path, nargs="?")
    parser.add_argument("--kills", type=int, default=30)
    parser.add_argument("--images", type=int, default=1600)
    parser.add_argument("--life", type=float, default=1.5)
    parser.add_argument("--refine", action="store_true")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    moments, pixels = random.Random(options.seed), np.random.default_rng(options.seed)
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        (root / "photos").mkdir()
        for i in range(12):
            Image.fromarray(pixels.integers(0, 255, (16, 16, 3), dtype=np.uint8)).save(root / "photos" / f"{i}.png")
        if options.refine:
            said = start(root, "model", 48).communicate()[0]
            assert (root / "model" / "weights").is_dir(), said
        lives: list[Life] = []
        while len(lives) < options.kills:
            wait, writing = round(moments.uniform(0, options.life), 3), round(moments.uniform(0, 0.05), 4)
            into = len(lives) % 2 and not options.refine
            life = kill(root, options.images, wait, writing if into else None, options.refine)
            if life is None:
                break
            lives.append(life)
        for name in ("killed", "alone"):
            process = start(root, name, options.images, options.refine)
            said = process.communicate()[0]
            assert process.returncode == 0, said
        result = {
            "kills": len(lives),
            "resumed_after_a_checkpoint": sum(life["newest"] > 0 for life in lives),
            "found_half_written": sum(bool(life["half_written"]) for life in lives),
            "damaged_checkpoints": sum(life["damaged"] for life in lives),
            "steps": newest(root / "alone"),
            "same_bytes": digest(root / "killed") == digest(root / "alone"),
            "left_over": sorted(p.name for p in (root / "killed").rglob("*") if p.suffix in (".tmp", ".partial")),
            "torch": torch.__version__,
            "lives": lives,
        }
    print(json.dumps(result, indent=1))
    if options.out:
        options.out.write_text(json.dumps(result, indent=1) + "\n")
    raise SystemExit(not result["same_bytes"] or len(lives) < options.kills)


if __name__ == "__main__":
    main()
