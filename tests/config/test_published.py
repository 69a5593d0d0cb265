"""The published layout, read as ours: every key of the sixteen published files, and mistakes told by name."""

from pathlib import Path

import pytest
from configs import CONFIGS, FACES, get, refused, written
from published_layout import NAMES, published

from msm.config.load import load_config
from msm.config.published import KNOWN
from msm.config.yaml_text import parse

SHARED = Path(__file__).resolve().parents[3] / "shared" / "cases" / "published_yaml"
ALL, TRAIN, SAMPLE, SOLVE = "", "train/", "generation/ inverseproblem/", "inverseproblem/"
PHOTOS, MRI = "ffhq", "fmri"
# Where (all of these parts, each one of some, are in the name), key, value, our field and what it has to hold.
TABLE = [
    ([ALL], "setting.save_dir", "experiment", "setting.save_dir", Path("experiment")),
    ([TRAIN], "setting.pretrained_model_dir", "", "setting.pretrained_model_dir", None),
    ([TRAIN], "setting.batch_size", 2, "train.batch_size", 2),
    ([TRAIN], "setting.microbatch", 2, "train.accumulate", 1),
    ([TRAIN], "setting.save_interval", 50000, "train.checkpoint_images", 100_000),
    ([ALL], "setting.num_workers", 1, "train.workers", 1),
    ([SAMPLE], "setting.batch_size", 1, "sample.batch_size", 1),
    (["generation/"], "setting.num_samples", 3000, "sample.count", 3000),
    (["generation/"], "setting.solve_inverse_problem", False, "inverse_problem", None),
    (["generation/", "msm"], "setting.stochastic_loop", 3, "sample.draws", 3),
    ([SOLVE], "setting.num_samples", 5, "sample.count", 5),
    ([SOLVE, PHOTOS], "setting.stochastic_loop", 2, "sample.draws", 2),
    ([SOLVE, PHOTOS], "setting.stepsize_likelihood", 1.75, "sample.data_step.gamma", 1.75),
    ([SOLVE, MRI], "setting.stochastic_loop", 3, "sample.draws", 3),
    ([SOLVE, MRI], "setting.stepsize_likelihood", 2.0, "sample.data_step.gamma", 2.0),
    ([SOLVE], "setting.inverse_problem_solver", "measurement_diffusion", "sample.data_step.kind", "gradient"),
    ([SOLVE], "setting.measurement_noise_level", 0.01, "inverse_problem.noise_std", 0.01),
    (["BOX"], "setting.inverse_problem_type", "box_inpainting", "inverse_problem.operator", "box"),
    (["BOX"], "inverse_problems.box_inpainting.mask_opt.mask_len_range", (64, 65), "inverse_problem.hole", 64),
    (["SR4"], "setting.inverse_problem_type", "super_resolution", "inverse_problem.operator", "super_resolution"),
    (["SR4"], "inverse_problems.super_resolution.scale_factor", 4, "inverse_problem.factor", 4),
    (["CSMRI4"], "setting.inverse_problem_type", "fastmri_reconstruction", "inverse_problem.operator", "undersampling"),
    (["CSMRI4"], "dataset.inv_problem_acceleration_rate", 4, "inverse_problem.mask.acceleration", 4),
    ([PHOTOS], "dataset.dataset_name", "ffhq", "data.kind", "images"),
    ([PHOTOS], "dataset.dataset_name", "ffhq", "data.mask.kind", "box"),
    (["ffhq_msm SR4 BOX"], "dataset.acceleration_rate", 0.4, "data.mask.drop", 0.4),
    (["ffhq_uncond"], "dataset.acceleration_rate", 0, "data.mask.drop", 0),
    (["uncond"], "vp_diffusion.diffusion_model_type", "unconditional_diffusion", "sample.draws", 1),
    ([MRI], "dataset.dataset_name", "fastmri", "data.kind", "fastmri"),
    ([MRI], "dataset.mask_pattern", "randomly_cartesian", "data.mask.pattern", "random"),
    ([MRI], "dataset.mask_pattern", "randomly_cartesian", "data.mask.center", 20),
    ([MRI], "setting.is_demo", True, "data.demo", True),
    (["fmri_msm CSMRI4"], "dataset.acceleration_rate", 4, "data.mask.acceleration", 4),
    (["fmri_uncond"], "dataset.acceleration_rate", 1, "data.mask.acceleration", 1),
    ([TRAIN, PHOTOS], "train.lr", 1e-5, "train.lr", 1e-5),
    ([TRAIN, MRI], "train.lr", 5e-5, "train.lr", 5e-5),
    (["noise0_0 SR4 BOX"], "train.training_data_noiselevel", 0.0, "data.noise_std", 0.0),
    (["noise0_1"], "train.training_data_noiselevel", 0.1, "data.noise_std", 0.1),
    (["noise0_1"], "train.tau_SURE", 0.005, "train.sure_tau", 0.005),
    (["noise0_1"], "train.lr_SURE", 0.05, "train.sure_weight", 0.05),
    ([TRAIN], "vp_diffusion.diffusion_predtype", "epsilon", "diffusion.parametrisation", "epsilon"),
    ([SAMPLE, "msm"], "vp_diffusion.diffusion_predtype", "pred_xstart", "diffusion.parametrisation", "epsilon"),
    ([PHOTOS], "vp_diffusion.image_size", 128, "network.image_size", 128),
    ([MRI], "vp_diffusion.image_size", 256, "data.image_size", 256),
    ([PHOTOS], "vp_diffusion.in_channels", 3, "network.in_channels", 3),
    ([PHOTOS], "vp_diffusion.in_channels", 3, "data.channels", 3),
    ([MRI], "vp_diffusion.in_channels", 2, "network.in_channels", 2),
    ([ALL], "vp_diffusion.num_channels", 128, "network.num_channels", 128),
    ([ALL], "vp_diffusion.num_res_blocks", 2, "network.num_res_blocks", 2),
    ([PHOTOS], "vp_diffusion.channel_mult", "", "network.channel_mult", (1, 1, 2, 3, 4)),
    ([MRI], "vp_diffusion.channel_mult", "", "network.channel_mult", (1, 1, 2, 2, 4, 4)),
    ([ALL], "vp_diffusion.attention_resolutions", "32,16,8", "network.attention_resolutions", (32, 16, 8)),
    ([ALL], "vp_diffusion.num_head_channels", 64, "network.num_head_channels", 64),
    ([TRAIN, "msm"], "vp_diffusion.timestep_respacing", "ddim200", "diffusion.train_steps", 200),
    ([TRAIN, "uncond"], "vp_diffusion.timestep_respacing", "", "diffusion.train_steps", 1000),
    ([SAMPLE], "vp_diffusion.timestep_respacing", "ddim200", "sample.steps", 200),
    (["generation/"], "vp_diffusion.ddim_eta", 1.0, "sample.eta", 1.0),
    ([SOLVE], "vp_diffusion.ddim_eta", 0.85, "sample.eta", 0.85),
]


def text_of(name, source):
    """The text of a published file: the one given, or one of the same layout."""
    if source == "made here":
        return published(name)
    path = SHARED / f"{name.replace('/', '__')}.yaml"
    if not path.is_file():
        pytest.skip(f"{path} is not on this machine")
    return path.read_text()


def holds(name, where):
    return all(any(part in name for part in parts.split(" ")) for parts in where)


@pytest.mark.parametrize("source", ["made here", "published"])
@pytest.mark.parametrize("name", NAMES)
def test_table_of_the_published_files(tmp_path, name, source):
    """Key → value → field, and the whole is the config of that name in configs/ but for folders and counts."""
    text = text_of(name, source)
    config = load_config(written(tmp_path, text))
    rows = [row[1:] for row in TABLE if holds(name, row[0])]
    assert len(rows) >= 20
    for key, value, field, expected in rows:
        found = parse(text, name)
        for part in key.split("."):
            found = found[part]
        assert (key, found) == (key, value)
        assert (field, get(config, field)) == (field, expected)
    shipped = load_config(CONFIGS / f"{name}.yaml")
    kinds = {"data": {"demo"}, "train": {"workers", "checkpoint_images", "lr"}, "sample": {"count", "batch_size"}}
    if not name.startswith("train/"):  # what it was trained with is not said
        kinds |= {"diffusion": {"train_steps"}}
    sides = [side.model_dump(exclude={"setting": True, **kinds}) for side in (config, shipped)]
    assert sides[0] == sides[1]


def test_every_key_of_the_table_is_known_and_every_known_key_is_in_a_file():
    in_files = set()
    for name in NAMES:
        blocks = [("", parse(published(name), name))]
        for above, block in blocks:
            for key, value in block.items():
                where = f"{above}.{key}".lstrip(".")
                blocks += [(where, value)] if isinstance(value, dict) else []
                in_files |= set() if isinstance(value, dict) else {where}
    assert in_files == KNOWN and {row[1] for row in TABLE} <= KNOWN


def test_one_line_says_what_was_read_and_what_was_passed_over(tmp_path, capsys):
    path = written(tmp_path, published("train/ffhq_msm_p04_noise0_0_img128"))
    load_config(path, ["train.images=8"])
    assert capsys.readouterr().err == (
        f"msm: note: {path}: published layout: training of MSM until train.images, which the file does not say, each "
        "image measured once (as published, at every step: train.remask=true), photos of 128 px, p = 0.4, noise 0.0; "
        "passed over, without effect here: setting: is_demo, log_interval; train: tau_SURE, lr_SURE; vp_diffusion: "
        "microbatch, use_checkpoint, num_heads, num_heads_upsample, use_fp16, model_path, clip_denoised, use_ddim\n"
    )
    load_config(written(tmp_path, published("inverseproblem/ffhq_BOX_msm_p04_img128_EPS")))
    told = capsys.readouterr().err
    assert "published layout: box_inpainting with a hole of 64 px by MSM, photos of 128 px" in told
    assert "inverse_problems: fastmri_reconstruction, gaussian_blur, random_inpainting, motion_blur" in told
    assert "inverse_problem_solvers: dps, dds, ddnm\n" in told


BOX, GENERATE = "inverseproblem/ffhq_BOX_msm_p04_img128_EPS", "generation/ffhq_msm_p04_noise0_0_img128"
SR, CSMRI = "inverseproblem/ffhq_SR4_msm_p04_img128_EPS", "inverseproblem/fmri_CSMRI4_msm_R4_noise0_0_img256"
FACES_01, FACES_0 = "train/ffhq_msm_p04_noise0_1_img128", "train/ffhq_msm_p04_noise0_0_img128"
BRAINS, ORACLE = "train/fmri_msm_R4_noise0_0_img256", "train/fmri_uncond_R1_noise0_0_img256"

R4_FROM_R6 = {"data.mask.acceleration": 4, "inverse_problem.mask.acceleration": 6}
ALLOWED = [  # what a user may change, and what it gives
    (FACES_0, "batch_size: 2\n  microbatch: 2", "batch_size: 8\n  microbatch: 2", {"train.accumulate": 4}),
    (FACES_0, "batch_size: 2\n  microbatch: 2", "batch_size: 8\n  microbatch: -1", {"train.accumulate": 1}),
    (FACES_0, "  microbatch: 2\n", "", {"train.accumulate": 1, "train.batch_size": 2}),
    (FACES_0, "save_interval: 50000", "save_interval: 10", {"train.checkpoint_images": 20}),
    (FACES_0, "  save_interval: 50000\n", "", {"train.checkpoint_images": 50_000}),
    (FACES_01, "lr_SURE: 0.05", "lr_SURE: 0.1", {"train.sure_weight": 0.1, "train.sure_tau": 0.005}),
    (FACES_01, "tau_SURE: 0.005\n  lr_SURE: 0.05", "tau_SURE: 0.0\n  lr_SURE: 0.0", {"train.sure_weight": 0}),
    (FACES_0, "in_channels: 3", "in_channels: 1", {"network.in_channels": 1, "data.channels": 1}),
    (FACES_0, "save_dir: experiment", "save_dir: a b", {"setting.save_dir": Path("a b")}),
    (FACES_0, "dataset_dir: data", "dataset_dir: ''", {"setting.dataset_dir": None}),
    (FACES_0, 'channel_mult: ""', 'channel_mult: "1, 2,2,2,4"', {"network.channel_mult": (1, 2, 2, 2, 4)}),
    (FACES_0, 'mult: ""', "mult: !!python/tuple [1, 1, 1, 1, 2]", {"network.channel_mult": (1, 1, 1, 1, 2)}),
    (FACES_0, "use_fp16: False", "use_fp16: True", {"train.mixed_precision": "no"}),
    (FACES_0, "ddim200", "ddim100", {"diffusion.train_steps": 100}),
    (FACES_0, "latent_type: measurement_space", "latent_type: image_space", {"data.kind": "images"}),
    (BRAINS, "randomly_cartesian", "uniformly_cartesian", {"data.mask.pattern": "uniform"}),
    (BRAINS, "is_demo: True", "is_demo: False", {"data.demo": False}),
    (ORACLE, "acceleration_rate: 1", "acceleration_rate: 0", {"data.mask.acceleration": 1}),
    (GENERATE, "pred_xstart", "epsilon", {"diffusion.parametrisation": "epsilon"}),
    (GENERATE, "ddim200", "ddim50", {"sample.steps": 50}),
    (GENERATE, "stochastic_loop: 3", "stochastic_loop: 1", {"sample.draws": 1}),
    (BOX, "[64, 65]", "[32, 33]", {"inverse_problem.hole": 32}),
    (BOX, "type: box_inpainting", "type: colorization", {"inverse_problem.operator": "colorization"}),
    (BOX, "type: box_inpainting", "type: gaussian_blur", {"inverse_problem.blur_sigma": 3}),
    (BOX, "type: box_inpainting", "type: random_inpainting", {"inverse_problem.keep": 0.15}),
    (BOX, "type: box_inpainting", "type: super_resolution", {"inverse_problem.factor": 4}),
    (BOX, "solve_inverse_problem: True", "solve_inverse_problem: False", {"inverse_problem": None}),
    (BOX, "  stepsize_likelihood: 1.75\n", "", {"sample.data_step.gamma": 1.75}),
    (BOX, "num_stochastics: -1", "num_stochastics: 2", {"sample.draws": 2}),
    (GENERATE, "  timestep_respacing: 'ddim200'\n", "", {"sample.steps": 200}),
    (GENERATE, "ddim200", "", {"sample.steps": 1000}),
    (SR, "scale_factor: 4", "scale_factor: 8", {"inverse_problem.factor": 8}),
    (CSMRI, "inv_problem_acceleration_rate: 4", "inv_problem_acceleration_rate: 6", {"data.mask.acceleration": 4}),
    (
        CSMRI,
        "inv_problem_acceleration_rate: 4",
        "inv_problem_acceleration_rate: 6",
        {"inverse_problem.mask.acceleration": 6},
    ),
    (CSMRI, "randomly_cartesian", "uniformly_cartesian", {"inverse_problem.mask.pattern": "uniform"}),
]


@pytest.mark.parametrize(("name", "old", "new", "expected"), ALLOWED)
def test_other_values_that_count(tmp_path, name, old, new, expected):
    text = published(name)
    assert text.count(old) == 1 or old == "in_channels: 3"
    config = load_config(written(tmp_path, text.replace(old, new)))
    assert {field: get(config, field) for field in expected} == expected


REFUSED = [
    # unknown keys, with the nearest one that is known
    (
        FACES_0,
        "num_workers",
        "num_worker",
        "setting.num_worker: unknown key; the nearest known one is setting.num_workers",
    ),
    (FACES_0, "lr_SURE", "lambda_SURE", "train.lambda_SURE: unknown key; the nearest known one is train.lr_SURE"),
    (FACES_0, "  is_demo: True", "  lr: 0.1", "setting.lr: unknown key; the nearest known one is train.lr"),
    (FACES_0, "train:", "training:", "training: unknown key; the nearest known one is train"),
    (FACES_0, "train:", "setting.num_samples: 5\ntrain:", "setting.num_samples: unknown key; the nearest known one is"),
    (BOX, "kernel_size: 61, intensity: 3.0", "size: 61", "inverse_problems.gaussian_blur.size: unknown key"),
    (
        BOX,
        "  box_inpainting:",
        "  box_painting:",
        "inverse_problems.box_painting: unknown key; the nearest known one is",
    ),
    (BOX, "ddnm: {", "ddrm: {", "inverse_problem_solvers.ddrm: unknown key; the nearest known one is"),
    # keys that change the network
    (
        GENERATE,
        "use_new_attention_order: False",
        "use_new_attention_order: True",
        "use_new_attention_order: found True",
    ),
    (GENERATE, "noise_schedule: linear", "noise_schedule: cosine", "vp_diffusion.noise_schedule: found 'cosine'"),
    (GENERATE, "learn_sigma: False", "learn_sigma: True", "vp_diffusion.learn_sigma: found True; "),
    (GENERATE, "class_cond: False", "class_cond: True", "vp_diffusion.class_cond: found True; "),
    (GENERATE, "cond_channels: 0", "cond_channels: 3", "vp_diffusion.cond_channels: found 3; "),
    (GENERATE, "scale_shift_norm: True", "scale_shift_norm: False", "vp_diffusion.use_scale_shift_norm: found False"),
    (GENERATE, "resblock_updown: True", "resblock_updown: False", "vp_diffusion.resblock_updown: found False; "),
    (GENERATE, "dropout: 0.0", "dropout: 0.1", "vp_diffusion.dropout: found 0.1; "),
    (GENERATE, "num_head_channels: 64", "num_head_channels: -1", "vp_diffusion.num_head_channels: found -1; "),
    (GENERATE, "pred_xstart", "pred_v", "diffusion_predtype: found 'pred_v'; networks here predict epsilon"),
    (FACES_0, "epsilon", "pred_xstart", "diffusion_predtype: found 'pred_xstart'; networks here predict epsilon"),
    (
        GENERATE,
        "type: measurement_diffusion",
        "type: latent_diffusion",
        "diffusion_model_type: found 'latent_diffusion'",
    ),
    # contradictions
    (
        FACES_0,
        "batch_size: 2\n  microbatch: 2",
        "batch_size: 8\n  microbatch: 3",
        "setting.microbatch: found 3; use a div",
    ),
    (FACES_0, "microbatch: -1", "microbatch: 4", "vp_diffusion.microbatch: found 4; setting.microbatch is 2"),
    (
        FACES_0,
        "random_box",
        "randomly_cartesian",
        "dataset.mask_pattern: found 'randomly_cartesian'; dataset.dataset_name",
    ),
    (
        BRAINS,
        "randomly_cartesian",
        "random_box",
        "dataset.mask_pattern: found 'random_box'; dataset.dataset_name is fas",
    ),
    (BRAINS, "measurement_space", "image_space", "vp_diffusion.latent_type: found 'image_space'; MRI"),
    (BRAINS, "in_channels: 2", "in_channels: 3", "vp_diffusion.in_channels: found 3; data.kind fastmri needs 2"),
    (ORACLE, "acceleration_rate: 1", "acceleration_rate: 4", "dataset.acceleration_rate: found 4; unconditional"),
    (
        FACES_0,
        "acceleration_rate: 0.4",
        "acceleration_rate: 4",
        "dataset.acceleration_rate: found 4; it should be less",
    ),
    (
        BRAINS,
        "acceleration_rate: 4",
        "acceleration_rate: 0.4",
        "dataset.acceleration_rate: found 0.4; it should be great",
    ),
    (FACES_0, "128", "96", "vp_diffusion.channel_mult: found ''; empty is for image_size 128 and 256, not 96"),
    (BOX, "type: box_inpainting", "type: fastmri_reconstruction", "dataset.inv_problem_acceleration_rate: missing"),
    (
        CSMRI,
        "type: fastmri_reconstruction",
        "type: colorization",
        "setting.inverse_problem_type: found 'colorization'; data",
    ),
    (
        BOX,
        "name: inpainting\n    mask_opt: {mask_type: box",
        "name: dps\n    mask_opt: {mask_type: box",
        "box_inpainting.name: f",
    ),
    (BOX, "mask_type: box", "mask_type: random", "box_inpainting.mask_opt.mask_type: found 'random'"),
    (BOX, "[64, 65], image_size: 128", "[64, 65], image_size: 256", "box_inpainting.mask_opt.image_size: found 256"),
    (BOX, "[64, 65]", "[32, 65]", "box_inpainting.mask_opt.mask_len_range: found (32, 65); holes here have one size"),
    (BOX, "[64, 65]", "[big, 65]", "mask_opt.mask_len_range: found ('big', 65); it should be two numbers"),
    (SR, "[1, 3, 128, 128]", "[1, 3, 256, 256]", "super_resolution.in_shape: found (1, 3, 256, 256); images are"),
    (
        BOX,
        "num_stochastics: -1",
        "num_stochastics: 5",
        "params.num_stochastics: found 5; setting.stochastic_loop says 2",
    ),
    # what there is no counterpart of
    (
        BOX,
        "solver: measurement_diffusion",
        "solver: dps",
        "setting.inverse_problem_solver: found 'dps'; another method",
    ),
    (BOX, "type: box_inpainting", "type: motion_blur", "setting.inverse_problem_type: found 'motion_blur'; its kernel"),
    (BOX, "type: box_inpainting", "type: deblurring", "setting.inverse_problem_type: found 'deblurring'; it should be"),
    (GENERATE, "use_ddim: True", "use_ddim: False", "vp_diffusion.use_ddim: found False; samples are drawn by DDIM"),
    (GENERATE, "ddim200", "200", "vp_diffusion.timestep_respacing: found '200'; write ddim200"),
    (GENERATE, "ddim200", "ddim333", "vp_diffusion.timestep_respacing: found 'ddim333'; write ddim200"),
    (
        GENERATE,
        "dataset_name: ffhq",
        "dataset_name: celeba",
        "dataset.dataset_name: found 'celeba'; it should be ffhq or fa",
    ),
    (FACES_01, "tau_SURE: 0.005", "tau_SURE: 0.0", "train.tau_SURE: found 0.0; it should be greater than 0"),
    # what is missing, or of another type
    (FACES_0, "  acceleration_rate: 0.4\n", "", "dataset.acceleration_rate: missing; add the share p of boxes dropped"),
    (FACES_0, "  training_data_noiselevel: 0.0\n", "", "train.training_data_noiselevel: missing; add the noise rho"),
    (FACES_0, "  image_size: 128\n", "", "vp_diffusion.image_size: missing; add the side"),
    (FACES_0, "  dataset_name: ffhq\n", "", "dataset.dataset_name: missing; add ffhq or fastmri"),
    (FACES_0, "  batch_size: 2\n", "", "setting.batch_size: missing; add images a step"),
    (BOX, "  inverse_problem_type: box_inpainting\n", "", "setting.inverse_problem_type: missing; add fastmri"),
    (BOX, "  solve_inverse_problem: True\n", "", "setting.solve_inverse_problem: missing; add True"),
    (
        BOX,
        "solve_inverse_problem: True",
        "solve_inverse_problem: 1",
        "solve_inverse_problem: found 1; it should be True or",
    ),
    (
        FACES_0,
        "image_size: 128",
        "image_size: [128]",
        "vp_diffusion.image_size: found [128]; it should be a whole number",
    ),
    (FACES_0, 'channel_mult: ""', 'channel_mult: "1,1,x"', "vp_diffusion.channel_mult: found '1,1,x'"),
    (
        FACES_0,
        "save_interval: 50000",
        "save_interval: 0",
        "setting.save_interval: found 0; it should be a whole number",
    ),
    (FACES_0, "save_dir: experiment", "save_dir: ''", "setting.save_dir: missing; add it"),
    (GENERATE, "num_samples: 3000", "num_samples: no", "setting.num_samples: found 'no'; it should be a valid integer"),
    (FACES_0, "dataset:\n", "dataset: x\ndatasets:\n", "dataset: found 'x'; it should be a block of keys"),
    (
        FACES_0,
        "dataset_name: ffhq",
        "dataset_name: !!python/name:os.system x",
        "the tag '!!python/name:os.system' is refu",
    ),
]


@pytest.mark.parametrize(("name", "old", "new", "message"), REFUSED)
def test_mistakes_in_the_published_layout(tmp_path, name, old, new, message):
    text = published(name)
    assert old in text
    refused(written(tmp_path, text.replace(old, new)), [], message)


def test_a_batch_smaller_than_its_part_is_whole(tmp_path):
    config = load_config(written(tmp_path, published(FACES_0).replace("\n  microbatch: 2", "\n  microbatch: 3")))
    assert (config.train.batch_size, config.train.accumulate) == (2, 1)


def test_our_layout_with_a_published_name_is_ours(tmp_path):
    text = FACES.read_text() + "dataset: x\n"
    refused(written(tmp_path, text), [], "dataset: unknown key; did you mean 'data'?")


def test_masks_of_a_step_may_be_said_in_the_solver_alone(tmp_path):
    text = published(BOX).replace("  stochastic_loop: 2\n", "")
    assert load_config(written(tmp_path, text.replace("num_stochastics: -1", "num_stochastics: 4"))).sample.draws == 4


def test_a_block_that_is_used_twice_counts_twice(tmp_path):
    """A YAML alias: the second of two was once passed over, with what it says."""
    text = published(BOX).replace("{method: dps, params: {scale: 1.1}}", "&a {method: dps}")
    path = written(tmp_path, text.replace("{method: measurement_diffusion, params: {num_stochastics: -1}}", "*a"))
    refused(path, [], "inverse_problem_solvers.measurement_diffusion.method: found 'dps'; write measurement_diffusion")
