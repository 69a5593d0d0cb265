"""From settings to the objects that they describe."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial

import torch
from torch import Generator, Tensor, nn

from .. import operators
from ..data_step import DataStep, Draw, GradientStep, Proximal
from ..denoiser import EDM, Epsilon, Parametrisation, PartialDenoiser, Sense
from ..errors import ConfigError
from ..losses import noiseless_loss, noisy_loss
from ..masks import FAMILIES, Masks, Size
from ..mri_prior import ImagePrior
from ..operators import Convolution, Undersampling, WeightedSum
from ..sampling import Sampler
from ..schedule import VPSchedule
from .measured import AnyMask, AnyProblem, DataConfig
from .sampled import OF_SAMPLER, AnyStep, DrawConfig, GradientStepConfig, SampleConfig
from .trained import DiffusionConfig, TrainConfig


@contextmanager
def _of_field(name: str) -> Iterator[None]:
    """What is built refuses values that do not go together, by a ValueError: here they come from a field."""
    try:
        yield
    except ValueError as error:
        raise ConfigError(f"{name}: {error}") from error


def make_masks(mask: AnyMask, size: Size, field: str = "data.mask") -> Masks:
    """The mask law that a field of a config describes, of a size (H, W), or H = W.

    Raises:
        ConfigError: there is no such law of this size.
    """
    settings = {"size": size, **mask.model_dump(exclude={"kind"})}
    with _of_field(field):
        return FAMILIES[mask.kind](**settings)


def make_law(data: DataConfig) -> Masks | None:
    """The law that data.mask describes; None for that of the masks seen, which only measurements or weights hold."""
    return None if data.mask.kind == "empirical" else make_masks(data.mask, data.image_size)


def make_denoiser(network: nn.Module, diffusion: DiffusionConfig, masks: Masks | None = None) -> PartialDenoiser:
    """The partial denoiser that a config describes, around a network, trained on a mask law."""
    prior = ImagePrior(phase_width=diffusion.phase_width, phase_residual=diffusion.phase_residual)
    sense = Sense(prior, iterations=diffusion.sense_iterations)
    known: dict[str, Parametrisation] = {"epsilon": Epsilon(), "edm": EDM(), "sense": sense}
    return PartialDenoiser(network, VPSchedule(), known[diffusion.parametrisation], masks, prior=prior)


def make_sampler(sample: SampleConfig) -> Sampler:
    """The sampler that a config describes."""
    warm_start = None if sample.warm_start == "none" else sample.warm_start
    same = sample.model_dump(include=OF_SAMPLER)
    return Sampler(**same, covering=sample.masks == "covering", warm_start=warm_start)


def make_data_step(step: AnyStep | None) -> DataStep:
    """The data step that a config of an inverse problem describes."""
    assert step is not None  # `Config` finds one for every inverse problem
    if isinstance(step, GradientStepConfig):
        return GradientStep(step.gamma)
    kind = Draw if isinstance(step, DrawConfig) else Proximal
    return kind(step.iterations, step.likelihood_weight)


def make_operator(
    problem: AnyProblem, shape: tuple[int, int, int], streams: Sequence[Generator]
) -> Undersampling | Convolution | WeightedSum:
    """The operator of a problem on photos (C, H, W); what is random in it is drawn for each item from its stream.

    Raises:
        ConfigError: there is no such operator of this size.
    """
    assert problem.operator not in ("missing", "undersampling")  # masks are in the file, or for MRI
    fields = " and ".join(problem.model_dump(exclude={"operator", "noise_std"})) or "operator"
    with _of_field(f"inverse_problem.{fields}"):
        if problem.operator == "box":
            return operators.box_inpainting(shape, hole=problem.hole)
        if problem.operator == "random":
            kept = problem.keep
            masks = [operators.random_inpainting(shape, generator=stream, kept=kept).mask for stream in streams]
            return Undersampling(torch.cat(masks))
        if problem.operator == "super_resolution":
            return operators.super_resolution(shape, factor=problem.factor)
        if problem.operator == "gaussian_blur":
            return operators.gaussian_blur(shape, sigma=problem.blur_sigma)
        if problem.operator == "motion_blur":
            return operators.motion_blur(shape, length=problem.blur_length, angle=problem.blur_angle)
        assert problem.operator == "colorization"  # undersampling is for MRI
        return operators.colorization(shape)


def make_loss(settings: TrainConfig, largest_noise_std: float) -> Callable[..., Tensor]:
    """The loss of a `train` block for measurements with noise up to a level."""
    if largest_noise_std == 0:
        return noiseless_loss
    return partial(noisy_loss, sure_tau=settings.sure_tau, target_steps=settings.target_steps)
