"""Quality of brain slices at R = 4 against network calls, for each preset of the sampler. Writes JSON.

    python benchmarks/studies/brain_calls.py FOLDER OUT.json --presets published best --steps 1 3 5 10 20 50 100 200

FOLDER holds magnitude slices: every eighth of its first 64 by name is measured by 8 simulated coils, noise 0.01, and
reconstructed by the bundled model with 3 calls a step. Scores: convention plain, slice by slice, of one sample; with
--samples also of their mean, and how often the truth lies within the samples. A run adds to OUT.json, passes over what
is there, and draws OUT.png.
"""

import argparse
import itertools
import json
import time
from pathlib import Path
from statistics import mean, stdev

import torch
from matplotlib.figure import Figure

import msm
from msm import PartialDenoiser
from msm.config.build import make_data_step
from msm.config.load import load_config
from msm.data.images import slices
from msm.evaluate.calibration import foreground, intervals, rank_counts, spread_and_error
from msm.evaluate.metrics import image_metrics
from msm.sample.draw import posterior_samples
from msm.sample.observe import observe
from msm.system.files import write_text

WEIGHTS = Path(msm.__file__).parent / "assets" / "brain"
PROBLEM = "inverse_problem={operator: undersampling, mask: {kind: cartesian, acceleration: 4, center: 10}}"


MAXIMISER = [  # what `best` was when the record was made; today it draws (posterior_draws.py)
    *("sample.draws=3", "sample.warm_start=1", "sample.data_step.kind=proximal", "sample.eta=0.85"),
]


def rounded(values: list[float]) -> list[float]:
    return [round(value, 4) for value in values]


def measure(denoiser, items, config) -> dict:
    """Scores of one sample, of the mean, and the calibration where there are several."""
    started = time.process_time()
    inputs, drawn = posterior_samples(denoiser, items, config)
    seconds = (time.process_time() - started) / len(items) / config.sample.samples
    truth = torch.stack([item.image for item in items])
    one = image_metrics(drawn[:, 0], truth, convention="plain")
    result = {"seconds_per_sample": round(seconds, 2), "psnr": rounded(one["psnr"]), "ssim": rounded(one["ssim"])}
    if config.sample.samples > 1:
        average = image_metrics(drawn.mean(1), truth, convention="plain")
        body = foreground(inputs)
        widest = intervals(rank_counts(drawn, truth, body).sum(0).tolist())[0]
        announced, actual = zip(*spread_and_error(drawn, truth, body))
        result |= {
            "mean_psnr": rounded(average["psnr"]),
            "mean_ssim": rounded(average["ssim"]),
            "coverage": {"expected": round(widest.expected, 4), "observed": round(widest.observed, 4)},
            "spread_over_error": round((sum(a**2 for a in announced) / sum(b**2 for b in actual)) ** 0.5, 4),
        }
    return result


def linear_start(denoiser, items, config) -> dict:
    """Scores of what `best` starts from, before any network call."""
    seen = observe(items, config.inverse_problem, config.data)
    step = make_data_step(config.sample.data_step).of(seen, denoiser.error)
    x_hat = seen.transform.adjoint(step(torch.zeros_like(seen.y), config.sample.warm_start, torch.zeros_like))
    found = image_metrics(x_hat, torch.stack([item.image for item in items]), convention="plain")
    return {"psnr": rounded(found["psnr"]), "ssim": rounded(found["ssim"])}


def check(records: dict) -> dict:
    """What `best` gains over `published` at 600 calls: mean over slices, standard error, slices that are better."""
    result: dict = {}
    usual = records.get("published", {}).get("600 calls")
    for key, better in records.get("best", {}).items() if usual else ():
        for metric in ("psnr", "ssim") if "," not in key else ():
            gains = [x - y for x, y in zip(better[metric], usual[metric], strict=True)]
            result.setdefault(f"best at {key} - published at 600", {})[metric] = {
                "mean": round(mean(gains), 4),
                "standard_error": round(stdev(gains) / len(gains) ** 0.5, 4),
                "better_slices": f"{sum(g > 0 for g in gains)} of {len(gains)}",
            }
    return result


def plot(records: dict, path: Path) -> None:
    """PSNR and SSIM of one sample against calls."""
    figure = Figure(figsize=(8, 3.4), layout="constrained")
    for axes, metric, label in zip(figure.subplots(1, 2), ("psnr", "ssim"), ("PSNR, dB", "SSIM"), strict=True):
        for preset in ("published", "best"):
            one = {int(key.split()[0]): mean(r[metric]) for key, r in records.get(preset, {}).items() if "," not in key}
            calls = sorted(calls for calls in one if calls > 3)  # a single step of the published grid makes no image
            axes.semilogx(calls, [one[n] for n in calls], "o-", label=preset)
        if start := records.get("linear start of best"):
            axes.axhline(mean(start[metric]), color="grey", linestyle="--", label="linear start of best, no network")
        ticks = sorted({x for line in axes.lines for x in line.get_xdata() if x > 1})
        axes.set_xticks(ticks, [f"{x:g}" for x in ticks])
        axes.minorticks_off()
        axes.set(xlabel="network calls a sample", ylabel=label)
        axes.grid(alpha=0.3)
    figure.legend(*axes.get_legend_handles_labels(), loc="outside upper center", ncols=3, frameon=False)
    partial = path.with_name(path.name + ".partial.png")
    figure.savefig(partial, dpi=120)
    partial.replace(path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--presets", nargs="+", default=["published", "best"])
    parser.add_argument("--steps", type=int, nargs="+", default=[1, 3, 5, 10, 20, 50, 100, 200])
    parser.add_argument("--samples", type=int, default=1)
    options = parser.parse_args()
    records = json.loads(options.out.read_text()) if options.out.exists() else {}
    denoiser = None
    for preset, steps in itertools.product(options.presets, options.steps):
        chosen = [f"sample.preset={preset}", f"sample.steps={steps}", f"sample.samples={options.samples}", PROBLEM]
        chosen += MAXIMISER if preset == "best" else []
        config = load_config(WEIGHTS / "config.yaml", chosen)
        key = f"{steps * config.sample.draws} calls" + (f", {options.samples} samples" if options.samples > 1 else "")
        done = records.setdefault(preset, {})
        if key not in done:
            if denoiser is None:
                denoiser = PartialDenoiser.load(WEIGHTS).eval()
                found = slices(options.folder, "test", 0, config.data.image_size, config.data.coils, config.data.seed)
                items = list(itertools.islice(found, 0, 64, 8))
            if preset == "best":
                records["linear start of best"] = linear_start(denoiser, items, config)
            done[key] = measure(denoiser, items, config)
            print(preset, key, json.dumps(done[key]), flush=True)
            write_text(options.out, json.dumps(records, indent=1) + "\n")
    records["check"] = check(records)
    print(json.dumps(records["check"], indent=1))
    write_text(options.out, json.dumps(records, indent=1) + "\n")
    plot(records, options.out.with_suffix(".png"))


if __name__ == "__main__":
    main()
