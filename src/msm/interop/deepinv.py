"""A trained model as a denoiser and as a reconstructor of deepinv: its physics in, its samplers around it.

deepinv has photos in [0, 1], ours lie in [−1, 1]; its complex images are two channels, real and imaginary part, on the
model's own scale. Its k-space and coil maps are ours but for the axes, and for maps whose squares need not add up to 1.
"""

from typing import Any

import torch
from torch import Tensor

from ..data_step import DataStep, preset_data_step
from ..denoiser import PartialDenoiser, mask_law
from ..errors import optional
from ..operators import Problem, Undersampling
from ..sampling import Sampler, reconstruct
from ..transforms import Identity, MultiCoil, Transform

models = optional("deepinv.models", "a model for deepinv", "deepinv")
physics_of = optional("deepinv.physics", "a model for deepinv", "deepinv")

MOST_MASKS = 64  # that one estimate is the mean of


class Denoiser(models.Denoiser):  # type: ignore[misc,name-defined]  # deepinv has no types
    """The model as a deepinv denoiser: the prior of `deepinv.sampling` and of plug-and-play methods.

    The estimate is the mean of what the model says under masks that together cover the measurement (SPEC §5), one mask
    if it takes full measurements. They follow from `seed` and the noise level alone: the same input, the same output.

    Args:
        denoiser: trained partial denoiser with its mask law.
        maps: for MRI, coil maps (B or 1, coils, H, W), complex, with squares that add up to 1; ones for a single coil.
        seed: of the masks, and for MRI of the noise that the coils hold beyond that of the image.

    Raises:
        ValueError: if the model is one of MRI and there are no maps.
        MissingPackage: on import of this module, if deepinv is missing.
    """

    def __init__(self, denoiser: PartialDenoiser, *, maps: Tensor | None = None, seed: int = 0):
        super().__init__(device=denoiser.schedule.device)
        if maps is None and _is_complex(denoiser):
            raise ValueError("a model of MRI needs maps; of a single coil these are torch.ones(1, 1, H, W) + 0j")
        self.denoiser, self.maps, self.seed = denoiser, maps, seed

    def forward(self, x: Tensor, sigma: float | Tensor, **kwargs: Any) -> Tensor:
        """Estimate the image.

        Args:
            x: photos (B, C, H, W) in [0, 1], or real and imaginary part (B, 2, H, W), with white noise.
            sigma: its standard deviation, a number or (B,); the least that the model knows is 0.01 (photos: 0.005).
            kwargs: what deepinv hands over beside these; not used.

        Returns:
            the estimate, like x.
        """
        level: Tensor = self._handle_sigma(sigma, reference_tensor=x).flatten().float()
        if self.maps is None:
            return ((self._estimate(2 * x.float() - 1, 2 * level, Identity()) + 1) / 2).to(x.dtype)
        image = _complex(x.float())
        return _channels(self._estimate(image, level, MultiCoil(self.maps.to(x.device)))).to(x.dtype)

    def _estimate(self, x: Tensor, sigma: Tensor, transform: Transform) -> Tensor:
        """The estimate of x (B, C, H, W) with noise sigma (B,)."""
        schedule = self.denoiser.schedule
        times = schedule.time(sigma)
        streams = [torch.Generator(x.device).manual_seed(_mixed(self.seed, t)) for t in times.tolist()]
        masks = self._masks(streams, (x.shape[-2], x.shape[-1]))
        z = transform.forward(x)
        if x.is_complex():  # white in all coils, as the model knows it: the image's noise reaches only the range of T
            white = torch.stack([torch.randn((*z.shape[1:], 2), generator=s, device=x.device) for s in streams])
            noise = torch.view_as_complex(white)
            z = z + sigma[:, None, None, None] * (noise - transform.forward(transform.adjoint(noise)))
        draws = masks.shape[1]
        z_t = (schedule.alpha_bar(times).sqrt()[:, None, None, None] * z).repeat_interleave(draws, 0)
        s_hat = self.denoiser(z_t, masks.flatten(0, 1), times.repeat_interleave(draws), transform.repeat(draws))
        count = masks.sum(1)
        total = s_hat.unflatten(0, (-1, draws)).sum(1)
        return transform.adjoint(torch.where(count > 0, total / count.clamp(min=1), z))

    def _masks(self, streams: list[torch.Generator], size: tuple[int, int]) -> Tensor:
        """As few masks as together cover every entry (B, draws, 1, H, W), an item's from its own stream."""
        law = mask_law(self.denoiser, None, size)
        u = torch.stack([torch.rand(MOST_MASKS, law.variates, generator=s, device=s.device) for s in streams])
        for draws in range(1, MOST_MASKS):
            masks = law.draw(u[:, :draws], covering=True)
            if masks.any(1).all():
                return masks
        return law.draw(u, covering=True)


class Reconstructor(models.Reconstructor):  # type: ignore[misc,name-defined]
    """The model as a deepinv reconstructor: posterior samples by `msm.reconstruct`, or their mean.

    Args:
        denoiser: trained partial denoiser with its mask law.
        sampler: how; None: the preset "best".
        data_step: how estimates meet the data; None: that of the preset "best".
        samples: posterior samples of an image, whose mean is given.
        seed: of the first; a batch takes one for each of its samples, one after the other.
        noise_std: of y, per real component; None: what the physics says.
    """

    def __init__(
        self,
        denoiser: PartialDenoiser,
        *,
        sampler: Sampler | None = None,
        data_step: DataStep | None = None,
        samples: int = 1,
        seed: int = 0,
        noise_std: float | None = None,
    ):
        super().__init__(device=denoiser.schedule.device)
        self.denoiser, self.sampler, self.data_step = denoiser, sampler, data_step
        self.samples, self.seed, self.noise_std = samples, seed, noise_std

    def forward(self, y: Tensor, physics: Any, **kwargs: Any) -> Tensor:
        """Reconstruct images.

        Args:
            y: what a linear physics of deepinv measured of photos in [0, 1], or its k-space (B, 2, …, H, W) of images
                on the model's scale.
            physics: that physics, with Gaussian noise or none.
            kwargs: what deepinv hands over beside these; not used.

        Returns:
            images as deepinv has them: (B, C, H, W) in [0, 1] up to noise, or (B, 2, H, W).

        Raises:
            ValueError: if the physics is not linear, its noise not Gaussian, or the model one of other images.
        """
        is_mri = isinstance(physics, physics_of.MRI | physics_of.MultiCoilMRI)
        if is_mri != _is_complex(self.denoiser):
            kinds = ("photos", "MRI")
            raise ValueError(f"the physics is one of {kinds[is_mri]}, the model one of {kinds[not is_mri]}")
        noise_std = self._noise(physics)
        problem, gain = _of_k_space(y, physics, noise_std) if is_mri else (_of_photos(y, physics, noise_std), None)
        sampler = self.sampler or Sampler.preset("best", mri=is_mri, inverse_problem=True)
        data_step = self.data_step or preset_data_step("best", mri=is_mri)
        if self.denoiser.masks is not None:
            sampler = sampler.fitted(self.denoiser.masks)
        first = range(self.seed, self.seed + self.samples * len(y), self.samples)
        z = torch.zeros(())
        for k in range(self.samples):
            seeds = [seed + k for seed in first]
            z = z + reconstruct(self.denoiser, problem, seeds=seeds, sampler=sampler, data_step=data_step)
        x = problem.transform.adjoint(z / self.samples)
        return (x + 1) / 2 if gain is None else _channels(torch.where(gain > 0, x / gain.clamp(min=1e-12), 0))

    def _noise(self, physics: Any) -> float | Tensor:
        """σ_y: as given, or as the physics says; a number, or one for each item (B, 1, 1, 1)."""
        model = physics.noise_model
        if self.noise_std is not None:
            return self.noise_std
        if isinstance(model, physics_of.GaussianNoise):
            sigma = torch.as_tensor(model.sigma, dtype=torch.float32).flatten()
            return sigma.item() if len(sigma) == 1 else sigma[:, None, None, None]
        if isinstance(model, physics_of.ZeroNoise):
            return 0.0
        raise ValueError(
            f"noise of {type(model).__name__} is not Gaussian: give noise_std, that of the nearest Gaussian"
        )


def _of_photos(y: Tensor, physics: Any, noise_std: float | Tensor) -> Problem:
    """The problem of z = 2 x − 1, given y = H x + e: then 2 y − H 1 = H z + 2 e."""
    if not isinstance(physics, physics_of.LinearPhysics):
        raise ValueError(f"{type(physics).__name__} is not linear: the data step needs a linear physics")
    ones = torch.ones_like(physics.A_adjoint(y))
    return Problem(2 * y - physics.A(ones), physics, noise_std=2 * noise_std)


def _of_k_space(y: Tensor, physics: Any, noise_std: float | Tensor) -> tuple[Problem, Tensor]:
    """The problem of z = F C x, and g (B or 1, 1, H, W): it is posed for g x, as our maps C/g have unit squares."""
    if physics.mask.ndim != 4:
        raise ValueError(f"the mask is of shape {list(physics.mask.shape)}: the model is one of slices, (B, 2, H, W)")
    mask = physics.mask[:, :1].bool()
    if isinstance(physics, physics_of.MultiCoilMRI):
        k_space, maps = _complex(y, keep=False), physics.coil_maps
    else:
        k_space, maps = _complex(y), torch.ones_like(mask, dtype=torch.complex64)
    gain = maps.abs().square().sum(1, keepdim=True).sqrt()
    transform = MultiCoil(torch.where(gain > 0, maps / gain.clamp(min=1e-12), 0))
    return Problem(k_space, Undersampling(mask), transform, noise_std), gain


def _is_complex(denoiser: PartialDenoiser) -> bool:
    """Whether the images of a model are complex, as its record says."""
    return str(denoiser.record.get("scale", "")).startswith("complex")


def _complex(x: Tensor, keep: bool = True) -> Tensor:
    """Real and imaginary part (B, 2, …) as complex numbers (B, 1, …), or (B, …) without that axis."""
    numbers = torch.view_as_complex(x.movedim(1, -1).contiguous())
    return numbers[:, None] if keep else numbers


def _channels(x: Tensor) -> Tensor:
    """Complex images (B, 1, H, W) as real and imaginary part (B, 2, H, W)."""
    return torch.view_as_real(x[:, 0]).movedim(-1, 1)


def _mixed(seed: int, t: float) -> int:
    """A seed of its own for every noise level."""
    return (seed * 1_000_003 + round(t * 1000)) % 2**63
