"""Reconstruction by models trained at several noise levels and accelerations, on held-out images. Writes JSON.

    python benchmarks/studies/noise_training.py IMAGES OUT.json --runs "0=runs/n0" "0.1=runs/n01" --noise 0.01 0.1
    python benchmarks/studies/noise_training.py IMAGES OUT.json --runs "R = 4=runs/n0" --acceleration 4 6 8
    python benchmarks/studies/noise_training.py IMAGES OUT.json --against 0.1

A run is LABEL=FOLDER, with FOLDER as `msm train` wrote it. Each model reconstructs the same measurements of the first
COUNT images by name, one posterior sample with the proximal step: brain slices undersampled, 15 × 4 calls, photos
with a hole of half the side, 20 × 2 calls. Scores: convention plain, per image, their mean, and of the PSNR the
standard error. A run adds to OUT.json. With --against, it prints how much better or worse than the run of that label
each other one is, over the same images: the mean difference of PSNR and its standard error.
"""

import argparse
import itertools
import json
import statistics
from pathlib import Path

import torch

from msm import PartialDenoiser
from msm.config.load import load_config
from msm.config.measured import CartesianMaskConfig
from msm.data.images import photos, slices
from msm.evaluate.metrics import image_metrics
from msm.sample.draw import posterior_samples
from msm.system.files import write_text
from msm.system.processes import arithmetic


def reconstruct(folder: Path, images_folder: Path, count: int, noise: float, acceleration: int) -> dict[str, object]:
    """Scores of one run on one problem."""
    config = load_config(folder / "config.yaml")
    data = config.data
    if data.is_mri:
        assert isinstance(data.mask, CartesianMaskConfig)
        mask = f"{{kind: cartesian, acceleration: {acceleration}, center: {data.mask.center}}}"
        problem = f"{{operator: undersampling, mask: {mask}, noise_std: {noise}}}"
        found = slices(images_folder, "test", 0, data.image_size, data.coils, data.seed)
        sampler = ["sample.steps=15", "sample.draws=4", "sample.eta=1.0"]
    else:
        problem = f"{{operator: box, hole: {data.image_size // 2}, noise_std: {noise}}}"
        found = photos(images_folder, "test", data.held_out, data.image_size, data.channels)
        sampler = ["sample.steps=20", "sample.draws=2", "sample.eta=0.85"]
    items = list(itertools.islice(found, count))
    given = [f"inverse_problem={problem}", *sampler, "sample.batch_size=16", "sample.data_step={kind: proximal}"]
    settled = load_config(folder / "config.yaml", given)
    denoiser = PartialDenoiser.load(folder / "weights")
    with arithmetic("bf16"):
        _, samples = posterior_samples(denoiser.eval(), items, settled)
    values = image_metrics(samples[:, 0], torch.stack([item.image for item in items]), convention="plain")
    return {
        "psnr": round(statistics.mean(values["psnr"]), 3),
        "standard_error": round(statistics.stdev(values["psnr"]) / len(items) ** 0.5, 3),
        "ssim": round(statistics.mean(values["ssim"]), 4),
        "psnr_of_each": [round(value, 3) for value in values["psnr"]],
    }


def compare(records: dict[str, dict], label: str) -> None:
    """Differences of PSNR between every run and the run of a label, image by image."""
    for key, other in records[f"trained: {label}"].items():
        for name, scores in records.items():
            if key in scores and name != f"trained: {label}":
                apart = [a - b for a, b in zip(scores[key]["psnr_of_each"], other["psnr_of_each"])]
                error = statistics.stdev(apart) / len(apart) ** 0.5
                print(f"{key}: {name} against {label}: {statistics.mean(apart):+.2f} ± {error:.2f} dB")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--runs", nargs="+", default=[], metavar="LABEL=FOLDER")
    parser.add_argument("--noise", type=float, nargs="+", default=[0.01])
    parser.add_argument("--acceleration", type=int, nargs="+", default=[4], help="of brain slices")
    parser.add_argument("--count", type=int, default=32)
    parser.add_argument("--against", metavar="LABEL")
    options = parser.parse_args()
    records = json.loads(options.out.read_text()) if options.out.exists() else {}
    for run, noise, acceleration in itertools.product(options.runs, options.noise, options.acceleration):
        label, _, folder = run.rpartition("=")
        key = f"test noise {noise:g}, R = {acceleration}"
        score = reconstruct(Path(folder), options.folder, options.count, noise, acceleration)
        records.setdefault(f"trained: {label}", {})[key] = score
        print(label, key, score["psnr"], score["standard_error"], score["ssim"], flush=True)
        write_text(options.out, json.dumps(records) + "\n")
    if options.against:
        compare(records, options.against)


if __name__ == "__main__":
    main()
