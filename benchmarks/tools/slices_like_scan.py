"""Training slices as smooth as a scan: a low-pass that gives them the scan's share of high spatial frequencies.

    python benchmarks/tools/slices_like_scan.py SLICES SCAN OUT

SLICES: a folder of magnitude images; SCAN: a raw scan. A tenth of SCAN's points, those that `msm evaluate` and
`benchmarks/studies/raw_scan.py held-out` judge by, is not looked at. Both spectra are radial, of the power of all coils
where something was measured; their ratio is taken relative to that at MIDDLE cycles per pixel, where anatomy is, and at
most 1. Each slice gets the root of it, to a power between LEAST and MOST of its own: scans differ. OUT holds 16-bit PNG
files of SIZE pixels, the same from the same command.
"""

import argparse
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from msm import MultiCoil
from msm.data.acquire import simulate_scan
from msm.data.decode import Rules
from msm.data.images import load_image
from msm.raw.hold_out import hold_out
from msm.raw.prepare import prepare
from msm.raw.readers import import_scans
from msm.raw.scan import padded_size

SIZE, COILS, PHASE_DETAIL = 192, 8, 0.4  # as in scan/brain_2d_R8
MIDDLE = (0.05, 0.15)
LEAST, MOST = 0.5, 1.5
BANDS = 20
COMPARED = 60  # slices, evenly spaced, whose spectrum is compared


def magnitude(file: Path) -> Tensor:
    """A slice (SIZE, SIZE) of maximum 1."""
    image = (load_image(file, SIZE, Rules(1))[0] + 1) / 2
    return image / image.max()


def radius(height: int, width: int) -> Tensor:
    """Cycles per pixel of centred k-space (H, W)."""
    rows, columns = (torch.fft.fftshift(torch.fft.fftfreq(n)) for n in (height, width))
    return torch.hypot(rows[:, None], columns[None])


def spectrum(values: Tensor, mask: Tensor, noise_std: float) -> Tensor:
    """Mean power (BANDS,) of k-space (coils, H, W) where it was measured (H, W), without that of its noise."""
    band = (radius(*mask.shape) * 2 * BANDS).long()
    power = values.abs().square().sum(0) - 2 * noise_std**2 * len(values)
    return torch.stack([power[mask & (band == b)].mean() for b in range(BANDS)])


def of_slice(file: Path) -> Tensor:
    """The spectrum of a slice, scanned as training simulates it."""
    source = simulate_scan(file.stem, magnitude(file), COILS, 0, PHASE_DETAIL)
    assert source.maps is not None
    k_space = MultiCoil(source.maps[None]).forward(source.image[None])[0]
    return spectrum(k_space, torch.ones(SIZE, SIZE, dtype=torch.bool), 0.0)


def low_pass(files: list[Path], scan_file: Path) -> Tensor:
    """Gain (BANDS,) of the amplitude, at most 1."""
    (scan,) = import_scans([scan_file])
    prepared = prepare(scan, padded_size(scan, 8))
    seen = hold_out(prepared).seen
    real = spectrum(seen.values[0], seen.mask[0, 0], prepared.noise_std)
    simulated = torch.stack([of_slice(file) for file in files[:: len(files) // COMPARED]]).mean(0)
    ratio, centres = real / simulated, (torch.arange(BANDS) + 0.5) / (2 * BANDS)
    ratio = ratio / ratio[(centres > MIDDLE[0]) & (centres < MIDDLE[1])].mean()
    ratio[centres < MIDDLE[1]] = 1
    return ratio.clamp(0, 1).sqrt()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("slices", "scan", "out"):
        parser.add_argument(name, type=Path)
    options = parser.parse_args()
    files, generator = sorted(options.slices.glob("*.jpg")), torch.Generator().manual_seed(0)
    gain = low_pass(files, options.scan)
    print(
        "gain by cycles per pixel:",
        {round((b + 0.5) / (2 * BANDS), 3): round(g, 2) for b, g in enumerate(gain.tolist())},
    )
    place = (torch.fft.ifftshift(radius(SIZE, SIZE)) * 2 * BANDS - 0.5).clamp(0, BANDS - 1).numpy()
    smooth = torch.from_numpy(np.interp(place, np.arange(BANDS), gain.numpy())).float()
    options.out.mkdir(parents=True, exist_ok=True)
    for file in files:
        power = LEAST + (MOST - LEAST) * torch.rand((), generator=generator)
        image = torch.fft.ifft2(torch.fft.fft2(magnitude(file)) * smooth**power).real.clamp(0)
        pixels = (image / image.max() * 65535).round().numpy().astype(np.uint16)
        Image.fromarray(pixels).save(options.out / f"{file.stem}.png")


if __name__ == "__main__":
    main()
