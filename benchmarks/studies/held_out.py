"""How often the verdict on held-out measurements is right: simulated scans like those of the training, and unlike them.

    python benchmarks/studies/held_out.py SLICES PHOTOS KNEE.mat OUT --group calibration like unlike

SLICES and PHOTOS: folders of test images; KNEE.mat: a fully sampled scan of a knee. Every scan has 128 px, 8 simulated
coils with known maps, R = 4 with 10 of 128 columns in the middle, noise 0.01, and is reconstructed by
`bundled:brain_refined` with preset best, but 20 levels: 8 samples. Three of some 30 lines outside of the middle are
held out.

    calibration   40 test slices, from which the limits come (`LIMITS` in msm.evaluate.held_out)
    like          20 other test slices
    unlike        20: 5 photos of faces, 5 slices with inverted brightness, the knee and 4 parts of it, 5 other pictures

OUT holds a line for each scan, with what the verdict follows from and, because the truth is known here, the error of
the image (magnitude, relative to that of total variation). Scans that OUT holds already are left as they are.
"""

import argparse
import json
import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from scipy.io import loadmat
from skimage import data as pictures
from torch import Tensor

from msm import CartesianMasks, PartialDenoiser, Sampler, preset_data_step
from msm.data.acquire import acquire, simulate_scan
from msm.data.decode import Rules
from msm.data.images import load_image
from msm.evaluate.classical import MRI
from msm.evaluate.held_out import LIMITS, WORDS, Judge, words_of
from msm.evaluate.without_truth import classical
from msm.sample.draw import samples_of
from msm.sample.shares import of_k_space
from msm.system.files import write_text
from msm.system.processes import arithmetic
from msm.transforms import ifft2c

SIZE, COILS, MIDDLE, NOISE, SAMPLES, LEVELS = 128, 8, 10, 0.01, 8, 20
CALIBRATION, LIKE = 40, 20
QUANTILE = 0.995


def magnitude(file: Path) -> Tensor:
    """A picture as a magnitude image (SIZE, SIZE) of maximum 1."""
    image = (load_image(file, SIZE, Rules(1))[0] + 1) / 2
    return image / image.max()


def smaller(image: Tensor) -> Tensor:
    """An image (H, W) at SIZE px, its maximum 1."""
    small = torch.nn.functional.interpolate(image[None, None].float(), size=(SIZE, SIZE), mode="area")[0, 0]
    return small / small.max()


def unlike(slices: list[Path], photos: Path, knee: Path) -> Iterator[tuple[str, Tensor]]:
    """Twenty magnitude images unlike the training, by name."""
    for file in sorted(photos.glob("*.jpg"))[::80][:5]:
        yield f"face {file.stem}", magnitude(file)
    for file in slices[:5]:
        image = magnitude(file)
        yield f"inverted {file.stem}", (1 - image) * (image > 0.05)
    k_space = torch.from_numpy(loadmat(knee)["kdata"].astype(np.complex64))
    whole = ifft2c(k_space).abs()[:, 160:480]
    yield "knee", smaller(whole)
    for n, (top, left) in enumerate([(0, 0), (0, 160), (166, 0), (166, 160)]):
        yield f"knee, part {n}", smaller(whole[top : top + 166, left : left + 160])
    for name in ("camera", "coins", "moon", "brick", "cell"):
        picture = torch.from_numpy(getattr(pictures, name)().astype(np.float32))
        side = min(picture.shape)
        yield name, smaller(picture[:side, :side])


def scans(options) -> Iterator[tuple[str, str, Tensor]]:
    """Group, name and magnitude image of every scan asked for."""
    files = sorted(options.slices.glob("*.jpg"))
    files = [files[n] for n in np.random.default_rng(1).permutation(len(files))]
    known = {"calibration": files[:CALIBRATION], "like": files[CALIBRATION : CALIBRATION + LIKE]}
    for group in options.group:
        if group == "unlike":
            for name, image in unlike(files[CALIBRATION + LIKE :], options.photos, options.knee):
                yield group, name, image
        for file in known.get(group, []):
            yield group, file.stem, magnitude(file)


def judged(denoiser: PartialDenoiser, name: str, image: Tensor) -> dict[str, object]:
    """What is found of one simulated scan."""
    source = simulate_scan(name, image, COILS, seed=0)
    measured = acquire(source, CartesianMasks(SIZE, 4, MIDDLE), NOISE, seed=0)
    first = (SIZE - MIDDLE) // 2
    middle = slice(None), slice(first, first + MIDDLE)
    shares = of_k_space(replace(measured, noise_std=NOISE), middle, name)
    preset = Sampler.preset("best", mri=True, inverse_problem=True)
    with arithmetic("bf16"):
        samples = samples_of(
            denoiser,
            shares.seen,
            seeds=range(SAMPLES),
            sampler=replace(preset, steps=LEVELS, draws=1),
            data_step=preset_data_step("best", mri=True),
        )
    tv, _ = classical(shares, MRI["TV"])
    judge, truth = Judge(shares, tv), source.image.abs()
    p, residual = judge.mean_of(samples), judge.residual(samples)
    assert p.dispersion is not None and p.covered is not None and residual is not None
    wrong, of_tv = ((image.abs() - truth).square().sum() for image in (samples.mean(0), tv[0]))
    return {
        "against_tv": round(p.against_tv.value, 4),
        "dispersion": round(p.dispersion.value, 4),
        "residual": round(residual, 4),
        "covered": round(p.covered.value, 4),
        "image_against_tv": round(float(wrong / of_tv), 4),
        "held_out": judge.entries,
    }


def limits(calibration: dict[str, dict]) -> dict[str, float]:
    """The 99.5 % quantile of each of the three numbers over the calibration scans, rounded up."""
    found = np.quantile([[scan[name] for name in LIMITS] for scan in calibration.values()], QUANTILE, axis=0)
    return {name: math.ceil(100 * value) / 100 for name, value in zip(LIMITS, found)}


def rows(found: dict[str, dict[str, dict]]) -> list[str]:
    """Lines of the page's table: how often each verdict was given, and how often the image was better than TV's."""
    kinds = {"like the training": found["like"]}
    for label, begins in (("faces", "face"), ("inverted slices", "inverted"), ("knee", "knee"), ("other pictures", "")):
        rest = {n: s for n, s in found["unlike"].items() if not any(n in other for other in kinds.values())}
        kinds[label] = {name: scan for name, scan in rest.items() if name.startswith(begins)}
    lines = []
    for label, group in kinds.items():
        found_words = [words_of(scan) for scan in group.values()]
        counts = [found_words.count(words) for words in WORDS]
        better = sum(scan["image_against_tv"] < 1 for scan in group.values())
        lines.append(f"| {label} | {len(group)} | {' | '.join(map(str, counts))} | {better} |")
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("slices", "photos", "knee", "out"):
        parser.add_argument(name, type=Path)
    parser.add_argument("--group", nargs="+", choices=["calibration", "like", "unlike"], required=True)
    options = parser.parse_args()
    denoiser = PartialDenoiser.load("bundled:brain_refined").eval()
    for group, name, image in scans(options):
        found = json.loads(options.out.read_text()) if options.out.exists() else {}
        if name in found.get(group, {}):
            continue
        line = judged(denoiser, name, image)
        found = json.loads(options.out.read_text()) if options.out.exists() else {}
        found.setdefault(group, {})[name] = line
        write_text(options.out, json.dumps(found, indent=1) + "\n")
        print(group, name, json.dumps(line), flush=True)
    found = json.loads(options.out.read_text())
    if "calibration" in found:
        print("limits:", limits(found["calibration"]), "in the package:", LIMITS)
    if {"like", "unlike"} <= found.keys():
        print("\n".join(rows(found)))


if __name__ == "__main__":
    main()
