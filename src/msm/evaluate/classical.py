"""Classical reconstructions to compare with: no learning, one or two parameters each.

MRI, from multi-coil k-space y = A x + ν with A = M T (T = F C, M the mask; SPEC §1): CG-SENSE, L1-wavelet and TV.
Photos: biharmonic inpainting of missing pixels, bicubic enlargement.

λ of L1-wavelet and TV is in units of the image: tuned at magnitude 1, it does not carry over to raw scanner units.
`choose` picks the parameters of each on images kept apart for it.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import product
from typing import TypeVar

import numpy as np
import pywt
import torch
from skimage import restoration
from torch import Tensor

from ..conjugate_gradient import conjugate_gradient
from ..errors import DataError
from ..operators import Convolution, Problem, Undersampling
from ..transforms import Transform
from .metrics import psnr

Parameter = TypeVar("Parameter")
Setting = tuple[float | str, ...]


@torch.no_grad()
def cg_sense(y: Tensor, mask: Tensor, transform: Transform, *, regularisation: float, iterations: int) -> Tensor:
    """Least squares with a ridge by conjugate gradients from zero, argmin ½‖A x − y‖² + λ/2 ‖x‖².

    Every item has its own step sizes and its own end, so that it does not depend on its batch.

    Args:
        y: measured k-space (B, coils, H, W), complex, zero off the mask.
        mask: what was measured (B, 1, H, W), bool.
        transform: T.
        regularisation: λ ≥ 0. With λ = 0 stopping early is the only regularisation.
        iterations: conjugate-gradient steps; an item that is exact to rounding before that stands still.

    Returns:
        Images (B, 1, H, W), complex.

    Raises:
        ValueError: y and mask do not fit, λ negative, no iterations.

    Source: Pruessmann et al., Magn. Reson. Med. 46 (2001).
    """
    _check(y, mask, regularisation, iterations)

    def normal(x: Tensor) -> Tensor:
        return transform.adjoint(mask * transform.forward(x)) + regularisation * x

    return conjugate_gradient(normal, transform.adjoint(mask * y), iterations)


@torch.no_grad()
def l1_wavelet(
    y: Tensor, mask: Tensor, transform: Transform, *, regularisation: float, iterations: int, wavelet: str = "db4"
) -> Tensor:
    """Compressed sensing with a sparse wavelet transform, argmin ½‖A x − y‖² + λ ‖Ψ x‖₁, by FISTA.

    The step is 1 because ‖A‖ ≤ 1. All coefficients are shrunk, the coarsest too, by their complex magnitude.
    Images whose sides do not divide by 2^levels are solved for on a slightly larger field, then cropped.

    Args:
        y: measured k-space (B, coils, H, W), complex, zero off the mask.
        mask: what was measured (B, 1, H, W), bool.
        transform: T.
        regularisation: λ ≥ 0.
        iterations: FISTA steps.
        wavelet: name of an orthogonal wavelet of PyWavelets, e.g. "haar", "db4", "sym8".

    Returns:
        Images (B, 1, H, W), complex.

    Raises:
        ValueError: y and mask do not fit, λ negative, no iterations, a wavelet that is not orthogonal.

    Source: Lustig et al., Magn. Reson. Med. 58 (2007); Beck, Teboulle, SIAM J. Imaging Sci. 2 (2009).
    """
    _check(y, mask, regularisation, iterations)
    height, width = y.shape[-2:]
    shrink, pad = _wavelet_shrinkage((height, width), wavelet)

    x = v = pad(torch.zeros_like(transform.adjoint(y)))
    momentum = 1.0
    for _ in range(iterations):
        residual = mask * (transform.forward(v[..., :height, :width]) - y)
        x_before, x = x, shrink(v - pad(transform.adjoint(residual)), regularisation)
        momentum_before, momentum = momentum, (1 + (1 + 4 * momentum**2) ** 0.5) / 2
        v = x + (momentum_before - 1) / momentum * (x - x_before)
    return x[..., :height, :width]


@torch.no_grad()
def total_variation(y: Tensor, mask: Tensor, transform: Transform, *, regularisation: float, iterations: int) -> Tensor:
    """Compressed sensing with few edges, argmin ½‖A x − y‖² + λ Σ_pixels |∇x|, by a primal-dual iteration.

    |∇x| is the Euclidean length of the two forward differences of a pixel, complex, 0 across the border. deepinv's TV
    takes real images. The steps obey τσ‖(A, ∇)‖² ≤ 1 with ‖A‖² ≤ 1, ‖∇‖² ≤ 8; their ratio suits images of size 1.

    Args:
        y: measured k-space (B, coils, H, W), complex, zero off the mask.
        mask: what was measured (B, 1, H, W), bool.
        transform: T.
        regularisation: λ ≥ 0.
        iterations: primal-dual steps.

    Returns:
        Images (B, 1, H, W), complex.

    Raises:
        ValueError: y and mask do not fit, λ negative, no iterations.

    Source: Block et al., Magn. Reson. Med. 57 (2007); Chambolle, Pock, J. Math. Imaging Vis. 40 (2011), alg. 1.
    """
    _check(y, mask, regularisation, iterations)
    ratio = 10.0
    tau, sigma = ratio / 3, 1 / (3 * ratio)
    x = transform.adjoint(y)
    ahead, residual, edges = x, torch.zeros_like(y), torch.zeros_like(_gradient(x))
    for _ in range(iterations):
        residual = (residual + sigma * (mask * transform.forward(ahead) - y)) / (1 + sigma)
        edges = edges + sigma * _gradient(ahead)
        length = edges.abs().square().sum(0).sqrt()
        edges = edges * (regularisation / length.clamp(min=max(regularisation, 1e-30)))
        before, x = x, x - tau * (transform.adjoint(residual) + _gradient_adjoint(edges))
        ahead = 2 * x - before
    return x


def biharmonic(y: Tensor, mask: Tensor) -> Tensor:
    """Fill missing pixels by the biharmonic equation; known pixels stay as they are.

    Args:
        y: images (B, C, H, W), real, any value off the mask.
        mask: the known pixels (B, 1, H, W), bool.

    Returns:
        Images (B, C, H, W) within the known pixels' range, channel by channel.

    Raises:
        ValueError: y and mask do not fit.
        DataError: an image without any known pixel.

    Source: Damelin, Hoang, Int. J. Math. Math. Sci. (2018); the solver is scikit-image's.
    """
    _check(y, mask)
    filled = y.detach().clone()
    for index, (image, known) in enumerate(zip(y.detach().cpu(), mask[:, 0].cpu())):
        if not known.any():
            raise DataError(f"image {index}: the mask keeps no pixel, nothing to fill from")
        if not known.all():
            values = np.where(known, image.numpy(), 0)  # a NaN off the mask must not spread
            solved = torch.from_numpy(restoration.inpaint_biharmonic(values, ~known.numpy(), channel_axis=0))
            filled[index] = torch.where(known, image, solved.to(image.dtype)).to(y.device)
    return filled


def bicubic(y: Tensor, factor: int) -> Tensor:
    """Enlarge images by bicubic interpolation, pixel centres aligned as in block averaging.

    Args:
        y: small images (B, C, H, W), real.
        factor: enlargement of both sides, ≥ 1.

    Returns:
        Images (B, C, factor·H, factor·W).

    Raises:
        ValueError: factor below 1.
    """
    if factor < 1:
        raise ValueError(f"factor must be at least 1, got {factor}")
    return torch.nn.functional.interpolate(y, scale_factor=factor, mode="bicubic", antialias=False, align_corners=False)


def tune(
    recon: Callable[[Parameter], Tensor],
    parameter_grid: Iterable[Parameter],
    truth: Tensor,
    metric: Callable[[Tensor, Tensor], Sequence[float]],
) -> Parameter:
    """Choose the parameter whose reconstructions score best on average; the first of equals.

    Args:
        recon: parameter (a λ, or any tuple of settings) -> reconstructions (B, C, H, W) of the tuning slices.
        parameter_grid: what to try.
        truth: the tuning slices (B, C, H, W), never those that are reported on.
        metric: (x_hat, truth) -> one score per image, larger is better.

    Returns:
        The best entry of the grid. An end of the grid asks for a wider one.

    Raises:
        ValueError: an empty grid.
    """
    grid = list(parameter_grid)
    if not grid:
        raise ValueError("parameter_grid is empty: nothing to choose from")

    def score(parameter: Parameter) -> float:
        scores = metric(recon(parameter), truth)
        return sum(scores) / len(scores)

    return max(grid, key=score)


def _gradient(x: Tensor) -> Tensor:
    """Forward differences of images (B, 1, H, W) down and across: (2, B, 1, H, W), 0 at the far border."""
    return torch.stack([x.diff(dim=-2, append=x[..., -1:, :]), x.diff(dim=-1, append=x[..., -1:])])


def _gradient_adjoint(edges: Tensor) -> Tensor:
    """The adjoint of `_gradient`, of differences that are 0 at the far border as its own are."""
    x = -edges[0]
    x[..., 1:, :] += edges[0, ..., :-1, :]
    x -= edges[1]
    x[..., 1:] += edges[1, ..., :-1]
    return x


def _wavelet_shrinkage(
    size: tuple[int, int], name: str
) -> tuple[Callable[[Tensor, float], Tensor], Callable[[Tensor], Tensor]]:
    """The proximal map of λ‖Ψ·‖₁, Ψᴴ soft(Ψ·, λ), and the padding to the field on which Ψ is orthonormal."""
    if name not in pywt.wavelist(kind="discrete") or not pywt.Wavelet(name).orthogonal:
        raise ValueError(f"{name!r} is not an orthogonal wavelet of PyWavelets: try 'haar', 'db4' or 'sym8'")
    levels = pywt.dwt_max_level(min(size), name)
    rows, columns = (-side % 2**levels for side in size)  # periodised filters are orthonormal on whole blocks only
    axes, mode = (-2, -1), "periodization"

    def shrink(image: Tensor, threshold: float) -> Tensor:
        coefficients = pywt.wavedec2(image.cpu().numpy(), name, mode=mode, level=levels, axes=axes)
        packed, slices = pywt.coeffs_to_array(coefficients, axes=axes)
        w = torch.from_numpy(packed)
        w = w.sgn() * (w.abs() - threshold).clamp(min=0)
        coefficients = pywt.array_to_coeffs(w.numpy(), slices, output_format="wavedec2")
        return torch.from_numpy(pywt.waverec2(coefficients, name, mode=mode, axes=axes)).to(image.device)

    return shrink, torch.nn.ZeroPad2d((0, columns, 0, rows))


def _check(y: Tensor, mask: Tensor, regularisation: float = 0.0, iterations: int = 1) -> None:
    if y.ndim != 4 or mask.shape != (y.shape[0], 1, *y.shape[2:]) or mask.dtype != torch.bool:
        raise ValueError(
            f"mask must be bool (B, 1, H, W) for y (B, coils or C, H, W), "
            f"got {mask.dtype} {tuple(mask.shape)} for {tuple(y.shape)}"
        )
    if not regularisation >= 0:
        raise ValueError(f"regularisation must be 0 or more, got {regularisation}")
    if iterations < 1:
        raise ValueError(f"iterations must be at least 1, got {iterations}")


@dataclass(frozen=True)
class Method:
    """A classical method; its usual setting is good for 64 px slices of magnitude 1, noise 0.01."""

    solve: Callable[..., Tensor]  # (observation, *setting) -> images (B, C, H, W)
    grid: tuple[Setting, ...] = ((),)  # the settings to choose from
    usual: Setting = ()  # where there is nothing to choose on
    words: str = ""  # what a setting means, to be formatted with its values

    def run(self, seen: Problem, setting: Setting) -> Tensor:
        """The images (B, C, H, W) of an observation."""
        return self.solve(seen, *setting)


def fitting(seen: Problem) -> dict[str, Method]:
    """The classical methods that fit an observation, by name; none for blur and colourisation."""
    operator = seen.operator
    if seen.y.is_complex():
        return MRI
    if isinstance(operator, Undersampling):
        return {"biharmonic": Method(lambda seen: biharmonic(seen.y, _mask(seen)))}
    if isinstance(operator, Convolution) and operator.factor > 1:
        return {"bicubic": Method(lambda seen: bicubic(seen.y, operator.factor))}
    return {}


def choose(method: Method, apart: Problem | None, truth: Tensor | None) -> Setting:
    """The setting of the highest mean PSNR (plain) on images kept apart; without them the usual one."""
    if apart is None or truth is None or len(method.grid) == 1:
        return method.usual
    return tune(partial(method.run, apart), method.grid, truth, partial(psnr, convention="plain"))


def _mask(seen: Problem) -> Tensor:
    """What was measured, (B, 1, H, W)."""
    assert isinstance(seen.operator, Undersampling)
    return seen.operator.mask.expand(len(seen.y), -1, -1, -1)


def _seen(problem: Problem) -> tuple[Tensor, Tensor, Transform]:
    """What the methods of MRI take: y, mask, transform."""
    return problem.y, _mask(problem), problem.transform


MRI = {
    "CG-SENSE": Method(
        lambda seen, weight, steps: cg_sense(*_seen(seen), regularisation=weight, iterations=steps),
        grid=tuple(product((1e-3, 1e-2, 3e-2, 0.1), (4, 10, 30))),
        usual=(0.01, 30),
        words="λ = {:g}, {} iterations",
    ),
    "TV": Method(
        lambda seen, weight: total_variation(*_seen(seen), regularisation=weight, iterations=200),
        grid=((5e-4,), (1e-3,), (2e-3,), (4e-3,), (8e-3,)),
        usual=(1e-3,),
        words="λ = {:g}",
    ),
    "L1-wavelet": Method(
        lambda seen, weight, name: l1_wavelet(*_seen(seen), regularisation=weight, iterations=100, wavelet=name),
        grid=tuple(product((5e-4, 1e-3, 2e-3, 4e-3, 8e-3), ("db4", "sym8"))),
        usual=(0.001, "sym8"),
        words="λ = {:g}, {}",
    ),
}
INPAINTING = {
    "biharmonic": Method(lambda seen: biharmonic(seen.y, _mask(seen))),
    "TV": Method(
        lambda seen, weight: total_variation(*_seen(seen), regularisation=weight, iterations=500),
        grid=((2e-3,), (5e-3,), (1e-2,), (2e-2,), (5e-2,)),
        usual=(1e-2,),
        words="λ = {:g}",
    ),
}
