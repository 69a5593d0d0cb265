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

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING, Literal, get_args

import torch
from torch import Tensor

from ..errors import DataError

if TYPE_CHECKING:
    from numpy import ndarray

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
        data_range: the range L for ``plain``; None: 2 for real images, the truth's largest magnitude
            (image by image) for complex ones. Real images outside [-1, 1] need it, e.g. 1 for magnitudes.

    Returns:
        {"psnr": B floats in dB, "ssim": B floats, "nmse": B floats}.

    Raises:
        ValueError: other shapes or kinds, values that are not finite, a truth without contrast, an unknown
            convention, a missing or unusable data_range, images smaller than the SSIM window.
    """
    return {
        name: metric(x_hat, x, convention=convention, data_range=data_range)
        for name, metric in (("psnr", psnr), ("ssim", ssim), ("nmse", nmse))
    }


def psnr(x_hat: Tensor, x: Tensor, *, convention: Convention, data_range: float | None = None) -> list[float]:
    """Peak signal-to-noise ratio of every image in dB, infinite if they are equal. Arguments as in `image_metrics`."""
    import numpy as np
    from skimage.metrics import peak_signal_noise_ratio

    with np.errstate(divide="ignore"):  # equal images: infinity, without a warning
        return [
            float(peak_signal_noise_ratio(truth, image, data_range=peak))
            for truth, image, peak in _pairs(x_hat, x, convention, data_range)
        ]


def ssim(x_hat: Tensor, x: Tensor, *, convention: Convention, data_range: float | None = None) -> list[float]:
    """Structural similarity of every image; 1 where the two are equal. Arguments as in `image_metrics`."""
    from skimage.metrics import structural_similarity

    if min(x.shape[-2:]) < SSIM_WINDOW:
        raise ValueError(f"SSIM needs images of at least {SSIM_WINDOW}×{SSIM_WINDOW}, got {tuple(x.shape)}")
    return [
        float(structural_similarity(truth, image, win_size=SSIM_WINDOW, data_range=span, channel_axis=0))
        for truth, image, span in _pairs(x_hat, x, convention, data_range)
    ]


def nmse(x_hat: Tensor, x: Tensor, *, convention: Convention, data_range: float | None = None) -> list[float]:
    """Squared error of every image over the truth's energy; 0 where the two are equal. Arguments as in `image_metrics`.

    data_range changes nothing here: it is taken, and checked, so that the three metrics are called alike.
    """
    from skimage.metrics import normalized_root_mse

    return [
        float(normalized_root_mse(truth, image, normalization="euclidean")) ** 2
        for truth, image, _ in _pairs(x_hat, x, convention, data_range)
    ]


def _pairs(
    x_hat: Tensor, x: Tensor, convention: Convention, data_range: float | None
) -> Iterator[tuple[ndarray, ndarray, float]]:
    """Yield (truth, reconstruction, range L), (C, H, W) each, in double precision and scaled as asked."""
    _check(x_hat, x, convention, data_range)
    is_complex = x.is_complex()
    for index, (truth, image) in enumerate(zip(_magnitude(x), _magnitude(x_hat))):
        # Without contrast the published scaling, and without energy NMSE, would divide by zero.
        if truth.max() == truth.min() and (convention == "published" or truth.max() == 0):
            raise DataError(f"image {index}: the truth is constant, {convention} metrics are undefined")
        if convention == "published":
            truth, image, span = _min_max(truth), _min_max(image), 1.0
        elif data_range is not None:
            span = float(data_range)
        else:
            span = float(truth.max()) if is_complex else 2.0
        yield truth.numpy(), image.numpy(), span


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
    if data_range is not None and convention == "published":
        raise ValueError("data_range belongs to the plain convention; published scales each image to [0, 1]")
    if data_range is not None and not (math.isfinite(data_range) and data_range > 0):
        raise ValueError(f"data_range must be a positive number, got {data_range}")
    needs_range = convention == "plain" and data_range is None and not x.is_complex()
    if needs_range and x.numel() and x.abs().max() > 1.001:  # 1.001: rounding, not another scale
        raise ValueError(f"the truth reaches {x.abs().max():.4g}, outside [-1, 1]: give data_range")


def _magnitude(x: Tensor) -> Tensor:
    """The image on the CPU in double precision, by its magnitude if it is complex."""
    x = x.detach().cpu()
    return (x.abs() if x.is_complex() else x).double()


def _min_max(image: Tensor) -> Tensor:
    """Scale to [0, 1] over all pixels; a constant image becomes 0."""
    low, high = image.min(), image.max()
    return (image - low) / (high - low) if high > low else torch.zeros_like(image)
