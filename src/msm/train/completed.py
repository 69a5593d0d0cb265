"""The data of an M-step: acquisitions completed by posterior samples, as full measurements without noise (SPEC §14)."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ..data.acquire import item_generator
from ..data.store import Acquisitions
from ..errors import DataError
from ..losses import noise_levels
from ..measurement import Measurement
from ..system.manifest import check


class Completed:
    """Full measurements z = T x of samples x, with a share of the acquisitions as they were measured among them.

    Args:
        data: N acquisitions.
        path: samples of them (N, K, C, H, W), .npy, of which an epoch takes one each, in turn.
        items: numbers of the acquisitions that are used.
        measured_share: chance that an epoch has the acquisition itself instead.
        seed: of that choice.

    Raises:
        DataError: if the file is not of these acquisitions.
    """

    def __init__(
        self, data: Acquisitions, path: Path, items: Sequence[int], measured_share: float = 0.0, seed: int = 0
    ):
        self._data, self._items, self._share, self._seed = data, list(items), measured_share, seed
        try:
            check(path, "remove it, and it is drawn again")
            self._samples = np.load(path, mmap_mode="r", allow_pickle=False)
        except (ValueError, EOFError) as error:
            raise DataError(f"{path}: damaged ({error}); remove it, and it is drawn again") from error
        if self._samples.ndim != 5 or len(self._samples) != len(data):
            found = f"holds samples of shape {self._samples.shape}, not of these {len(data)} acquisitions"
            raise DataError(f"{path}: {found}; remove it, and it is drawn again")
        self.largest_noise_std = data.largest_noise_std if measured_share > 0 else 0.0

    def __len__(self) -> int:
        return len(self._items)

    def batch(self, indices: Sequence[int], epochs: Sequence[int]) -> Measurement:
        """Several of the items as one batch; `epochs` says how often each was used before."""
        numbers = [self._items[i] for i in indices]
        measured = self._data.batch(numbers, epochs)
        x = torch.stack([self._sample(n, epoch) for n, epoch in zip(numbers, epochs)])
        z, rho = measured.transform.forward(x), noise_levels(measured)
        kept = torch.tensor([self._is_measured(n, epoch) for n, epoch in zip(numbers, epochs)])
        each = kept[:, None, None, None]
        return Measurement(
            torch.where(each, measured.values, z), ~each | measured.mask, measured.maps, torch.where(kept, rho, 0)
        )

    def _sample(self, number: int, epoch: int) -> Tensor:
        return torch.from_numpy(self._samples[number, epoch % self._samples.shape[1]].copy())

    def _is_measured(self, number: int, epoch: int) -> bool:
        stream = item_generator(f"measured:{number}:{epoch}", self._seed)
        return bool(torch.rand((), generator=stream) < self._share)
