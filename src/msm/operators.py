"""Forward operators H of inverse problems, y = H z + e (SPEC §1, §6).

Each has `A`, `A_adjoint` and `A_dagger`: deepinv's names, so that a deepinv physics object can stand in.
Three exact operators cover them all, without a loop over the batch and without state that a call changes:

    Undersampling   y = M ⊙ z                    box and random inpainting, compressed-sensing MRI
    Convolution     y = (kernel ⊛ z) ↓ factor    blur (factor 1), super-resolution
    WeightedSum     y = Σ_c w_c z_c              colourisation

They are `torch.nn.Module`s: `.to(device)` moves them, and an input on another device works too. deepinv's
versions agree (a test compares), but its blur drops only singular values below 1e-5, its down-sampling has no
closed-form pseudo-inverse, and a call may change their state.
"""

import math
from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import Tensor, nn

from .transforms import Identity, Transform

ImageShape = tuple[int, int, int]


class Operator(Protocol):
    """What a sampler needs of H: z is (B, C or coils, H, W), y has the operator's own shape, with B first."""

    def A(self, z: Tensor) -> Tensor:
        """H z."""

    def A_adjoint(self, y: Tensor) -> Tensor:
        """Hᴴ y."""

    def A_dagger(self, y: Tensor) -> Tensor:
        """H⁺ y, the Moore–Penrose pseudo-inverse."""


@dataclass(frozen=True)
class Problem:
    """What is asked: z, given y = H z + e with z = T x.

    Args:
        y: observations (B, …); repeat an item to draw several samples of it.
        operator: H; any deepinv physics object works.
        transform: T.
        noise_std: σ_y, standard deviation of e per real component: a number, or one for each photo (B, 1, 1, 1).
    """

    y: Tensor
    operator: Operator
    transform: Transform = field(default_factory=Identity)
    noise_std: float | Tensor = 0.0

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one z, (C or coils, H, W)."""
        return tuple(self.operator.A_adjoint(self.y).shape[1:])

    @property
    def input(self) -> Tensor:
        """What the observation shows by itself, Tᴴ H⁺ y: (B, C, H, W)."""
        return self.transform.adjoint(self.operator.A_dagger(self.y))


class Undersampling(nn.Module):
    """Keep the measured entries of z and zero the others; y has z's shape, real or complex.

    The masked-out entries are never read: a NaN there does no harm.

    Args:
        mask: (B or 1, 1, H, W) bool, true where measured.

    Raises:
        ValueError: the mask is not bool or not of that shape.
    """

    mask: Tensor

    def __init__(self, mask: Tensor):
        super().__init__()
        if mask.dtype != torch.bool or mask.ndim != 4 or mask.shape[1] != 1:
            raise ValueError(f"mask must be bool of shape (B, 1, H, W), got {mask.dtype} {tuple(mask.shape)}")
        self.register_buffer("mask", mask)

    def A(self, z: Tensor) -> Tensor:
        """M ⊙ z: an orthogonal projection, so its own adjoint and pseudo-inverse."""
        return torch.where(self.mask.to(z.device), z, 0)

    def A_adjoint(self, y: Tensor) -> Tensor:
        """M ⊙ y."""
        return self.A(y)

    def A_dagger(self, y: Tensor) -> Tensor:
        """M ⊙ y."""
        return self.A(y)


class Convolution(nn.Module):
    """Circular convolution, then every `factor`-th pixel: z (B, C, H, W) gives y (B, C, H/factor, W/factor).

    Let K be the Fourier transform of the kernel. Decimation averages the factor² aliases of a spectrum
    ("fold"), its adjoint repeats the spectrum ("tile"), so H Hᴴ is circulant with eigenvalues G = fold(|K|²),
    and H⁺ = Hᴴ (H Hᴴ)⁺ divides by G.

    Args:
        kernel: (B or 1, C or 1, H, W) real, of the image's size, its origin at pixel [0, 0].
        factor: down-sampling factor, a divisor of H and W.
        rcond: H⁺ drops the singular values sqrt(G) up to rcond times the largest, so at no frequency is noise
            amplified by more than 1/(rcond · largest). H and Hᴴ do not depend on it.

    Raises:
        ValueError: a shape, the factor or rcond does not fit.
    """

    kernel: Tensor

    def __init__(self, kernel: Tensor, factor: int = 1, rcond: float = 1e-6):
        super().__init__()
        if kernel.ndim != 4 or kernel.is_complex():
            raise ValueError(f"kernel must be real of shape (B, C, H, W), got {kernel.dtype} {tuple(kernel.shape)}")
        height, width = kernel.shape[-2:]
        self.factor = int(_within("factor", factor, 1, min(height, width), whole=True))
        if height % self.factor or width % self.factor:
            raise ValueError(f"factor {factor} does not divide the image size {height}×{width}")
        self.rcond = _within("rcond", rcond, 0, 1)
        self.register_buffer("kernel", kernel)

    def A(self, z: Tensor) -> Tensor:
        """(kernel ⊛ z) ↓ factor."""
        return _inverse_fft(self._fold(self._spectrum(z) * self._fft(z)), like=z)

    def A_adjoint(self, y: Tensor) -> Tensor:
        """The zero-filled up-sampling of y, correlated with the kernel."""
        return _inverse_fft(self._spectrum(y).conj() * self._tile(self._fft(y, self.factor)), like=y)

    def A_dagger(self, y: Tensor) -> Tensor:
        """Hᴴ (H Hᴴ)⁺ y, without the singular values that rcond excludes."""
        spectrum = self._spectrum(y)
        gram = self._fold(spectrum.abs() ** 2)
        kept = gram > self.rcond**2 * gram.amax((-2, -1), keepdim=True)
        inverse = torch.where(kept, 1 / torch.where(kept, gram, 1.0), 0.0)
        return _inverse_fft(spectrum.conj() * self._tile(inverse * self._fft(y, self.factor)), like=y)

    def _spectrum(self, like: Tensor) -> Tensor:
        """K, (B or 1, C or 1, H, W) complex; not a buffer, as `.to(dtype)` spoils complex ones."""
        return torch.fft.fft2(self.kernel.to(like.device, like.real.dtype))

    def _fft(self, image: Tensor, factor: int = 1) -> Tensor:
        height, width = (n // factor for n in self.kernel.shape[-2:])
        if image.shape[-2:] != (height, width):
            raise ValueError(f"this operator needs an input of {height}×{width}, got {tuple(image.shape)}")
        return torch.fft.fft2(image)

    def _fold(self, spectrum: Tensor) -> Tensor:
        """(…, H, W) -> (…, H/factor, W/factor), the mean of the aliases."""
        f, (height, width) = self.factor, spectrum.shape[-2:]
        return spectrum.unflatten(-1, (f, width // f)).unflatten(-3, (f, height // f)).mean((-4, -2))

    def _tile(self, spectrum: Tensor) -> Tensor:
        """(…, H/factor, W/factor) -> (…, H, W)."""
        return spectrum.repeat(*[1] * (spectrum.ndim - 2), self.factor, self.factor)


class WeightedSum(nn.Module):
    """Weighted sum over the channels: z (B, C, H, W) gives y (B, 1, H, W); H⁺ y = w y/|w|².

    Args:
        weights: (C,) real, not all zero.

    Raises:
        ValueError: the weights are not of that form.
    """

    weights: Tensor

    def __init__(self, weights: Tensor):
        super().__init__()
        if weights.ndim != 1 or weights.is_complex() or not weights.any():
            raise ValueError(f"weights must be (C,), real and not all zero, got {weights.tolist()}")
        self.register_buffer("weights", weights)

    def A(self, z: Tensor) -> Tensor:
        """Σ_c w_c z_c."""
        if z.shape[1] != len(self.weights):
            raise ValueError(f"this operator is for {len(self.weights)} channels, got {tuple(z.shape)}")
        return (self._column(z) * z).sum(1, keepdim=True)

    def A_adjoint(self, y: Tensor) -> Tensor:
        """The weights times y."""
        return self._column(y) * y

    def A_dagger(self, y: Tensor) -> Tensor:
        """The weights times y/|w|²."""
        weights = self._column(y)
        return weights / weights.square().sum() * y

    def _column(self, like: Tensor) -> Tensor:
        return self.weights.to(like.device, like.real.dtype).view(-1, 1, 1)


def box_inpainting(image_shape: ImageShape, *, hole: int = 64) -> Undersampling:
    """A square hole in the middle of every image; the published problem is the 64 px hole at 128 px (SPEC §8).

    Args:
        image_shape: (C, H, W).
        hole: side of the hole, px.

    Raises:
        ValueError: the hole does not fit into the image.
    """
    _, height, width = image_shape
    hole = int(_within("hole", hole, 1, min(height, width), whole=True))
    top, left = (height - hole) // 2, (width - hole) // 2
    mask = torch.ones(1, 1, height, width, dtype=torch.bool)
    mask[..., top : top + hole, left : left + hole] = False
    return Undersampling(mask)


def random_inpainting(image_shape: ImageShape, *, generator: torch.Generator, kept: float = 0.5) -> Undersampling:
    """Exactly round(kept · H · W) random pixels of an image are measured, in all channels.

    Args:
        image_shape: (C, H, W).
        generator: source of the positions.
        kept: fraction of the pixels measured, in (0, 1].

    Raises:
        ValueError: an argument is out of range, or no pixel would be measured.
    """
    _, height, width = image_shape
    count = round(_within("kept", kept, 0, 1) * height * width)
    if count == 0:
        raise ValueError(f"kept {kept} leaves no measured pixel in a {height}×{width} image")
    noise = torch.rand(1, height * width, generator=generator, device=generator.device)
    return Undersampling((noise.argsort(1).argsort(1) < count).view(1, 1, height, width))


def super_resolution(image_shape: ImageShape, *, factor: int = 4) -> Convolution:
    """Bicubic down-sampling with anti-aliasing, as image libraries do it, but with circular borders.

    Keys' cubic (a = −0.5), stretched by the factor and centred on each factor × factor block: equal to
    Pillow's and torch's (antialias=True) away from the borders. deepinv's `Downsampling` has the same kernel
    but centres it half a pixel after the block's first pixel, so its y is shifted by factor/2 − 1 px. The
    singular values lie between 0.47/factor and 1/factor: H⁺ amplifies white noise at most 2.2-fold per pixel.

    Args:
        image_shape: (C, H, W), H and W multiples of the factor.
        factor: down-sampling factor; 4 is the published one (SPEC §8).

    Raises:
        ValueError: the factor does not divide the image's size.
    """
    _, height, width = image_shape
    factor = int(_within("factor", factor, 1, min(height, width), whole=True))
    offset = torch.arange(-2 * factor, 3 * factor)
    x = ((offset - (factor - 1) / 2) / factor).abs().double()
    inner, outer = 1.5 * x**3 - 2.5 * x**2 + 1, -0.5 * x**3 + 2.5 * x**2 - 4 * x + 2
    weight = torch.where(x <= 1, inner, torch.where(x < 2, outer, 0.0))
    rows, columns = torch.meshgrid(-offset, -offset, indexing="ij")  # y_i reads z at factor·i + offset
    return Convolution(_periodic_kernel(height, width, rows, columns, torch.outer(weight, weight)), factor)


def gaussian_blur(image_shape: ImageShape, *, sigma: float = 3.0, rcond: float = 0.05) -> Convolution:
    """Gaussian blur with circular borders.

    A Gaussian's spectrum falls to nothing, so the exact pseudo-inverse amplifies noise without bound. The
    default rcond allows a factor of 20: on 128 px photos with noise 0.01 (sigma 1 to 3 px, lines of 9 to
    21 px) H⁺ y then has the best PSNR over rcond, or one within 1.3 dB of it; .001 loses 15 dB or more.

    Args:
        image_shape: (C, H, W).
        sigma: standard deviation, px, up to half the shorter side.
        rcond: relative threshold on the singular values in H⁺, see `Convolution`; 1e-6 means exact.

    Raises:
        ValueError: an argument is out of range.
    """
    _, height, width = image_shape
    sigma = _within("sigma", sigma, 1e-3, min(height, width) / 2)
    rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    distance = torch.minimum(rows, height - rows) ** 2 + torch.minimum(columns, width - columns) ** 2
    weight = torch.exp(-distance.double() / (2 * sigma**2))
    return Convolution(_periodic_kernel(height, width, rows, columns, weight), rcond=rcond)


def motion_blur(
    image_shape: ImageShape, *, length: float = 15.0, angle: float = 0.0, rcond: float = 0.05
) -> Convolution:
    """Blur along a straight line, with circular borders; the remarks on noise in `gaussian_blur` hold.

    Args:
        image_shape: (C, H, W).
        length: length of the line, px, from 1 (no blur) to the shorter side.
        angle: its direction, degrees, counter-clockwise from horizontal as displayed.
        rcond: relative threshold on the singular values in H⁺, see `Convolution`.

    Raises:
        ValueError: an argument is out of range.
    """
    _, height, width = image_shape
    length = _within("length", length, 1, min(height, width))
    turn = math.radians(_within("angle", angle, -math.inf, math.inf))
    along = torch.linspace(-(length - 1) / 2, (length - 1) / 2, math.ceil(length), dtype=torch.float64)
    row, column = -along * math.sin(turn), along * math.cos(turn)
    corner = torch.tensor([[0, 0], [0, 1], [1, 0], [1, 1]])[:, :, None]  # bilinear: each point feeds four pixels
    rows, columns = row.floor() + corner[:, 0], column.floor() + corner[:, 1]
    weight = (1 - (row - rows).abs()) * (1 - (column - columns).abs())
    return Convolution(_periodic_kernel(height, width, rows.long(), columns.long(), weight), rcond=rcond)


def colorization(image_shape: ImageShape) -> WeightedSum:
    """Only a grey image is measured, the mean over the channels of images (C, H, W)."""
    return WeightedSum(torch.full((image_shape[0],), 1 / image_shape[0]))


def _within(name: str, value: float, low: float, high: float, whole: bool = False) -> float:
    """The value, if it is a finite number (a whole one, if asked) in [low, high]."""
    number = isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
    if not number or not low <= value <= high or (whole and value != int(value)):
        above = f" of at least {low:g}" if low > -math.inf else ""
        limits = above if high == math.inf else f" from {low:g} to {high:g}"
        raise ValueError(f"{name} must be a {'whole' if whole else 'finite'} number{limits}, got {value!r}")
    return value


def _periodic_kernel(height: int, width: int, rows: Tensor, columns: Tensor, weights: Tensor) -> Tensor:
    """(1, 1, H, W): weights added up at their positions, wrapped around the image, with sum 1."""
    index = (rows % height) * width + columns % width
    kernel = torch.zeros(height * width, dtype=torch.float64)
    kernel.index_add_(0, index.flatten(), weights.flatten())
    return (kernel / kernel.sum()).float().view(1, 1, height, width)


def _inverse_fft(spectrum: Tensor, like: Tensor) -> Tensor:
    """The inverse FFT, real if `like` is."""
    image = torch.fft.ifft2(spectrum)
    return image if like.is_complex() else image.real
