"""Average against chain on inverse problems of photos. Writes JSON and a picture.

    python benchmarks/studies/chain_inverse.py PHOTOS OUT.json --runs measured=RUN submasks=RUN oracle=RUN

RUNs and sets are those of chain_images.py; PHOTOS holds photos that no run has seen. Problems: a hole of half the side,
and ×4, noise 0.01. Proximal step, 20 steps; the oracle takes a step a call, so that all have 60. For each photo SAMPLES
posterior samples, convention plain: PSNR and SSIM of one and of the mean of all; how often the interval from the
smallest to the largest sample holds the truth, pixel by pixel, in the hole or everywhere; and the error that the
samples announce for their mean over the error of the mean. Differences are paired, over photos, with intervals of 95 %.
A run adds to OUT.json, passes over what is there, prints the table of docs/studies/chain.md and draws OUT.PROBLEM.png:
photos and inputs, then a sample of each set.
"""

import argparse
import json
from itertools import islice
from pathlib import Path

import torch
from chain_images import SETS, SHOWN, compiled, markdown
from torch import Tensor
from torch.nn.functional import interpolate
from torchvision.utils import make_grid, save_image

from msm.config.load import Config, load_config
from msm.data.images import photos
from msm.evaluate.bootstrap import Estimate, difference, mean
from msm.evaluate.calibration import intervals, rank_counts, spread_and_error
from msm.evaluate.metrics import image_metrics
from msm.sample.draw import posterior_samples
from msm.system.files import write_text
from msm.system.memory import keep_memory

PROBLEMS = {"box": "{{operator: box, hole: {half}}}", "x4": "{{operator: super_resolution, factor: 4}}"}
AVERAGING = "average, sub-masks too"  # what the chain is compared with: the same network
STEPS = 20


def settings(run: Path, problem: str, score: str, draws: int, samples: int) -> Config:
    """The run's config with a problem and a sampler."""
    half = load_config(run / "config.yaml").data.image_size // 2
    given = {
        "inverse_problem": PROBLEMS[problem].format(half=half),
        "sample.data_step.kind": "proximal",
        "sample.steps": STEPS * 3 // draws,
        "sample.draws": draws,
        "sample.score": score,
        "sample.samples": samples,
        "sample.batch_size": 50,
    }
    return load_config(run / "config.yaml", [f"{key}={value}" for key, value in given.items()])


def judge(samples: Tensor, truth: Tensor, unseen: Tensor | None) -> dict:
    """Scores of samples (B, K, C, H, W) of photos (B, C, H, W); those of one and of the mean photo by photo."""
    one, average = (image_metrics(x, truth, convention="plain") for x in (samples[:, 0], samples.mean(1)))
    coverage = intervals(rank_counts(samples, truth, unseen).sum(0).tolist())[0]
    announced, actual = torch.tensor(spread_and_error(samples, truth, unseen)).square().mean(0).sqrt()
    scores = {"one": one, "mean": average}
    return {which: {name: rounded(of[name]) for name in ("psnr", "ssim")} for which, of in scores.items()} | {
        "expected_coverage": coverage.expected,
        "coverage": round(coverage.observed, 4),
        "announced_over_actual_error": round((announced / actual).item(), 4),
    }


def rounded(values: list[float]) -> list[float]:
    """Values short enough for a record."""
    return [round(value, 4) for value in values]


def span(estimate: Estimate, digits: int) -> str:
    """A number with its interval, short."""
    return f"{estimate.value:.{digits}f} [{estimate.low:.{digits}f}, {estimate.high:.{digits}f}]"


def table(records: dict) -> str:
    """Scores of all sets, in Markdown."""
    rows = []
    for problem, found in records.items():
        for name in (name for name in SETS if name in found):
            of = found[name]
            row = [problem, name]
            row += [
                f"{mean(of[which]['psnr']).value:.2f} / {mean(of[which]['ssim']).value:.3f}"
                for which in ("one", "mean")
            ]
            row += [
                "" if name == AVERAGING else span(difference(of["one"]["psnr"], found[AVERAGING]["one"]["psnr"]), 2)
            ]
            row += [f"{of['coverage']:.2f}", f"{of['announced_over_actual_error']:.2f}"]
            rows.append(row)
    expected = next(of["expected_coverage"] for found in records.values() for of in found.values())
    columns = ["problem", "set", "one sample", "mean of all", "one, above averaging", f"coverage of {expected:.2f}"]
    return markdown([*columns, "announced error"], rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photos", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--runs", nargs=3, required=True, metavar="NAME=FOLDER")
    parser.add_argument("--count", type=int, default=200)
    parser.add_argument("--samples", type=int, default=4)
    options = parser.parse_args()
    keep_memory()
    runs = {name: Path(run) for name, _, run in (given.partition("=") for given in options.runs)}
    data = load_config(runs["measured"] / "config.yaml").data
    items = list(islice(photos(options.photos, "test", 0, data.image_size, data.channels), options.count))
    truth = torch.stack([item.image for item in items])
    records = json.loads(options.out.read_text()) if options.out.exists() else {}
    for problem in PROBLEMS:
        found, rows = records.setdefault(problem, {}), [truth[:SHOWN]]
        for name, (run, score, draws) in SETS.items():
            if name in found:
                continue
            config = settings(runs[run], problem, score, draws, options.samples)
            inputs, samples = posterior_samples(compiled(runs[run], draws)[1], items, config)
            unseen = None
            if problem == "box":
                side = data.image_size
                unseen = torch.zeros(len(items), 1, side, side, dtype=torch.bool)
                unseen[..., side // 4 : side * 3 // 4, side // 4 : side * 3 // 4] = True
            found[name] = judge(samples, truth, unseen)
            rows += [inputs[:SHOWN]] * (len(rows) == 1) + [samples[:SHOWN, 0]]
            write_text(options.out, json.dumps(records) + "\n")
            print(problem, name, "done", flush=True)
        if len(rows) == 2 + len(SETS):
            larger = interpolate(torch.cat(rows).clamp(-1, 1) / 2 + 0.5, 64, mode="nearest")
            save_image(make_grid(larger, SHOWN), options.out.with_suffix(f".{problem}.png"))
    print(table(records))


if __name__ == "__main__":
    main()
