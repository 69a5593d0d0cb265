"""Acquisitions with another noise level than the store's: estimated from them, or assumed (docs/how-to/noise.md)."""

import json
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from ..errors import DataError
from ..measurement import Measurement
from ..noise import estimate_noise, pool_noise
from ..system.console import say, track
from ..system.manifest import check, replacing
from .store import Acquisitions, MeasurementStore


class AssumedNoise:
    """Acquisitions whose ρ is taken from a list, whatever they came with.

    Args:
        data: the acquisitions.
        noise_std: ρ of each (N,).
    """

    def __init__(self, data: Acquisitions, noise_std: Tensor):
        self._data, self._noise_std = data, noise_std
        self.largest_noise_std = noise_std.max().item()

    def __len__(self) -> int:
        return len(self._data)

    def batch(self, indices: Sequence[int], epochs: Sequence[int]) -> Measurement:
        """Several items as one batch, with their ρ put in.

        Args:
            indices: item numbers.
            epochs: how often each was used before.
        """
        m = self._data.batch(indices, epochs)
        return Measurement(m.values, m.mask, m.maps, self._noise_std[list(indices)])


def with_noise(noise_std: float | str, store: MeasurementStore, data: Acquisitions, record: Path) -> Acquisitions:
    """The acquisitions with the ρ that `train.noise_std` says.

    Args:
        noise_std: "stored", "auto", "pooled", or a number.
        store: the measurements, to estimate from.
        data: the acquisitions made of them.
        record: the file that the estimates are written to.

    Returns:
        `data` itself for "stored".

    Raises:
        DataError: see `noise_record`.
    """
    if noise_std == "stored":
        return data
    if not isinstance(noise_std, str):
        return AssumedNoise(data, torch.full((len(store),), noise_std))
    rho, error = noise_record(store, record)
    middle, error_of_middle = pool_noise(rho, error)
    low, high = rho.aminmax()
    say(f"{record}: noise_std {low:.4g} to {high:.4g}, pooled {middle:.4g} ± {error_of_middle:.2g}")
    return AssumedNoise(data, rho if noise_std == "auto" else torch.full_like(rho, middle))


def noise_record(store: MeasurementStore, path: Path) -> tuple[Tensor, Tensor]:
    """Estimates of ρ for all items of a store, made once: a line of JSON each, read again if the file is there.

    Args:
        store: the measurements.
        path: the file of the record.

    Returns:
        ρ (N,) and its standard error (N,), float32.

    Raises:
        DataError: if an item measures too little for an estimate, or the record is of another store.
    """
    names = store.names(range(len(store)))
    if not path.exists():
        with (
            replacing(path.parent, lambda n: n == path.name) as filled,
            (filled / path.name).open("w", encoding="utf-8") as file,
        ):
            for i, name in enumerate(track(names, "estimating noise")):
                try:
                    rho, error = estimate_noise(store[i])
                except ValueError as reason:
                    remedy = "set train.noise_std to a number"
                    raise DataError(f"{store.path}: item {i} ({name}): {reason}; {remedy}") from None
                line = {"item": i, "name": name, "noise_std": rho.item(), "standard_error": error.item()}
                file.write(json.dumps(line) + "\n")
    check(path, "remove it, and the noise is estimated again")
    try:
        lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        named = [line["name"] for line in lines]
        rho, error = (torch.tensor([line[key] for line in lines]) for key in ("noise_std", "standard_error"))
    except (ValueError, KeyError, TypeError) as reason:
        raise DataError(f"{path}: not the record of noise estimates it should be ({reason}); remove it") from None
    if not (rho.isfinite() & (rho >= 0) & error.isfinite()).all():
        raise DataError(f"{path}: holds values that are no noise level; remove it")
    if named != names:
        raise DataError(f"{path}: holds the noise of other items than {store.path}; use another setting.save_dir")
    return rho, error
