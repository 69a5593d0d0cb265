"""The metrics are scikit-image's, and the two conventions differ where SPEC §9 says they do."""

import math

import numpy as np
import pytest
import torch
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from msm.evaluate.metrics import image_metrics, nmse, psnr, ssim


def batch(*shape, dtype=torch.float64, seed=0, noise=0.1):
    """A smooth-ish random truth inside [-1, 1] (or complex) and a noisy copy of it."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(shape, dtype=dtype, generator=generator).cumsum(-1)
    x = 0.9 * x / x.abs().max()
    return x + noise * torch.randn(shape, dtype=dtype, generator=generator), x


def scaled(image):
    return (image - image.min()) / (image.max() - image.min())


@pytest.mark.parametrize("channels", [1, 3])
def test_plain_equals_scikit_image(channels):
    x_hat, x = batch(2, channels, 20, 24)
    found = image_metrics(x_hat, x, convention="plain")
    for i in range(2):
        a, b = x[i].numpy(), x_hat[i].numpy()
        assert found["psnr"][i] == pytest.approx(peak_signal_noise_ratio(a, b, data_range=2), abs=1e-6)
        assert found["ssim"][i] == pytest.approx(structural_similarity(a, b, data_range=2, channel_axis=0), abs=1e-6)
        assert found["nmse"][i] == pytest.approx(((a - b) ** 2).sum() / (a**2).sum(), abs=1e-6)


def test_published_scales_each_image_by_itself():
    x_hat, x = batch(2, 3, 20, 24)
    found = image_metrics(x_hat, x, convention="published")
    for i in range(2):
        a, b = scaled(x[i].numpy()), scaled(x_hat[i].numpy())
        assert found["psnr"][i] == pytest.approx(peak_signal_noise_ratio(a, b, data_range=1), abs=1e-6)
        assert found["ssim"][i] == pytest.approx(
            structural_similarity(a, b, win_size=7, data_range=1, channel_axis=0), abs=1e-6
        )
        assert found["nmse"][i] == pytest.approx(((a - b) ** 2).sum() / (a**2).sum(), abs=1e-6)


def test_single_precision_gives_the_same_numbers():
    x_hat, x = batch(1, 3, 16, 16)
    single = image_metrics(x_hat.float(), x.float(), convention="plain")
    double = image_metrics(x_hat, x, convention="plain")
    for name in double:
        assert single[name] == pytest.approx(double[name], rel=1e-5)


def test_published_hides_a_scale_error_and_plain_shows_it():
    _, x = batch(1, 1, 16, 16)
    wrong = 0.5 * x + 0.1
    assert nmse(wrong, x, convention="published")[0] < 1e-20
    assert ssim(wrong, x, convention="published")[0] == pytest.approx(1)
    assert psnr(wrong, x, convention="published")[0] > 200
    assert nmse(wrong, x, convention="plain")[0] > 0.1
    assert ssim(wrong, x, convention="plain")[0] < 0.95
    assert psnr(wrong, x, convention="plain")[0] < 25


def test_complex_images_count_by_their_magnitude():
    x_hat, x = batch(2, 1, 16, 16, dtype=torch.complex128)
    x[1] *= 3  # the range is the truth's own, image by image
    x_hat[1] *= 3
    found = image_metrics(x_hat, x, convention="plain")
    for i in range(2):
        a, b = x[i].abs().numpy(), x_hat[i].abs().numpy()
        assert found["psnr"][i] == pytest.approx(peak_signal_noise_ratio(a, b, data_range=a.max()), abs=1e-6)
        assert found["ssim"][i] == pytest.approx(
            structural_similarity(a, b, data_range=a.max(), channel_axis=0), abs=1e-6
        )
    turned = x_hat * np.exp(0.7j)  # a phase is no error of the magnitude
    assert image_metrics(turned, x, convention="plain")["psnr"] == pytest.approx(found["psnr"])
    of_magnitudes = psnr(x_hat[:1].abs(), x[:1].abs(), convention="plain", data_range=x[0].abs().max().item())
    assert of_magnitudes == pytest.approx(found["psnr"][:1])


@pytest.mark.parametrize("convention", ["plain", "published"])
def test_equal_images(convention):
    _, x = batch(1, 1, 16, 16)
    found = image_metrics(x, x, convention=convention)
    assert math.isinf(found["psnr"][0])
    assert found["ssim"] == pytest.approx([1])
    assert found["nmse"] == [0]


def test_an_empty_reconstruction_is_scored_and_an_empty_batch_is_empty():
    _, x = batch(1, 1, 16, 16)
    assert nmse(torch.zeros_like(x), x, convention="published") == pytest.approx([1])
    assert image_metrics(x[:0], x[:0], convention="plain") == {"psnr": [], "ssim": [], "nmse": []}


def test_the_convention_must_be_named():
    _, x = batch(1, 1, 16, 16)
    with pytest.raises(TypeError):
        image_metrics(x, x)
    with pytest.raises(TypeError):
        image_metrics(x, x, "plain")


@pytest.mark.parametrize(
    ("change", "options", "message"),
    [
        (lambda x: (x[..., 1:], x), {}, "share one shape"),
        (lambda x: (x[0], x[0]), {}, "share one shape"),
        (lambda x: (x * torch.nan, x), {}, "reconstruction holds values that are not finite"),
        (lambda x: (x, x / 0), {}, "truth holds values that are not finite"),
        (lambda x: (x + 0j, x), {}, "take .abs"),
        (lambda x: (x, 2 * x), {}, "give data_range"),
        (lambda x: (x, 0 * x), {}, "image 0: the truth is constant"),
        (lambda x: (x, 0 * x + 0.5), {"convention": "published"}, "image 0: the truth is constant"),
        (lambda x: (x, x), {"convention": "mean"}, "unknown convention 'mean'"),
        (lambda x: (x, x), {"data_range": 0.0}, "positive number"),
        (lambda x: (x, x), {"convention": "published", "data_range": 1.0}, "belongs to the plain convention"),
        (lambda x: (x[..., :6], x[..., :6]), {}, "at least 7×7"),
    ],
)
def test_errors_are_one_line(change, options, message):
    _, x = batch(1, 1, 16, 16)
    with pytest.raises(ValueError, match=message) as error:
        image_metrics(*change(x), **{"convention": "plain", **options})
    assert "\n" not in str(error.value)
