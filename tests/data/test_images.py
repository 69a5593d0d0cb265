"""Image files become tensors on one scale, whatever their pixels are stored as."""

import numpy as np
import pytest
import torch
from PIL import Image

from msm.data.decode import Rules
from msm.data.images import load_image
from msm.errors import DataError

RAMP = np.linspace(0, 1, 64).reshape(8, 8)


@pytest.mark.parametrize("suffix", [".png", ".tif"])
@pytest.mark.parametrize("channels", [1, 3])
def test_grey_of_8_and_of_16_bits_is_the_same_image(tmp_path, suffix, channels):
    for name, image in (("8", (255 * RAMP).round().astype("uint8")), ("16", (65535 * RAMP).round().astype("uint16"))):
        Image.fromarray(image).save((tmp_path / name).with_suffix(suffix))
    eight, sixteen = (load_image((tmp_path / name).with_suffix(suffix), 8, Rules(channels)) for name in ("8", "16"))
    truth = torch.tensor(2 * RAMP - 1, dtype=torch.float32).expand(channels, -1, -1)
    assert eight.shape == sixteen.shape == (channels, 8, 8)
    assert (sixteen - truth).abs().max() < 3e-5  # half a step of 16 bits
    assert (eight - truth).abs().max() < 1 / 255 + 1e-6


def test_16_bits_are_resized_within_black_and_white(tmp_path):
    edges = np.kron([[0, 65535], [65535, 0]], np.ones((16, 16))).astype("uint16")
    Image.fromarray(edges).save(tmp_path / "a.png")
    assert load_image(tmp_path / "a.png", 12, Rules(1)).aminmax() == (-1, 1)


def test_pixels_without_a_white_are_refused(tmp_path):
    Image.fromarray((2 * RAMP).astype("float32")).save(tmp_path / "float.tif")
    Image.fromarray((RAMP * 1e6).astype("int32")).save(tmp_path / "int.tif")
    for name in ("float.tif", "int.tif"):
        with pytest.raises(DataError, match=rf"{name}: .*values from 0 to (2|1e\+06), beyond 0 to .*data.value_range"):
            load_image(tmp_path / name, 8, Rules(1))


def test_a_photo_held_upright_is_upright(tmp_path):
    image = Image.fromarray((255 * RAMP).astype("uint8"))
    exif = Image.Exif()
    exif[0x0112] = 6  # the first row is the right side
    image.save(tmp_path / "a.png", exif=exif)
    image.save(tmp_path / "b.png")
    turned = load_image(tmp_path / "b.png", 8, Rules(1)).rot90(-1, (1, 2))
    assert torch.equal(load_image(tmp_path / "a.png", 8, Rules(1)), turned)
