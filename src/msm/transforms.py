"""T, the map from an image x to the full measurement z = T x, with Tᴴ T = I (SPEC §1).

Photos are measured pixel by pixel, T = identity. In multi-coil MRI T = F C: multiply by each coil's sensitivity,
then take the centred orthonormal 2-D Fourier transform, z_c = F (C_c x).
"""

from collections.abc import Callable
from copy import copy
from functools import lru_cache
from typing import Protocol

import torch
from torch import Tensor


class Transform(Protocol):
    """What a denoiser, and the samplers, need of T."""

    @property
    def dtype(self) -> torch.dtype:
        """Kind of z, real or complex."""

    def forward(self, x: Tensor) -> Tensor:
        """Z = T x."""

    def adjoint(self, z: Tensor) -> Tensor:
        """X = Tᴴ z."""

    def normal(self, x: Tensor, mask: Tensor) -> Tensor:
        """Tᴴ Sᵀ S T x."""

    def repeat(self, times: int) -> "Transform":
        """T of a batch in which each item comes so many times, one after the other."""


def fft2c(x: Tensor) -> Tensor:
    """Centred orthonormal 2-D FFT over the last two axes."""
    return torch.fft.fftshift(torch.fft.fft2(torch.fft.ifftshift(x, (-2, -1)), norm="ortho"), (-2, -1))


def ifft2c(k: Tensor) -> Tensor:
    """Inverse, and adjoint, of `fft2c`."""
    return torch.fft.fftshift(torch.fft.ifft2(torch.fft.ifftshift(k, (-2, -1)), norm="ortho"), (-2, -1))


class Identity:
    """T = I: the image itself is measured."""

    dtype = torch.float32

    def forward(self, x: Tensor) -> Tensor:
        """Return x (B, C, H, W) unchanged."""
        return x

    def adjoint(self, z: Tensor) -> Tensor:
        """Return z (B, C, H, W) unchanged."""
        return z

    def normal(self, x: Tensor, mask: Tensor) -> Tensor:
        """Return x (B, C, H, W) with zeros off the mask (B, 1, H, W)."""
        return torch.where(mask, x, 0)

    def repeat(self, times: int) -> "Identity":
        """The same for any batch."""
        return self


class MultiCoil:
    """T = F C of multi-coil MRI.

    Args:
        maps: coil sensitivities (B or 1, coils, H, W), complex, with Σ_c |C_c|² = 1 where there is signal
            (and 0 or 1 elsewhere): then Tᴴ T = I on the images that live there.

    Raises:
        ValueError: if `maps` is not a complex tensor of four axes.
    """

    def __init__(self, maps: Tensor):
        if maps.ndim != 4 or not maps.is_complex():
            raise ValueError(f"coil maps must be complex (B or 1, coils, H, W), got {maps.dtype} {tuple(maps.shape)}")
        self.maps = maps
        in_image, self._in_k_space, self._out_of_k_space = _centring(maps.shape[-2:], maps.dtype, maps.device)
        self._maps = (maps * in_image)[:, None]
        self._conjugate = self._maps.conj().resolve_conj()
        self._times = 1

    @property
    def dtype(self) -> torch.dtype:
        """Complex, as the maps."""
        return self.maps.dtype

    def forward(self, x: Tensor) -> Tensor:
        """Coil-wise k-space of an image.

        Args:
            x: image (B, 1, H, W), complex.

        Returns:
            k-space (B, coils, H, W), complex, low frequencies in the middle.
        """
        return _orthonormal(torch.fft.fftn, self._maps * self._apart(x)).mul_(self._in_k_space).flatten(0, 1)

    def adjoint(self, z: Tensor) -> Tensor:
        """Coil-combined image of k-space.

        Args:
            z: k-space (B, coils, H, W), complex.

        Returns:
            image (B, 1, H, W), complex.
        """
        coil_images = _orthonormal(torch.fft.ifftn, self._apart(z) * self._out_of_k_space).mul_(self._conjugate)
        return coil_images.sum(2, keepdim=True).flatten(0, 1)

    def normal(self, x: Tensor, mask: Tensor) -> Tensor:
        """Tᴴ Sᵀ S T x, what SENSE iterates; the phases of k-space cancel.

        Args:
            x: image (B, 1, H, W), complex.
            mask: S (B, 1, H, W), bool.

        Returns:
            image (B, 1, H, W), complex.
        """
        axes = (-1,) if mask.stride(-2) == 0 else (-2, -1)  # whole columns: the transform along them cancels
        k_space = _orthonormal(torch.fft.fftn, self._maps * self._apart(x), axes).masked_fill_(~self._apart(mask), 0)
        coil_images = _orthonormal(torch.fft.ifftn, k_space, axes).mul_(self._conjugate)
        return coil_images.sum(2, keepdim=True).flatten(0, 1)

    def repeat(self, times: int) -> "MultiCoil":
        """The maps of each item serve so many items, one after the other; no map is copied."""
        repeated = copy(self)
        repeated._times *= times
        return repeated

    def _apart(self, x: Tensor) -> Tensor:
        """Items that share maps side by side: (B · times, …) as (B, times, …), to go with maps (B or 1, 1, …)."""
        return x.unflatten(0, (-1, self._times))


def _orthonormal(fft: Callable[..., Tensor], x: Tensor, axes: tuple[int, ...] = (-2, -1)) -> Tensor:
    """An orthonormal transform of a new tensor, which may be empty: MKL refuses an empty batch."""
    return fft(x, dim=axes, norm="ortho") if len(x) else x


@lru_cache(maxsize=8)
def _centring(size: torch.Size, dtype: torch.dtype, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """Phases p, q and q* (H, W) with F x = q · DFT(p · x) for the centred F: a shift by n // 2 moves no data this way.

    Shifted by c = n // 2, the DFT has e^{2πi (k − c)(j − c)/n} for e^{2πi kj/n}: signs only, if n is even.
    """
    p, q = [], []
    for n in size:
        index, centre = torch.arange(n, dtype=torch.float64), n // 2
        p.append(torch.exp(2j * torch.pi * index * centre / n))
        q.append(torch.exp(2j * torch.pi * (index - centre) * centre / n))
    in_image, in_k_space = ((rows[:, None] * columns).to(device, dtype) for rows, columns in (p, q))
    return in_image, in_k_space, in_k_space.conj().resolve_conj()
