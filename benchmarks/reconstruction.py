"""Reconstruction quality of the bundled models against classical methods, on held-out images. Writes JSON.

    python benchmarks/reconstruction.py brain FOLDER OUT.json --acceleration 4 --steps 20 50
    python benchmarks/reconstruction.py faces FOLDER OUT.json --steps 20 100 --draws 2 --samples 4

FOLDER holds magnitude slices or photos. Brain: its first COUNT images by name are measured by 8 simulated coils,
noise 0.01; CG-SENSE, L1-wavelet and TV are tuned on the images after them. Faces: the first COUNT photos, with a hole
of half the side and ×4. Scores: convention plain, mean over the images. A run adds to OUT.json.
"""

import argparse
import itertools
import json
import time
from functools import partial
from pathlib import Path

import torch

import msm
from msm.baselines import bicubic, biharmonic, cg_sense, l1_wavelet, total_variation, tune
from msm.config import load_config
from msm.data.images import photos, slices
from msm.evaluation import make_denoiser, observe, posterior_samples
from msm.metrics import image_metrics, psnr
from msm.network import ADMNetwork
from msm.processes import arithmetic
from msm.report import write_text
from msm.settings import CartesianMaskConfig, InverseProblemConfig

ASSETS = Path(msm.__file__).parent / "assets"
TUNING = 8  # images kept apart to tune the classical methods
plain_psnr = partial(psnr, convention="plain")


def scores(x_hat, truth) -> dict[str, float]:
    values = image_metrics(x_hat, truth, convention="plain")
    return {name: round(sum(v) / len(v), 4) for name, v in values.items()}


def classical_mri(items, tuning, problem, config) -> dict:
    """Zero-filled, CG-SENSE, L1-wavelet and TV, the last three with the best settings on the tuning images."""
    results = {}
    seen, apart = (observe(group, problem, config.data) for group in (items, tuning))
    truth, truth_apart = (torch.stack([item.image for item in group]) for group in (items, tuning))

    def sense(observed, setting):
        weight, iterations = setting
        return cg_sense(
            observed.y, observed.operator.mask, observed.transform, regularisation=weight, iterations=iterations
        )

    def wavelet(observed, setting):
        weight, name = setting
        given = (observed.y, observed.operator.mask, observed.transform)
        return l1_wavelet(*given, regularisation=weight, iterations=100, wavelet=name)

    def variation(observed, weight):
        given = (observed.y, observed.operator.mask, observed.transform)
        return total_variation(*given, regularisation=weight, iterations=200)

    results["zero-filled"] = scores(seen.input, truth)
    grids = {
        "CG-SENSE": (sense, itertools.product((3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 0.1), (4, 7, 10, 30))),
        "L1-wavelet": (wavelet, itertools.product((5e-4, 1e-3, 2e-3, 4e-3, 8e-3), ("haar", "db4", "sym8"))),
        "TV": (variation, (5e-4, 1e-3, 2e-3, 4e-3, 8e-3)),
    }
    for name, (method, grid) in grids.items():
        best = tune(partial(method, apart), grid, truth_apart, plain_psnr)
        results[name] = {"setting": best, **scores(method(seen, best), truth)}
    return results


def classical_photo(items, problem, config) -> dict:
    seen = observe(items, problem, config.data)
    truth = torch.stack([item.image for item in items])
    results = {"input": scores(seen.input, truth)}
    if problem.operator == "box":
        mask = seen.operator.mask.expand(len(items), -1, -1, -1)
        return results | {"biharmonic": scores(biharmonic(seen.y, mask), truth)}
    return results | {"bicubic": scores(bicubic(seen.y, problem.factor), truth)}


def msm_scores(denoiser, items, config, problem, sampler: dict) -> dict:
    samples = sampler["samples"]
    sample = config.sample.model_copy(update=sampler | {"batch_size": 16})
    settled = config.model_copy(update={"inverse_problem": problem, "sample": sample})
    started = time.perf_counter()
    with arithmetic(config.sample.mixed_precision):
        _, drawn = posterior_samples(denoiser, items, settled)
    seconds = round((time.perf_counter() - started) / len(items), 2)
    truth = torch.stack([item.image for item in items])
    result = {"one sample": scores(drawn[:, 0], truth), "seconds_per_image": seconds}
    if samples > 1:
        result[f"mean of {samples}"] = scores(drawn.mean(1), truth)
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kind", choices=["brain", "faces"])
    parser.add_argument("folder", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--weights", type=Path, help="default: the bundled ones")
    parser.add_argument("--count", type=int)
    parser.add_argument("--steps", type=int, nargs="*", default=[20])
    parser.add_argument("--draws", type=int, default=3)
    parser.add_argument("--eta", type=float, default=1.0)
    parser.add_argument("--samples", type=int, default=1)
    parser.add_argument("--acceleration", type=int, nargs="+", default=[4, 6, 8])
    parser.add_argument("--step-size", default="proximal", help="proximal, or a number: the published rule")
    options = parser.parse_args()
    weights = options.weights or ASSETS / options.kind
    config = load_config(weights / "config.yaml")
    data, count = config.data, options.count or {"brain": 64, "faces": 35}[options.kind]
    step = options.step_size if options.step_size == "proximal" else float(options.step_size)
    denoiser = make_denoiser(ADMNetwork.load(weights), config.diffusion).eval()
    if options.kind == "brain":
        found = slices(options.folder, "test", 0, data.image_size, data.coils, data.seed)
        items = list(itertools.islice(found, count + TUNING))
        masks = [CartesianMaskConfig(acceleration=r, center=data.mask.center) for r in options.acceleration]
        problems = {
            f"R = {m.acceleration:g}": InverseProblemConfig(operator="undersampling", mask=m, step_size=step)
            for m in masks
        }
    else:
        items = list(itertools.islice(photos(options.folder, "test", count, data.image_size, data.channels), count))
        problems = {
            "box": InverseProblemConfig(operator="box", hole=data.image_size // 2, step_size=step),
            "x4": InverseProblemConfig(operator="super_resolution", factor=4, step_size=step),
        }
    sampler = {"draws": options.draws, "eta": options.eta, "samples": options.samples}
    records = json.loads(options.out.read_text()) if options.out.exists() else {}
    for name, problem in problems.items():
        record = records.setdefault(name, {})
        if "classical" not in record:
            record["classical"] = (
                classical_mri(items[:count], items[count:], problem, config)
                if options.kind == "brain"
                else classical_photo(items, problem, config)
            )
        for steps in options.steps:
            key = f"MSM, {steps} × {options.draws} calls, η = {options.eta:g}, step {options.step_size}"
            record.setdefault(key, {}).update(
                msm_scores(denoiser, items[:count], config, problem, sampler | {"steps": steps})
            )
            print(name, key, json.dumps(record[key]), flush=True)
            write_text(options.out, json.dumps(records, indent=1) + "\n")
        write_text(options.out, json.dumps(records, indent=1) + "\n")
        print(name, json.dumps(record["classical"]), flush=True)


if __name__ == "__main__":
    main()
