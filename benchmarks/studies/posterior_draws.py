"""Are posterior samples the posterior's? Coverage, error and cost of `Draw` and its rivals on held-out images. JSON.

    python benchmarks/studies/posterior_draws.py brain-4 SLICES OUT.json --methods best "draw 12x5 log measured"
    python benchmarks/studies/posterior_draws.py faces-hole PHOTOS OUT.json --split train --first 100 --images 8

TASK: brain-4, brain-8 (8 simulated coils, noise 0.01), faces-hole (32 px of 64), faces-x4. Images are those of a split
from number FIRST on, by name; what chooses settings must not be what is reported. METHODS are names as `method_of`
reads them. A run adds to OUT.json: for each image the PSNR of one sample and of means, the ranks of the truth, the
announced and the actual error.
"""

import argparse
import json
import time
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from pathlib import Path

import torch

import msm
from msm import Draw, PartialDenoiser, Problem, Proximal, Sampler, preset_data_step, reconstruct
from msm.config.load import load_config
from msm.config.measured import CartesianMaskConfig
from msm.data.images import photos, slices
from msm.data_step import DataStep
from msm.evaluate.bootstrap import Estimate, mean
from msm.evaluate.calibration import foreground, rank_counts, spread_and_error
from msm.evaluate.metrics import psnr
from msm.operators import Undersampling
from msm.sample.observe import observe
from msm.schedule import Grid, VPSchedule
from msm.system.files import write_text
from msm.system.processes import arithmetic

ASSETS = Path(msm.__file__).parent / "assets"
OF_SLICES = "{{operator: undersampling, noise_std: 0.01, mask: {{kind: cartesian, acceleration: {}, center: CENTER}}}}"
TASKS = {  # CENTER is that of the training
    "brain-4": ("brain", OF_SLICES.format(4)),
    "brain-8": ("brain", OF_SLICES.format(8)),
    "faces-hole": ("faces", "{operator: box, hole: 32, noise_std: 0.01}"),
    "faces-x4": ("faces", "{operator: super_resolution, factor: 4, noise_std: 0.01}"),
}
GRIDS: dict[str, Grid] = {"time": "time", "log": "log"}
MEANS = (1, 4, 8, 39)


class Repeated(VPSchedule):
    """The schedule with each level of a grid `times` times, to try repeats: `steps` counts them all."""

    def __init__(self, schedule, times):
        super().__init__(**schedule.settings)
        self.times = times

    def grid(self, steps, spacing="time", start=None):
        """As of `VPSchedule`, each time several times."""
        return super().grid(steps // self.times, spacing, start).repeat_interleave(self.times)


@dataclass(frozen=True)
class Method:
    """A sampler, a data step, and what C_t is: assumed, or measured times a factor; each level `times` times."""

    sampler: Sampler
    step: DataStep
    error: str = "assumed"
    factor: float = 1.0
    times: int = 1


def method_of(name: str, mri: bool) -> Method:
    """Of "best" (of msm 0.1), "published", or "draw 20x3 log measured", with warm=σ, factor=f, times=n, cg=n."""
    iterations = 20 if mri else 6
    if name == "published":
        sampler = Sampler.preset("published", mri=mri, inverse_problem=True)
        return Method(sampler, preset_data_step("published", mri=mri))
    if name == "best":
        sampler = Sampler(steps=20, draws=3, grid="log", warm_start=1.0) if mri else Sampler(steps=20, draws=2)
        return Method(sampler, Proximal(iterations))
    _, size, grid, error, *more = name.split()
    steps, draws = map(int, size.split("x"))
    given = {key: float(value) for key, value in (word.split("=") for word in more)}
    warm, times = given.pop("warm", None), int(given.pop("times", 1))
    step, factor = Draw(int(given.pop("cg", iterations))), given.pop("factor", 1.0)
    if given:
        raise SystemExit(f"{name}: unknown {', '.join(given)}")
    sampler = Sampler(steps=steps, draws=draws, grid=GRIDS[grid], warm_start=warm)
    return Method(sampler, step, error, factor, times)


def prepared(denoiser, method, fast):
    """The denoiser with the C_t and the schedule of a method."""
    if method.error != "measured":
        denoiser.measured_error = None
    elif method.factor != 1:
        measured = denoiser.measured_error
        denoiser.measured_error = replace(measured, power=measured.power * method.factor)
    if method.times > 1:
        denoiser.schedule = Repeated(denoiser.schedule, method.times)
    if fast:
        denoiser.network.compile(dynamic=False)
    return denoiser


def sample(denoiser, problem, count, method, batch_size=13):
    """Samples (count, C, H, W) of a problem of one image."""
    images = []
    for seeds in torch.arange(count).split(batch_size):
        one = Problem(
            problem.y.expand(len(seeds), *problem.y.shape[1:]), problem.operator, problem.transform, problem.noise_std
        )
        z = reconstruct(denoiser, one, seeds=seeds.tolist(), sampler=method.sampler, data_step=method.step)
        images.append(one.transform.adjoint(z))
    return torch.cat(images)


def scores(samples, truth, where) -> dict:
    """What is stored of the samples (1, K, C, H, W) of an image."""
    plain = partial(psnr, convention="plain")
    number = samples.shape[1]
    announced, actual = spread_and_error(samples, truth, where)[0]
    return {
        "psnr": {n: round(plain(samples[:, :n].mean(1), truth)[0], 3) for n in MEANS if n <= number},
        "ranks": [round(c, 1) for c in rank_counts(samples, truth, where)[0].tolist()],
        "announced": round(announced, 5),
        "actual": round(actual, 5),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("task", choices=TASKS)
    parser.add_argument("folder", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--weights", type=Path, help="instead of the bundled ones")
    parser.add_argument("--label", default="", help="what they are, put before the names of methods")
    parser.add_argument("--split", default="test", choices=("train", "test"))
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--images", type=int, default=32)
    parser.add_argument("--stride", type=int, default=1)
    parser.add_argument("--samples", type=int, default=39)
    parser.add_argument("--methods", nargs="+", default=["best"])
    parser.add_argument("--fast", action="store_true", help="bfloat16 and compiled, 3 times as fast on a CPU with AMX")
    args = parser.parse_args()
    assets, asked = TASKS[args.task]
    mri = assets == "brain"
    weights = args.weights or ASSETS / assets
    data = load_config(weights).data
    if mri:
        assert isinstance(data.mask, CartesianMaskConfig)
        asked = asked.replace("CENTER", str(data.mask.center))
    problem = load_config(weights, [f"inverse_problem={asked}"]).inverse_problem
    assert problem is not None
    held_out = 35 if args.split == "test" or not mri else 0
    if mri:
        source = slices(args.folder, "train", 0, data.image_size, data.coils, data.seed, 0.0)  # the folder is the split
    else:
        source = photos(args.folder, args.split, held_out, data.image_size, 3)
    items = list(islice(source, args.first, args.first + args.images * args.stride, args.stride))
    for name in args.methods:
        method = method_of(name, mri)
        records, started = [], time.process_time()
        denoiser = prepared(PartialDenoiser.load(weights).eval(), method, args.fast)
        for item in items:
            seen = observe([item], problem, data)
            with arithmetic("bf16" if args.fast else "no"):
                samples = sample(denoiser, seen, args.samples, method)[None]
            truth = item.image[None]
            where = foreground(seen.input) if mri else None
            if isinstance(seen.operator, Undersampling) and not mri:
                where = ~seen.operator.mask
            records.append({"name": item.name, **scores(samples, truth, where)})
            print(f"{args.task} | {name} | {item.name}", records[-1]["psnr"], flush=True)
        seconds = (time.process_time() - started) / len(items) / args.samples
        record = {
            "calls": method.sampler.calls(denoiser.masks),
            "cpu_seconds_per_sample": round(seconds, 3),
            "samples": args.samples,
            "images": records,
        }
        stored = json.loads(args.out.read_text()) if args.out.exists() else {}
        stored.setdefault(args.task, {})[f"{args.label} {name}".strip()] = record
        write_text(args.out, json.dumps(stored, indent=1) + "\n")
        print(f"== {args.task} | {name} | {row(json.loads(json.dumps(record)))}", flush=True)


def held(record: dict) -> dict[float, Estimate]:
    """How often intervals held the truth, with a bootstrap interval over images, by nominal level."""
    shares = [torch.tensor(image["ranks"], dtype=torch.float64) for image in record["images"]]
    ranks = len(shares[0])
    levels = {(ranks - 2 * r) / ranks: r for r in range((ranks - 1) // 2, 0, -1)}
    chosen = {p: r for p, r in levels.items() if p in (0.5, 0.8, 0.9, 0.95)} or levels
    return {p: mean([(c[r : ranks - r].sum() / c.sum()).item() for c in shares]) for p, r in chosen.items()}


def announced(record: dict) -> float:
    """Announced over actual error, both root-mean-square over the images."""
    sums = [sum(image[name] ** 2 for image in record["images"]) for name in ("announced", "actual")]
    return (sums[0] / sums[1]) ** 0.5


def psnrs(record: dict, count: int) -> list[float]:
    """PSNR of the mean of so many samples, an image each."""
    return [image["psnr"][str(count)] for image in record["images"]]


def row(record: dict) -> str:
    """Cells of a table: calls, PSNR of one sample and of means, what intervals held, announced over actual error."""
    counts = [n for n in map(str, MEANS) if n in record["images"][0]["psnr"]]
    cells = [str(record["calls"]), *(f"{mean(psnrs(record, int(n))).value:.2f}" for n in counts)]
    cells += [f"{100 * e.value:.0f} ({100 * e.bounds[0]:.0f}–{100 * e.bounds[1]:.0f})" for e in held(record).values()]
    return " | ".join([*cells, f"{announced(record):.2f}"])


if __name__ == "__main__":
    main()
