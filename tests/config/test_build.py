"""From settings to objects."""

import pytest
import torch
from configs import CONFIGS, FACES, MRI

from msm import operators as ops
from msm.config.build import make_data_step, make_denoiser, make_masks, make_operator, make_sampler
from msm.config.load import load_config
from msm.config.measured import (
    BoxMaskConfig,
    BoxProblem,
    CartesianMaskConfig,
    ColorizationProblem,
    FullMaskConfig,
    GaussianBlurProblem,
    MotionBlurProblem,
    RandomProblem,
    SuperResolutionProblem,
    VariableDensityMaskConfig,
)
from msm.config.sampled import GradientStepConfig, ProximalConfig, SampleConfig
from msm.data_step import GradientStep, Proximal
from msm.denoiser import EDM, Epsilon, Sense
from msm.masks import BoxMasks, CartesianMasks, FullMask, VariableDensityMasks
from msm.sampling import Sampler

SHAPE = (3, 16, 16)


def streams():
    return [torch.Generator().manual_seed(seed) for seed in (4, 5)]


def masks_of_each():
    return torch.cat([ops.random_inpainting(SHAPE, generator=stream, kept=0.2).mask for stream in streams()])


OPERATORS = {  # settings: what they describe, the shape of y
    BoxProblem(hole=8): (lambda: ops.box_inpainting(SHAPE, hole=8), (3, 16, 16)),
    RandomProblem(keep=0.2): (lambda: ops.Undersampling(masks_of_each()), (3, 16, 16)),
    SuperResolutionProblem(factor=2): (lambda: ops.super_resolution(SHAPE, factor=2), (3, 8, 8)),
    GaussianBlurProblem(blur_sigma=1.5): (lambda: ops.gaussian_blur(SHAPE, sigma=1.5), (3, 16, 16)),
    MotionBlurProblem(blur_length=7, blur_angle=-20): (
        lambda: ops.motion_blur(SHAPE, length=7, angle=-20),
        (3, 16, 16),
    ),
    ColorizationProblem(): (lambda: ops.colorization(SHAPE), (1, 16, 16)),
}


@pytest.mark.parametrize("problem", OPERATORS, ids=lambda problem: problem.operator)
def test_operators(problem):
    make, shape_y = OPERATORS[problem]
    operator, expected = make_operator(problem, SHAPE, streams()), make()
    z = torch.rand(2, *SHAPE, generator=torch.Generator().manual_seed(0))
    assert type(operator) is type(expected) and operator.A(z).shape == (2, *shape_y)
    assert torch.equal(operator.A(z), expected.A(z))
    assert torch.equal(operator.A_dagger(operator.A(z)), expected.A_dagger(expected.A(z)))


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        (FullMaskConfig(), FullMask((16, 24))),
        (BoxMaskConfig(drop=0.3, grid=2), BoxMasks((16, 24), 0.3, 2)),
        (CartesianMaskConfig(acceleration=3, center=4, pattern="uniform"), CartesianMasks((16, 24), 3, 4, "uniform")),
        (
            VariableDensityMaskConfig(acceleration=3, center=4, pattern="random", corners=False),
            VariableDensityMasks((16, 24), 3, 4, "random", False),
        ),
    ],
    ids=lambda part: getattr(part, "kind", ""),
)
def test_masks(settings, expected):
    made = make_masks(settings, (16, 24))
    assert type(made) is type(expected) and made.settings == expected.settings and made.kind == settings.kind


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        (["diffusion={}"], Epsilon()),
        (["diffusion={parametrisation: sense, sense_iterations: 7, phase_width: 3}"], Sense(iterations=7)),
    ],
)
def test_denoisers(overrides, expected):
    config = load_config(MRI, overrides)
    masks = make_masks(config.data.mask, 32)
    denoiser = make_denoiser(torch.nn.Identity(), config.diffusion, masks)
    assert type(denoiser.parametrisation) is type(expected) and denoiser.masks is masks
    assert denoiser.prior.phase_width == config.diffusion.phase_width
    if isinstance(expected, Sense):
        assert denoiser.parametrisation.iterations == 7 and denoiser.parametrisation.prior.phase_width == 3


def test_the_denoiser_of_photos():
    config = load_config(FACES, ["diffusion.parametrisation=edm"])
    denoiser = make_denoiser(torch.nn.Identity(), config.diffusion)
    assert denoiser.parametrisation == EDM() and denoiser.masks is None


def test_samplers_take_every_setting():
    chosen = {"steps": 7, "draws": 2, "eta": 0.3, "score": "chain", "grid": "log", "order": 2}
    settings = SampleConfig(**chosen, masks="iid", warm_start="none")
    assert make_sampler(settings) == Sampler(**chosen, covering=False)
    again = settings.model_copy(update={"masks": "covering", "warm_start": 0.5})
    assert make_sampler(again) == Sampler(**chosen, warm_start=0.5)


def test_data_steps():
    assert make_data_step(GradientStepConfig(gamma=3)) == GradientStep(3.0)
    assert make_data_step(ProximalConfig(iterations=3, likelihood_weight=2)) == Proximal(3, 2.0)


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*/*.yaml")), ids=lambda p: f"{p.parent.name}/{p.stem}")
def test_shipped_files_describe_objects(path):
    config = load_config(path)
    make_sampler(config.sample)
    make_denoiser(torch.nn.Identity(), config.diffusion, make_masks(config.data.mask, config.data.image_size))
    assert (config.sample.data_step is None) == (config.inverse_problem is None)
