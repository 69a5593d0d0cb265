"""What rounds of refinement are worth on brain slices: reconstruction, and generated images. Writes JSON.

    python benchmarks/studies/refinement.py SLICES OUT.json --runs MSM=bundled:brain "one round=RUN/round_1"
    python benchmarks/studies/refinement.py PHOTOS FACES.json --photos --runs MSM=RUN refined=RUN/refined
    python benchmarks/studies/refinement.py SLICES OUT.json --table
    python benchmarks/studies/refinement.py SLICES ROUNDS.json --standings brain=RUN faces=RUN

SLICES is a folder of magnitude slices that no model saw. Its first COUNT by name are measured by 8 simulated coils at
R = 4, 6 and 8, noise 0.01, and reconstructed by preset best; total variation is tuned on the 8 after them. Generated:
64 images by preset best, FD-wavelet from all slices of the folder. A run adds to OUT.json: an image each, PSNR and SSIM
of one sample and of the mean of four (convention plain), and the calls; of generated images the distance and its
bootstrap interval. `--photos`: the first 35 photos of a folder by name instead, which no model saw, with a hole of half
the side, and four times too small; against biharmonic and bicubic interpolation; runs are folders, or bundled models,
that have their settings with them. `--table` prints the tables of docs/studies/refinement.md. `--standings` stores
instead what the command told of the rounds of runs: their standing.json.
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
from msm.evaluate.perceptual import wavelet_distance, wavelet_features
from msm.runs.weights import on_its_masks
from msm.sample.draw import posterior_samples, prior_samples
from msm.sample.observe import coil_maps, observe
from msm.system.files import write_text
from msm.system.processes import arithmetic

TUNING, GENERATED, SAMPLES = 8, 64, 4
RATES = (4, 6, 8)
ASKED = "inverse_problem={{operator: undersampling, mask: {{kind: cartesian, acceleration: {}, center: 5}}}}"


HELD_OUT = 35
OF_PHOTOS = {"hole": "{operator: box, hole: 32}", "× 4": "{operator: super_resolution, factor: 4}"}


def scores(x_hat, truth) -> dict[str, list[float]]:
    """PSNR and SSIM, an image each."""
    values = image_metrics(x_hat, truth, convention="plain")
    return {name: [round(v, 4) for v in values[name]] for name in ("psnr", "ssim")}


def config_of(path: str, rate: int | None):
    """Settings of the brain model with other weights, for a rate, or to generate."""
    problem = ASKED.format(rate) if rate else "inverse_problem=null"
    given = [f"setting.pretrained_model_dir={path}", "sample.preset=best", problem]
    numbers = [f"sample.samples={SAMPLES}", f"sample.count={GENERATED}", "sample.batch_size=16"]
    return load_config("bundled:brain", [*given, *numbers, "sample.mixed_precision=bf16"])


def config_of_photos(path: str, problem: str | None):
    """Settings of a run on photos, for one of the problems, or to generate."""
    asked = "null" if problem is None else OF_PHOTOS[problem]
    given = [f"setting.pretrained_model_dir={path}", "sample.preset=best", f"inverse_problem={asked}"]
    numbers = [f"sample.samples={SAMPLES}", f"sample.count={GENERATED}", "sample.batch_size=20"]
    return load_config(path, [*given, *numbers, "sample.mixed_precision=no"])


def interpolated(items, path: str, problem: str) -> tuple[str, dict]:
    """The classical method of a problem, its name first."""
    config = config_of_photos(path, problem)
    seen = observe(items, config.inverse_problem, config.data)
    ((name, method),) = fitting(seen).items()
    return name, {"one": scores(method.run(seen, method.usual), torch.stack([item.image for item in items]))}


def total_variation(items, tuning, rate: int) -> dict:
    """TV at the setting that is best on the tuning images."""
    config = config_of("bundled:brain", rate)
    seen, apart = (observe(group, config.inverse_problem, config.data) for group in (items, tuning))
    truth, truth_apart = (torch.stack([item.image for item in group]) for group in (items, tuning))
    best = tune(partial(MRI["TV"].run, apart), MRI["TV"].grid, truth_apart, partial(psnr, convention="plain"))
    return {"setting": best, "one": scores(MRI["TV"].run(seen, best), truth)}


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
    return {"calls": calls, "distance": round(found.value, 2), "interval": [round(found.low, 2), round(found.high, 2)]}


def row(record: dict, rate: str, name: str, against: str) -> str:
    """Cells: PSNR/SSIM of one sample and of the mean of four, and the latter's PSNR above another's, paired."""
    run, other = record[rate][name], record[rate][against]
    cells = [str(run.get("calls", "–"))]
    for kind in ("one", "mean of 4"):
        cells.append(
            "/".join(f"{mean(run[kind][m]).value:.{d}f}" for m, d in (("psnr", 2), ("ssim", 3))) if kind in run else "–"
        )
    best, rival = (r.get("mean of 4", r["one"])["psnr"] for r in (run, other))
    gain = difference(best, rival)
    cells.append("–" if name == against else f"{gain.value:+.2f} ({gain.low:+.2f} to {gain.high:+.2f})")
    return f"| {rate} | {name} | " + " | ".join(cells) + " |"


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
    records = json.loads(options.out.read_text()) if options.out.exists() else {}
    if options.table:
        for block in (key for key in records if key != "generated"):
            print("\n".join(row(records, block, name, next(iter(records[block]))) for name in records[block]))
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
        against = next(iter(records[block]))
        print(block, name, found if block == "generated" else row(records, block, name, against), flush=True)

    return keep


def of_photos(options, records: dict, runs: dict[str, str]) -> None:
    """Holes, enlargements and new photos by all runs."""
    first, keep = next(iter(runs.values())), keeper(options.out, records)
    data = config_of_photos(first, None).data
    items = list(photos(options.folder, "test", HELD_OUT, data.image_size, data.channels))
    for problem in OF_PHOTOS:
        keep(problem, *interpolated(items, first, problem))
    for name, path in runs.items():
        denoiser = PartialDenoiser.load(path).eval()
        keep("generated", name, generated(denoiser, config_of_photos(path, None), items))
        for problem in OF_PHOTOS:
            keep(problem, name, reconstructed(denoiser, config_of_photos(path, problem), items))


def of_slices(options, records: dict, runs: dict[str, str]) -> None:
    """Reconstructions and new slices by all runs, against total variation."""
    data, keep = config_of("bundled:brain", None).data, keeper(options.out, records)
    items = list(islice(slices(options.folder, "test", 0, data.image_size, data.coils, data.seed), 150))
    shown, tuning = items[: options.count], items[options.count : options.count + TUNING]
    for rate in options.rates:
        if "TV" not in records.get(f"R = {rate}", {}):
            keep(f"R = {rate}", "TV", total_variation(shown, tuning, rate))
    for name, path in runs.items():
        denoiser = PartialDenoiser.load(path).eval()
        keep("generated", name, generated(denoiser, config_of(path, None), items))
        for rate in options.rates:
            keep(f"R = {rate}", name, reconstructed(denoiser, config_of(path, rate), shown))


if __name__ == "__main__":
    main()
