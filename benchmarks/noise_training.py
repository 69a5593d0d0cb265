"""Reconstruction by models trained at several noise levels and accelerations, on held-out brain slices. Writes JSON.

    python benchmarks/noise_training.py SLICES OUT.json --runs "0=runs/n0" "0.1=runs/n01" --noise 0.01 0.1
    python benchmarks/noise_training.py SLICES OUT.json --runs "R = 4=runs/n0" --acceleration 4 6 8

A run is LABEL=FOLDER, with FOLDER as `msm train` wrote it. Each model reconstructs the same measurements of the first
COUNT slices by name, one posterior sample of 15 × 4 calls with the proximal step. Scores: convention plain, mean over
the images, and of the PSNR the standard error over them. A run adds to OUT.json.
"""

import argparse
import itertools
import json
import statistics
from pathlib import Path

import torch

from msm import PartialDenoiser, VPSchedule
from msm.config import load_config
from msm.data.images import slices
from msm.evaluation import posterior_samples
from msm.metrics import image_metrics
from msm.network import ADMNetwork
from msm.report import write_text
from msm.settings import CartesianMaskConfig, InverseProblemConfig


def reconstruct(folder: Path, slices_folder: Path, count: int, problem: InverseProblemConfig) -> dict[str, float]:
    """Mean PSNR, its standard error, and SSIM of one run on one problem."""
    config = load_config(folder / "config.yaml")
    sample = config.sample.model_copy(update={"steps": 15, "draws": 4, "eta": 1.0, "batch_size": 16})
    settled = config.model_copy(update={"inverse_problem": problem, "sample": sample})
    network = ADMNetwork.load(folder / "weights")
    denoiser = PartialDenoiser(network, VPSchedule(), config.diffusion.parametrisation).eval()
    data = config.data
    found = slices(slices_folder, "test", 0, data.image_size, data.coils, data.seed)
    items = list(itertools.islice(found, count))
    with torch.autocast("cpu", torch.bfloat16):
        _, samples = posterior_samples(denoiser, items, settled)
    values = image_metrics(samples[:, 0], torch.stack([item.image for item in items]), convention="plain")
    return {
        "psnr": round(statistics.mean(values["psnr"]), 3),
        "standard_error": round(statistics.stdev(values["psnr"]) / count**0.5, 3),
        "ssim": round(statistics.mean(values["ssim"]), 4),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--runs", nargs="+", required=True, metavar="LABEL=FOLDER")
    parser.add_argument("--noise", type=float, nargs="+", default=[0.01])
    parser.add_argument("--acceleration", type=int, nargs="+", default=[4])
    parser.add_argument("--count", type=int, default=32)
    options = parser.parse_args()
    records = json.loads(options.out.read_text()) if options.out.exists() else {}
    for run, noise, acceleration in itertools.product(options.runs, options.noise, options.acceleration):
        label, _, folder = run.rpartition("=")
        mask = CartesianMaskConfig(acceleration=acceleration, center=5)
        problem = InverseProblemConfig(operator="undersampling", mask=mask, noise_std=noise, step_size="proximal")
        key = f"test noise {noise:g}, R = {acceleration}"
        score = reconstruct(Path(folder), options.folder, options.count, problem)
        records.setdefault(f"trained: {label}", {})[key] = score
        print(label, key, json.dumps(score), flush=True)
        write_text(options.out, json.dumps(records, indent=1) + "\n")


if __name__ == "__main__":
    main()
