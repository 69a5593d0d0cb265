"""What tests of the configuration share: some of the shipped files, and how a mistake is told."""

from pathlib import Path

import pytest

from msm.config.load import ConfigError, load_config

CONFIGS = Path(__file__).parents[1] / "configs"
FACES = CONFIGS / "train" / "ffhq_msm_p04_noise0_1_img128.yaml"
NEW_FACES = CONFIGS / "generation" / "ffhq_msm_p04_noise0_0_img128.yaml"
BOX = CONFIGS / "inverseproblem" / "ffhq_BOX_msm_p04_img128_EPS.yaml"
MRI = CONFIGS / "inverseproblem" / "fmri_CSMRI4_msm_R4_noise0_1_img256.yaml"
# the published layout, made up: only its top-level names and its values are known
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


def one_line(raised, *parts):
    """The message is one printable line that holds all parts."""
    text = str(raised.value)
    assert text.isprintable() and all(part in text for part in parts), text


def refused(path, overrides, *parts):
    """Loading fails with one line that names the file and holds all parts."""
    with pytest.raises(ConfigError) as raised:
        load_config(path, overrides)
    one_line(raised, str(path), *parts)


def written(tmp_path, text):
    """A config file of this text."""
    path = tmp_path / "run.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def get(config, dotted):
    """The setting with this dotted name."""
    for name in dotted.split("."):
        config = getattr(config, name)
    return config
