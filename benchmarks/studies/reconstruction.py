"""What trained models are worth: reconstruction against classical methods, and generated images. Writes JSON.

    python benchmarks/studies/reconstruction.py SLICES brain.json --runs MSM=bundled:brain refined=bundled:brain_refined
    python benchmarks/studies/reconstruction.py PHOTOS faces.json --photos --runs MSM=bundled:faces …
    python benchmarks/studies/reconstruction.py SLICES brain.json --table
    python benchmarks/studies/reconstruction.py SLICES ROUNDS.json --standings brain=RUN faces=RUN

SLICES is a folder of magnitude slices that no model saw. Its first COUNT by name are measured by 8 simulated coils at
R = 4, 6 and 8, noise 0.01, and reconstructed by preset best; classical methods are tuned on the 8 after them. The
settings are those of the first run. Generated: 64 images by preset best, FD-wavelet from all slices of the folder. A
run adds to the file: an image each, PSNR, SSIM and LPIPS of one sample and of the mean of four (convention plain), and
the calls; of generated images the distance and its bootstrap interval. LPIPS needs AlexNet's weights
(`benchmarks/tools/lpips_weights.py`). `--photos`: the first 35 photos of a folder by name instead, which no model saw,
with a hole of half the side, and four times too small; against biharmonic and bicubic interpolation. Runs are bundled
models, or folders, the first of which has its settings with it. `--table` prints the tables of
docs/studies/reconstruction.md and refinement.md. `--standings` stores instead what `msm refine` told of the rounds of
runs: their standing.json.
"""

import argparse
import json
from functools import partial
from itertools import islice
from pathlib import Path

import torch

from msm import PartialDenoiser
from msm.config.load import load_config
from msm.data.images import photos, slices
from msm.evaluate.bootstrap import difference, mean, of_sets
from msm.evaluate.classical import MRI, fitting, tune
from msm.evaluate.metrics import image_metrics, psnr
from msm.evaluate.perceptual import lpips, wavelet_distance, wavelet_features
from msm.runs.weights import on_its_masks
from msm.sample.draw import posterior_samples, prior_samples
from msm.sample.observe import coil_maps, observe
from msm.system.files import write_text
from msm.system.memory import keep_memory
from msm.system.processes import arithmetic

TUNING, GENERATED, SAMPLES = 8, 64, 4
RATES = (4, 6, 8)
HELD_OUT = 35
OF_PHOTOS = {"hole": "{operator: box, hole: 32}", "× 4": "{operator: super_resolution, factor: 4}"}
OF_SLICES = "{{operator: undersampling, mask: {{kind: cartesian, acceleration: {}, center: {}}}}}"
MEASURES = {"psnr": 2, "ssim": 3, "lpips": 3}  # and digits of a table


def scores(x_hat, truth) -> dict[str, list[float]]:
    """PSNR, SSIM and LPIPS, an image each."""
    values = image_metrics(x_hat, truth, convention="plain") | {"lpips": lpips(x_hat, truth)}
    return {name: [round(v, 4) for v in values[name]] for name in MEASURES}


def config_of(path: str, asked: str = "null"):
    """Settings of a run for an inverse problem, or to generate."""
    given = [f"setting.pretrained_model_dir={path}", "sample.preset=best", f"inverse_problem={asked}"]
    numbers = [f"sample.samples={SAMPLES}", f"sample.count={GENERATED}", "sample.batch_size=16"]
    config = load_config(path, [*given, *numbers])
    precision = "bf16" if config.data.is_mri else "no"
    return config.model_copy(update={"sample": config.sample.model_copy(update={"mixed_precision": precision})})


def of_rate(path: str, rate: int):
    """Settings of a run on slices for an acceleration; the centre is that of its training."""
    return config_of(path, OF_SLICES.format(rate, config_of(path).data.mask.center))


def interpolated(items, path: str, problem: str) -> dict[str, dict]:
    """What is given, and the classical method of a problem."""
    config = config_of(path, OF_PHOTOS[problem])
    seen = observe(items, config.inverse_problem, config.data)
    truth = torch.stack([item.image for item in items])
    ((name, method),) = fitting(seen).items()
    made = {"input": seen.input, name: method.run(seen, method.usual)}
    return {name: {"one": scores(x_hat, truth)} for name, x_hat in made.items()}


def classical(items, tuning, config) -> dict[str, dict]:
    """What is given, and the classical methods of MRI, each at the setting that is best on the tuning images."""
    seen, apart = (observe(group, config.inverse_problem, config.data) for group in (items, tuning))
    truth, truth_apart = (torch.stack([item.image for item in group]) for group in (items, tuning))
    found: dict[str, dict] = {"zero-filled": {"one": scores(seen.input, truth)}}
    for name, method in MRI.items():
        best = tune(partial(method.run, apart), method.grid, truth_apart, partial(psnr, convention="plain"))
        found[name] = {"setting": best, "one": scores(method.run(seen, best), truth)}
    return found


def reconstructed(denoiser, config, items) -> dict:
    """One sample and the mean of four."""
    config = on_its_masks(config, denoiser)
    with arithmetic(config.sample.mixed_precision):
        _, drawn = posterior_samples(denoiser, items, config)
    truth = torch.stack([item.image for item in items])
    calls = config.sample.steps * config.sample.draws
    return {"calls": calls, "one": scores(drawn[:, 0], truth), "mean of 4": scores(drawn.mean(1), truth)}


def generated(denoiser, config, items) -> dict:
    """FD-wavelet of generated images from the items, with a bootstrap interval."""
    config = on_its_masks(config, denoiser)
    maps = coil_maps(items[:GENERATED]) if config.data.is_mri else None
    with arithmetic(config.sample.mixed_precision):
        images = prior_samples(denoiser, config.data, config.sample, maps)
    real = torch.stack([item.image for item in items])
    found = of_sets(wavelet_distance, wavelet_features(images), wavelet_features(real))
    calls = config.sample.steps * config.sample.draws
    return {"calls": calls, "distance": round(found.value, 2), "interval": [round(end, 2) for end in found.bounds]}


def cell(found: dict[str, list[float]]) -> str:
    """Means over the images, of what the record has."""
    return "/".join(f"{mean(found[name]).value:.{digits}f}" for name, digits in MEASURES.items() if name in found)


def row(record: dict, rate: str, name: str, against: str) -> str:
    """Cells: PSNR/SSIM/LPIPS of one sample and of the mean of four, and the latter's PSNR above another's, paired."""
    run, other = record[rate][name], record[rate][against]
    cells = [str(run.get("calls", "–"))]
    for kind in ("one", "mean of 4"):
        cells.append(cell(run[kind]) if kind in run else "–")
    gain = difference(*(r.get("mean of 4", r["one"])["psnr"] for r in (run, other)))
    cells.append("–" if name == against else f"{gain.value:+.2f} ({gain.low:+.2f} to {gain.high:+.2f})")
    return f"| {rate} | {name} | " + " | ".join(cells) + " |"


def rival(found: dict) -> str:
    """The classical method that a block is compared with."""
    return next(name for name in ("TV", "biharmonic", "bicubic") if name in found)


def generated_row(name: str, found: dict) -> str:
    """A row of the generated images."""
    low, high = found["interval"]
    return f"| {name} | {found['calls']} | {found['distance']:.1f} ({low:.1f} to {high:.1f}) |"


def standing_row(run: str, name: str, found: dict) -> str:
    """A row of what the command told of a round, from its standing.json."""
    error = sum(found["errors"]) / len(found["errors"])
    return f"| {run} | {name} | {error:.4f} | {found['dispersion']:.2f} | {found['distance']:.1f} |"


def standings(run: Path) -> dict[str, dict]:
    """What the command told of each round of a run, rounded."""
    found = {}
    for number, path in enumerate(sorted(run.glob("round_*/standing.json"))):
        told = json.loads(path.read_text())
        errors, dispersion = [round(e, 5) for e in told["errors"]], round(told["dispersion"], 3)
        standing = {"errors": errors, "dispersion": dispersion, "distance": round(told["distance"], 2)}
        found[f"round {number}" if number else "start"] = standing
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--runs", nargs="*", default=[], metavar="NAME=WEIGHTS")
    parser.add_argument("--count", type=int, default=32)
    parser.add_argument("--rates", type=int, nargs="*", default=RATES)
    parser.add_argument("--standings", nargs="*", default=[], metavar="NAME=RUN")
    parser.add_argument("--photos", action="store_true")
    parser.add_argument("--table", action="store_true")
    options = parser.parse_args()
    keep_memory()
    records = json.loads(options.out.read_text()) if options.out.exists() else {}
    if options.table:
        for block in (key for key in records if key != "generated"):
            print("\n".join(row(records, block, name, rival(records[block])) for name in records[block]))
        for name, found in records.get("generated", {}).items():
            print(generated_row(name, found))
        return
    if options.standings:
        told = {name: standings(Path(path)) for name, _, path in (run.partition("=") for run in options.standings)}
        write_text(options.out, json.dumps(told, indent=1) + "\n")
        return
    runs = dict(run.partition("=")[::2] for run in options.runs)
    of_photos(options, records, runs) if options.photos else of_slices(options, records, runs)


def keeper(out: Path, records: dict):
    """What stores and prints a result: its block, its name, and it."""

    def keep(block: str, name: str, found: dict) -> None:
        records.setdefault(block, {})[name] = found
        write_text(out, json.dumps(records, indent=1) + "\n")
        print(block, name, generated_row(name, found) if block == "generated" else cell(found["one"]), flush=True)

    return keep


def of_photos(options, records: dict, runs: dict[str, str]) -> None:
    """Holes, enlargements and new photos by all runs."""
    first, keep = next(iter(runs.values())), keeper(options.out, records)
    data = config_of(first).data
    items = list(photos(options.folder, "test", HELD_OUT, data.image_size, data.channels))
    for problem in OF_PHOTOS:
        for name, found in interpolated(items, first, problem).items():
            keep(problem, name, found)
    for name, path in runs.items():
        denoiser = PartialDenoiser.load(path).eval()
        keep("generated", name, generated(denoiser, config_of(first), items))
        for problem in OF_PHOTOS:
            keep(problem, name, reconstructed(denoiser, config_of(first, OF_PHOTOS[problem]), items))


def of_slices(options, records: dict, runs: dict[str, str]) -> None:
    """Reconstructions and new slices by all runs, against classical methods."""
    first, keep = next(iter(runs.values())), keeper(options.out, records)
    data = config_of(first).data
    items = list(islice(slices(options.folder, "test", 0, data.image_size, data.coils, data.seed), 150))
    shown, tuning = items[: options.count], items[options.count : options.count + TUNING]
    for rate in options.rates:
        if "TV" not in records.get(f"R = {rate}", {}):
            for name, found in classical(shown, tuning, of_rate(first, rate)).items():
                keep(f"R = {rate}", name, found)
    for name, path in runs.items():
        denoiser = PartialDenoiser.load(path).eval()
        keep("generated", name, generated(denoiser, config_of(first), items))
        for rate in options.rates:
            keep(f"R = {rate}", name, reconstructed(denoiser, of_rate(first, rate), shown))


if __name__ == "__main__":
    main()
