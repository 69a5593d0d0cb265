"""Presets: what they choose, what beats them, and that the samplers take them."""

from pathlib import Path

import pytest
import torch
from msm.config.presets import preset
from oracle import GaussianOracle

from msm import BoxMasks, CartesianMasks, Identity, MultiCoil, generate, reconstruct
from msm.config.load import ConfigError, dump_config, load_config
from msm.operators import Undersampling

CONFIGS = Path(__file__).parents[2] / "configs"
FACES = CONFIGS / "generation" / "ffhq_msm_p04_noise0_0_img128.yaml"
BOX = CONFIGS / "inverseproblem" / "ffhq_BOX_msm_p04_img128_EPS.yaml"
MRI = CONFIGS / "inverseproblem" / "fmri_CSMRI4_msm_R4_noise0_0_img256.yaml"
NAMES = ["paper", "published", "best"]


@pytest.mark.parametrize("path", [FACES, BOX, MRI], ids=lambda p: p.stem)
def test_published_is_what_the_published_files_say(path):
    plain, named = load_config(path), load_config(path, ["sample.preset=published"])
    assert named.sample.model_dump(exclude={"preset"}) == plain.sample.model_dump(exclude={"preset"})
    assert named.inverse_problem == plain.inverse_problem


def test_a_preset_on_the_command_line_beats_the_file_and_what_comes_later_beats_it():
    config = load_config(MRI, ["sample.steps=7", "sample.preset=best", "sample.eta=1", "inverse_problem.step_size=1"])
    settings, problem = config.sample, config.inverse_problem
    assert (settings.steps, settings.draws, settings.grid, settings.warm_start) == (20, 3, "log", 1.0)
    assert (settings.eta, problem.step_size, problem.proximal_iterations) == (1, 1, 20)
    assert settings.count == 8  # what no preset chooses stays


def test_explicit_values_of_the_same_file_beat_its_preset(tmp_path):
    file = tmp_path / "c.yaml"
    file.write_text(dump_config(load_config(FACES)).replace("preset: null", "preset: best"))
    assert load_config(file).sample.steps == 200
    assert load_config(file, ["sample.preset=best"]).sample.steps == 20


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("path", [FACES, BOX, MRI], ids=lambda p: p.stem)
def test_what_is_recorded_says_what_ran(tmp_path, path, name):
    config = load_config(path, [f"sample.preset={name}"])
    file = tmp_path / "config.yaml"
    file.write_text(dump_config(config), encoding="utf-8")
    assert load_config(file) == config
    chosen = preset(name, inverse_problem=path != FACES, mri=path == MRI)
    assert (config.sample.masks == "covering") is chosen.pop("covering")
    recorded = {**(config.inverse_problem.model_dump() if config.inverse_problem else {}), **config.sample.model_dump()}
    assert chosen == {key: recorded[key] for key in chosen}


def test_raw_scans_take_the_step_of_the_preset():
    raw = ["data.kind=raw", "inverse_problem=null", "sample={}"]
    assert load_config(MRI, raw).inverse_problem.step_size == "proximal"
    config = load_config(MRI, [*raw, "sample.preset=published"])
    assert (config.inverse_problem.step_size, config.sample.samples) == (2, 8)


@pytest.mark.parametrize(
    ("path", "override", "message"),
    [
        (FACES, "sample.preset=beste", "sample.preset: found 'beste'; it should be 'paper', 'published' or 'best'"),
        (FACES, "sample.warm_start=1", "sample.warm_start: found 1.0; it is for inverse problems, use null"),
        (MRI, "sample.order=2", "sample.order: found 2; it is to generate, use 1 for inverse problems"),
        (MRI, "sample.warm_start=0", "sample.warm_start: found 0; it should be greater than 0.01"),
        (MRI, "sample.grid=rho", "sample.grid: found 'rho'; it should be 'time' or 'log'"),
    ],
)
def test_mistakes(path, override, message):
    with pytest.raises(ConfigError) as error:
        load_config(path, [override])
    assert message in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize("name", NAMES)
def test_the_samplers_take_presets(name):
    oracle, shape = GaussianOracle(), (1, 8, 8)
    few = preset(name) | {"steps": 4}
    assert generate(oracle, Identity(), BoxMasks(8), shape, seeds=[0], **few).isfinite().all()

    def shrink(z_t, mask, t, transform):
        return torch.where(mask, z_t / 2, 0)

    maps = torch.full((1, 4, 8, 8), 0.5, dtype=torch.complex64)
    masks = CartesianMasks(8, 2, 2)
    operator = Undersampling(masks.sample(1, torch.Generator().manual_seed(0)))
    y = operator.A(MultiCoil(maps).forward(torch.ones(1, 1, 8, 8, dtype=torch.complex64)))
    few = preset(name, inverse_problem=True, mri=True) | {"steps": 4}
    z = reconstruct(shrink, y, operator, MultiCoil(maps), masks, (4, 8, 8), seeds=[0], noise_std=0.1, **few)
    assert z.isfinite().all()


def test_unknown_preset():
    with pytest.raises(ValueError, match="preset must be paper, published or best, got 'fast'"):
        preset("fast")
