"""The configuration: published files, round trips, and mistakes told in one line."""

import runpy
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from configs import CONFIGS, FACES, MRI, get, refused, written
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from published_layout import published
from pydantic import ValidationError

from msm.config.load import Config, ConfigError, dump_asked, dump_config, load_config

FILES = sorted(CONFIGS.glob("*/*.yaml"))


# Files


@pytest.mark.parametrize("path", FILES, ids=lambda p: f"{p.parent.name}/{p.stem}")
def test_shipped_file_loads_and_round_trips(path, tmp_path):
    assert path.read_text().startswith("# ")
    config = load_config(path)
    text = dump_config(config)
    assert load_config(written(tmp_path, text)) == config
    assert yaml.safe_load(text) == config.model_dump(mode="json")  # readers of YAML 1.1 agree: "no" is text
    assert load_config(written(tmp_path, dump_asked(config))) == config


def test_published_names():
    names = {kind: {p.stem for p in (CONFIGS / kind).glob("*.yaml")} for kind in ("train", "generation")}
    assert len(names["train"]) == len(names["generation"]) == 6
    assert names["train"] - names["generation"] == {"ffhq_uncond_p0_img128"}
    assert names["generation"] - names["train"] == {"ffhq_uncond_p00_noise0_0_img128"}
    assert len(list((CONFIGS / "inverseproblem").glob("*.yaml"))) == 4


PUBLISHED = {
    "train/ffhq_msm_p04_noise0_0_img128": {
        "data.kind": "images",
        "data.image_size": 128,
        "data.mask.drop": 0.4,
        "data.mask.grid": 4,
        "data.noise_std": 0,
        "network.in_channels": 3,
        "network.num_channels": 128,
        "network.num_res_blocks": 2,
        "network.channel_mult": (1, 1, 2, 3, 4),
        "network.attention_resolutions": (32, 16, 8),
        "network.num_head_channels": 64,
        "diffusion.parametrisation": "epsilon",
        "diffusion.train_steps": 200,
        "train.lr": 1e-5,
        "train.batch_size": 2,
        "train.images": 2_000_000,
        "train.ema_decay": 0.9999,
        "train.remask": False,
        "inverse_problem": None,
    },
    "train/ffhq_msm_p04_noise0_1_img128": {
        "data.noise_std": 0.1,
        "train.sure_tau": 0.005,
        "train.sure_weight": 0.05,
    },
    "train/ffhq_uncond_p0_img128": {"data.mask.drop": 0, "diffusion.train_steps": 1000, "sample.draws": 1},
    "train/fmri_msm_R4_noise0_0_img256": {
        "data.kind": "fastmri",
        "data.mask.acceleration": 4,
        "data.mask.center": 20,
        "network.in_channels": 2,
        "network.channel_mult": (1, 1, 2, 2, 4, 4),
        "train.lr": 5e-5,
    },
    "train/fmri_msm_R4_noise0_1_img256": {"data.noise_std": 0.1, "train.lr": 5e-5},
    "train/fmri_uncond_R1_noise0_0_img256": {"data.mask.acceleration": 1, "diffusion.train_steps": 1000},
    "generation/ffhq_msm_p04_noise0_0_img128": {"sample.draws": 3, "sample.eta": 1, "sample.steps": 200},
    "generation/ffhq_uncond_p00_noise0_0_img128": {"data.mask.drop": 0, "sample.draws": 1},
    "generation/fmri_uncond_R1_noise0_0_img256": {"data.mask.acceleration": 1, "sample.draws": 1},
    "inverseproblem/ffhq_BOX_msm_p04_img128_EPS": {
        "inverse_problem.operator": "box",
        "inverse_problem.hole": 64,
        "inverse_problem.noise_std": 0.01,
        "sample.data_step.kind": "gradient",
        "sample.data_step.gamma": 1.75,
        "sample.draws": 2,
        "sample.eta": 0.85,
    },
    "inverseproblem/ffhq_SR4_msm_p04_img128_EPS": {
        "inverse_problem.operator": "super_resolution",
        "inverse_problem.factor": 4,
    },
    "inverseproblem/fmri_CSMRI4_msm_R4_noise0_1_img256": {
        "data.noise_std": 0.1,
        "inverse_problem.operator": "undersampling",
        "inverse_problem.mask.acceleration": 4,
        "inverse_problem.noise_std": 0.01,
        "sample.data_step.kind": "gradient",
        "sample.data_step.gamma": 2,
        "sample.draws": 3,
        "sample.eta": 0.85,
    },
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_values(name):
    config = load_config(CONFIGS / f"{name}.yaml")
    assert {field: get(config, field) for field in PUBLISHED[name]} == PUBLISHED[name]


# Overrides


def test_overrides():
    overrides = ["train.lr=2e-5", "data.limit=7", "network.channel_mult=[1, 2, 2, 4]", "train.images=3e6"]
    overrides += ["network.attention_resolutions=[32, 16]", "train.mixed_precision=no", "train.augment=true"]
    overrides += ["data.mask={kind: cartesian, center: 8}", "setting.dataset_dir=a=b", "train.lr=3e-5"]
    config = load_config(FACES, overrides)
    assert config.train.lr == 3e-5  # the last one counts
    assert (config.data.limit, config.train.images, config.train.augment) == (7, 3_000_000, True)
    assert config.network.channel_mult == (1, 2, 2, 4)
    assert config.train.mixed_precision == "no"  # not the "false" of YAML 1.1
    assert (config.data.mask.kind, config.data.mask.center) == ("cartesian", 8)
    assert config.setting.dataset_dir == Path("a=b")
    assert load_config(FACES, ["setting.dataset_dir=null"]).setting.dataset_dir is None


def test_override_opens_a_block_that_is_not_there():
    overrides = ["inverse_problem.operator=box", "inverse_problem.hole=32"]
    config = load_config(FACES, overrides)
    assert config.inverse_problem.hole == 32
    assert config.sample.eta == 0.85  # the default for inverse problems


def test_settings_are_frozen():
    with pytest.raises(ValidationError):
        load_config(FACES).train.lr = 1


def test_odd_text_round_trips(tmp_path):
    for name in ("no", "1e-5", "0x10", "2024-01-01", "1:30", "null", "ünï çødé", "a: b # c", "<<"):
        config = load_config(FACES, [f"setting.save_dir='{name}'"])
        assert config.setting.save_dir == Path(name)
        text = dump_config(config)
        assert load_config(written(tmp_path, text)) == config
        assert yaml.safe_load(text)["setting"]["save_dir"] == name


def test_reading_settings_does_not_load_torch():
    code = "import sys, msm.config; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


# Nothing in a file runs, and nothing but ConfigError comes out of one


@pytest.mark.parametrize("layout", [FACES.read_text(), "dataset:\n  name: ffhq\n"], ids=["ours", "published"])
@pytest.mark.parametrize(
    "attack",
    [
        "!!python/object/apply:os.system ['touch {}']",
        "!!python/object/apply:subprocess.check_output [[touch, '{}']]",
        "!!python/object/new:os.system ['touch {}']",
        "!!python/object/apply:pathlib.Path.touch [!!python/object/apply:pathlib.Path ['{}']]",
        "!!python/tuple [!!python/object/apply:os.system ['touch {}']]",
        "!!python/object/apply:eval [\"open('{}', 'w')\"]",
    ],
)
def test_hostile_tags_never_run(tmp_path, layout, attack):
    marker = tmp_path / "marker"
    attack = attack.format(marker)
    refused(written(tmp_path, f"{layout}\nextra: {attack}\n"), [], "the tag '!!python/object", "is refused")
    with pytest.raises(ConfigError):
        load_config(FACES, [f"train.lr={attack}"])
    assert not marker.exists()


TAGS = ["!!python/tuple", "!!int ", "!!bool x", "!!timestamp x", "!!binary =", "!!set ", "!!omap ", "!!merge "]
ODD = ["&a [*a]", "&a {x: *a}", "<<: ", "? [1]\n:", '"\\uD800"', '"\\x1b"', "0x1", "9" * 5000, "null", "---\n"]
WORDS = ["1e999", ".nan", "-.inf", "true", "dataset:\n", "inverse_problems: {name: sr}\n", "vp_diffusion: 1\n"]
SCRAPS = st.sampled_from([*"[]{}:,-?!&*#|>%@`'\"\\\n\t~= ", *TAGS, *ODD, *WORDS])


def mangled(text, cuts):
    for share, drop, scrap in cuts:
        at = int(share * len(text))
        text = text[:at] + scrap + text[at + drop :]
    return text


CUTS = st.lists(st.tuples(st.floats(0, 1), st.integers(0, 40), SCRAPS | st.text(max_size=8)), min_size=1, max_size=4)


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.sampled_from([MRI.read_text(), published("inverseproblem/ffhq_BOX_msm_p04_img128_EPS")]), CUTS)
@example("", [(0.0, 0, "train: &a {x: *a}")])
@example("", [(0.0, 0, "dataset: &a {x: *a}")])
@example("", [(0.0, 0, '"\\uD800": 1')])
@example("", [(0.0, 0, "train: !!bool x")])
def test_mangled_files_raise_only_config_errors(tmp_path, text, cuts):
    path = tmp_path / "run.yaml"
    path.write_bytes(mangled(text, cuts).encode("utf-8", "surrogatepass"))
    try:
        config = load_config(path)
    except ConfigError as error:
        assert str(error).replace("\n  ", "").isprintable() and str(path) in str(error)
    else:
        path.write_text(dump_config(config), encoding="utf-8")
        assert load_config(path) == config


@settings(max_examples=200, deadline=None)
@given(st.sampled_from(["train.lr", "data", "data.mask", "inverse_problem", "x.y"]) | st.text(max_size=9), st.data())
def test_mangled_overrides_raise_only_config_errors(name, data):
    value = data.draw(st.lists(SCRAPS | st.text(max_size=5), max_size=4).map("".join))
    try:
        assert isinstance(load_config(FACES, [f"{name}={value}"]), Config)
    except ConfigError as error:
        assert str(error).replace("\n  ", "").isprintable()


def test_probe_of_sure_follows_the_precision_unless_it_is_given():
    demo = CONFIGS / "demo/faces.yaml"
    assert load_config(demo).train.sure_tau == 0.05  # bf16
    assert load_config(demo, ["train.mixed_precision=no"]).train.sure_tau == 0.005
    assert load_config(demo, ["train.sure_tau=0.01"]).train.sure_tau == 0.01
    assert load_config(FACES, ["train.mixed_precision=bf16"]).train.sure_tau == 0.005  # given in the file


def test_the_page_of_settings_is_that_of_the_models():
    page = Path(__file__).parents[2] / "docs" / "reference" / "settings.py"
    assert runpy.run_path(str(page))["tables"]() == page.with_suffix(".md").read_text()
