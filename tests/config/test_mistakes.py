"""Mistakes in settings: told in one line that names the file, the field, what was found and what to do."""

import pytest
from configs import FACES, MRI, one_line, refused, written

from msm.config.load import ConfigError, load_config

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
    (FACES, "network.channel_mult=[1, x]", "network.channel_mult.1: found 'x'"),
    (FACES, "network.channel_mult=[1, true]", "network.channel_mult: found [1, True]"),
    (FACES, "data.mask.drop=1", "data.mask.drop: found 1; it should be less than 1"),
    (FACES, "data.mask.kind=circle", "data.mask.kind: found 'circle'; it should be one of 'box', 'cartesian'"),
    (FACES, "data.mask={drop: 0.1}", "data.mask.kind: missing"),
    (FACES, "data.mask=box", "data.mask: found 'box'"),
    (FACES, "setting={}", "setting.save_dir: missing; add it"),
    # fields that must agree
    (FACES, "network.image_size=64", "network.image_size: found 64; data.image_size is 128"),
    (MRI, "network.in_channels=3", "network.in_channels: found 3; data.kind fastmri needs 2"),
    (FACES, "network.in_channels=1", "network.in_channels: found 1; data.kind images needs 3"),
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
    (FACES, "inverse_problem={operator: box}", "inverse_problem.hole: missing; add it (side of the square hole"),
    (
        MRI,
        "inverse_problem={operator: undersampling}",
        "inverse_problem.mask: missing; operator undersampling needs it",
    ),
    (MRI, "data.kind=raw", "inverse_problem.mask: remove it, or set inverse_problem=null"),
    (FACES, "inverse_problem={operator: motion_blur, blur_length: 3}", "inverse_problem.blur_angle: missing"),
    (
        FACES,
        "inverse_problem={operator: box, hole: 4, factor: 2}",
        "inverse_problem.factor: unknown key; known here: noise_std, operator, hole",
    ),
    (
        FACES,
        "inverse_problem={operator: colorization, keep: 0.5}",
        "inverse_problem.keep: unknown key; known here: noise_std, operator",
    ),
    (FACES, "inverse_problem={operator: box, hoel: 4}", "inverse_problem.hoel: unknown key; did you mean 'hole'?"),
    (FACES, "inverse_problem={hole: 4}", "inverse_problem.operator: missing; add it: box, random, super_resolution"),
    (FACES, "inverse_problem={operator: boxes, hole: 4}", "inverse_problem.operator: found 'boxes'; it should be one"),
    (FACES, "inverse_problem=box", "inverse_problem: found 'box'; it should be a block of keys"),
    (FACES, "inverse_problem={operator: box, hole: big}", "inverse_problem.hole: found 'big'; it should be a valid"),
    (FACES, "inverse_problem={operator: box, hole: 0}", "inverse_problem.hole: found 0; it should be greater"),
    (FACES, "inverse_problem={operator: random, keep: 1}", "inverse_problem.keep: found 1; it should be less than 1"),
    (FACES, "inverse_problem={operator: random, keep: true}", "inverse_problem.keep: found True; it should not be"),
    (FACES, "inverse_problem={operator: box, hole: 200}", "inverse_problem.hole: found 200"),
    (FACES, "inverse_problem={operator: super_resolution, factor: 3}", "inverse_problem.factor: found 3"),
    (MRI, "inverse_problem={operator: box, hole: 64}", "inverse_problem.operator: found 'box'"),
    (MRI, "inverse_problem.mask.center=300", "inverse_problem.mask.center: found 300"),
    (MRI, "inverse_problem.mask.kind=circle", "inverse_problem.mask.kind: found 'circle'; it should be one of 'box'"),
    (MRI, "inverse_problem.mask={center: 3}", "inverse_problem.mask.kind: missing; add it: box, cartesian"),
    (MRI, "inverse_problem.mask.acceleration=0", "inverse_problem.mask.acceleration: found 0; it should be greater"),
    (MRI, "inverse_problem.mask.drop=0.4", "inverse_problem.mask.drop: unknown key; known here: kind, acceleration"),
    # data steps
    (MRI, "sample.data_step.gamma=0", "sample.data_step.gamma: found 0; it should be greater than 0"),
    (MRI, "sample.data_step.iterations=3", "sample.data_step.iterations: unknown key; known here: kind, gamma"),
    (MRI, "sample.data_step={kind: proximal, gamma: 1}", "sample.data_step.gamma: unknown key; known here: iter"),
    (MRI, "sample.data_step={kind: dps}", "sample.data_step.kind: found 'dps'; it should be one of 'gradient', 'prox"),
    (MRI, "sample.data_step=proximal", "sample.data_step: found 'proximal'; it should be a block of keys"),
    (MRI, "sample.data_step={kind: proximal, iterations: 0}", "sample.data_step.iterations: found 0; it should be"),
    # settings that have moved
    (MRI, "inverse_problem.step_size=2", "inverse_problem.step_size: has moved; write sample.data_step, {kind: grad"),
    (
        MRI,
        "inverse_problem.likelihood_weight=3",
        "inverse_problem.likelihood_weight: has moved; write sample.data_step.likelihood_weight",
    ),
    (
        FACES,
        "inverse_problem={operator: box, hole: 4, proximal_iterations: 3}",
        "inverse_problem.proximal_iterations: has moved; write sample.data_step.iterations",
    ),
    # samplers
    (FACES, "sample.preset=beste", "sample.preset: found 'beste'; it should be 'paper', 'published' or 'best'"),
    (FACES, "sample.warm_start=1", "sample.warm_start: found 1.0; it is for inverse problems, use none"),
    (MRI, "sample.order=2", "sample.order: found 2; it is to generate, use 1 for inverse problems"),
    (MRI, "sample.warm_start=0", "sample.warm_start: found 0; it should be greater than 0.01"),
    (MRI, "sample.grid=rho", "sample.grid: found 'rho'; it should be 'time' or 'log'"),
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
        good.replace("image_size: 128", "img_size: 128", 1): "data.img_size: unknown key; did you mean 'image_size'?",
        good.replace("save_dir: ", "save_dir: 3 #"): "setting.save_dir: found 3; it should be a path",
        good.replace("  kind: images", "\tkind: images"): "line 8: ",
        good.replace("lr: 1e-5", "lr: 1e-5\n  lr: 2e-5"): "line 28: key 'lr' appears twice",
        good + "---\na: 1\n": "but found another document",
        "": "found None; a config has blocks",
        "- 1": "found [1]; a config has blocks",
        "{}": "setting: missing; add it",
        "1: 2": "1: unknown key; known here: setting, data",
        "[" * 5000: "nested too deeply",
        "[" * 60 + "]" * 60: "nested too deeply",  # however deep Python may go
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


def all_of(path, overrides=()):
    """The mistakes of a file, and of overrides: how they are announced, and field: reason of each."""
    with pytest.raises(ConfigError) as raised:
        load_config(path, overrides)
    first, *each = str(raised.value).split("\n  ")
    assert first == f"{path}: {len(each)} mistakes:"
    return each


def test_all_mistakes_are_told_at_once(tmp_path):
    """Of every block, and the value of a misspelt key too."""
    text = """
setting: {save_dir: runs/a, dataset: photos}
data: {kind: images, img_size: 64, mask: {kind: box, drp: 1.5}}
network: {channel_mult: [1, 1, two]}
train: {lr: fast, sure_share: 0}
sample: {preset: beste}
inverse_problem: {operator: box, hole: 100, keep: 0.5}
"""
    each = all_of(written(tmp_path, text))
    assert sorted(line.partition(" (")[0] for line in each) == [
        "data.img_size: unknown key; did you mean 'image_size'?",
        "data.mask.drop: found 1.5; it should be less than 1",
        "data.mask.drp: unknown key; did you mean 'drop'?",
        "inverse_problem.keep: unknown key; known here: noise_std, operator, hole",
        "network.channel_mult.2: found 'two'; it should be a valid integer",
        "sample.preset: found 'beste'; it should be 'paper', 'published' or 'best'",
        "setting.dataset: unknown key; did you mean 'dataset_dir'?",
        "train.lr: found 'fast'; it should be a valid number",
        "train.sure_share: found 0; it should be greater than 0",
    ]


def test_what_blocks_say_of_each_other_is_told_with_the_rest(tmp_path):
    text = """
setting: {save_dir: runs/a}
data: {kind: images, img_size: 64, mask: {kind: box, drop: 0.4, grid: 5}}
network: {in_channels: 2, channel_mult: [1, 1], attention_resolutions: [5]}
train: {btch_size: 6, accumulate: 4, warmup_images: 9, images: 3}
inverse_problem: {operator: box, hole: 100}
"""
    each = all_of(written(tmp_path, text))
    assert sorted(line.partition(" (")[0] for line in each) == [
        "data.img_size: unknown key; did you mean 'image_size'?",
        "data.mask.grid: found 5; use a divisor of data.image_size 64",
        "inverse_problem.hole: found 100; at most data.image_size 64",
        "network.attention_resolutions: found 5; the levels of channel_mult are at [64, 32]; use some of these",
        "network.in_channels: found 2; data.kind images needs 3; leave it out",
        "train.accumulate: found 4; batch_size 6 is split into so many parts; use a divisor of it",
        "train.btch_size: unknown key; did you mean 'batch_size'?",
        "train.warmup_images: found 9; train.images is 3; a warm-up ends before training does",
    ]


def test_a_mistake_is_not_told_of_what_another_one_took_away():
    """Without its batch size nothing can be said of `accumulate`, nor of η without knowing the operator."""
    each = all_of(FACES, ["train.batch_size=none", "train.accumulate=3", "data.limit=0"])
    assert [line.partition(" ")[0] for line in each] == ["data.limit", "train.batch_size"]
    each = all_of(FACES, ["inverse_problem=box", "sample.warm_start=1", "train.lr=0"])
    assert [line.partition(" ")[0] for line in each] == ["train.lr", "inverse_problem"]


def test_mistakes_of_overrides_name_them():
    each = all_of(FACES, ["train.lr=-1", "data.mask={kind: box, drop: 2}"])
    assert each[0].startswith("data.mask.drop (override data.mask={kind: box, drop: 2}): found 2; it should be")
    assert each[1].startswith("train.lr (override train.lr=-1): found -1; it should be greater than 0")


@pytest.mark.parametrize("text", ["{operator:box,hole:8}", "{operator:box, hole: 8}", "{operator: box,hole:8}"])
def test_a_colon_needs_no_space(tmp_path, text):
    spaced = load_config(FACES, ["inverse_problem={operator: box, hole: 8}"])
    assert load_config(FACES, [f"inverse_problem={text}"]) == spaced
    file = written(tmp_path, FACES.read_text() + f"\ninverse_problem: {text}\n")
    assert load_config(file).inverse_problem == spaced.inverse_problem


def test_paths_on_the_command_line_are_taken_as_they_are(monkeypatch):
    monkeypatch.setenv("HOME", "/home/me")
    given = {"my: #1": "my: #1", "3": "3", "~/photos": "/home/me/photos", "'a b'": "a b", "[x]": "[x]"}
    for text, path in given.items():
        assert str(load_config(FACES, [f"setting.dataset_dir={text}"]).setting.dataset_dir) == path
    for text in ("", "null", "~"):
        assert load_config(FACES, [f"setting.dataset_dir={text}"]).setting.dataset_dir is None


def test_a_path_without_its_setting(tmp_path):
    with pytest.raises(ConfigError, match=f"write for example setting.dataset_dir={tmp_path}"):
        load_config(FACES, [str(tmp_path)])
