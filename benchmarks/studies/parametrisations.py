"""Compare trained runs: denoising error at several noise levels, and reconstruction PSNR, on test acquisitions.

    msm acquire demo/brain -o test.h5 --split test --truth truth.h5 setting.dataset_dir=SLICES \
        data.noise_std=0.01
    python benchmarks/studies/parametrisations.py test.h5 truth.h5 RUN OTHER_RUN [--items 8]

A run is a folder of `msm train`, whose weights remember their parametrisation.
"""

import argparse
from pathlib import Path

import h5py
import torch

from msm import GradientStep, Measurement, MeasurementStore, PartialDenoiser, Problem, Proximal, Sampler, reconstruct
from msm.evaluate.classical import cg_sense, l1_wavelet
from msm.evaluate.metrics import psnr
from msm.measurement import standard_normal
from msm.operators import Undersampling


def mean_psnr(x_hat, x) -> float:
    values = psnr(x_hat, x, convention="plain")
    return sum(values) / len(values)


@torch.no_grad()
def denoising_errors(denoiser: PartialDenoiser, m: Measurement, x) -> str:
    transform, parts = m.transform, []
    z = transform.forward(x)
    noise = standard_normal(z, torch.Generator().manual_seed(0))
    for time in (0.0, 100.0, 200.0, 400.0, 700.0, 900.0):
        t = torch.tensor(time)
        alpha_bar = denoiser.schedule.alpha_bar(t)
        estimate = denoiser(alpha_bar.sqrt() * z + (1 - alpha_bar).sqrt() * noise, m.mask, t, transform)
        error = torch.where(m.mask, estimate - z, 0).abs().square().sum()
        relative = error / torch.where(m.mask, z, 0).abs().square().sum()
        parts.append(f"σ {denoiser.schedule.sigma(t):.2f}: {relative:.4f}")
    return ", ".join(parts)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("store")
    parser.add_argument("truth")
    parser.add_argument("runs", type=Path, nargs="+")
    parser.add_argument("--items", type=int, default=8)
    options = parser.parse_args()
    m = MeasurementStore(options.store).batch(range(options.items))
    with h5py.File(options.truth) as truth:
        x, transform = torch.from_numpy(truth["images"][: options.items]), m.transform
    print(f"zero-filled {mean_psnr(transform.adjoint(m.values), x):.2f} dB")
    for name, baseline, strength, iterations in (("CG-SENSE", cg_sense, 0.01, 30), ("L1", l1_wavelet, 0.001, 100)):
        x_hat = baseline(m.values, m.mask, transform, regularisation=strength, iterations=iterations)
        print(f"{name} {mean_psnr(x_hat, x):.2f} dB")
    for run in options.runs:
        denoiser = PartialDenoiser.load(run / "weights").eval()
        print(f"{run}: relative error of the measured entries at {denoising_errors(denoiser, m, x)}")
        problem, seeds = Problem(m.values, Undersampling(m.mask), transform, 0.01), range(options.items)
        for step, sampler in ((GradientStep(2.0), Sampler(20, 3, 0.85)), (Proximal(), Sampler(15, 4, 1.0))):
            z = reconstruct(denoiser, problem, seeds=seeds, sampler=sampler, data_step=step)
            score = mean_psnr(transform.adjoint(z), x)
            calls = f"{sampler.steps} × {sampler.draws} calls, η = {sampler.eta}"
            print(f"{run}: {step}, {calls}: {score:.2f} dB, one sample")


if __name__ == "__main__":
    main()
