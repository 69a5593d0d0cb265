"""The configuration: published files, round trips, and mistakes told in one line."""

import runpy
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from msm.config.load import Config, ConfigError, ConfigWarning, dump_config, load_config
from msm.config.schema import SampleConfig

CONFIGS = Path(__file__).parents[2] / "configs"
FILES = sorted(CONFIGS.glob("*/*.yaml"))
FACES = CONFIGS / "train/ffhq_msm_p04_noise0_1_img128.yaml"
MRI = CONFIGS / "inverseproblem/fmri_CSMRI4_msm_R4_noise0_1_img256.yaml"


def one_line(raised, *parts):
    """The message is one printable line that holds all parts."""
    text = str(raised.value)
    assert text.isprintable() and all(part in text for part in parts), text


def refused(path, overrides, *parts):
    with pytest.raises(ConfigError) as raised:
        load_config(path, overrides)
    one_line(raised, str(path), *parts)


def written(tmp_path, text):
    path = tmp_path / "run.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def get(config, dotted):
    for name in dotted.split("."):
        config = getattr(config, name)
    return config


# Files


@pytest.mark.parametrize("path", FILES, ids=lambda p: f"{p.parent.name}/{p.stem}")
def test_shipped_file_loads_and_round_trips(path, tmp_path):
    assert path.read_text().startswith("# ")
    config = load_config(path)
    text = dump_config(config)
    assert load_config(written(tmp_path, text)) == config
    assert yaml.safe_load(text) == config.model_dump(mode="json")  # readers of YAML 1.1 agree: "no" is text


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
        "inverse_problem.step_size": 1.75,
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
        "inverse_problem.step_size": 2,
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


def test_defaults_that_depend_on_another_block():
    assert load_config(FACES).sample.eta == 1
    problem = {"operator": "undersampling", "mask": {"kind": "cartesian"}}
    config = load_config(MRI, [f"inverse_problem={problem}", "sample={}"])
    assert (config.inverse_problem.step_size, config.sample.eta) == (2, 0.85)
    config = load_config(MRI, [f"inverse_problem={problem | {'step_size': 1.75}}", "sample.eta=1"])
    assert (config.inverse_problem.step_size, config.sample.eta) == (1.75, 1)
    assert SampleConfig().eta == 1


def test_raw_files_need_no_inverse_problem():
    """Their own mask is the operator: eight proximal samples, if nothing else is said, and the dump says so."""
    config = load_config(MRI, ["data.kind=raw", "inverse_problem=null", "sample={}"])
    problem, settings = config.inverse_problem, config.sample
    assert (problem.operator, problem.mask, problem.step_size) == ("undersampling", None, "proximal")
    assert (settings.samples, settings.eta) == (8, 0.85)
    few = ["data.kind=raw", "inverse_problem={operator: undersampling, step_size: 1}", "sample={samples: 2}"]
    config = load_config(MRI, few)
    assert (config.inverse_problem.step_size, config.sample.samples) == (1, 2)
    more = ["data.kind=raw", "inverse_problem={likelihood_weight: 3}"]
    problem = load_config(MRI, more).inverse_problem
    assert (problem.operator, problem.step_size, problem.likelihood_weight) == ("undersampling", "proximal", 3)


def test_settings_are_frozen():
    with pytest.raises(ValidationError):
        load_config(FACES).train.lr = 1


# Mistakes

MISTAKES = [
    # unknown keys
    (FACES, "train.bach_size=3", "train.bach_size: unknown key; did you mean 'batch_size'?"),
    (FACES, "trian.lr=1", "trian: unknown key; did you mean 'train'?"),
    (FACES, "sample.lr=1", "sample.lr: unknown key; did you mean train.lr?"),
    (FACES, "lr=1", "lr: unknown key; did you mean train.lr?"),
    (FACES, "data.mask.dorp=.1", "data.mask.dorp: unknown key; did you mean 'drop'?"),
    (FACES, "data.zzz=1", "data.zzz: unknown key; known here: kind, image_size"),
    (FACES, "data.mask.kind=cartesian", "data.mask.drop: unknown key; known here: kind, acceleration"),
    # wrong types and values
    (FACES, "train.lr=fast", "train.lr: found 'fast'; it should be a valid number"),
    (FACES, "train.lr=true", "train.lr: found True; it should not be true or false"),
    (FACES, "train.lr=.nan", "train.lr: found nan; it should be a finite number"),
    (FACES, "train.lr=-1", "train.lr: found -1; it should be greater than 0"),
    (FACES, "train.batch_size=2.5", "train.batch_size: found 2.5; it should be a valid integer"),
    (FACES, "train.decay=linear", "train.decay: found 'linear'; it should be 'constant' or 'cosine'"),
    (FACES, "train=3", "train: found 3; it should be a block of keys"),
    (FACES, "setting.save_dir=3", "setting.save_dir: found 3; it should be a path"),
    (FACES, "network.channel_mult=[1, x]", "network.channel_mult.1: found 'x'"),
    (FACES, "network.channel_mult=[1, true]", "network.channel_mult: found [1, True]"),
    (FACES, "data.mask.drop=1", "data.mask.drop: found 1; it should be less than 1"),
    (FACES, "data.mask.kind=circle", "data.mask.kind: found 'circle'; it should be one of 'box', 'cartesian'"),
    (FACES, "data.mask={drop: 0.1}", "data.mask.kind: missing"),
    (FACES, "data.mask=box", "data.mask: found 'box'"),
    (FACES, "setting={}", "setting.save_dir: missing; add it"),
    # fields that must agree
    (FACES, "data.image_size=64", "network.image_size: found 128; data.image_size is 64"),
    (FACES, "data.kind=slices", "network.in_channels: found 3; data.kind slices needs 2"),
    (FACES, "data.channels=1", "network.in_channels: found 3; data.kind images needs 1"),
    (FACES, "data.mask.grid=5", "data.mask.grid: found 5; use a divisor"),
    (MRI, "data.mask.center=300", "data.mask.center: found 300"),
    (MRI, "data.mask={kind: cartesian, acceleration: 2.5, pattern: uniform}", "data.mask.acceleration: found 2.5"),
    (
        MRI,
        "data.mask={kind: variable_density, center: 300}",
        "data.mask.center: found 300; at most data.image_size 256",
    ),
    (
        MRI,
        "data.mask={kind: variable_density, acceleration: 1.2, corners: false}",
        "data.mask.acceleration: found 1.2; at least 1.5 where corners are left out",
    ),
    (MRI, "data.mask={kind: variable_density, drop: 0.4}", "data.mask.drop"),
    (FACES, "diffusion.parametrisation=sense", "diffusion.parametrisation: found 'sense'; it is for MRI"),
    (MRI, "diffusion.parametrisation=edm", "diffusion.parametrisation: found 'edm'; it is for images"),
    (FACES, "network.channel_mult=[2, 2]", "network.channel_mult: found [2, 2]; begin with 1"),
    (FACES, "network.channel_mult=[1, 1, 1, 1, 1, 1, 1, 1, 1]", "cannot be halved 8 times"),
    (FACES, "network.attention_resolutions=[4]", "network.attention_resolutions: found 4"),
    (FACES, "network.num_channels=48", "network.num_channels: found 48; use a multiple of num_groups 32"),
    (FACES, "inverse_problem={operator:", 'put the whole argument in quotes: "inverse_problem={operator: ..."'),
    (
        FACES,
        "inverse_problem={operator: undersampling, mask: {kind: cartesian}}",
        "inverse_problem.operator: found 'undersampling'; data.kind images takes box, random",
    ),
    (FACES, "network.patch_size=3", "network.patch_size: found 3; use a divisor of image_size 128"),
    (
        FACES,
        "network.patch_size=16",
        "network.channel_mult: found [1, 1, 2, 3, 4]; a side of 8 cannot be halved 4 times",
    ),
    (FACES, "network.patch_size=8", "network.attention_resolutions: found 32; the levels of channel_mult are at"),
    (FACES, "network.num_head_channels=48", "network.num_head_channels: found 48; use a divisor"),
    (FACES, "train.accumulate=3", "train.accumulate: found 3; batch_size 2"),
    (FACES, "train.submask_keep=[1, 0.5]", "train.submask_keep: found [1.0, 0.5]"),
    (FACES, "sample.score=sum", "sample.score: found 'sum'; it should be 'average' or 'chain'"),
    (FACES, "train.warmup_images=3_000_000", "train.warmup_images: found 3000000"),
    # operators and their parameters
    (FACES, "inverse_problem={operator: box}", "inverse_problem.hole: missing; operator box needs it"),
    (
        MRI,
        "inverse_problem={operator: undersampling}",
        "inverse_problem.mask: missing; operator undersampling needs it",
    ),
    (MRI, "data.kind=raw", "inverse_problem.mask: remove it, or set inverse_problem=null"),
    (FACES, "inverse_problem={operator: motion_blur, blur_length: 3}", "inverse_problem.blur_angle: missing"),
    (FACES, "inverse_problem={operator: box, hole: 4, factor: 2}", "inverse_problem.factor: found 2; remove it"),
    (FACES, "inverse_problem={operator: colorization, keep: 0.5}", "inverse_problem.keep: found 0.5; remove it"),
    (FACES, "inverse_problem={operator: box, hole: 200}", "inverse_problem.hole: found 200"),
    (FACES, "inverse_problem={operator: super_resolution, factor: 3}", "inverse_problem.factor: found 3"),
    (MRI, "inverse_problem={operator: box, hole: 64}", "inverse_problem.operator: found 'box'"),
    (MRI, "inverse_problem.mask.center=300", "inverse_problem.mask.center: found 300"),
    (MRI, "inverse_problem.likelihood_weight=3", "inverse_problem.likelihood_weight: found 3; step_size 2 does not"),
    # the overrides themselves
    (FACES, "train.lr", "write for example train.lr=2e-5"),
    (FACES, "=1", "write for example train.lr=2e-5"),
    (FACES, "train..lr=1", "write for example train.lr=2e-5"),
    (FACES, "train.lr.x=1", "train.lr: found 1e-05, which has no keys"),
    (FACES, "train.lr=[}]", "line 1: expected the node content"),
    (FACES, "train.lr=!!python/name:os.system ''", "the tag '!!python/name:os.system' is refused"),
]


@pytest.mark.parametrize(("path", "override", "message"), MISTAKES, ids=[m[1] for m in MISTAKES])
def test_mistake_is_told_in_one_line(path, override, message):
    refused(path, [override], message)


def test_the_override_at_fault_is_named():
    refused(FACES, ["data.limit=3", "train.lr=-1"], f"{FACES} (override train.lr=-1): train.lr: ")


def test_mistakes_in_a_file(tmp_path):
    good = FACES.read_text()
    for text, message in {
        good.replace("batch_size", "btch_size"): "train.btch_size: unknown key; did you mean 'batch_size'?",
        good.replace("lr: 1e-5", "lr: [1, 2]"): "train.lr: found [1, 2]",
        good.replace("image_size", "img_size"): "img_size: unknown key; did you mean 'image_size'? (and 3 more)",
        good.replace("  kind: images", "\tkind: images"): "line 8: ",
        good.replace("lr: 1e-5", "lr: 1e-5\n  lr: 2e-5"): "line 30: key 'lr' appears twice",
        good + "---\na: 1\n": "but found another document",
        "": "found None; a config has blocks",
        "- 1": "found [1]; a config has blocks",
        "{}": "setting: missing; add it",
        "1: 2": "1: unknown key; known here: setting, data",
        "[" * 5000: "nested too deeply",
    }.items():
        refused(written(tmp_path, text), [], message)


def test_files_that_cannot_be_read(tmp_path):
    refused(tmp_path / "none.yaml", [], "no such file; check the path")
    refused(tmp_path, [], "is a folder")
    (tmp_path / "weights.pt").write_bytes(bytes(range(256)))
    refused(tmp_path / "weights.pt", [], "is not a text file")
    with pytest.raises(ConfigError):
        load_config("a\0b")
    with pytest.raises(ConfigError) as raised:
        load_config("two\nlines.yaml")
    one_line(raised, "two lines.yaml: no such file")


def test_odd_text_round_trips(tmp_path):
    for name in ("no", "1e-5", "0x10", "2024-01-01", "~", "1:30", "null", "ünï çødé", "a: b # c", "<<"):
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
MADE_UP = """
setting: {save_dir: runs/a, pretrained_model_dir: null, dataset_dir: data/mri}
dataset: {name: fastmri, image_size: 256, in_channels: 2, noise_level: 0.1, acceleration_rate: 4, p: 0.4}
vp_diffusion:
  model:
    num_channels: 128
    num_res_blocks: 2
    channel_mult: !!python/tuple [1, 1, 2, 2, 4, 4]
    attention_resolutions: "32,16,8"
    num_head_channels: 64
    learn_sigma: false
    use_scale_shift_norm: true
  diffusion: {timestep_respacing: ddim200, noise_schedule: linear}
train: {lr: 5e-5, batch_size: 4, microbatch: 2, ema_rate: "0.9999", sure: {tau: 0.005, lambda: 0.05}}
inverse_problems: {name: csmri, acceleration_rate: 6, noise_level: 0.01, sampling: {gamma: 2, w: 3, eta: 0.85}}
"""


@pytest.mark.filterwarnings("ignore::msm.config.load.ConfigWarning")
@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.sampled_from([MRI.read_text(), MADE_UP]), CUTS)
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
        assert str(error).isprintable() and str(path) in str(error)
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
        assert str(error).isprintable()


# The published layout (made up: only its top-level names and its values are known)


def test_published_layout(tmp_path):
    with pytest.warns(ConfigWarning) as caught:
        config = load_config(written(tmp_path, MADE_UP), ["train.lr=1e-4"])
    assert str(caught[0].message).endswith("passed over: dataset.p, vp_diffusion.diffusion.noise_schedule")
    expected = {
        "setting.save_dir": Path("runs/a"),
        "data.kind": "fastmri",
        "data.image_size": 256,
        "data.noise_std": 0.1,
        "data.mask.acceleration": 4,
        "network.in_channels": 2,
        "network.channel_mult": (1, 1, 2, 2, 4, 4),
        "network.attention_resolutions": (32, 16, 8),
        "diffusion.train_steps": 200,
        "train.lr": 1e-4,
        "train.batch_size": 4,
        "train.accumulate": 2,
        "train.ema_decay": 0.9999,
        "train.sure_tau": 0.005,
        "train.sure_weight": 0.05,
        "sample.steps": 200,
        "sample.draws": 3,
        "sample.eta": 0.85,
        "inverse_problem.operator": "undersampling",
        "inverse_problem.mask.acceleration": 6,
        "inverse_problem.noise_std": 0.01,
        "inverse_problem.step_size": 2,
    }
    assert {field: get(config, field) for field in expected} == expected


FACES_MADE_UP = """
setting: {save_dir: runs/b}
dataset: {name: ffhq, image_size: 128, p: 0.4, noise_level: 0}
vp_diffusion: {channel_mult: "1,1,2,3,4", learn_sigma: false, timestep_respacing: ""}
"""


def test_published_layout_of_images(tmp_path):
    config = load_config(written(tmp_path, FACES_MADE_UP))
    assert (config.data.kind, config.data.mask.drop, config.network.in_channels) == ("images", 0.4, 3)
    assert (config.diffusion.train_steps, config.inverse_problem) == (1000, None)
    config = load_config(written(tmp_path, FACES_MADE_UP + "inverse_problems: {task: inpainting_box}\n"))
    assert (config.inverse_problem.operator, config.inverse_problem.hole, config.sample.eta) == ("box", 64, 0.85)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("learn_sigma: false", "learn_sigma: true", "vp_diffusion.learn_sigma: found True; only False"),
        ("p: 0.4, ", "", "dataset.p: missing; add"),
        (", noise_level: 0", "", "dataset.noise_level: missing; add"),
        ("image_size: 128", "image_size: big", "dataset.image_size: found 'big'"),
        ("1,1,2,3,4", "1,1,x", "vp_diffusion.channel_mult.2: found 'x'"),
        ("{save_dir", "{image_size: 64, save_dir", "dataset.image_size: found 128, but setting.image_size"),
        ("name: ffhq", "name: !!python/name:os.system x", "the tag '!!python/name:os.system' is refused"),
    ],
)
def test_mistake_in_the_published_layout(tmp_path, old, new, message):
    assert old in FACES_MADE_UP
    refused(written(tmp_path, FACES_MADE_UP.replace(old, new)), [], message)


def test_our_layout_with_a_published_name_is_ours(tmp_path):
    text = FACES.read_text() + "dataset: x\n"
    refused(written(tmp_path, text), [], "dataset: unknown key; did you mean 'data'?")


def test_probe_of_sure_follows_the_precision_unless_it_is_given():
    demo = CONFIGS / "demo/faces.yaml"
    assert load_config(demo).train.sure_tau == 0.05  # bf16
    assert load_config(demo, ["train.mixed_precision=no"]).train.sure_tau == 0.005
    assert load_config(demo, ["train.sure_tau=0.01"]).train.sure_tau == 0.01
    assert load_config(FACES, ["train.mixed_precision=bf16"]).train.sure_tau == 0.005  # given in the file


def test_the_page_of_settings_is_that_of_the_models():
    page = Path(__file__).parents[2] / "docs" / "reference" / "settings.py"
    assert runpy.run_path(str(page))["tables"]() == page.with_suffix(".md").read_text()
