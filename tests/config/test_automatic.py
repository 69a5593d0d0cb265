"""What is not given, or null, follows from the rest: defaults, presets, and what is recorded of them."""

from dataclasses import replace

import pytest
import yaml
from configs import BOX, CONFIGS, FACES, MRI, NEW_FACES, written

from msm.config.build import make_data_step, make_sampler
from msm.config.load import dump_asked, dump_config, load_config
from msm.data_step import Draw, GradientStep, Proximal, preset_data_step
from msm.errors import ConfigError
from msm.sampling import Sampler

NAMES = ["paper", "published", "best"]
RAW = ["data.kind=raw", "inverse_problem=null", "sample={}"]
PROBLEM = "inverse_problem={operator: undersampling, mask: {kind: cartesian}}"
TASKS = {  # file, overrides: what is automatic
    "new photos": (NEW_FACES, ["sample={}"]),
    "photos": (BOX, ["sample={}"]),
    "MRI": (MRI, ["sample={}"]),
    "raw": (MRI, RAW),
}
tasks = pytest.mark.parametrize(("path", "overrides"), TASKS.values(), ids=TASKS)
AUTOMATIC = ("samples", "steps", "draws", "eta", "masks", "score", "grid", "order", "warm_start", "data_step")


def sampled(config):
    """Sampler and data step, if any, of a config."""
    step = config.sample.data_step
    return make_sampler(config.sample), step and make_data_step(step)


# Defaults


def test_defaults_of_each_task():
    found = {name: sampled(load_config(*task)) for name, task in TASKS.items()}
    solve = Sampler(eta=0.85)
    assert found == {
        "new photos": (Sampler(eta=1.0), None),
        "photos": (solve, GradientStep(1.75)),
        "MRI": (solve, GradientStep(2.0)),
        "raw": (solve, Proximal(6)),
    }
    assert [load_config(*task).sample.samples for task in TASKS.values()] == [1, 1, 1, 8]


@tasks
@pytest.mark.parametrize("name", AUTOMATIC)
def test_null_is_automatic(path, overrides, name):
    automatic = load_config(path, overrides)
    assert load_config(path, [*overrides, f"sample.{name}=null"]) == automatic
    assert getattr(automatic.sample, name) is not None or name == "data_step"


@pytest.mark.parametrize(("name", "value"), [("gamma", 2.0), ("iterations", 6), ("likelihood_weight", 1.0)])
def test_null_is_automatic_in_a_data_step_too(name, value):
    kind = "gradient" if name == "gamma" else "proximal"
    for overrides in ([f"sample.data_step={{kind: {kind}, {name}: null}}"], [f"sample.data_step={{kind: {kind}}}"]):
        assert getattr(load_config(MRI, overrides).sample.data_step, name) == value


def test_null_is_the_default_in_every_block():
    given = yaml.safe_load(FACES.read_text())
    settings = load_config(FACES).model_dump()
    for block in ("data", "network", "diffusion", "train", "sample"):
        for name, value in settings[block].items():
            if name in given.get(block, {}) or value is None:
                continue
            assert load_config(FACES, [f"{block}.{name}=null"]) == load_config(FACES), f"{block}.{name}"


def test_defaults_that_depend_on_another_block():
    assert load_config(FACES).sample.eta == 1
    assert load_config(FACES, ["inverse_problem={operator: box, hole: 32}"]).sample.eta == 0.85
    config = load_config(MRI, [PROBLEM, "sample={}"])
    assert (config.sample.data_step.gamma, config.sample.eta) == (2, 0.85)
    config = load_config(MRI, [PROBLEM, "sample={data_step: {gamma: 1.75}, eta: 1}"])
    assert (config.sample.data_step.gamma, config.sample.eta) == (1.75, 1)
    many = ["diffusion={parametrisation: sense, sense_iterations: 9}", "sample.data_step={kind: proximal}"]
    assert load_config(MRI, many).sample.data_step.iterations == 9
    assert load_config(MRI, [*many, "sample.preset=best"]).sample.data_step.iterations == 20


def test_raw_files_need_no_inverse_problem():
    """Their own mask is the operator: eight proximal samples, if nothing else is said, and the dump says so."""
    config = load_config(MRI, RAW)
    problem, settings = config.inverse_problem, config.sample
    assert (problem.operator, problem.mask, settings.data_step.kind) == ("undersampling", None, "proximal")
    assert (settings.samples, settings.eta) == (8, 0.85)
    few = ["data.kind=raw", "inverse_problem={operator: undersampling}"]
    config = load_config(MRI, [*few, "sample={data_step: {kind: gradient, gamma: 1}, samples: 2}"])
    assert (config.sample.data_step.gamma, config.sample.samples) == (1, 2)
    step = load_config(MRI, [*few, "sample={data_step: {likelihood_weight: 3}}"]).sample.data_step
    assert (step.kind, step.likelihood_weight, step.iterations) == ("proximal", 3, 6)


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        (["sample={data_step: {gamma: 3}}"], GradientStep(3.0)),
        (["sample={data_step: {}}"], GradientStep(2.0)),
        (["sample={data_step: {kind: null, gamma: 3}}"], GradientStep(3.0)),
        (["sample={preset: published, data_step: {gamma: 3}}"], GradientStep(3.0)),
        (["sample={preset: best, data_step: {iterations: 3}}"], Draw(3)),
        (["sample={preset: best, data_step: {gamma: 3, kind: gradient}}"], GradientStep(3.0)),
        (["sample.preset=best", "sample.data_step.likelihood_weight=4"], Draw(20, 4.0)),
        ([*RAW, "sample.data_step.iterations=3"], Proximal(3)),
        ([*RAW, "sample.preset=published", "sample.data_step.gamma=3"], GradientStep(3.0)),
    ],
)
def test_a_data_step_without_a_kind_has_the_automatic_one(overrides, expected):
    assert make_data_step(load_config(MRI, overrides).sample.data_step) == expected


# Presets


@pytest.mark.parametrize("path", [NEW_FACES, BOX, MRI], ids=lambda p: p.stem)
def test_published_is_what_the_published_files_say(path):
    plain, named = load_config(path), load_config(path, ["sample.preset=published"])
    assert named.sample.model_dump(exclude={"preset"}) == plain.sample.model_dump(exclude={"preset"})
    assert named.inverse_problem == plain.inverse_problem


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(("path", "mri"), [(NEW_FACES, False), (BOX, False), (MRI, True)])
def test_a_preset_is_that_of_the_sampler(path, mri, name):
    solve = path != NEW_FACES
    expected = Sampler.preset(name, mri=mri, inverse_problem=solve).resolved(solve)
    step = preset_data_step(name, mri=mri) if solve else None
    if isinstance(step, Draw):
        expected = replace(expected, eta=1.0)
    assert sampled(load_config(path, [f"sample.preset={name}"])) == (expected, step)


def test_a_preset_on_the_command_line_beats_the_file_and_what_comes_later_beats_it():
    later = ["sample.eta=1", "sample.data_step={kind: gradient, gamma: 1}"]
    config = load_config(MRI, ["sample.steps=7", "sample.preset=best", *later])
    assert sampled(config) == (Sampler(steps=12, draws=5, eta=1.0, grid="log"), GradientStep(1.0))
    assert config.sample.count == 8  # what no preset chooses stays
    assert load_config(MRI, ["sample.preset=best", "sample.warm_start=none"]).sample.warm_start == "none"


def test_explicit_values_of_the_same_file_beat_its_preset(tmp_path):
    file = written(tmp_path, dump_config(load_config(NEW_FACES)).replace("preset: null", "preset: best"))
    assert load_config(file).sample.steps == 200
    assert load_config(file, ["sample.preset=best"]).sample.steps == 20


def test_fresh_noise_alone_follows_a_draw():
    config = load_config(MRI, ["sample.data_step={kind: draw}", "sample.eta=null"])
    assert sampled(config)[1] == Draw(6) and config.sample.eta == 1
    with pytest.raises(ConfigError, match=r"sample\.eta: found 0\.5; data step draw needs 1 or null"):
        load_config(MRI, ["sample.data_step={kind: draw}", "sample.eta=0.5"])


def test_raw_scans_take_the_step_of_the_preset():
    assert make_data_step(load_config(MRI, [*RAW, "sample.preset=best"]).sample.data_step) == Draw(20)
    config = load_config(MRI, [*RAW, "sample.preset=published"])
    assert make_data_step(config.sample.data_step) == GradientStep(2.0) and config.sample.samples == 8


# What is recorded


@tasks
@pytest.mark.parametrize("more", [{}, *({"preset": name} for name in NAMES), {"steps": 7}], ids=str)
def test_both_records_load_to_the_same_settings(tmp_path, path, overrides, more):
    config = load_config(path, [*overrides, *(f"sample.{name}={value}" for name, value in more.items())])
    for dump in (dump_config, dump_asked):
        again = load_config(written(tmp_path, dump(config)))
        assert again == config and dump_config(again) == dump_config(config)
    assert yaml.safe_load(dump_asked(config))["sample"] == more


@tasks
def test_what_was_asked_is_recorded_and_nothing_else(path, overrides):
    asked = yaml.safe_load(dump_asked(load_config(path, [*overrides, "sample={steps: 7, eta: null}"])))
    written_down = yaml.safe_load(path.read_text())
    assert asked["sample"] == {"steps": 7}
    assert asked["data"].keys() == written_down["data"].keys() and asked["network"] == written_down["network"]
    assert asked.keys() == written_down.keys() - ({"inverse_problem"} if overrides is RAW else set()) | {"sample"}
    everything = yaml.safe_load(dump_config(load_config(path, [*overrides, "sample={steps: 7}"])))
    assert set(AUTOMATIC) <= everything["sample"].keys()


def test_a_recorded_training_run_takes_the_defaults_of_the_task_it_is_given(tmp_path):
    """The example of `msm sample --help`: what training did not ask for is not fixed by its record."""
    training = load_config(CONFIGS / "train" / "fmri_msm_R4_noise0_1_img256.yaml", ["train.lr=2e-5"])
    assert (training.sample.samples, training.sample.eta) == (1, 1)
    asked = written(tmp_path, dump_asked(training))
    config = load_config(asked, ["data.kind=raw", "setting.dataset_dir=scan.mrd", "setting.save_dir=runs/scan"])
    assert sampled(config) == (Sampler(eta=0.85), Proximal(6))
    assert (config.sample.samples, config.train.lr) == (8, 2e-5)
    resolved = load_config(written(tmp_path, dump_config(training)), ["data.kind=raw"])
    assert (resolved.sample.samples, resolved.sample.eta) == (1, 1)  # it fixes what ran


# The network


@pytest.mark.parametrize(("path", "size", "channels"), [(FACES, 128, 3), (MRI, 256, 2)])
def test_the_network_takes_size_and_channels_from_the_data(tmp_path, path, size, channels):
    raw = yaml.safe_load(path.read_text())
    given = {name: raw["network"].pop(name, None) for name in ("image_size", "in_channels")}
    assert set(given.values()) <= {None, size, channels}
    config = load_config(written(tmp_path, yaml.safe_dump(raw)))
    assert (config.network.image_size, config.network.in_channels) == (size, channels)
    assert "image_size" not in yaml.safe_load(dump_asked(config))["network"]
    assert yaml.safe_load(dump_config(config))["network"]["image_size"] == size
    assert load_config(written(tmp_path, dump_asked(config)), ["data.image_size=64"]).network.image_size == 64
