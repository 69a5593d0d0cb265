"""The published layout, read as ours."""

from pathlib import Path

import pytest
from configs import FACES, MADE_UP, get, refused, written

from msm.config.load import load_config


def test_published_layout(tmp_path, capsys):
    config = load_config(written(tmp_path, MADE_UP), ["train.lr=1e-4"])
    assert capsys.readouterr().err.endswith("passed over: dataset.p, vp_diffusion.diffusion.noise_schedule\n")
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
        "sample.data_step.kind": "gradient",
        "sample.data_step.gamma": 2,
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
