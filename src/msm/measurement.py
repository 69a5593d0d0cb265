"""A measurement: what one acquisition gives, s = S z + ν (SPEC §1, §3). It has no field for a clean image."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Generator, Tensor

from .transforms import Identity, MultiCoil, Transform


@dataclass(frozen=True)
class Measurement:
    """A batch of acquisitions.

    Unmeasured entries of `values` are set to zero here, whatever they held, so that nothing downstream can
    reach them.

    Args:
        values: measured values s on the grid of z, (B, C or coils, H, W): real pixels in [-1, 1], or complex
            k-space on the scale where the image's magnitude is at most 1.
        mask: which entries were measured, (B, 1, H, W), bool.
        maps: coil sensitivities (B or 1, coils, H, W), complex; None for photos.
        noise_std: ρ, standard deviation of the noise per real component: a number, or one for each item (B,).

    Raises:
        ValueError: if the shapes or types do not fit together.
    """

    values: Tensor
    mask: Tensor
    maps: Tensor | None = None
    noise_std: float | Tensor = 0.0

    def __post_init__(self) -> None:
        values, mask, maps = self.values, self.mask, self.maps
        if values.ndim != 4:
            raise ValueError(f"values must be (B, C or coils, H, W), got {tuple(values.shape)}")
        expected = (values.shape[0], 1, *values.shape[2:])
        if mask.dtype != torch.bool or tuple(mask.shape) != expected:
            raise ValueError(f"mask must be bool {expected}, got {mask.dtype} {tuple(mask.shape)}")
        if maps is not None and (maps.shape[1:] != values.shape[1:] or maps.shape[0] not in (1, values.shape[0])):
            raise ValueError(
                f"maps must be (B or 1, coils, H, W) like values {tuple(values.shape)}, got {tuple(maps.shape)}"
            )
        object.__setattr__(self, "values", torch.where(mask, values, 0))

    @cached_property
    def transform(self) -> Transform:
        """T of this acquisition: `MultiCoil` if there are coil maps, else `Identity`."""
        return Identity() if self.maps is None else MultiCoil(self.maps)

    def restrict(self, mask: Tensor) -> "Measurement":
        """The same acquisition with fewer entries kept: any sub-mask of a measured mask is measured too.

        Args:
            mask: entries to keep (B, 1, H, W), bool; entries that were never measured stay unmeasured.
        """
        return replace(self, mask=self.mask & mask)

    def to(self, device: torch.device | str) -> "Measurement":
        """The same acquisitions on another device."""
        return self._each(lambda tensor: tensor.to(device, non_blocking=True))

    def pin_memory(self) -> "Measurement":
        """The same acquisitions in page-locked memory, from which `to` copies while the CPU goes on."""
        return self._each(torch.Tensor.pin_memory)

    def _each(self, change: Callable[[Tensor], Tensor]) -> "Measurement":
        maps, noise_std = self.maps, self.noise_std
        return Measurement(
            change(self.values),
            change(self.mask),
            None if maps is None else change(maps),
            change(noise_std) if isinstance(noise_std, Tensor) else noise_std,
        )

    def __len__(self) -> int:
        return len(self.values)

    def __getitem__(self, items: slice) -> "Measurement":
        """Some of the acquisitions."""
        maps = self.maps if self.maps is None or len(self.maps) == 1 else self.maps[items]
        noise_std = self.noise_std[items] if isinstance(self.noise_std, Tensor) else self.noise_std
        return Measurement(self.values[items], self.mask[items], maps, noise_std)


def joined(measurements: Sequence[Measurement]) -> Measurement:
    """Several batches as one, with the maps and the noise of each acquisition."""
    values, mask = (torch.cat(parts) for parts in zip(*((m.values, m.mask) for m in measurements)))
    maps = [m.maps.expand(len(m), -1, -1, -1) for m in measurements if m.maps is not None]
    levels = [torch.as_tensor(m.noise_std, dtype=torch.float32).expand(len(m)) for m in measurements]
    return Measurement(values, mask, torch.cat(maps) if maps else None, torch.cat(levels))


def standard_normal(like: Tensor, generator: Generator | None = None) -> Tensor:
    """Normal noise of unit variance per real component, shaped like a real or complex tensor."""
    real = torch.view_as_real(like) if like.is_complex() else like
    noise = torch.randn(real.shape, generator=generator, dtype=real.dtype, device=real.device)
    return torch.view_as_complex(noise) if like.is_complex() else noise
