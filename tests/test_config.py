"""Settings: the shipped files, the published values, and mistakes told in one line."""

import warnings
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from msm.config import Config, ConfigError, ConfigWarning, dump_config, load_config

CONFIGS = Path(__file__).parent.parent / "configs"
FILES = sorted(str(path.relative_to(CONFIGS)) for path in CONFIGS.rglob("*.yaml"))

FACES, BRAIN = (1, 1, 2, 3, 4), (1, 1, 2, 2, 4, 4)
# SPEC §8: file, p or R, rho, channel multipliers, then what its command reads
TRAIN = [
    ("ffhq_msm_p04_noise0_0_img128", 0.4, 0, FACES, 1e-5),
    ("ffhq_msm_p04_noise0_1_img128", 0.4, 0.1, FACES, 1e-5),
    ("ffhq_uncond_p0_img128", 0, 0, FACES, 1e-5),
    ("fmri_msm_R4_noise0_0_img256", 4, 0, BRAIN, 5e-5),
    ("fmri_msm_R4_noise0_1_img256", 4, 0.1, BRAIN, 5e-5),
    ("fmri_uncond_R1_noise0_0_img256", 1, 0, BRAIN, 5e-5),
]
GENERATION = [  # the oracles' masks drop nothing, so their number of draws is not the published one
    ("ffhq_msm_p04_noise0_0_img128", 0.4, 0, FACES, 3),
    ("ffhq_msm_p04_noise0_1_img128", 0.4, 0.1, FACES, 3),
    ("ffhq_uncond_p00_noise0_0_img128", 0, 0, FACES, None),
    ("fmri_msm_R4_noise0_0_img256", 4, 0, BRAIN, 3),
    ("fmri_msm_R4_noise0_1_img256", 4, 0.1, BRAIN, 3),
    ("fmri_uncond_R1_noise0_0_img256", 1, 0, BRAIN, None),
]
INVERSE = [
    ("ffhq_BOX_msm_p04_img128_EPS", 0.4, 0, FACES, "box", "hole", 64, 1.75, 2),
    ("ffhq_SR4_msm_p04_img128_EPS", 0.4, 0, FACES, "super_resolution", "factor", 4, 1.75, 2),
    ("fmri_CSMRI4_msm_R4_noise0_0_img256", 4, 0, BRAIN, "undersampling", "mask.acceleration", 4, 2, 3),
    ("fmri_CSMRI4_msm_R4_noise0_1_img256", 4, 0.1, BRAIN, "undersampling", "mask.acceleration", 4, 2, 3),
]

SMALL = """\
setting: {save_dir: runs/a}
data:
  kind: images
  image_size: 32
  mask: {kind: box, drop: 0.4}
network:
  image_size: 32
  in_channels: 3
  channel_mult: [1, 2]
train:
  lr: 1e-4
sample:
  steps: 20
"""

PUBLISHED = """\
setting:
  save_dir: runs/published
  dataset_dir: data/faces
dataset:
  name: ffhq
  image_size: 128
  p: 0.4
  noise_level: 0.1
vp_diffusion:
  num_channels: 128
  num_res_blocks: 2
  channel_mult: !!python/tuple [1, 1, 2, 3, 4]
  learn_sigma: false
  timestep_respacing: ddim200
train:
  learning_rate: 1e-5
  batch_size: 2
  tau: 0.005
  gpu_number: 3
"""


@pytest.fixture
def write(tmp_path):
    def write(text):
        path = tmp_path / "run.yaml"
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return path

    return write


def refusal(path, overrides=()):
    """The one line a file is refused with; it names the file."""
    with pytest.raises(ConfigError) as caught:
        load_config(path, overrides)
    line = str(caught.value)
    assert len(line.splitlines()) == 1
    assert line.startswith(str(path))
    return line


@pytest.mark.parametrize("name", FILES)
def test_shipped_files_load_and_survive_a_round_trip(name, write):
    config = load_config(CONFIGS / name)
    assert load_config(write(dump_config(config))) == config


def check_common(folder, name, sampling, noise, channel_mult):
    config = load_config(CONFIGS / folder / f"{name}.yaml")
    faces = name.startswith("ffhq")
    assert (config.data.mask.drop if faces else config.data.mask.acceleration) == sampling
    assert config.data.noise_std == noise
    assert config.data.image_size == config.network.image_size == (128 if faces else 256)
    network = config.network
    assert (network.num_channels, network.num_res_blocks, network.num_head_channels) == (128, 2, 64)
    assert network.attention_resolutions == (32, 16, 8)
    assert network.channel_mult == channel_mult
    assert network.in_channels == (3 if faces else 2)
    assert config.diffusion.parametrisation == "epsilon"
    return config


@pytest.mark.parametrize("name, sampling, noise, channel_mult, lr", TRAIN)
def test_published_training(name, sampling, noise, channel_mult, lr):
    train = check_common("train", name, sampling, noise, channel_mult).train
    assert (train.lr, train.ema_decay) == (lr, 0.9999)
    assert (train.sure_tau, train.sure_weight) == (0.005, 0.05)


@pytest.mark.parametrize("name, sampling, noise, channel_mult, draws", GENERATION)
def test_published_generation(name, sampling, noise, channel_mult, draws):
    config = check_common("generation", name, sampling, noise, channel_mult)
    assert config.inverse_problem is None
    assert (config.sample.steps, config.sample.eta) == (200, 1)
    assert draws is None or config.sample.draws == draws


@pytest.mark.parametrize("name, sampling, noise, channel_mult, operator, field, value, step_size, draws", INVERSE)
def test_published_inverse_problems(name, sampling, noise, channel_mult, operator, field, value, step_size, draws):
    config = check_common("inverseproblem", name, sampling, noise, channel_mult)
    problem = config.inverse_problem
    assert (problem.operator, problem.noise_std, problem.step_size) == (operator, 0.01, step_size)
    found = problem
    for part in field.split("."):
        found = getattr(found, part)
    assert found == value
    assert (config.sample.steps, config.sample.draws, config.sample.eta) == (200, draws, 0.85)


@pytest.mark.parametrize(
    "old, new, field, advice",
    [
        ("  lr: 1e-4", "  learnig_rate: 1e-4\n  batchsize: 4", "train.", "unknown key"),
        ("  lr: 1e-4", "  batchsize: 4", "train.batchsize", "did you mean 'batch_size'?"),
        ("  steps: 20", "  stpes: 20", "sample.stpes", "did you mean 'steps'?"),
        ("  lr: 1e-4", "  draws: 2", "train.draws", "did you mean sample.draws?"),
        ("sample:", "sampel:", "sampel", "did you mean 'sample'?"),
        ("drop: 0.4", "dorp: 0.4", "data.mask.dorp", "did you mean 'drop'?"),
    ],
)
def test_unknown_key_is_told_the_nearest_name(write, old, new, field, advice):
    line = refusal(write(SMALL.replace(old, new)))
    assert f": {field}" in line
    assert advice in line


@pytest.mark.parametrize(
    "old, new, field, found",
    [
        ("lr: 1e-4", "lr: fast", "train.lr", "'fast'"),
        ("lr: 1e-4", "lr: true", "train.lr", "True"),
        ("lr: 1e-4", "lr: .nan", "train.lr", "nan"),
        ("lr: 1e-4", "lr: -1", "train.lr", "-1"),
        ("steps: 20", "steps: 2.5", "sample.steps", "2.5"),
        ("steps: 20", "steps: [20]", "sample.steps", "[20]"),
        ("drop: 0.4", "drop: 1.0", "data.mask.drop", "1.0"),
        ("kind: box, ", "kind: circle, ", "data.mask.kind", "'circle'"),
        ("kind: box, ", "", "data.mask.kind", "missing"),
        ("channel_mult: [1, 2]", "channel_mult: 3", "network.channel_mult", "3"),
        ("  in_channels: 3\n", "", "network.in_channels", "missing"),
        ("in_channels: 3", "in_channels: 2", "network.in_channels", "2"),
        ("train:\n  lr: 1e-4", "train: 7", "train", "7"),
    ],
)
def test_wrong_value_is_named(write, old, new, field, found):
    line = refusal(write(SMALL.replace(old, new)))
    assert f": {field}: " in line
    assert found in line


def test_missing_file(tmp_path):
    assert "no such file" in refusal(tmp_path / "nowhere.yaml")


def test_folder(tmp_path):
    assert "is a folder" in refusal(tmp_path)


@pytest.mark.parametrize(
    "text, reason",
    [
        ("data: [1, 2", "line 1"),
        ("data:\n\tkind: images\n", "line 2"),
        ("a: 1\na: 2\n", "'a' appears twice"),
        ("a: *nowhere\n", "line 1"),
        ("", "None"),
        ("- 1\n- 2\n", "[1, 2]"),
        ("[" * 5000, "nested too deeply"),
        (b"\xff\xfe\x00\x81", "not a text file"),
        ("a: \x00", "not valid YAML"),
    ],
    ids=["bracket", "tab", "twice", "alias", "empty", "list", "deep", "binary", "control"],
)
def test_damaged_file(write, text, reason):
    assert reason in refusal(write(text))


def test_overrides(write):
    overrides = ["train.lr=2e-5", "network.channel_mult=[1, 2, 2]", "data.mask={kind: box, drop: 0.2}"]
    config = load_config(write(SMALL), [*overrides, "data.limit=null", "sample.eta=0.5"])
    assert (config.train.lr, config.network.channel_mult, config.data.mask.drop) == (2e-5, (1, 2, 2), 0.2)
    assert (config.data.limit, config.sample.eta) == (None, 0.5)
    assert config.sample.steps == 20


@pytest.mark.parametrize(
    "override, reason",
    [
        ("train.lr=fast", "train.lr: found 'fast'"),
        ("train.lrr=1", "train.lrr: unknown key; did you mean 'lr'?"),
        ("train.lr", "found no block.key=value"),
        ("=3", "found no block.key=value"),
        ("train..lr=3", "found no block.key=value"),
        ("train.lr.x=3", "train.lr: found 0.0001"),
        ("network.channel_mult=[1,", "line 1"),
        ("train.lr=!!python/name:os.system x", "is refused"),
    ],
)
def test_bad_override_is_named(write, override, reason):
    line = refusal(write(SMALL), ["sample.steps=10", override])
    assert f"(override {override})" in line
    assert reason in line


@pytest.mark.parametrize("tag", ["python/object/apply:os.system", "python/object/new:os.system"])
@pytest.mark.parametrize("layout", [SMALL, PUBLISHED], ids=["ours", "published"])
def test_a_file_is_never_run(write, tmp_path, layout, tag):
    marker = tmp_path / "marker"
    attack = f"!!{tag} ['touch {marker}']"
    path = write(layout.replace("save_dir: runs", f"save_dir: {attack}  # runs").replace("# runs/a}", "}"))
    assert "is refused" in refusal(path)
    assert "is refused" in refusal(write(SMALL), [f"setting.save_dir={attack}"])
    assert not marker.exists()


def test_published_layout_is_read(write):
    path = write(PUBLISHED)
    with pytest.warns(ConfigWarning, match=r"passed over: train\.gpu_number$"):
        config = load_config(path)
    assert (config.data.kind, config.data.mask.kind, config.data.mask.drop) == ("images", "box", 0.4)
    assert (config.data.noise_std, config.train.lr, config.train.batch_size) == (0.1, 1e-5, 2)
    assert config.network.channel_mult == FACES
    assert (config.diffusion.train_steps, config.sample.steps) == (200, 200)
    assert load_config(write(dump_config(config))) == config


def test_mistake_in_published_layout_is_told_in_its_names(write):
    text = PUBLISHED.replace("  gpu_number: 3\n", "")
    assert "train.learning_rate: found 'fast'" in refusal(write(text.replace("1e-5", "fast")))
    assert "dataset.p: missing" in refusal(write(text.replace("  p: 0.4\n", "")))
    assert "vp_diffusion.learn_sigma: found True" in refusal(write(text.replace("false", "true")))


PIECES = st.one_of(
    st.text(max_size=8),
    st.sampled_from(["\n", ": ", "- ", "{", "]", "&a ", "*a", "<<: ", "!!set ", "!!int x", "? ", "null", "1e999", "'"]),
)


@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    text=st.sampled_from([SMALL, PUBLISHED]),
    edits=st.lists(st.tuples(st.floats(0, 1), st.integers(0, 12), PIECES), min_size=1, max_size=4),
)
def test_mangled_text_raises_config_error_only(write, text, edits):
    for place, removed, piece in edits:
        at = int(place * len(text))
        text = text[:at] + piece + text[at + removed :]
    path = write(text.encode("utf-8", "surrogatepass"))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConfigWarning)
        try:
            assert isinstance(load_config(path), Config)
        except ConfigError as error:
            assert len(str(error).splitlines()) == 1
            assert str(error).startswith(str(path))
