"""The partial denoiser D_θ(s_t; σ_t, S) = E[S z | s_t, S] (SPEC §2).

The network always works in image space, so that one U-Net serves every T:

    u = Tᴴ Sᵀ s_t        x̂ = estimate of the image from u by the network        ŝ = S T x̂

How the network's output becomes x̂, and how the loss is weighted so that the network's task has the same size at
every noise level, is the *parametrisation*: a small object that can be replaced.
"""

import json
import os
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import safetensors.torch
import torch
from torch import Tensor, nn

from .conjugate_gradient import solve_penalised
from .error_covariance import ErrorModel, ErrorSpectrum
from .errors import DataError
from .hub import Pretrained
from .masks import FAMILIES, Masks
from .mri_prior import ImagePrior, PhasedParts
from .network import ADMNetwork, StoredNetwork, read_tensors
from .network.stored import CONFIG_FILE, WEIGHTS_FILE
from .schedule import VPSchedule
from .system.files import write_text
from .system.manifest import read_json, replacing
from .system.places import weights_folder
from .transforms import Transform

Network = Callable[[Tensor, Tensor], Tensor]

DENOISER_FILE, MASKS_FILE, ERROR_FILE = "denoiser.json", "masks.safetensors", "error.safetensors"
WEIGHTS_FOLDER = (CONFIG_FILE, WEIGHTS_FILE, DENOISER_FILE, MASKS_FILE, ERROR_FILE)
FORMAT = 1  # of DENOISER_FILE


class Denoiser(Protocol):
    """Anything that maps (z_t, mask, t, transform) to an estimate of S z, zero off the mask."""

    @property
    def schedule(self) -> VPSchedule:
        """The noise schedule that t is a time of."""

    def __call__(self, z_t: Tensor, mask: Tensor, t: Tensor, transform: Transform) -> Tensor:
        """Estimate S z (B, C or coils, H, W)."""


class Parametrisation(Protocol):
    """How the network's output becomes an estimate of the image."""

    def estimate(
        self, network: Network, z_t: Tensor, mask: Tensor, t: Tensor, sigma: Tensor, transform: Transform
    ) -> Tensor:
        """Estimate of the image (B, C, H, W) from the measured entries of z_t; t (B,), sigma (B, 1, 1, 1)."""

    def loss_weight(self, sigma: Tensor) -> Tensor:
        """What the squared error counts at σ_t, so that the network's task has one size."""


@dataclass(frozen=True)
class Epsilon:
    """The published parametrisation: the network predicts the noise in u, x̂ = (u − sqrt(1−ᾱ) ε̂) / sqrt(ᾱ)."""

    def estimate(
        self, network: Network, z_t: Tensor, mask: Tensor, t: Tensor, sigma: Tensor, transform: Transform
    ) -> Tensor:
        """Estimate of the image (B, C, H, W) from the measured entries of z_t; t (B,), sigma (B, 1, 1, 1)."""
        root_alpha_bar = (1 + sigma**2).rsqrt()
        u = transform.adjoint(torch.where(mask, z_t, 0))
        eps = run_network(network, u, t)
        return u / root_alpha_bar - sigma * eps

    def loss_weight(self, sigma: Tensor) -> Tensor:
        """ᾱ/(1−ᾱ): for T = I the loss is then the mean squared error of ε̂ on the measured entries."""
        return sigma**-2


@dataclass(frozen=True)
class EDM:
    """For photos: the network's output counts as much as σ_t leaves to be found, and no more.

        x̂ = σ_x²/(σ_t² + σ_x²) · Tᴴ Sᵀ s_t + c U(u, t),        c = σ_t σ_x / sqrt(σ_t² + σ_x²)

    for s_t = u / sqrt(ᾱ). c is the error of the best linear estimate of entries of standard deviation σ_x that know
    nothing of each other: it tends to σ_t at low noise, as for ε, and to σ_x at high noise, where ε̂ counts σ_t times
    and the least error of the network moves the brightness of a whole image.

    Args:
        image_std: σ_x, standard deviation of the images.

    Source: Karras, Aittala, Aila, Laine, NeurIPS 2022, table 1; c_in is that of `Epsilon`.
    """

    image_std: float = 0.5

    def estimate(
        self, network: Network, z_t: Tensor, mask: Tensor, t: Tensor, sigma: Tensor, transform: Transform
    ) -> Tensor:
        """Estimate of the image (B, C, H, W) from the measured entries of z_t; t (B,), sigma (B, 1, 1, 1)."""
        u = transform.adjoint(torch.where(mask, z_t, 0))
        kept = self.image_std**2 / (sigma**2 + self.image_std**2)
        return kept * (1 + sigma**2).sqrt() * u + self.loss_weight(sigma).rsqrt() * run_network(network, u, t)

    def loss_weight(self, sigma: Tensor) -> Tensor:
        """1/c²: the network's own squared error counts at every σ_t."""
        return sigma**-2 + self.image_std**-2


@dataclass(frozen=True)
class Sense:
    """For several coils: the network corrects a linear estimate of the image instead of its adjoint.

    S T Tᴴ Sᵀ is no identity, so u keeps aliasing however small the noise is, and ε̂ would have to be aliasing/σ_t
    (SPEC §3). Here the network starts from phase-constrained SENSE (see `msm.mri_prior`), with x = e^{iφ} m:

        m_0 = argmin ‖S T e^{iφ} m − s‖² + σ_t² (Re m)ᵀ Fᴴ P⁻¹ F (Re m) + σ_t² (Im m)ᵀ Fᴴ (κP)⁻¹ F (Im m),
        x̂ = e^{iφ} (m_0 + c U(m_0 / σ_x, t)),        c² = q/2 log(1 + σ_t²/q).

    c² is the error of m_0 per real component if everything is measured and κ = 0: input, output and loss of the
    network are of order one at every σ_t. The minimiser of the loss is the same conditional expectation for every
    parametrisation.

    Args:
        prior: phase and spectrum of the images.
        image_std: σ_x, root-mean-square of the image.
        iterations: conjugate-gradient steps.
    """

    prior: ImagePrior = field(default_factory=ImagePrior)
    image_std: float = 0.25
    iterations: int = 4

    def estimate(
        self, network: Network, z_t: Tensor, mask: Tensor, t: Tensor, sigma: Tensor, transform: Transform
    ) -> Tensor:
        """Estimate of the image (B, 1, H, W) from the measured entries of z_t; t (B,), sigma (B, 1, 1, 1)."""
        s = torch.where(mask, z_t, 0) * (1 + sigma**2).sqrt()
        phase, m_0 = self.linear_estimate(s, mask, sigma, transform)
        correction = run_network(network, m_0 / self.image_std, t)
        return phase * (m_0 + self.loss_weight(sigma).rsqrt() * correction)

    def loss_weight(self, sigma: Tensor) -> Tensor:
        """1/c²: the network's own squared error counts at every σ_t."""
        q = self.prior.band_variance
        return 2 / (q * torch.log1p(sigma**2 / q))

    def linear_estimate(self, s: Tensor, mask: Tensor, sigma: Tensor, transform: Transform) -> tuple[Tensor, Tensor]:
        """e^{iφ} and m_0, each (B, 1, H, W), from measured entries s (B, coils, H, W) with noise sigma (B, 1, 1, 1)."""
        phase = self.prior.phase(s, transform, sigma)
        ridges = sigma**2 * self.prior.precision(s.shape[-2:], self.prior.kappa(sigma), s.device)
        density = mask.float().mean((1, 2, 3), keepdim=True)
        b, parts = transform.adjoint(s), PhasedParts(phase)
        m = solve_penalised(lambda x: transform.normal(x, mask), b, parts, ridges, density, self.iterations)
        return phase, torch.complex(m[:, :1], m[:, 1:])


PARAMETRISATIONS: dict[str, type[Epsilon | EDM | Sense]] = {"epsilon": Epsilon, "edm": EDM, "sense": Sense}


class PartialDenoiser(Pretrained, nn.Module):
    """D_θ: from the measured entries of a noisy iterate to their conditional mean (SPEC §2).

    Args:
        network: U_θ(u, t) -> same shape as u, real; complex images enter as two channels (real, imaginary).
            `msm.adapt` makes one of any module.
        schedule: noise schedule.
        parametrisation: `Epsilon` (published), `EDM` (photos) or `Sense` (several coils).
        masks: the law that it is, or was, trained on; None: not known, the samplers then have to be told.
        prior: what the data step takes to be known of MR images; `Sense` brings its own.
        measured_error: the power of its estimates' error, of `measure_error`; None: assumed (`msm.error_covariance`).
        record: how it was trained, and on what scale its images are, JSON-friendly.
    """

    def __init__(
        self,
        network: nn.Module,
        schedule: VPSchedule,
        parametrisation: Parametrisation = Epsilon(),
        masks: Masks | None = None,
        *,
        prior: ImagePrior = ImagePrior(),
        measured_error: ErrorSpectrum | None = None,
        record: Mapping[str, Any] | None = None,
    ):
        super().__init__()
        self.network, self.schedule, self.parametrisation, self.masks = network, schedule, parametrisation, masks
        self.prior = parametrisation.prior if isinstance(parametrisation, Sense) else prior
        self.measured_error = measured_error
        self.record = dict(record or {})

    @property
    def error(self) -> ErrorModel:
        """What is known of the error of its estimates."""
        return ErrorModel(self.prior, self.measured_error)

    def forward(self, z_t: Tensor, mask: Tensor, t: Tensor, transform: Transform) -> Tensor:
        """Estimate the measured entries of the clean full measurement.

        Args:
            z_t: noisy iterate sqrt(ᾱ) z + sqrt(1−ᾱ) n, (B, C or coils, H, W); entries off the mask are not used.
            mask: S, (B, 1, H, W), bool.
            t: times on the 0…999 scale, scalar or (B,).
            transform: T.

        Returns:
            ŝ = S T x̂, (B, C or coils, H, W), zero off the mask.
        """
        t = t.expand(len(z_t))
        sigma = self.schedule.sigma(t)[:, None, None, None]
        x_hat = self.parametrisation.estimate(self.network, z_t, mask, t, sigma, transform)
        return torch.where(mask, transform.forward(x_hat), 0)

    def described(self) -> dict[str, Any]:
        """All but the weights, in words, numbers and, of a set of measured masks, tensors: what `save` writes.

        Raises:
            ValueError: if the network is none that can be written (`msm.adapt` makes one of any module), or the
                parametrisation is not one of ours.
        """
        kinds = [name for name, known in PARAMETRISATIONS.items() if type(self.parametrisation) is known]
        if not isinstance(self.network, StoredNetwork) or not kinds:
            found = f"{type(self.network).__name__} with {type(self.parametrisation).__name__}"
            raise ValueError(f"{found} cannot be written: adapt the network by msm.adapt, parametrise it as we do")
        chosen = {name: value for name, value in vars(self.parametrisation).items() if name != "prior"}
        masks = self.masks if type(self.masks) in FAMILIES.values() else None
        return {
            "format": FORMAT,
            "schedule": self.schedule.settings,
            "parametrisation": {"kind": kinds[0], **chosen},
            "prior": asdict(self.prior),
            "masks": masks and {"kind": masks.kind, **masks.settings},
            "error": self.measured_error and {"kind": "spectrum", **vars(self.measured_error)},
            "record": self.record,
        }

    def save(self, folder: str | os.PathLike[str]) -> None:
        """Write all that is needed to sample into one folder, for `load`.

        config.json and model.safetensors are the network; denoiser.json holds schedule, parametrisation, prior, mask
        law and record; the masks of a measured set lie in masks.safetensors, a measured error in error.safetensors. A
        law that is not one of ours is left out.
        What cannot be written is refused as by `described`.
        """
        about = self.described()
        assert isinstance(self.network, StoredNetwork)
        with replacing(Path(folder), lambda name: name in WEIGHTS_FOLDER, force=True) as filled:
            self.network.write(filled)
            self._write_about(filled, about)

    def save_error(self, folder: str | os.PathLike[str]) -> None:
        """Write the measured error into the folder that the denoiser lies in; the network stays as it is."""
        with replacing(Path(folder), lambda name: name == ERROR_FILE, force=True) as filled:
            self._write_about(filled, self.described())

    def _write_about(self, folder: Path, about: dict[str, Any]) -> None:
        """denoiser.json, and the tensors that it speaks of."""
        for block, file in ((about["masks"] or {}, MASKS_FILE), (about["error"] or {}, ERROR_FILE)):
            names = [name for name, value in block.items() if isinstance(value, Tensor)]
            if tensors := {name: block.pop(name).cpu().contiguous() for name in names}:
                (folder / file).write_bytes(safetensors.torch.save(tensors))
        write_text(folder / DENOISER_FILE, json.dumps(about, indent=1) + "\n")

    @classmethod
    def load(cls, folder: str | os.PathLike[str], network: StoredNetwork | None = None) -> "PartialDenoiser":
        """Read a denoiser that `save` wrote.

        Args:
            folder: where it was saved, the folder of a training run, or a bundled model, "bundled:faces".
            network: an adapted module of the kind that was saved, which takes up the weights; not needed for ours.

        Returns:
            the denoiser in float32 on the CPU; its `masks` are None if their law is not one of ours.

        Raises:
            DataError: a file is missing or damaged, or does not go with the others.
        """
        folder = weights_folder(Path(folder))
        about = read_json(folder / DENOISER_FILE, "the record of a denoiser")
        if about.get("format") != FORMAT:
            raise DataError(f"{folder / DENOISER_FILE}: not of format {FORMAT}: of another version of msm; train again")
        try:
            prior = ImagePrior(**about["prior"])
            kind, given = _kind_of(about["parametrisation"])
            if kind == "sense":
                given["prior"] = prior
            parametrisation = PARAMETRISATIONS[kind](**given)
            schedule, masks = VPSchedule(**about["schedule"]), _read_masks(folder, about["masks"])
            record = dict(about["record"])
            measured = ErrorSpectrum(**read_tensors(folder / ERROR_FILE)) if about.get("error") else None
        except DataError:
            raise
        except (KeyError, TypeError, ValueError) as error:
            raise DataError(f"{folder / DENOISER_FILE}: damaged ({error}); copy it from the training run") from error
        if network is None:
            network = ADMNetwork.load(folder)
        else:
            network.fill(network.read(folder))
        return cls(network, schedule, parametrisation, masks, prior=prior, measured_error=measured, record=record)

    def tensors(self) -> list[Tensor]:
        """All that samples follow from beside settings: weights, and the measured error."""
        measured = self.measured_error
        return [*self.state_dict().values(), *([] if measured is None else vars(measured).values())]

    def score(self, z_t: Tensor, mask: Tensor, t: Tensor, transform: Transform) -> Tensor:
        """Score of the measured entries of z_t / sqrt(ᾱ) by Tweedie's formula: (ŝ − s_t)/σ_t² (SPEC §2)."""
        sigma = self.schedule.sigma(t.expand(len(z_t)))[:, None, None, None]
        s_t = torch.where(mask, z_t, 0) * (1 + sigma**2).sqrt()
        return (self(z_t, mask, t, transform) - s_t) / sigma**2

    @property
    def divisor(self) -> int:
        """Of which the sides of images must be multiples; 1 where the network does not say."""
        return self.network.divisor if isinstance(self.network, StoredNetwork) else 1

    def loss_weight(self, t: Tensor) -> Tensor:
        """Weight of the squared error at times t (B,)."""
        return self.parametrisation.loss_weight(self.schedule.sigma(t))


@runtime_checkable
class KnowsItsError(Protocol):
    """A denoiser that says what is known of the error of its estimates."""

    @property
    def error(self) -> ErrorModel:
        """It."""


@runtime_checkable
class TrainedOn(Protocol):
    """A denoiser that says which law of masks it was trained on, or that it does not know (None)."""

    masks: Masks | None


def mask_law(denoiser: Denoiser, masks: Masks | None, size: tuple[int, int]) -> Masks:
    """The law of masks to sample with, of a size: the one given, or else the denoiser's own.

    Raises:
        ValueError: if there is none, or the one given has another size.
    """
    if masks is None and isinstance(denoiser, TrainedOn) and denoiser.masks is not None:
        return denoiser.masks if denoiser.masks.size == size else denoiser.masks.resized(size)
    if masks is None:
        raise ValueError("the denoiser does not say which masks it was trained on: give masks")
    if masks.size != size:
        raise ValueError(f"masks are of {masks.size[0]}×{masks.size[1]}, z is of {size[0]}×{size[1]}")
    return masks


def _kind_of(block: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """The kind that a block of denoiser.json names, and the rest of it."""
    return block["kind"], {name: value for name, value in block.items() if name != "kind"}


def _read_masks(folder: Path, block: Mapping[str, Any] | None) -> Masks | None:
    """The mask law that denoiser.json describes; None if there is none, or it is not one of ours."""
    kind, settings = _kind_of(block) if block else ("", {})
    if kind not in FAMILIES:
        return None
    if kind == "empirical":
        settings |= read_tensors(folder / MASKS_FILE)
    return FAMILIES[kind](**settings)


def run_network(network: Network, u: Tensor, t: Tensor) -> Tensor:
    """Run a real network on a real or complex image (B, C, H, W): complex channels count as two real ones."""
    if not u.is_complex():
        return network(u, t)
    pairs = torch.view_as_real(u).movedim(-1, 2).flatten(1, 2).contiguous()
    out = network(pairs, t).float()
    return torch.view_as_complex(out.unflatten(1, (u.shape[1], 2)).movedim(2, -1).contiguous())
