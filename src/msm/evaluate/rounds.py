"""What a round of refinement is judged by: measurements that it was not trained on, and no truth (SPEC §14).

error       of each acquisition some measured entries are hidden (`msm.sample.shares`), and predicted from the rest:
Σ |p̂ − d|² / Σ |d|² with p̂ the mean prediction of the samples
dispersion  Σ |p̂ − d|² over what the samples announce, as in `msm.evaluate.held_out`: above 1 they are too alike
distance    FD-wavelet of generated images, measured by masks and coils of acquisitions, from these acquisitions
(the proximal Fréchet distance)
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import expm1, log

import torch
from torch import Tensor

from ..data.acquire import item_generator
from ..data.store import Acquisitions
from ..data_step import DataStep
from ..denoiser import PartialDenoiser
from ..errors import DataError
from ..losses import noise_levels
from ..measurement import Measurement, joined, standard_normal
from ..sample.complete import completions
from ..sample.shares import Shares, of_k_space, of_photo
from ..sampling import Sampler, generate, reconstruct
from .bootstrap import Estimate, mean
from .perceptual import wavelet_distance, wavelet_features

PREDICTED, SAMPLES = 32, 2  # acquisitions, and samples of each
GENERATED, REFERENCES = 64, 512  # images


@dataclass(frozen=True)
class Standing:
    """How a model stands after a round.

    Args:
        errors: of held-out acquisitions, each; none if they measure too little for some of it to be hidden.
        dispersion: actual over announced, of all of them; None without errors.
        distance: the proximal Fréchet distance.
    """

    errors: tuple[float, ...]
    dispersion: float | None
    distance: float

    def told(self) -> str:
        """In words."""
        distance = f"proximal Fréchet distance {self.distance:.1f}"
        if self.dispersion is None:
            return f"{distance}; too little is measured for some of it to be hidden and predicted"
        error = sum(self.errors) / len(self.errors)
        return f"error on hidden entries {error:.4f}, dispersion {self.dispersion:.2f}, {distance}"

    def change(self, before: "Standing") -> Estimate:
        """Mean logarithm of the errors over those before, with a paired interval; below 0 it became better."""
        pairs = zip(self.errors, before.errors)
        return mean([log(now / then) for now, then in pairs])

    def worse_than(self, before: "Standing") -> str | None:
        """What became worse, in words: the error, beyond chance, or the distance; None if neither did."""
        if self.errors:
            change = self.change(before)
            if change.bounds[0] > 0:
                value, low, high = (100 * expm1(log_ratio) for log_ratio in (change.value, *change.bounds))
                return f"its error on hidden entries rose by {value:.1f} % ({low:.1f} to {high:.1f})"
        if self.distance > before.distance:
            return f"its images' proximal Fréchet distance rose from {before.distance:.1f} to {self.distance:.1f}"
        return None


def predict(
    denoiser: PartialDenoiser,
    data: Acquisitions,
    items: Sequence[int],
    *,
    sampler: Sampler,
    data_step: DataStep,
    seed: int,
    batch_size: int,
    advance: Callable[[int], None] = lambda n: None,
) -> tuple[tuple[float, ...], float | None]:
    """Errors and dispersion of acquisitions, of those where some entries can be hidden; `seed`: of the first sample."""
    shares = [s for n in items if (s := _shares(data.batch([n], [0]), n)) is not None]
    errors, missed, announced = [], 0.0, 0.0
    per_batch = max(1, batch_size // SAMPLES)
    for start in range(0, len(shares), per_batch):
        part = shares[start : start + per_batch]
        seen = joined([share.seen for share in part for _ in range(SAMPLES)]).to(denoiser.schedule.device)
        z = reconstruct(
            denoiser,
            completions(denoiser, seen),
            seeds=[seed + start * SAMPLES + n for n in range(len(seen))],
            sampler=sampler,
            data_step=data_step,
            callback=lambda *_: advance(len(seen)),  # noqa: B023
        ).cpu()
        for share, p in zip(part, z.unflatten(0, (len(part), SAMPLES))):
            squared, energy, spread = _misses(share, p)
            errors.append(squared / energy)
            missed, announced = missed + squared, announced + spread
    return tuple(errors), missed / announced if errors else None


def _misses(share: Shares, z: Tensor) -> tuple[float, float, float]:
    """At the judged entries: squared error of the mean of z (K, C or coils, H, W), energy, and the error announced."""
    where = share.judged[0, 0]
    p, d = z[..., where], share.measurement.values[0][..., where]
    noise = float(share.measurement.noise_std) ** 2 * (2 if d.is_complex() else 1) * d.numel()
    variance = (p - p.mean(0)).abs().square().sum() / (len(p) - 1)
    missed, energy = ((part.abs().square().sum()).item() for part in (p.mean(0) - d, d))
    return missed, energy, (1 + 1 / len(p)) * variance.item() + noise


def proximal_distance(
    denoiser: PartialDenoiser,
    data: Acquisitions,
    *,
    sampler: Sampler,
    seed: int,
    batch_size: int,
    advance: Callable[[int], None] = lambda n: None,
) -> tuple[float, Tensor]:
    """The distance of generated images from acquisitions, and these images (B, C, H, W).

    Args:
        denoiser: partial denoiser with its mask law.
        data: acquisitions; `REFERENCES` of them, evenly spaced, are compared with, and the first of these give the
            images masks and coils.
        sampler: to generate.
        seed: of the first image, and of the noise of its measurement.
        batch_size: images at a time.
        advance: told how many sampler steps were done.
    """
    images, made, most = [], [], min(REFERENCES, len(data))
    items = [n * len(data) // most for n in range(most)]
    count = min(GENERATED, most)
    for start in range(0, count, batch_size):
        numbers = range(start, min(start + batch_size, count))
        given = data.batch([items[n] for n in numbers], [0] * len(numbers)).to(denoiser.schedule.device)
        z = generate(
            denoiser,
            given.values.shape[1:],
            seeds=[seed + n for n in numbers],
            transform=given.transform,
            sampler=sampler,
            callback=lambda *_: advance(len(given)),  # noqa: B023
        )
        images.append(given.transform.adjoint(z).cpu())
        streams = [item_generator(f"measure:{n}", seed) for n in numbers]
        noise = torch.stack([standard_normal(v.cpu(), stream) for v, stream in zip(given.values, streams)])
        noisy = z + noise_levels(given)[:, None, None, None] * noise.to(z.device)
        made.append(_features(Measurement(noisy, given.mask, given.maps)))
    real = [_features(data.batch([n], [0])) for n in items]
    return wavelet_distance(torch.cat(made), torch.cat(real)), torch.cat(images)


def _features(measured: Measurement) -> Tensor:
    return wavelet_features(measured.transform.adjoint(measured.values))


def _shares(measurement: Measurement, number: int) -> Shares | None:
    """What is hidden of an acquisition (a batch of one); None where nothing can be."""
    name = f"acquisition {number}"
    try:
        if measurement.maps is None:
            return of_photo(measurement, item_generator(name, 0), name)
        return of_k_space(measurement, _middle(measurement.mask[0, 0]), name)
    except DataError:
        return None


def _middle(mask: Tensor) -> tuple[slice, slice]:
    """The largest square around the middle of k-space (H, W) that is measured whole."""
    row, column = (n // 2 for n in mask.shape)
    half = 0
    while half < min(row, column) and mask[row - half : row + half + 1, column - half : column + half + 1].all():
        half += 1
    return slice(row - half + 1, row + half), slice(column - half + 1, column + half)
