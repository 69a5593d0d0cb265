"""Reconstruction of real raw k-space by a trained model, against classical methods. Writes JSON and figures.

    python benchmarks/studies/raw_scan.py choose FILE OUT --weights FOLDER --samples 4
    python benchmarks/studies/raw_scan.py held-out FILE OUT --weights FOLDER --step S --likelihood-weight W
    python benchmarks/studies/raw_scan.py retrospective FILE... OUT --weights FOLDER --acceleration 2 4
    python benchmarks/studies/raw_scan.py evaluated RUN OUT
    python benchmarks/studies/raw_scan.py phase FILE... OUT

FOLDER holds a training on brain slices (scan/brain_2d_R8), or bundled:scan. OUT.json and OUT_NAME.png are
written; results of other names in OUT.json stay.

held-out: a scan that was undersampled by the scanner, so there is no full reference. Every tenth measured point off the
fully sampled centre (`msm.raw.hold_out`, as `msm evaluate` has it) is kept from all methods and predicted from their
images: |prediction - measured|² over |measured|², summed over these points and the coils. The noise of these points
alone gives the floor.

choose: the same with another tenth of the points, those of held-out hidden too, for either data step and several
likelihood weights W.

retrospective: fully sampled scans of one coil. Columns are left out (a centre of 8 % is kept) and the full scan's own
image is the reference: convention plain, of magnitudes on the reference's scale.

evaluated: what `msm evaluate` found of RUN, a run of `msm sample` on one scan: how its mean predicts held-out points,
and how sure of it the samples were.

phase: what share of the power of an image (L1-wavelet of the scan) the phase of its low frequencies leaves in the
imaginary part, for several widths of the low-pass filter: what diffusion.phase_width and phase_residual should be.

CG-SENSE, L1-wavelet and TV get the settings that score best *on the reported measure itself*; MSM's likelihood
weight is chosen on other points.
"""

import argparse
import itertools
import json
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor, nn

from msm import CartesianMasks, Draw, MultiCoil, PartialDenoiser, Proximal, Sampler, Sense
from msm.config.build import make_denoiser
from msm.config.load import load_config
from msm.evaluate.classical import cg_sense, l1_wavelet, total_variation
from msm.evaluate.metrics import image_metrics
from msm.evaluate.records import read_evaluation, read_records
from msm.measurement import Measurement
from msm.mri_prior import ImagePrior
from msm.output.figures import Column, error_map, spread, write_comparison
from msm.raw.hold_out import hold_out
from msm.raw.prepare import Prepared, prepare
from msm.raw.readers import import_scans
from msm.raw.reconstruct import sample_scan
from msm.raw.scan import padded_size, unfit
from msm.system.files import write_text
from msm.system.processes import arithmetic

CG_GRID = list(itertools.product((1e-4, 1e-3, 3e-3, 1e-2, 3e-2, 0.1), (4, 7, 10, 15, 30, 60)))
WAVELET_GRID = list(itertools.product((5e-4, 1e-3, 2e-3, 4e-3, 8e-3, 1.6e-2), ("haar", "db4", "sym8")))
CALLS = 60  # a sample
WEIGHTS, STEPS = (1, 2, 4, 8), ("draw", "proximal")
VARIATION_GRID = (2.5e-4, 5e-4, 1e-3, 2e-3, 4e-3, 8e-3, 1.6e-2)


def classical(y: Tensor, mask: Tensor, maps: Tensor):
    """Name, settings and image (1, 1, H, W) of every classical method and setting."""
    transform = MultiCoil(maps[None])
    given = (y[None], mask[None], transform)
    yield "zero-filled", [], transform.adjoint(y[None])
    for weight, iterations in CG_GRID:
        yield "CG-SENSE", [weight, iterations], cg_sense(*given, regularisation=weight, iterations=iterations)
    for weight, name in WAVELET_GRID:
        image = l1_wavelet(*given, regularisation=weight, iterations=100, wavelet=name)
        yield "L1-wavelet", [weight, name], image
    for weight in VARIATION_GRID:
        yield "TV", [weight], total_variation(*given, regularisation=weight, iterations=200)


def best_of(found, score):
    """The best setting of each method: name -> (score, setting, image)."""
    best: dict[str, tuple[float, list, Tensor]] = {}
    for name, setting, image in found:
        value = score(image)
        if name not in best or value < best[name][0]:
            best[name] = (value, setting, image)
    return best


def method(options, step: str, weight: float) -> tuple[Sampler, Proximal]:
    """Sampler and data step: preset `best`, or estimates by the maximiser with as many calls."""
    if step == "draw":
        return Sampler.preset("best", mri=True, inverse_problem=True), Draw(20, weight)
    iterations = max(6, load_config(options.weights).diffusion.sense_iterations)
    return Sampler(20, 3, 0.85, grid="log"), Proximal(iterations, weight)


def samples_of(options, prepared: Prepared, step: str, weight: float) -> tuple[Tensor, float]:
    """Posterior samples (K, 1, H, W) by the trained model with a data step, and the seconds they took."""
    denoiser = PartialDenoiser.load(options.weights).eval()
    sampler, data_step = method(options, step, weight)
    if denoiser.masks is not None:
        sampler = sampler.fitted(denoiser.masks)
    start = time.perf_counter()
    with arithmetic("bf16"):
        samples = sample_scan(
            denoiser,
            prepared,
            seeds=range(options.samples),
            sampler=sampler,
            data_step=data_step,
            batch_size=options.batch_size,
        )
    return samples, round(time.perf_counter() - start, 1)


def start_of_network(options, prepared: Prepared) -> Tensor:
    """The linear estimate (1, 1, H, W) that the network of `sense` corrects."""
    scan, maps, noise_std = prepared.scan, prepared.maps, prepared.noise_std
    diffusion = load_config(options.weights).diffusion.model_copy(update={"parametrisation": "sense"})
    sense, sigma = make_denoiser(nn.Identity(), diffusion).parametrisation, torch.full((1, 1, 1, 1), noise_std)
    assert isinstance(sense, Sense)
    phase, m_0 = sense.linear_estimate(scan.k_space[None], scan.mask[None], sigma, MultiCoil(maps[None]))
    return phase * m_0


def prepared_scan(file: Path, multiple: int) -> Prepared:
    """The one slice of a file on a network's grid, of sides that are multiples of what its down-sampling needs."""
    (scan,) = import_scans([file])
    return prepare(scan, padded_size(scan, multiple))


def the_scan(options) -> Prepared:
    """The one file, on the grid of the trained network."""
    (file,) = options.files
    return prepared_scan(file, PartialDenoiser.load(options.weights).divisor)


def given(prepared: Prepared, seen: Measurement) -> Prepared:
    """A scan as if only that had been measured."""
    return replace(prepared, scan=replace(prepared.scan, mask=seen.mask[0], k_space=seen.values[0]))


def prediction_error(measurement: Measurement, held: Tensor) -> Callable[[Tensor], float]:
    """The normalised error of an image (1, 1, H, W) on measured points held (1, 1, H, W)."""
    measured = measurement.values[..., held[0, 0]]

    def error(image: Tensor) -> float:
        missed = (measurement.transform.forward(image)[..., held[0, 0]] - measured).abs().square().sum()
        return float(missed / measured.abs().square().sum())

    return error


def choose(options) -> None:
    """How step and likelihood weight predict another tenth of the points; those of `held-out` are hidden too."""
    prepared = the_scan(options)
    shares = hold_out(prepared)
    seen, error = given(prepared, shares.less), prediction_error(shares.measurement, shares.tuning)
    found: dict[str, dict[str, float]] = {}
    for step, weight in itertools.product(STEPS, WEIGHTS):
        samples, _ = samples_of(options, seen, step, weight)
        one, mean = sum(map(error, samples[:, None])) / len(samples), error(samples.mean(0, keepdim=True))
        found[f"{step}, {weight}"] = {"one sample": round(one, 4), f"mean of {len(samples)}": round(mean, 4)}
        save(options, f"{options.files[0].stem}, step and likelihood weight on other points", found)


def held_out(options) -> None:
    """Predict every tenth measured point off the centre of an undersampled scan."""
    prepared = the_scan(options)
    scan, maps = prepared.scan, prepared.maps
    shares = hold_out(prepared)
    held = shares.judged[0, 0]
    seen, error = given(prepared, shares.seen), prediction_error(shares.measurement, shares.judged)
    floor = float(2 * prepared.noise_std**2 / scan.k_space[:, held].abs().square().mean())
    best = best_of(classical(seen.scan.k_space, seen.scan.mask, maps), error)
    samples, seconds = samples_of(options, seen, options.step, options.likelihood_weight)
    mean = samples.mean(0, keepdim=True)
    record = {name: {"error": round(v, 4), "setting": s} for name, (v, s, _) in best.items()}
    record |= {
        "start of the network": {"error": round(error(start_of_network(options, seen)), 4)},
        "MSM, one sample": {"error": round(sum(map(error, samples[:, None])) / len(samples), 4)},
        f"MSM, mean of {len(samples)}": {"error": round(error(mean), 4), "seconds": seconds, **sampler(options)},
        "noise alone": {"error": round(floor, 4)},
        "scan": {
            "held_out_points": int(held.sum()),
            "kept": round(float(scan.mask.float().mean()), 4),
            "noise_std": round(prepared.noise_std, 5),
            "maps_residual": round(prepared.residual, 5),
        },
    }
    save(options, options.files[0].stem, record)
    columns = [Column(name, unfit(image, scan), [f"error {value:.3f}"]) for name, (value, _, image) in best.items()]
    columns.append(Column(f"MSM, mean of {len(samples)}", unfit(mean, scan), [f"error {error(mean):.3f}"]))
    columns.append(Column("MSM, one sample", unfit(samples[:1], scan), [""]))
    columns.append(Column("std. deviation", spread(unfit(samples, scan)[None]), [""], is_map=True))
    write_comparison(picture(options, options.files[0].stem), "8-coil scan, held-out points predicted", [""], columns)


def retrospective(options) -> None:
    """Leave columns out of fully sampled scans."""
    for file, acceleration in itertools.product(options.files, options.acceleration):
        undersampled(options, file, acceleration)


def undersampled(options, file: Path, acceleration: float) -> None:
    """Leave columns out of one fully sampled scan."""
    full = prepared_scan(file, PartialDenoiser.load(options.weights).divisor)
    scan, maps = full.scan, full.maps
    reference = MultiCoil(maps[None]).adjoint(scan.k_space[None])
    size = scan.mask.shape[-2:]
    family = CartesianMasks((size[0], size[1]), acceleration, round(0.08 * size[1]))
    mask = family.sample(1, torch.Generator().manual_seed(0))[0] & scan.mask
    seen = replace(scan, mask=mask, k_space=torch.where(mask, scan.k_space, 0))

    def scores(image: Tensor) -> dict[str, float]:
        values = image_metrics(unfit(image, scan), unfit(reference, scan), convention="plain")
        return {name: round(value[0], 4) for name, value in values.items()}

    best = best_of(classical(seen.k_space, mask, maps), lambda image: -scores(image)["psnr"])
    samples, seconds = samples_of(options, replace(full, scan=seen), options.step, options.likelihood_weight)
    mean = samples.mean(0, keepdim=True)
    record = {name: {**scores(image), "setting": s} for name, (_, s, image) in best.items()}
    record |= {
        "MSM, one sample": scores(samples[:1]),
        f"MSM, mean of {len(samples)}": {**scores(mean), "seconds": seconds, **sampler(options)},
        "scan": {"kept": round(float(mask.float().mean()), 4), "noise_std": round(full.noise_std, 5)},
    }
    name = f"{file.stem}, R = {acceleration:g}"
    save(options, name, record)
    shown = {n: image for n, (_, _, image) in best.items()} | {f"MSM, mean of {len(samples)}": mean}
    columns = [Column("full scan", unfit(reference, scan), [""])]
    for n, image in shown.items():
        columns.append(Column(n, unfit(image, scan), ["{psnr:.2f} dB / {ssim:.3f}".format(**scores(image))]))
    errors = error_map(unfit(mean, scan), unfit(reference, scan))
    columns += [
        Column("error of the mean", errors, [""], is_map=True),
        Column("std. deviation", spread(unfit(samples, scan)[None]), [""], is_map=True),
    ]
    write_comparison(picture(options, f"{file.stem}_R{acceleration:g}"), name, [""], columns)


def evaluated(options) -> None:
    """Put what `msm evaluate` found of the mean of a run's samples into the record."""
    (run,) = options.files
    (verdict,) = read_evaluation(run).verdicts
    (record,) = (r for r in read_records(run) if r.kind == "mean")
    p = record.prediction
    assert p is not None and p.dispersion is not None and p.covered is not None
    told = {"error": p.error, "against_tv": p.against_tv, "dispersion": p.dispersion, "covered": p.covered}
    found = {name: [round(value, 4) for value in (e.value, *e.bounds)] for name, e in told.items()}
    facts = {"words": verdict.words, "entries": verdict.entries, "nominal": round(p.nominal, 4)}
    save(options, f"{verdict.image}, msm evaluate", {**facts, **found})


def phase(options) -> None:
    """Share of the power in the imaginary part, against the width of the phase's low-pass filter."""
    for file in options.files:
        prepared = prepared_scan(file, 8)
        scan, transform = prepared.scan, MultiCoil(prepared.maps[None])
        image = l1_wavelet(
            scan.k_space[None], scan.mask[None], transform, regularisation=2e-3, iterations=100, wavelet="sym8"
        )
        one_coil, shares = MultiCoil(torch.ones(1, 1, *image.shape[-2:], dtype=torch.complex64)), {}
        for width in (1, 2, 4, 8):
            prior = ImagePrior(phase_width=width)
            m = image * prior.phase(one_coil.forward(image), one_coil, 0.0).conj()
            shares[width] = round(float(m.imag.square().sum() / m.real.square().sum()), 4)
        save(options, f"{file.stem}, imaginary share by phase width", shares)


def sampler(options) -> dict[str, object]:
    """The sampler's settings, for the record."""
    chosen = {name: getattr(options, name) for name in ("step", "likelihood_weight")}
    return {"calls": CALLS, **chosen}


def picture(options, name: str) -> Path:
    return options.out.with_name(f"{options.out.stem}_{name}.png")


def save(options, name: str, record: dict) -> None:
    records = json.loads(options.out.read_text()) if options.out.exists() else {}
    records[name] = record
    write_text(options.out, json.dumps(records, indent=1) + "\n")
    print(name, json.dumps(record, indent=1), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["held-out", "choose", "retrospective", "evaluated", "phase"])
    parser.add_argument("files", type=Path, nargs="+")
    parser.add_argument("out", type=Path)
    parser.add_argument("--weights", type=Path, help="all but evaluated and phase: the trained model")
    parser.add_argument("--acceleration", type=float, nargs="+", default=[2, 4])
    parser.add_argument("--samples", type=int, default=8)
    parser.add_argument("--step", choices=STEPS, default="draw")
    parser.add_argument("--likelihood-weight", type=float, default=1)
    parser.add_argument("--batch-size", type=int, default=2)
    options = parser.parse_args()
    if options.what not in ("evaluated", "phase") and options.weights is None:
        parser.error(f"{options.what} needs --weights")
    commands = {"held-out": held_out, "choose": choose, "retrospective": retrospective}
    (commands | {"evaluated": evaluated, "phase": phase})[options.what](options)


if __name__ == "__main__":
    main()
