"""Photos that miss pixels, by the command line alone: train on them, fill in others, against the hidden truth.

    python benchmarks/studies/masked_photos.py prepare PHOTOS FOLDER
    python benchmarks/studies/masked_photos.py train FOLDER
    python benchmarks/studies/masked_photos.py refine FOLDER
    python benchmarks/studies/masked_photos.py fill FOLDER
    python benchmarks/studies/masked_photos.py judge FOLDER OUT.json

`prepare` takes pixels away from the photos of a folder, by the alpha channel of PNG files: of 300 photos 40 % of the
boxes of a 4 × 4 grid, of 100 others irregular scratches; the first 35 by name are held out, and are written with boxes
and with scratches. What is hidden gets grey noise; a second copy of all files hides black instead. `train` trains on
the 400, at 64 px, and trains two short runs more, on the first and on the second copy. `refine` is a round on what they
show. `fill` fills in the held-out photos with either model, four samples of each. `judge` compares what is in the holes
with the photos as they were, brought to 64 px by `msm acquire` too, beside biharmonic interpolation: PSNR over the
hidden pixels of each photo, the mean over photos and paired differences with 95 % intervals; and the two copies, bit by
bit. It writes JSON, and a PNG beside it.
"""

import argparse
import hashlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import torch
from PIL import Image, ImageDraw

from msm.data.store import MeasurementStore
from msm.evaluate.bootstrap import difference, mean
from msm.evaluate.classical import biharmonic
from msm.masks import BoxMasks
from msm.output.figures import Column, write_comparison
from msm.system.files import write_text

HELD_OUT, BOXES = 35, 300
KINDS = ("boxes", "scratches")
MODELS = {"MSM": "run/weights", "refined": "run/refined/weights"}
CONFIG = """\
setting: {save_dir: run, dataset_dir: photos}
data: {kind: masked, image_size: 64, held_out: 0}
network:
  image_size: 64
  in_channels: 3
  num_channels: 32
  num_res_blocks: 1
  channel_mult: [1, 1, 2, 4]
  attention_resolutions: [16, 8]
  num_head_channels: 32
  num_groups: 8
diffusion: {parametrisation: edm, train_grid: cosine}
train: {images: 6400, batch_size: 16, lr: 1.0e-3, warmup_images: 800, decay: cosine, ema_decay: 0.995, augment: true,
  checkpoint_images: 1600}
sample: {preset: best, samples: 4, count: 35, batch_size: 20}
"""


def msm(*arguments: str, folder: Path) -> float:
    """Run the command line in a folder; seconds of CPU time that it took."""
    before = os.times()
    subprocess.run([sys.executable, "-m", "msm", *arguments], cwd=folder, check=True)
    after = os.times()
    return after.children_user + after.children_system - before.children_user - before.children_system


def boxes(width: int, height: int, generator: torch.Generator) -> Image.Image:
    """What is there (white) of the middle square: 40 % of its 16 boxes are not."""
    side, mask = min(width, height), Image.new("L", (width, height), 255)
    kept = BoxMasks(4, drop=0.4).sample(1, generator)[0, 0]
    square = Image.fromarray(kept.numpy().astype(np.uint8) * 255).resize((side, side), Image.Resampling.NEAREST)
    mask.paste(square, ((width - side) // 2, (height - side) // 2))
    return mask


def scratches(width: int, height: int, generator: np.random.Generator) -> Image.Image:
    """What is there (white): all but 14 crooked lines of 2 to 8 pixels and 3 blots."""
    mask = Image.new("L", (width, height), 255)
    draw, size = ImageDraw.Draw(mask), np.array([width, height])
    for _ in range(14):
        steps = generator.normal(0, 0.25, 40).cumsum() + generator.uniform(0, 2 * np.pi)
        path = generator.uniform(0, 1, 2) * size + np.cumsum(7 * np.stack([np.cos(steps), np.sin(steps)], 1), 0)
        draw.line([tuple(point) for point in path], fill=0, width=int(generator.integers(2, 9)), joint="curve")
    for _ in range(3):
        x, y = generator.uniform(0, 1, 2) * size
        a, b = generator.uniform(4, 20, 2)
        draw.ellipse((x - a, y - b, x + a, y + b), fill=0)
    return mask


def prepare(photos: Path, folder: Path) -> None:
    torch_rng, numpy_rng = torch.Generator().manual_seed(0), np.random.default_rng(0)
    for number, path in enumerate(sorted(photos.glob("*.jpg"))[: HELD_OUT + BOXES + 100]):
        photo = Image.open(path).convert("RGB")
        kinds = KINDS if number < HELD_OUT else KINDS[:1] if number < HELD_OUT + BOXES else KINDS[1:]
        for kind in kinds:
            mask = boxes(*photo.size, torch_rng) if kind == "boxes" else scratches(*photo.size, numpy_rng)
            there = np.array(mask)[..., None] > 0
            noise = numpy_rng.integers(0, 256, (photo.height, photo.width, 1), dtype=np.uint8)
            for copy, hidden in (("photos", noise), ("black", np.zeros_like(noise))):
                name = f"held_out/{kind}" if number < HELD_OUT else copy
                if number < HELD_OUT and copy == "black":
                    continue
                (folder / name).mkdir(parents=True, exist_ok=True)
                pixels = np.dstack([np.where(there, np.array(photo), hidden), np.array(mask)])
                Image.fromarray(pixels, "RGBA").save(folder / name / f"{path.stem}.png")
        if number < HELD_OUT:
            (folder / "truth").mkdir(parents=True, exist_ok=True)
            photo.save(folder / "truth" / f"{path.stem}.png")
    write_text(folder / "photos.yaml", CONFIG)


def train(folder: Path) -> None:
    keep_seconds(folder, "train", msm("train", "photos.yaml", folder=folder))
    short = ("train.images=64", "train.warmup_images=0", "train.checkpoint_images=64")
    for copy in ("photos", "black"):
        msm(
            "train",
            "photos.yaml",
            f"setting.dataset_dir={copy}",
            f"setting.save_dir=short_{copy}",
            *short,
            folder=folder,
        )


def refine(folder: Path) -> None:
    keep_seconds(folder, "refine", msm("refine", "run", "refine.rounds=1", "refine.images=6400", folder=folder))


def keep_seconds(folder: Path, step: str, seconds: float) -> None:
    path = folder / "seconds.json"
    known = json.loads(path.read_text()) if path.is_file() else {}
    write_text(path, json.dumps(known | {step: round(seconds)}))


def fill(folder: Path) -> None:
    for kind in KINDS:
        for model, weights in MODELS.items():
            where = (f"setting.dataset_dir=held_out/{kind}", f"setting.save_dir=filled/{kind}/{model}")
            weights_of = f"setting.pretrained_model_dir={weights}"
            msm("sample", "photos.yaml", *where, weights_of, "inverse_problem={operator: missing}", folder=folder)
    msm("acquire", "photos.yaml", "-o", "truth.h5", "setting.dataset_dir=truth", folder=folder)


def psnr(x_hat: torch.Tensor, truth: torch.Tensor, where: torch.Tensor) -> list[float]:
    """PSNR of each image over some of its pixels, for values in [-1, 1]."""
    error = (((x_hat - truth) / 2) ** 2 * where).sum((1, 2, 3)) / (where.sum((1, 2, 3)) * x_hat.shape[1])
    return (-10 * error.log10()).tolist()


def judged(folder: Path, kind: str, truth: torch.Tensor) -> tuple[dict[str, object], list[Column]]:
    """Scores of one kind of holes, and what a picture shows."""
    with np.load(folder / f"filled/{kind}/MSM/measured.npz", allow_pickle=False) as kept:
        values, mask = torch.from_numpy(kept["values"]), torch.from_numpy(kept["mask"])
    started = time.process_time()
    smooth = biharmonic(values, mask)
    seconds = time.process_time() - started
    made = {"biharmonic": smooth}
    for model in MODELS:
        samples = torch.from_numpy(np.load(folder / f"filled/{kind}/{model}/samples.npy"))
        made |= {f"{model}, mean of 4": samples.mean(1), f"{model}, one sample": samples[:, 0]}
    hole = ~mask
    scores = {name: psnr(x_hat, truth, hole) for name, x_hat in made.items()}
    found: dict[str, object] = {"missing": round(1 - mask.float().mean().item(), 4), "photos": len(truth)}
    found["biharmonic_seconds"] = round(seconds / len(truth), 2)
    for name, values_ in scores.items():
        e, d = mean(values_), difference(values_, scores["biharmonic"])
        told = {"psnr": [round(x, 2) for x in (e.value, *e.bounds)], "of_each": [round(v, 2) for v in values_]}
        if name != "biharmonic":
            told["above_biharmonic"] = [round(x, 2) for x in (d.value, *d.bounds)]
        found[name] = told
    deviation = samples.std(1).mean(1, keepdim=True)
    columns = [Column("measured", values)]
    columns += [Column(name, x_hat) for name, x_hat in made.items() if "one sample" not in name]
    columns += [Column("truth", truth), Column("std. deviation", deviation, is_map=True)]
    return found, columns


def poison(folder: Path) -> dict[str, object]:
    """Whether the two copies, which differ in what is hidden, gave the same stores and weights."""

    def content(run: str) -> list[str]:
        with h5py.File(folder / run / "measurements.h5") as file:
            parts = [file[name][:].tobytes() for name in ("values", "mask", "noise_std")]
        parts += [path.read_bytes() for path in sorted((folder / run / "weights").glob("*.safetensors"))]
        return [hashlib.sha256(part).hexdigest() for part in parts]

    files = sorted((folder / "photos").iterdir())
    differ = sum(path.read_bytes() != (folder / "black" / path.name).read_bytes() for path in files)
    same = content("short_photos") == content("short_black")
    return {"files_that_differ": differ, "of": len(files), "same_store_and_weights": same}


def judge(folder: Path, out: Path) -> None:
    store = MeasurementStore(folder / "truth.h5")
    truth, names = store.batch(range(len(store))).values, store.names(range(len(store)))
    record: dict[str, object] = {"cpu_seconds": json.loads((folder / "seconds.json").read_text())}
    record["hidden"] = poison(folder)
    rows, shown = [], []
    for kind in KINDS:
        record[kind], columns = judged(folder, kind, truth)
        chosen = [3, 17, 29]
        rows += [f"{kind} {n}" for n in chosen]
        shown.append([(c.title, c.images[chosen], c.is_map) for c in columns])
    assert names == sorted(names)
    both = [Column(a[0], torch.cat([a[1], b[1]]), is_map=a[2]) for a, b in zip(*shown)]
    write_text(out, json.dumps(record, indent=1) + "\n")
    write_comparison(out.with_suffix(".png"), "Held-out photos, filled in", rows, both)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    steps: dict[str, Callable[..., None]] = {step.__name__: step for step in (prepare, train, refine, fill, judge)}
    parser.add_argument("step", choices=steps)
    parser.add_argument("paths", type=Path, nargs="+")
    options = parser.parse_args()
    steps[options.step](*options.paths)


if __name__ == "__main__":
    main()
