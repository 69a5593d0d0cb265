"""Average against chain on photos: Fréchet distance and variance of generated sets. Writes JSON and a picture.

    python benchmarks/studies/chain_images.py PHOTOS OUT.json --runs measured=RUN submasks=RUN oracle=RUN [--calls 600]

Each RUN is a folder of `msm train`, all of one budget: "measured" saw the measured masks only, "submasks" sub-masks of
them too, "oracle" whole photos. Sets: averaging with either network, the chain with "submasks", and the oracle, which
takes one step a call where the others take one in three. PHOTOS holds the photos that the acquisitions were made of;
of more than 10,000 the first count. Nothing but the scores looks at them: distance, covariance and variances of
generated sets, whether these repeat photos, and what one step's ẑ of noisy photos is like. A run adds to OUT.json,
passes over what is there, draws OUT.CALLS.png, a row for each set, and prints the tables of docs/studies/chain.md.
Images are kept in OUT.parts: a run that was stopped, or is started again with a larger COUNT, makes no batch of them
twice. Networks are compiled; each of PROCESSES takes one thread.
"""

import argparse
import json
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, replace
from functools import cache, partial
from itertools import islice
from multiprocessing import get_context
from pathlib import Path

import torch
from torch import Generator, Tensor
from torch.nn.functional import interpolate
from torchvision.utils import make_grid, save_image

from msm import BoxMasks, Identity, Masks, PartialDenoiser, Sampler, generate
from msm.config.load import Config, dump_config, load_config
from msm.evaluate.bootstrap import of_sets
from msm.evaluate.perceptual import wavelet_distance, wavelet_features
from msm.runs.inputs import sources
from msm.sample.kept_batches import Parts
from msm.sampling import Level, Score, combine
from msm.system.files import fingerprint, write_text
from msm.system.memory import keep_memory

SETS: dict[str, tuple[str, Score, int]] = {  # network, score, network calls a step
    "average, measured masks": ("measured", "average", 3),
    "average, sub-masks too": ("submasks", "average", 3),
    "chain, sub-masks too": ("submasks", "chain", 3),
    "oracle": ("oracle", "average", 1),
}
BATCH = 50
SHOWN = 12  # images of a set in the picture
LEVELS, REPEATS, NOISED, DIRECTIONS = (0.05, 0.2, 0.5, 1.0, 3.0, 10.0), 8, 62, 5  # of one_step
PHOTOS = 10_000  # of those in the folder, at most, the first


def load(run: Path, draws: int) -> tuple[Config, PartialDenoiser, Masks]:
    """Config and denoiser of a run, and the masks of its sampler: for the oracle, the one that keeps everything."""
    config = load_config(run / "config.yaml")
    denoiser = PartialDenoiser.load(run / "weights").eval()
    if draws == 1:
        denoiser.masks = BoxMasks(config.data.image_size, 0.0)
    assert denoiser.masks is not None  # runs of boxes hold their law
    return config, denoiser, denoiser.masks


@cache
def compiled(run: Path, draws: int) -> tuple[Config, PartialDenoiser, Masks]:
    """The same, with a compiled network."""
    config, denoiser, masks = load(run, draws)
    denoiser.network.compile(dynamic=False)
    return config, denoiser, masks


def start_process() -> None:
    """Each process has a core of its own."""
    torch.set_num_threads(1)
    keep_memory()


def draw(run: Path, score: Score, draws: int, calls: int, folder: Path, seeds: range) -> tuple[Tensor, Tensor]:
    """Images (B, C, H, W) of the preset `best`, one from each seed, and the CPU seconds they took; kept in a folder."""
    config, denoiser, _ = compiled(run, draws)
    shape = (config.data.channels, config.data.image_size, config.data.image_size)
    sampler = replace(Sampler.preset("best"), steps=calls // draws, draws=draws, score=score)

    def batch(seeds: range) -> tuple[Tensor, Tensor]:
        started = time.process_time()
        images = generate(denoiser, shape, seeds=seeds, sampler=sampler)
        return images, torch.tensor(time.process_time() - started)

    identity = fingerprint([json.dumps(asdict(sampler)), dump_config(config)], denoiser.state_dict().values())
    return Parts(folder, identity).keep(batch)(seeds)


@torch.no_grad()
def one_step(run: Path, score: Score, draws: int, photos: Tensor) -> dict[str, dict[float, float]]:
    """What ẑ of some noisy photos is like, by noise level.

    "error of one": mean squared error per pixel of a step. "error of mean": of the mean ẑ of steps with other masks,
    what they have in common. "slope": of this mean against the photos, along the first principal directions of all
    photos; where the exact denoiser has more of it, the samples have too little variance.
    """
    _, denoiser, masks = load(run, draws)
    average, chosen = photos.mean(0), photos[:: len(photos) // NOISED]
    directions = torch.linalg.svd((photos - average).flatten(1), full_matrices=False)[2][:DIRECTIONS].T
    truth = (chosen - average).flatten(1) @ directions
    for_noise, for_masks = Generator().manual_seed(0), Generator().manual_seed(1)
    found: dict[str, dict[float, float]] = {"error of one": {}, "error of mean": {}, "slope": {}}
    for sigma in LEVELS:
        alpha_bar = 1 / (1 + sigma**2)
        z = (chosen + sigma * torch.randn(chosen.shape, generator=for_noise)) * alpha_bar**0.5
        level = Level(0, denoiser.schedule.time(sigma), alpha_bar, 0.0, 1.0)
        steps = []
        for _ in range(REPEATS if draws > 1 else 1):
            u = torch.rand(len(chosen), draws, masks.variates, generator=for_masks)
            if score == "chain":
                chain = masks.chain(u[:, 0])
                drawn, weights = chain.masks, chain.weights[:, None, None, None]
            else:
                drawn = masks.draw(u, covering=True)
                weights = 1 / drawn.sum(1, keepdim=True).clamp(min=1)
            steps.append(combine(denoiser, z, torch.zeros_like(z), drawn, weights, Identity(), level))
        each = torch.stack(steps)
        along = (each.mean(0) - average).flatten(1) @ directions
        found["error of one"][sigma] = round((each - chosen).square().mean().item(), 5)
        found["error of mean"][sigma] = round((each.mean(0) - chosen).square().mean().item(), 5)
        found["slope"][sigma] = round(((along * truth).sum() / truth.square().sum()).item(), 5)
    return found


def variances(images: Tensor) -> dict[str, float]:
    """Variance over the set: of the mean brightness of an image, and of a pixel, on average."""
    return {
        "brightness": images.double().mean((1, 2, 3)).var().item(),
        "pixel": images.double().var(0).mean().item(),
    }


def covariance(images: Tensor) -> Tensor:
    """Covariance of the pixels over the set."""
    return torch.cov(images.double().flatten(1).T)


def nearest(images: Tensor, photos: Tensor) -> float:
    """Relative distance to the nearest photo but itself, median over the images: low where they repeat photos."""
    columns, found = photos.flatten(1), []
    for rows in images.flatten(1).split(BATCH):
        distances = torch.cdist(rows, columns, compute_mode="donot_use_mm_for_euclid_dist") / columns.norm(dim=1)
        found.append(distances.masked_fill(distances == 0, torch.inf).amin(1))
    return torch.cat(found).median().item()


def judge(images: Tensor, photos: Tensor) -> dict:
    """FD-wavelet from the photos with its interval, relative error of the covariance, and variances over theirs."""
    distance = of_sets(wavelet_distance, wavelet_features(images), wavelet_features(photos))
    real, wanted = variances(photos), covariance(photos)
    return {
        "count": len(images),
        "fd_wavelet": {"value": distance.value, "low": distance.low, "high": distance.high},
        "covariance_error": ((covariance(images) - wanted).norm() / wanted.norm()).item(),
        "variance_over_real": {name: value / real[name] for name, value in variances(images).items()},
        "nearest_photo": nearest(images, photos),
    }


def gap_closed(found: dict) -> dict[str, float]:
    """How much of the way from an average to the oracle the chain has come, in FD; says nothing where it is short."""
    fd = {name: found[name]["fd_wavelet"]["value"] for name in SETS}
    chain, oracle = fd["chain, sub-masks too"], fd["oracle"]
    averages = ("average, measured masks", "average, sub-masks too")
    return {name: (fd[name] - chain) / (fd[name] - oracle) for name in averages}


def markdown(columns: list[str], rows: list[list[str]]) -> str:
    """A table of these cells."""
    head, *body = [f"| {' | '.join(cells)} |" for cells in (columns, *rows)]
    return "\n".join([head, "|---" * len(columns) + "|", *body])


def set_table(records: dict) -> str:
    """Scores of the generated sets, in Markdown."""
    columns = ["calls", "set", "images", "FD-wavelet", "covariance error", "brightness", "pixel", "nearest photo"]
    rows = []
    sets = [(key.split()[0], *item) for key, of in records.items() if "calls" in key for item in of.items()]
    photos = [("", "photos", found) for _, name, found in sets if name == "photos"]
    for calls, name, found in [row for row in sets if row[1] in SETS] + photos[:1]:
        d, ratios = found["fd_wavelet"], found["variance_over_real"].values()
        row = [calls, name, f"{found['count']:,}", f"{d['value']:.1f} [{d['low']:.1f}, {d['high']:.1f}]"]
        row += [f"{value:.2f}" for value in (found["covariance_error"], *ratios, found["nearest_photo"])]
        rows.append(row)
    return markdown(columns, rows)


def step_table(records: dict) -> str:
    """What one step does, in Markdown."""
    rows = []
    for what, digits in (("error of one", 4), ("error of mean", 4), ("slope", 3)):
        for name, found in records["one step"].items():
            rows.append([what, name, *(f"{e:.{digits}f}" for e in found[what].values())])
    return markdown(["σ", "", *map(str, LEVELS)], rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photos", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--runs", nargs=3, required=True, metavar="NAME=FOLDER")
    parser.add_argument("--calls", type=int, nargs="+", default=[600])
    parser.add_argument("--count", type=int, default=5000)
    parser.add_argument("--processes", type=int, default=1)
    options = parser.parse_args()
    start_process()
    pool = ProcessPoolExecutor(options.processes, get_context("spawn"), start_process)
    runs = {name: Path(run) for name, _, run in (given.partition("=") for given in options.runs)}
    config = load_config(runs["measured"] / "config.yaml")
    photos = torch.stack([item.image for item in islice(sources(config.data, options.photos, "train"), PHOTOS)])
    records = json.loads(options.out.read_text()) if options.out.exists() else {}
    steps = records.setdefault("one step", {})
    for name, (run, score, draws) in SETS.items():
        if name not in steps:
            steps[name] = one_step(runs[run], score, draws, photos)
    for calls in options.calls:
        found, rows = records.setdefault(f"{calls} calls", {}), []
        for name, (run, score, draws) in SETS.items():
            if found.get(name, {}).get("count", 0) >= options.count:
                continue
            folder = options.out.with_suffix(".parts") / f"{calls} {name}"
            batches = [range(i, min(i + BATCH, options.count)) for i in range(0, options.count, BATCH)]
            parts, times = zip(*pool.map(partial(draw, runs[run], score, draws, calls, folder), batches))
            images, seconds = torch.cat(parts), sum(times).item()
            rows.append(images[:SHOWN])
            found[name] = judge(images, photos) | {"cpu_seconds_an_image": round(seconds / options.count, 3)}
            print(calls, name, found[name], flush=True)
            write_text(options.out, json.dumps(records, indent=1) + "\n")
        few = min(options.count, len(photos) // 2)
        if found.get("photos", {}).get("count") != few:
            found["photos"] = judge(photos[:few], photos[few:])
            found["photos"]["nearest_photo"] = nearest(photos[: options.count], photos)
        found["gap closed"] = gap_closed(found)
        write_text(options.out, json.dumps(records, indent=1) + "\n")
        if len(rows) == len(SETS):
            larger = interpolate(torch.cat(rows).clamp(-1, 1) / 2 + 0.5, 64, mode="nearest")
            save_image(make_grid(larger, SHOWN), options.out.with_suffix(f".{calls}.png"))
    print(set_table(records), step_table(records), sep="\n\n")


if __name__ == "__main__":
    main()
