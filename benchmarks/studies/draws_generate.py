"""New images by posterior draws without data against the second-order sampler of `best`, at equal calls. Writes JSON.

    python benchmarks/studies/draws_generate.py PHOTOS OUT.json --count 96

A draw without data, x_0 ~ N(x̂, C_t) and fresh noise, is `Draw` on a problem that measures nothing. The images of the
bundled model of faces are compared with the held-out photos by the Fréchet distance of wavelet features, with a
bootstrap interval. Pictures are written beside OUT.json. MR images are left out: without data their phase, and with it
the parts that C_t is diagonal in, is not known.
"""

import argparse
import json
from pathlib import Path

import torch

import msm
from msm import Draw, PartialDenoiser, Problem, Sampler, generate, reconstruct
from msm.data.images import photos
from msm.evaluate.bootstrap import of_sets
from msm.evaluate.perceptual import wavelet_distance, wavelet_features
from msm.operators import Undersampling
from msm.output.figures import write_picture
from msm.system.files import write_text
from msm.system.processes import arithmetic

ASSETS = Path(msm.__file__).parent / "assets"
BATCH = 16
METHODS = {"order 2, 20 x 3": None, "draw, 20 x 3": (20, 3), "draw, 30 x 2": (30, 2)}
SHAPE = (3, 64, 64)


def images_of(denoiser, how, seeds):
    """Images (B, 3, 64, 64), one from each seed."""
    if how is None:
        return generate(denoiser, SHAPE, seeds=seeds, sampler=Sampler.preset("best"))
    y, nothing = torch.zeros(len(seeds), *SHAPE), Undersampling(torch.zeros(1, 1, 64, 64, dtype=torch.bool))
    sampler, problem = Sampler(steps=how[0], draws=how[1], grid="log"), Problem(y, nothing, noise_std=1.0)
    return reconstruct(denoiser, problem, seeds=seeds, sampler=sampler, data_step=Draw(1))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--count", type=int, default=96)
    parser.add_argument("--weights", type=Path, default=ASSETS / "faces")
    args = parser.parse_args()
    torch.set_num_threads(1)
    features = wavelet_features(torch.stack([item.image for item in photos(args.folder, "test", 35, 64, 3)]))
    denoiser = PartialDenoiser.load(args.weights).eval()
    denoiser.network.compile(dynamic=False)
    results = {}
    for name, how in METHODS.items():
        with arithmetic("bf16"):
            rows = [list(range(n, min(n + BATCH, args.count))) for n in range(0, args.count, BATCH)]
            images = torch.cat([images_of(denoiser, how, seeds) for seeds in rows])
        found = of_sets(wavelet_distance, wavelet_features(images), features)
        results[name] = [round(v, 2) for v in (found.value, *found.bounds)]
        write_picture(args.out.with_name(f"{args.out.stem}_{len(results)}.png"), images[:16])
        print(name, results[name], flush=True)
    write_text(args.out, json.dumps({"count": args.count, "distance": results}, indent=1) + "\n")


if __name__ == "__main__":
    main()
