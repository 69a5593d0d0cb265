"""Reconstruction quality of the bundled models against classical methods, on held-out images. Writes JSON.

    python benchmarks/studies/reconstruction.py brain FOLDER OUT.json --samples 4
    python benchmarks/studies/reconstruction.py faces FOLDER OUT.json --preset best published

FOLDER holds magnitude slices or photos. Brain: its first COUNT images by name are measured by 8 simulated coils,
noise 0.01; CG-SENSE, L1-wavelet and TV are tuned on the images after them. Faces: the first COUNT photos, with a hole
of half the side and ×4. MSM by presets of `Sampler`. Scores: convention plain, mean over the images. A run adds to
OUT.json.
"""

import argparse
import itertools
import json
import time
from functools import partial
from pathlib import Path

import torch

import msm
from msm import PartialDenoiser
from msm.config.load import load_config
from msm.data.images import photos, slices
from msm.evaluate.classical import MRI, bicubic, biharmonic, tune
from msm.evaluate.metrics import image_metrics, psnr
from msm.sample.draw import posterior_samples
from msm.sample.observe import observe
from msm.system.files import write_text
from msm.system.processes import arithmetic

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
    results["zero-filled"] = scores(seen.input, truth)
    grids = {
        "CG-SENSE": itertools.product((3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 0.1), (4, 7, 10, 30)),
        "L1-wavelet": itertools.product((5e-4, 1e-3, 2e-3, 4e-3, 8e-3), ("haar", "db4", "sym8")),
        "TV": MRI["TV"].grid,
    }
    for name, grid in grids.items():
        best = tune(partial(MRI[name].run, apart), grid, truth_apart, plain_psnr)
        results[name] = {"setting": best, **scores(MRI[name].run(seen, best), truth)}
    return results


def classical_photo(items, problem, config) -> dict:
    seen = observe(items, problem, config.data)
    truth = torch.stack([item.image for item in items])
    results = {"input": scores(seen.input, truth)}
    if problem.operator == "box":
        mask = seen.operator.mask.expand(len(items), -1, -1, -1)
        return results | {"biharmonic": scores(biharmonic(seen.y, mask), truth)}
    return results | {"bicubic": scores(bicubic(seen.y, problem.factor), truth)}


def msm_scores(denoiser, items, config) -> dict:
    """One posterior sample, and the mean of all if there are several."""
    started = time.perf_counter()
    with arithmetic(config.sample.mixed_precision):
        _, drawn = posterior_samples(denoiser, items, config)
    seconds = round((time.perf_counter() - started) / len(items), 2)
    truth = torch.stack([item.image for item in items])
    result = {"one sample": scores(drawn[:, 0], truth), "seconds_per_image": seconds}
    if config.sample.samples > 1:
        result[f"mean of {config.sample.samples}"] = scores(drawn.mean(1), truth)
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kind", choices=["brain", "faces"])
    parser.add_argument("folder", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--weights", type=Path, help="default: the bundled ones")
    parser.add_argument("--count", type=int)
    parser.add_argument("--fast", action="store_true", help="bfloat16 and compiled, 3 times as fast on a CPU with AMX")
    parser.add_argument("--preset", choices=["paper", "published", "best"], nargs="*", default=["best"])
    parser.add_argument("--samples", type=int, default=1)
    parser.add_argument("--acceleration", type=int, nargs="+", default=[4, 6, 8])
    options = parser.parse_args()
    weights = options.weights or ASSETS / options.kind
    config = load_config(weights / "config.yaml")
    data, count = config.data, options.count or {"brain": 64, "faces": 35}[options.kind]
    denoiser = PartialDenoiser.load(weights).eval()
    if options.fast:
        denoiser.network.compile(dynamic=False)
    if options.kind == "brain":
        found = slices(options.folder, "test", 0, data.image_size, data.coils, data.seed)
        items = list(itertools.islice(found, count + TUNING))
        problems = {
            f"R = {r}": f"{{operator: undersampling, mask: {{kind: cartesian, acceleration: {r}, center: 5}}}}"
            for r in options.acceleration
        }
    else:
        items = list(itertools.islice(photos(options.folder, "test", count, data.image_size, data.channels), count))
        problems = {"box": "{operator: box, hole: 32}", "x4": "{operator: super_resolution, factor: 4}"}
    records = json.loads(options.out.read_text()) if options.out.exists() else {}
    for name, problem in problems.items():
        record = records.setdefault(name, {})
        given = [f"inverse_problem={problem}", f"sample.samples={options.samples}", "sample.batch_size=16"]
        given += ["sample.mixed_precision=bf16"] if options.fast else []
        if "classical" not in record:
            config = load_config(weights / "config.yaml", given)
            record["classical"] = (
                classical_mri(items[:count], items[count:], config.inverse_problem, config)
                if options.kind == "brain"
                else classical_photo(items, config.inverse_problem, config)
            )
        for preset in options.preset:
            config = load_config(weights / "config.yaml", [*given, f"sample.preset={preset}"])
            key = f"MSM, preset {preset}, {config.sample.steps} × {config.sample.draws} calls"
            record.setdefault(key, {}).update(msm_scores(denoiser, items[:count], config))
            print(name, key, json.dumps(record[key]), flush=True)
            write_text(options.out, json.dumps(records, indent=1) + "\n")
        write_text(options.out, json.dumps(records, indent=1) + "\n")
        print(name, json.dumps(record["classical"]), flush=True)


if __name__ == "__main__":
    main()
