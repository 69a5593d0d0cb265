"""What tests of the configuration share: some of the shipped files, and how a mistake is told."""

from pathlib import Path

import pytest

from msm.config.load import ConfigError, load_config

CONFIGS = Path(__file__).parents[1] / "src/msm/configs"
FACES = CONFIGS / "train" / "ffhq_msm_p04_noise0_1_img128.yaml"
NEW_FACES = CONFIGS / "generation" / "ffhq_msm_p04_noise0_0_img128.yaml"
BOX = CONFIGS / "inverseproblem" / "ffhq_BOX_msm_p04_img128_EPS.yaml"
MRI = CONFIGS / "inverseproblem" / "fmri_CSMRI4_msm_R4_noise0_1_img256.yaml"


def one_line(raised, *parts):
    """The message is one printable line, or a line for each mistake, and holds all parts."""
    text = str(raised.value)
    assert text.replace("\n  ", "").isprintable() and all(part in text for part in parts), text


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
