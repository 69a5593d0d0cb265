"""Average against chain on photos: Fréchet distance and variance of generated sets. Writes JSON and a picture.

    python benchmarks/chain_images.py PHOTOS OUT.json --runs measured=RUN submasks=RUN oracle=RUN [--calls 600]

Each RUN is a folder of `msm train`, all of one budget: "measured" saw the measured masks only, "submasks" sub-masks of
them too, "oracle" whole photos. Sets: averaging with either network, the chain with "submasks", and the oracle, which
takes one step a call where the others take one in three. PHOTOS holds the photos that the acquisitions were made of;
nothing but the scores looks at them: distance and variances of generated sets, and the error of one step's ẑ from
noisy photos. A run adds to OUT.json, passes over what is there, and draws OUT.CALLS.png, a row for each set.
"""

import argparse
import json
import time
from pathlib import Path

import torch
from torch import Generator, Tensor
from torchvision.utils import make_grid, save_image

from msm import BoxMasks, Identity, generate
from msm.config import load_config
from msm.evaluation import make_denoiser, make_masks
from msm.inputs import sources
from msm.intervals import of_sets
from msm.memory import keep_memory
from msm.network import ADMNetwork
from msm.perceptual import wavelet_distance, wavelet_features
from msm.presets import preset
from msm.report import write_text

SETS = {  # network, score, network calls a step
    "average, measured masks": ("measured", "average", 3),
    "average, sub-masks too": ("submasks", "average", 3),
    "chain, sub-masks too": ("submasks", "chain", 3),
    "oracle": ("oracle", "average", 1),
}
BATCH = 50
SHOWN = 12  # images of a set in the picture
LEVELS = (0.05, 0.2, 0.5, 1.0, 3.0, 10.0)  # of denoising_errors


def draw(run: Path, score: str, draws: int, calls: int, count: int) -> Tensor:
    """Images (count, C, H, W) of the preset `best`, number i from seed i."""
    config = load_config(run / "config.yaml")
    denoiser = make_denoiser(ADMNetwork.load(run / "weights"), config.diffusion).eval()
    size, whole = config.data.image_size, draws == 1
    masks = BoxMasks(size, 0.0) if whole else make_masks(config.data.mask, size)
    options = preset("best") | {"steps": calls // draws, "draws": draws, "score": score}
    parts = [range(first, min(first + BATCH, count)) for first in range(0, count, BATCH)]
    return torch.cat(
        [generate(denoiser, Identity(), masks, (config.data.channels, size, size), seeds=s, **options) for s in parts]
    )


@torch.no_grad()
def denoising_errors(run: Path, score: str, draws: int, photos: Tensor) -> dict[float, float]:
    """Mean squared error per pixel of one step's ẑ, from noisy photos, by noise level."""
    config = load_config(run / "config.yaml")
    denoiser = make_denoiser(ADMNetwork.load(run / "weights"), config.diffusion).eval()
    size, generator = config.data.image_size, Generator().manual_seed(0)
    masks = BoxMasks(size, 0.0) if draws == 1 else make_masks(config.data.mask, size)
    errors = {}
    for sigma in LEVELS:
        u = torch.rand(len(photos), draws, masks.variates, generator=generator)
        z = (photos + sigma * torch.randn(photos.shape, generator=generator)) / (1 + sigma**2) ** 0.5
        if score == "chain":
            chain = masks.chain(u[:, 0])
            seen, weights = chain.masks, chain.weights.expand(chain.masks.shape[:2])
        else:
            seen = masks.draw(u, covering=True)
            weights = torch.ones(seen.shape[:2])
        parts = [denoiser(z, mask, denoiser.schedule.time(sigma), Identity()) for mask in seen.unbind(1)]
        total = sum(w[:, None, None, None] * part for w, part in zip(weights.unbind(1), parts))
        if score == "average":
            total = total / seen.sum(1).clamp(min=1)
        errors[sigma] = round((total - photos).square().mean().item(), 5)
    return errors


def variances(images: Tensor) -> dict[str, float]:
    """Variance over the set: of the mean brightness of an image, and of a pixel, on average."""
    return {
        "brightness": images.double().mean((1, 2, 3)).var().item(),
        "pixel": images.double().var(0).mean().item(),
    }


def judge(images: Tensor, photos: Tensor) -> dict:
    """FD-wavelet from all photos with its interval, and variances over theirs."""
    distance = of_sets(wavelet_distance, wavelet_features(images), wavelet_features(photos))
    real = variances(photos)
    return {
        "count": len(images),
        "fd_wavelet": {"value": distance.value, "low": distance.low, "high": distance.high},
        "variance_over_real": {name: value / real[name] for name, value in variances(images).items()},
    }


def gap_closed(found: dict) -> dict[str, float]:
    """How much of the way from an average to the oracle the chain has come, in FD."""
    fd = {name: found[name]["fd_wavelet"]["value"] for name in SETS}
    chain, oracle = fd["chain, sub-masks too"], fd["oracle"]
    averages = ("average, measured masks", "average, sub-masks too")
    return {name: (fd[name] - chain) / (fd[name] - oracle) for name in averages}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photos", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--runs", nargs=3, required=True, metavar="NAME=FOLDER")
    parser.add_argument("--calls", type=int, nargs="+", default=[600])
    parser.add_argument("--count", type=int, default=5000)
    options = parser.parse_args()
    keep_memory()
    runs = {name: Path(run) for name, _, run in (given.partition("=") for given in options.runs)}
    config = load_config(runs["measured"] / "config.yaml")
    photos = torch.stack([item.image for item in sources(config.data, options.photos, "train")])
    records = json.loads(options.out.read_text()) if options.out.exists() else {}
    records["denoising error by noise level"] = {
        name: denoising_errors(runs[run], score, draws, photos) for name, (run, score, draws) in SETS.items()
    }
    for calls in options.calls:
        found, rows = records.setdefault(f"{calls} calls", {}), []
        for name, (run, score, draws) in SETS.items():
            if found.get(name, {}).get("count", 0) >= options.count:
                continue
            started = time.process_time()
            images = draw(runs[run], score, draws, calls, options.count)
            seconds = (time.process_time() - started) / options.count
            rows.append(images[:SHOWN])
            found[name] = judge(images, photos) | {"cpu_seconds_an_image": round(seconds, 3)}
            print(calls, name, found[name], flush=True)
            write_text(options.out, json.dumps(records, indent=1) + "\n")
        half = len(photos) // 2
        found["photos"] = judge(photos[:half], photos[half:])
        found["gap closed"] = gap_closed(found)
        write_text(options.out, json.dumps(records, indent=1) + "\n")
        if len(rows) == len(SETS):
            grid = make_grid(torch.cat(rows).clamp(-1, 1) / 2 + 0.5, SHOWN)
            save_image(grid, options.out.with_suffix(f".{calls}.png"))


if __name__ == "__main__":
    main()
