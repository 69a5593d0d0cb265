"""How alike two images, or two sets of images, look: LPIPS, FID, and a Fréchet distance that needs no weights.

    FD = ‖μ_a − μ_b‖² + tr(Σ_a + Σ_b − 2 (Σ_a^½ Σ_b Σ_a^½)^½)      of features of the two sets (Heusel et al. 2017)

* ``FID``: the 2048 features of the Inception network of the FID paper (torch-fidelity).
* ``FD-wavelet``: per channel a 4×4 thumbnail (16 features), and the mean magnitude of the orthonormal Haar
  coefficients at scales 2, 4 and 8 px, three directions, in each quarter of the image (12 features a scale).
  Thumbnail and scales are each divided by the root-mean-square of the reference set's standard deviations, so a
  distance of 1 is one such deviation. It has no parameters and can be had on any machine; it is no FID.

Complex images count by their magnitude, given to the networks as three equal channels. The networks' weights are
never downloaded here: they are looked for in torch's cache, which the environment variable TORCH_HOME moves.
"""

from functools import cache
from pathlib import Path

import torch
from torch import Tensor, nn

from ..errors import DataError, MsmError, optional

LPIPS_WEIGHTS = "alexnet-owt-7be5be79.pth"
FID_WEIGHTS = "weights-inception-2015-12-05-6726825d.pth"
SCALES = 3
GROUPS = (16, *[12] * SCALES)  # features of a channel: the thumbnail, then each scale


class MissingWeights(MsmError):
    """Weights of a measuring network are not on this machine; the message is one line."""


def lpips(x_hat: Tensor, x: Tensor) -> list[float]:
    """Learned perceptual distance of every image (AlexNet, version 0.1), 0 where the two are equal.

    Args:
        x_hat: reconstructions (B, C, H, W), real in [-1, 1], or complex of magnitude at most 1; C is 1 or 3.
        x: truth, same shape and kind.

    Returns:
        B floats.

    Raises:
        MissingWeights: AlexNet's weights are not in torch's cache.

    Source: Zhang et al., CVPR 2018; the implementation is torchmetrics'.
    """
    network = _lpips(cached(LPIPS_WEIGHTS, "LPIPS"))
    return [float(network(image, truth)) for image, truth in zip(_rgb(x_hat).split(1), _rgb(x).split(1))]


@cache
def _lpips(path: Path) -> nn.Module:
    """The network of LPIPS with AlexNet's weights, which it looks for at this path itself."""
    from torchmetrics.image.lpip import LearnedPerceptualImagePatchSimilarity

    return LearnedPerceptualImagePatchSimilarity(net_type="alex").net


@torch.no_grad()
def inception_features(images: Tensor, batch_size: int = 32) -> Tensor:
    """Features of the FID (N, 2048), float64; the Fréchet distance of two sets of them is the FID.

    Args:
        images: (N, C, H, W), real in [-1, 1], or complex of magnitude at most 1; C is 1 or 3.
        batch_size: images at a time; changes no result.

    Raises:
        MissingWeights: the network's weights are not in torch's cache.
        MissingPackage: torch-fidelity is missing.
    """
    network = _inception(cached(FID_WEIGHTS, "FID"))
    pixels = ((_rgb(images) + 1) * 127.5).round().to(torch.uint8)
    return torch.cat([network(part)[0] for part in torch.split(pixels, batch_size)]).double()


@cache
def _inception(path: Path) -> nn.Module:
    """The Inception network of the FID paper with the weights of a file."""
    extractors = optional("torch_fidelity.feature_extractor_inceptionv3", "FID", "perceptual")
    made: nn.Module = extractors.FeatureExtractorInceptionV3("fid", ["2048"], feature_extractor_weights_path=str(path))
    return made


def cached(file: str, metric: str) -> Path:
    """Where torch's cache holds a file of weights.

    Args:
        file: name of the file.
        metric: what it is for, for the message.

    Raises:
        MissingWeights: it is not there.
    """
    path = Path(torch.hub.get_dir()) / "checkpoints" / file
    if not path.is_file():
        raise MissingWeights(f"{metric} is not measured: {path} is missing; copy {file} there, or set TORCH_HOME")
    return path


def wavelet_features(images: Tensor) -> Tensor:
    """The features of FD-wavelet.

    Args:
        images: (N, C, H, W), real or complex (by magnitude), H and W at least 8.

    Returns:
        (N, C · 52), float64: per channel thumbnail, then scales 2, 4, 8 px.

    Raises:
        ValueError: smaller images.
    """
    x = (images.abs() if images.is_complex() else images).detach().cpu().double()
    if x.ndim != 4 or min(x.shape[-2:]) < 2**SCALES:
        raise ValueError(f"images must be (N, C, H, W) of at least {2**SCALES} pixels a side, got {tuple(x.shape)}")
    rows, columns = (-side % 2**SCALES for side in x.shape[-2:])
    x = torch.nn.functional.pad(x, (0, columns, 0, rows), mode="replicate")
    pool = torch.nn.functional.adaptive_avg_pool2d
    groups = [pool(x, 4).flatten(2)]
    for _ in range(SCALES):
        a, b = x[..., ::2, ::2], x[..., ::2, 1::2]
        c, d = x[..., 1::2, ::2], x[..., 1::2, 1::2]
        details = [(a - b + c - d) / 2, (a + b - c - d) / 2, (a - b - c + d) / 2]
        groups += [pool(detail.abs(), 2).flatten(2) for detail in details]
        x = (a + b + c + d) / 2
    return torch.cat(groups, 2).flatten(1)


def wavelet_distance(features: Tensor, reference: Tensor) -> float:
    """FD-wavelet of two sets of `wavelet_features`, in units of the reference's spread.

    Args:
        features: (N, C · 52), of the set to judge.
        reference: (M, C · 52), of real images.

    Returns:
        the squared distance, 0 for equal sets. Both N and M bias it upwards: compare at equal numbers.

    Raises:
        ValueError: fewer than two images in a set, a reference without spread.
    """
    channels = reference.shape[1] // sum(GROUPS)
    groups = torch.split(reference.std(0).view(channels, sum(GROUPS)), list(GROUPS), 1)
    scale = torch.cat([group.square().mean().sqrt().expand_as(group) for group in groups], 1).flatten()
    if not (scale > 0).all():
        raise DataError("the reference images are all alike: the Fréchet distance has no unit; give more of them")
    return frechet_distance(features / scale, reference / scale)


def frechet_distance(a: Tensor, b: Tensor) -> float:
    """Squared Fréchet distance of the Gaussians that have the means and covariances of two sets of features.

    Args:
        a: (N, D), float64.
        b: (M, D), float64.

    Raises:
        ValueError: fewer than two rows, other widths, or values that are not finite.
    """
    if a.ndim != 2 or b.ndim != 2 or a.shape[1] != b.shape[1] or min(len(a), len(b)) < 2:
        raise ValueError(f"features must be (N, D) and (M, D), N, M > 1, got {tuple(a.shape)} and {tuple(b.shape)}")
    if not (torch.isfinite(a).all() and torch.isfinite(b).all()):
        raise DataError("features hold values that are not finite (NaN or infinity)")
    return gaussian_distance(a.mean(0), torch.cov(a.T), b.mean(0), torch.cov(b.T))


def gaussian_distance(mean_a: Tensor, cov_a: Tensor, mean_b: Tensor, cov_b: Tensor) -> float:
    """Squared Fréchet (2-Wasserstein) distance of two Gaussians; means (D,), covariances (D, D), float64.

    Source: Dowson, Landau, J. Multivariate Anal. 12 (1982).
    """
    values, vectors = torch.linalg.eigh(cov_a)
    root = (vectors * values.clamp(min=0).sqrt()) @ vectors.T
    cross = torch.linalg.eigvalsh(root @ cov_b @ root).clamp(min=0).sqrt().sum()
    return float((mean_a - mean_b).square().sum() + cov_a.trace() + cov_b.trace() - 2 * cross)


def _rgb(images: Tensor) -> Tensor:
    """Images as three channels in [-1, 1], float32, on the CPU."""
    shown = 2 * images.abs() - 1 if images.is_complex() else images
    return shown.detach().cpu().float().clamp(-1, 1).expand(-1, 3, -1, -1)
