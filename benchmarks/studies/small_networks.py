"""What the settings of a small network do to a model of whole photos: loss, Fréchet distance, variance of brightness.

    python benchmarks/studies/small_networks.py PHOTOS OUT.json RUN... [--count 500]

Each RUN is a folder of `msm train` on whole photos (data.mask.drop=0). Draws COUNT images of each by the preset `best`,
60 steps, judges them as chain_images.py does and prints the table of docs/studies/speed.md; what OUT.json holds is
passed over.
"""

import argparse
import json
import time
from dataclasses import replace
from itertools import islice
from pathlib import Path

import torch
from chain_images import BATCH, PHOTOS, judge, load, markdown, start_process

from msm import Sampler, generate
from msm.runs.inputs import sources
from msm.system.files import write_text

LAST = 2000  # training images at the end whose loss counts
SHOWN = ("patch_size", "num_channels", "channel_mult", "num_groups")


def measure(run: Path, photos: torch.Tensor, count: int) -> dict:
    """Settings, loss and scores of one run."""
    config, denoiser, _ = load(run, 1)
    log = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    losses = [row["loss"] for row in log if row["images"] > config.train.images - LAST]
    shape, sampler = photos.shape[1:], replace(Sampler.preset("best"), steps=60, draws=1)
    batches = [range(i, min(i + BATCH, count)) for i in range(0, count, BATCH)]
    started = time.process_time()
    images = torch.cat([generate(denoiser, shape, seeds=seeds, sampler=sampler) for seeds in batches])
    return {
        "network": config.network.model_dump(mode="json"),
        "training_images": config.train.images,
        "loss": sum(losses) / len(losses),
        "milliseconds_per_call": round((time.process_time() - started) / count / 60 * 1e3, 2),
        **judge(images, photos),
    }


def table(records: dict) -> str:
    """In Markdown."""
    columns = [*SHOWN, "training images", "ms a call", "loss", "FD-wavelet", "brightness", "pixel"]
    rows = []
    for found in records.values():
        d, ratios = found["fd_wavelet"], found["variance_over_real"].values()
        row = [str(found["network"][name]) for name in SHOWN]
        row += [f"{found['training_images']:,}", f"{found['milliseconds_per_call']:.1f}", f"{found['loss']:.3f}"]
        row += [f"{d['value']:.1f} [{d['low']:.1f}, {d['high']:.1f}]", *(f"{ratio:.2f}" for ratio in ratios)]
        rows.append(row)
    return markdown(columns, rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photos", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("runs", type=Path, nargs="+")
    parser.add_argument("--count", type=int, default=500)
    options = parser.parse_args()
    start_process()
    records = json.loads(options.out.read_text()) if options.out.exists() else {}
    config = load(options.runs[0], 1)[0]
    photos = torch.stack([item.image for item in islice(sources(config.data, options.photos, "train"), PHOTOS)])
    for run in options.runs:
        if run.name not in records:
            records[run.name] = measure(run, photos, options.count)
            print(run.name, records[run.name], flush=True)
            write_text(options.out, json.dumps(records, indent=1) + "\n")
    print(table(records))


if __name__ == "__main__":
    main()
