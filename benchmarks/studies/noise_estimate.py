"""How well ρ is found from the measurements alone.

    python benchmarks/studies/noise_estimate.py SLICES PHOTOS [--scan KSPACE.npy MAPS.npz] [--output OUT.json]

Simulated acquisitions as demo/brain (64 px, 8 coils, R = 4) and demo/faces (64 px, 40 % of
the boxes missing) make them, at several ρ. For each: the median over the acquisitions (what train.noise_std: pooled
takes), the 16 % and 84 % points of the single estimates, and their spread over the standard error stated.

The real scan has no known ρ and no whole columns: its edge is looked at, and how it changes with the share taken.
"""

import argparse
import json
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from msm import BoxMasks, CartesianMasks, Masks, Measurement, estimate_noise
from msm.data.acquire import Source, acquire, smooth_phase
from msm.data.images import photos, slices
from msm.noise import edge_samples, noise_covariance, pool_noise, whitening
from msm.system.files import write_text

LEVELS = (0.0, 0.01, 0.05, 0.1, 0.2)
SIZE, MAP_ERROR = 64, 0.02


def whiten(values: Tensor, maps: Tensor, matrix: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Mix coils so that their noise is white: W F C x = F (W C / g) (g x), with g² = Σ_c |(W C)_c|² at each pixel.

    Maps of unit sum of squares are kept, so the image changes: it is g x, in units of the noise (ρ = 1). Dividing the
    values by the largest magnitude of g x brings back the scale of at most 1, and makes ρ one over that; x itself is
    the image over g.

    Args:
        values: k-space (B, coils, H, W).
        maps: C (B or 1, coils, H, W).
        matrix: W (coils, coils), from `whitening`.

    Returns:
        values W s, maps W C / g, and g (B or 1, 1, H, W), which is 1 where the maps are zero.

    Raises:
        ValueError: if the numbers of coils differ.
    """
    coils = values.shape[1]
    if maps.shape[1] != coils or matrix.shape != (coils, coils):
        raise ValueError(f"values of {coils} coils, maps of {maps.shape[1]} and W {tuple(matrix.shape)} do not fit")
    values, maps = (torch.einsum("dc,bchw->bdhw", matrix.to(field), field) for field in (values, maps))
    gain = maps.abs().square().sum(1, keepdim=True).sqrt()
    gain = torch.where(gain > 0, gain, 1)
    return values, maps / gain, gain


def table(items: Iterable[Source], masks: Masks, change=lambda m, source: m) -> dict[str, dict[str, float]]:
    """What is found at each level; `change` is made to the measurements first."""
    items = list(items)
    rows = {}
    for level in LEVELS:
        found = [estimate_noise(change(acquire(item, masks, level, seed=0), item)) for item in items]
        rho, error = map(torch.cat, zip(*found))
        pooled, error_of_pooled = pool_noise(rho, error)
        low, high = rho.quantile(torch.tensor([0.16, 0.84])).tolist()
        row = {"items": len(rho), "pooled": pooled, "pooled_error": error_of_pooled, "low": low, "high": high}
        if level:
            row |= {"bias": pooled / level - 1, "mean_bias": rho.mean().item() / level - 1}
            row |= {"stated_error": (error / rho).median().item(), "spread": (high - low) / 2 / level}
        rows[f"{level:g}"] = row
    return rows


def with_wrong_maps(measurement: Measurement, source: Source) -> Measurement:
    """The same k-space with coil maps that are off by a smooth 2 % of their mean size."""
    generator = torch.Generator().manual_seed(0)
    assert source.maps is not None
    errors = [torch.polar(torch.ones(SIZE, SIZE), smooth_phase(SIZE, SIZE, generator)) for _ in source.maps]
    maps = source.maps + MAP_ERROR * source.maps.abs().mean() * torch.stack(errors)
    return replace(measurement, maps=(maps / maps.abs().square().sum(0).sqrt())[None])


def grey(measurement: Measurement, source: Source) -> Measurement:
    """One channel only."""
    return replace(measurement, values=measurement.values[:, :1])


def real_scan(k_space: Path, maps_file: Path) -> dict[str, object]:
    """ρ and the correlation of the coils of a scan, from the edge of its k-space."""
    values = torch.from_numpy(np.load(k_space))
    maps = torch.from_numpy(np.load(maps_file)["maps"])[None]
    mask = (values != 0).any(0)
    scan = Measurement(values[None], mask[None, None], maps)
    rho, error = estimate_noise(scan)
    covariance = noise_covariance(edge_samples(values, mask))
    level = covariance.diagonal().real.sqrt()
    correlation = (covariance / level[:, None] / level).abs()
    shares = {}
    for share in (0.4, 0.2, 0.1, 0.05, 0.025):
        power = edge_samples(values, mask, share).abs().square().median(1).values
        shares[f"{share:g}"] = (power.mean() / (2 * np.log(2))).sqrt().item()
    white_values, white_maps, _ = whiten(scan.values, maps, whitening(covariance))
    white, white_error = estimate_noise(Measurement(white_values, scan.mask, white_maps))
    off = correlation[~torch.eye(len(values), dtype=torch.bool)]
    return {
        "noise_std": rho.item(),
        "standard_error": error.item(),
        "samples": edge_samples(values, mask).shape[1],
        "by_share_of_the_edge": shares,
        "coil_std": [round(x, 5) for x in (level / 2**0.5).tolist()],
        "correlation": [[round(x, 3) for x in row] for row in correlation.tolist()],
        "largest_correlation": off.max().item(),
        "mean_correlation": off.mean().item(),
        "noise_std_whitened": [white.item(), white_error.item()],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("slices", type=Path)
    parser.add_argument("photos", type=Path)
    parser.add_argument("--scan", type=Path, nargs=2, metavar=("KSPACE", "MAPS"))
    parser.add_argument("--output", type=Path, default=Path("noise_estimate.json"))
    options = parser.parse_args()
    columns, boxes = CartesianMasks(SIZE, 4, 5), BoxMasks(SIZE, 0.4, 4)
    brain = list(slices(options.slices, "test", 0, SIZE, 8, seed=0))
    faces = list(photos(options.photos, "train", 35, SIZE, 3))
    result: dict[str, object] = {
        "brain": table(brain, columns),
        "brain, maps off by 2 %": table(brain, columns, with_wrong_maps),
        "faces": table(faces, boxes),
        "faces, one channel": table(faces, boxes, grey),
    }
    if options.scan:
        result["scan"] = real_scan(*options.scan)
    write_text(options.output, json.dumps(result, indent=1) + "\n")
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
