"""PSNR, SSIM and NMSE of a batch of images, under a convention that has to be named (SPEC §9).

* ``plain``: both images keep the truth's scale, so a reconstruction that is off by a factor pays for it.
  The range L (PSNR's peak, SSIM's range) is ``data_range``; if that is not given, it is 2 for real images
  (in [-1, 1]) and the truth's largest magnitude for complex ones.
* ``published``: truth and reconstruction are *each* min-max scaled to [0, 1] over all their pixels, L = 1.
  It is the convention of the paper's tables and hides errors of scale and offset.

Complex images count by their magnitude. With x the truth and x̂ the reconstruction:

    PSNR = 10 log10(L² / mean (x − x̂)²) dB      NMSE = ‖x − x̂‖² / ‖x‖²
    SSIM = mean over 7×7 uniform windows inside the image (Wang et al. 2004), averaged over the channels

scikit-image computes all three, one image at a time, in double precision.
"""

import math
from collections.abc import Iterator
from typing import Literal, get_args

import numpy as np
import torch
from skimage import metrics
from torch import Tensor

from ..errors import DataError

Convention = Literal["plain", "published"]
CONVENTIONS: tuple[Convention, ...] = get_args(Convention)
SSIM_WINDOW = 7


def image_metrics(
    x_hat: Tensor, x: Tensor, *, convention: Convention, data_range: float | None = None
) -> dict[str, list[float]]:
    """PSNR, SSIM and NMSE of every image of a batch.

    Args:
        x_hat: reconstructions (B, C, H, W), real or complex.
        x: truth, same shape and kind.
        convention: ``plain`` or ``published``, see the module's docstring.
        data_range: the range L for ``plain``; real images outside [-1, 1] need it, e.g. 1 for magnitudes.

    Returns:
        {"psnr": B floats in dB, "ssim": B floats, "nmse": B floats}.

    Raises:
        ValueError: other shapes or kinds, values that are not finite, a truth without contrast, an unknown
            convention, a missing or unusable data_range, images smaller than the SSIM window.
    """
    by_name = {"psnr": psnr, "ssim": ssim, "nmse": nmse}
    return {name: of(x_hat, x, convention=convention, data_range=data_range) for name, of in by_name.items()}


def psnr(x_hat: Tensor, x: Tensor, *, convention: Convention, data_range: float | None = None) -> list[float]:
    """Peak signal-to-noise ratio of every image in dB, infinite if they are equal. Arguments as in `image_metrics`."""
    pairs = _pairs(x_hat, x, convention, data_range)
    with np.errstate(divide="ignore"):  # equal images: infinity, without a warning
        return [float(metrics.peak_signal_noise_ratio(*images, data_range=span)) for *images, span in pairs]


def ssim(x_hat: Tensor, x: Tensor, *, convention: Convention, data_range: float | None = None) -> list[float]:
    """Structural similarity of every image; 1 where the two are equal. Arguments as in `image_metrics`."""
    if min(x.shape[-2:]) < SSIM_WINDOW:
        raise ValueError(f"SSIM needs images of at least {SSIM_WINDOW}×{SSIM_WINDOW}, got {tuple(x.shape)}")
    return [
        float(metrics.structural_similarity(truth, image, win_size=SSIM_WINDOW, data_range=span, channel_axis=0))
        for truth, image, span in _pairs(x_hat, x, convention, data_range)
    ]


def nmse(x_hat: Tensor, x: Tensor, *, convention: Convention, data_range: float | None = None) -> list[float]:
    """Squared error of every image over the truth's energy, whatever data_range. Arguments as in `image_metrics`."""
    pairs = _pairs(x_hat, x, convention, data_range)
    return [float(metrics.normalized_root_mse(*images, normalization="euclidean")) ** 2 for *images, _ in pairs]


def _pairs(
    x_hat: Tensor, x: Tensor, convention: Convention, data_range: float | None
) -> Iterator[tuple[np.ndarray, np.ndarray, float]]:
    """Yield (truth, reconstruction, range L), (C, H, W) each, in double precision and scaled as asked."""
    _check(x_hat, x, convention, data_range)
    x, x_hat, is_complex = x.detach().cpu(), x_hat.detach().cpu(), x.is_complex()
    if is_complex:
        x, x_hat = x.abs(), x_hat.abs()
    for index, (truth, image) in enumerate(zip(x.double(), x_hat.double())):
        # Without contrast the published scaling, and without energy NMSE, would divide by zero.
        if truth.max() == truth.min() and (convention == "published" or truth.max() == 0):
            raise DataError(f"image {index}: the truth is constant, {convention} metrics are undefined")
        if convention == "published":
            yield _min_max(truth), _min_max(image), 1.0
        else:
            yield truth.numpy(), image.numpy(), data_range or (float(truth.max()) if is_complex else 2.0)


def _check(x_hat: Tensor, x: Tensor, convention: str, data_range: float | None) -> None:
    if convention not in CONVENTIONS:
        raise ValueError(f"unknown convention {convention!r}: choose one of {', '.join(CONVENTIONS)}")
    if x.ndim != 4 or x_hat.shape != x.shape:
        raise ValueError(f"images must share one shape (B, C, H, W), got {tuple(x_hat.shape)} and {tuple(x.shape)}")
    if x_hat.is_complex() != x.is_complex():
        raise ValueError(f"one image is real, the other complex ({x_hat.dtype}, {x.dtype}): take .abs() first")
    for name, value in (("reconstruction", x_hat), ("truth", x)):
        if not torch.isfinite(value).all():
            raise DataError(f"the {name} holds values that are not finite (NaN or infinity)")
    if data_range is not None:
        if convention == "published":
            raise ValueError("data_range belongs to the plain convention; published scales each image to [0, 1]")
        if not (math.isfinite(data_range) and data_range > 0):
            raise ValueError(f"data_range must be a positive number, got {data_range}")
    elif convention == "plain" and not x.is_complex() and (x.abs() > 1.001).any():  # 1.001: rounding, not another scale
        raise ValueError(f"the truth reaches {x.abs().max():.4g}, outside [-1, 1]: give data_range")


def _min_max(image: Tensor) -> np.ndarray:
    """Scale to [0, 1] over all pixels; a constant image becomes 0."""
    low, high = image.min(), image.max()
    return ((image - low) / (high - low) if high > low else torch.zeros_like(image)).numpy()
