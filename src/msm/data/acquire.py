"""Simulate acquisitions from images: one mask and one noise draw per item, for ever (SPEC §3)."""

import zlib
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Generator, Tensor

from ..errors import DataError, optional
from ..masks import Masks
from ..measurement import Measurement, standard_normal
from ..transforms import MultiCoil
from .store import MeasurementStore


@dataclass(frozen=True)
class Source:
    """One item before it is measured: simulation only, it never reaches training.

    Args:
        name: identity of the item.
        image: (C, H, W), real in [-1, 1], or complex (1, H, W) of magnitude at most 1.
        maps: coil sensitivities (coils, H, W), complex; None for photos.
    """

    name: str
    image: Tensor
    maps: Tensor | None = None


def item_generator(name: str, seed: int) -> Generator:
    """Random stream of an item, from its identity and a seed: no order or number of items changes it."""
    return Generator().manual_seed(zlib.crc32(f"{seed}:{name}".encode()))  # PyTorch takes 32 bits of a seed


def acquire(source: Source, masks: Masks, noise_std: float, seed: int) -> Measurement:
    """Measure an image once: s = S (T x + ν), ν ~ N(0, ρ²) per real component.

    Args:
        source: what is in the scanner or before the camera.
        masks: p(S).
        noise_std: ρ.
        seed: seed of the data set.

    Returns:
        the acquisition, a batch of one.
    """
    image, maps = source.image[None], None if source.maps is None else source.maps[None]
    z = image if maps is None else MultiCoil(maps).forward(image)
    values, mask = _measure(z, masks, noise_std, item_generator(source.name, seed))
    return Measurement(values, mask, maps, noise_std)


def _measure(z: Tensor, masks: Masks, noise_std: float, generator: Generator) -> tuple[Tensor, Tensor]:
    """Noisy values of one z (1, C or coils, H, W), and a mask."""
    mask = masks.sample(1, generator)
    return z + noise_std * standard_normal(z, generator), mask


class RemaskedAcquisitions:
    """Acquisitions whose mask and noise are drawn anew each time: the published behaviour, for comparison (SPEC §3).

    Over epochs every entry is seen, so what trains on this has seen clean data. An item's draw follows from its
    identity and the epoch alone.

    Args:
        clean: store of fully sampled acquisitions without noise.
        masks: p(S).
        noise_std: ρ.
        seed: seed of the data set.

    Raises:
        DataError: if the store leaves entries out or holds noise.
    """

    def __init__(self, clean: MeasurementStore, masks: Masks, noise_std: float, seed: int):
        self._clean, self.masks, self.largest_noise_std, self.seed = clean, masks, noise_std, seed
        if clean.largest_noise_std > 0 or not clean.masks().all():
            raise DataError(
                f"{clean.path}: holds noise, or masks that leave entries out; train.remask draws them from clean "
                "images, set setting.dataset_dir to the folder that has these"
            )

    def __len__(self) -> int:
        return len(self._clean)

    def batch(self, indices: Sequence[int], epochs: Sequence[int]) -> Measurement:
        """Several items as one batch, each measured anew.

        Args:
            indices: item numbers.
            epochs: how many times each was used before; another number is another mask and noise.
        """
        full = self._clean.batch(indices)
        drawn = [
            _measure(z, self.masks, self.largest_noise_std, item_generator(f"{name}:epoch {epoch}", self.seed))
            for z, name, epoch in zip(full.values.split(1), self._clean.names(indices), epochs)
        ]
        values, mask = map(torch.cat, zip(*drawn))
        return Measurement(values, mask & full.mask, full.maps, torch.full((len(values),), self.largest_noise_std))


def simulate_scan(name: str, magnitude: Tensor, coils: int, seed: int, phase_detail: float = 0.0) -> Source:
    """Make a multi-coil scan of a magnitude image: a smooth phase and birdcage coils.

    Args:
        name: identity of the item; phase and coils follow from it.
        magnitude: (H, W), in [0, 1].
        coils: number of coils; 1 gives a uniform one.
        seed: seed of the data set.
        phase_detail: standard deviation in radians of what the phase has besides its smooth part.

    Returns:
        complex image and coil maps with Σ_c |C_c|² = 1 everywhere.
    """
    generator = item_generator(name + ":scan", seed)
    height, width = magnitude.shape
    phase, maps = smooth_phase(height, width, generator), birdcage(coils, height, width, generator)
    if phase_detail > 0:
        phase = phase + phase_detail * fine_phase(height, width, generator)
    return Source(name, (magnitude * torch.exp(1j * phase))[None].to(torch.complex64), maps)


def smooth_phase(height: int, width: int, generator: Generator) -> Tensor:
    """Random phase map (H, W) in radians: an offset and three waves of at most one period across the image."""
    y, x = torch.linspace(0, 1, height)[:, None], torch.linspace(0, 1, width)[None, :]
    phase = 2 * torch.pi * torch.rand((), generator=generator) + torch.zeros(height, width)
    for _ in range(3):
        fy, fx, offset, size = torch.rand(4, generator=generator)
        wave = (2 * fy - 1) * y + (2 * fx - 1) * x + offset
        phase = phase + 0.8 * size * torch.sin(2 * torch.pi * wave)
    return phase


def fine_phase(height: int, width: int, generator: Generator) -> Tensor:
    """Gaussian random field (H, W) of variance 1 with the spectrum (1 + k²)^-3/2, k in cycles per field of view.

    With a standard deviation of 0.4 it leaves about as much in an image's imaginary part as a real 8-coil head scan
    has once the phase of its low frequencies is taken away: 5 % (below 2 cycles) and 2 % (4 cycles) of the power.
    """
    rows, columns = torch.fft.fftfreq(height, 1 / height), torch.fft.rfftfreq(width, 1 / width)
    amplitude = (1 + rows[:, None] ** 2 + columns**2) ** -0.75
    white = torch.randn(height, width, generator=generator)
    field = torch.fft.irfft2(amplitude * torch.fft.rfft2(white), (height, width))
    variance = torch.fft.irfft2(amplitude**2, (height, width))[0, 0]  # the field's covariance at distance 0
    return field / variance.sqrt()


def birdcage(coils: int, height: int, width: int, generator: Generator) -> Tensor:
    """Birdcage coil maps (coils, H, W) at a random distance, complex64, with unit sum of squares."""
    if coils == 1:
        return torch.ones(1, height, width, dtype=torch.complex64)
    birdcage_maps = optional("sigpy.mri", "simulating coils", "mri").birdcage_maps
    radius = 1.2 + 0.5 * torch.rand((), generator=generator).item()
    maps = torch.from_numpy(birdcage_maps((coils, height, width), r=radius)).to(torch.complex64)
    return maps / maps.abs().square().sum(0).sqrt()
