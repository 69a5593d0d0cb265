"""Observations, posterior samples and scores, with a network that predicts zero; the bundled models."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import msm
from msm.config.build import make_denoiser, make_masks, make_sampler
from msm.config.load import load_config
from msm.data.samples import brain_slices, portrait
from msm.data_step import Proximal
from msm.errors import DataError
from msm.evaluate.metrics import psnr
from msm.evaluate.records import score, summary
from msm.measurement import Measurement
from msm.network import ADMNetwork
from msm.output.figures import Column, displayable, error_map, spread, write_comparison, write_picture
from msm.sample.draw import posterior_samples, prior_samples, samples_of
from msm.sample.observe import coil_maps, observe
from msm.sampling import reconstruct
from msm.system.processes import shared_out


class Nothing(torch.nn.Module):
    """A network that predicts zero."""

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))
        self.batches = []

    def forward(self, u, t):
        self.batches.append(len(u))
        return u * self.weight


MRI = """
setting: {save_dir: run}
data: {kind: slices, image_size: 16, coils: 3, mask: {kind: cartesian, acceleration: 4, center: 3}}
network: {image_size: 16, in_channels: 2, num_channels: 32, channel_mult: [1], attention_resolutions: [16],
          num_head_channels: 32}
diffusion: {parametrisation: sense}
sample: {count: 3, samples: 2, steps: 3, batch_size: 4, eta: 0.85, data_step: {kind: proximal}}
inverse_problem: {operator: undersampling, mask: {kind: cartesian, acceleration: 4, center: 3}}
"""
PHOTOS = """
setting: {save_dir: run}
data: {kind: images, image_size: 16, mask: {kind: box}}
network: {image_size: 16, in_channels: 3, num_channels: 32, channel_mult: [1], attention_resolutions: [16],
          num_head_channels: 32}
sample: {count: 3, samples: 2, steps: 3, batch_size: 4, eta: 0.85, data_step: {kind: proximal}}
inverse_problem: {operator: super_resolution, factor: 4}
"""


def denoiser_and_config(tmp_path, text):
    path = tmp_path / "config.yaml"
    path.write_text(text)
    config = load_config(path)
    return make_denoiser(Nothing(), config.diffusion, make_masks(config.data.mask, 16)), config


@pytest.mark.parametrize("text", [MRI, PHOTOS])
def test_posterior_samples_do_not_depend_on_the_batch(tmp_path, text):
    denoiser, config = denoiser_and_config(tmp_path, text)
    items = brain_slices(16, 3)[:3] if config.data.is_mri else [portrait(16)]
    done = []
    inputs, samples = posterior_samples(denoiser, items, config, done.append)
    assert sum(done) == len(items) * 2 * 3
    assert inputs.shape == samples[:, 0].shape == torch.stack([item.image for item in items]).shape
    assert not torch.equal(samples[:, 0], samples[:, 1])
    one = config.model_copy(update={"sample": config.sample.model_copy(update={"batch_size": 1})})
    torch.testing.assert_close(posterior_samples(denoiser, items, one)[1], samples, rtol=1e-4, atol=1e-4)


def test_the_likelihood_weight_reaches_the_data_step(tmp_path):
    """p(y|z)^4 of noise σ_y is that of noise σ_y/2, up to a constant; y itself keeps its noise."""
    denoiser, config = denoiser_and_config(tmp_path, MRI)
    items = brain_slices(16, 3)[:1]
    found = {}
    for weight in (1.0, 4.0):
        tempered = config.sample.data_step.model_copy(update={"likelihood_weight": weight})
        sample = config.sample.model_copy(update={"data_step": tempered})
        found[weight] = posterior_samples(denoiser, items, config.model_copy(update={"sample": sample}))
    assert torch.equal(found[1.0][0], found[4.0][0]) and not torch.equal(found[1.0][1], found[4.0][1])
    seen = observe(items * 2, config.inverse_problem, config.data)
    less = replace(seen, noise_std=seen.noise_std / 2)
    how = {"seeds": [0, 1], "sampler": make_sampler(config.sample), "data_step": Proximal(6)}
    expected = seen.transform.adjoint(reconstruct(denoiser, less, **how))
    torch.testing.assert_close(found[4.0][1][0], expected, rtol=1e-5, atol=1e-5)


def test_prior_samples_use_the_coil_maps_in_turn(tmp_path):
    denoiser, config = denoiser_and_config(tmp_path, MRI)
    maps = coil_maps(brain_slices(16, 3)[:2])
    assert prior_samples(denoiser, config.data, config.sample, maps).shape == (3, 1, 16, 16)


@pytest.mark.parametrize(("text", "calls"), [(MRI, 5), (PHOTOS, 3)])
def test_the_chain_evaluates_all_masks_of_a_step_as_one_batch(tmp_path, text, calls):
    denoiser, config = denoiser_and_config(tmp_path, text.replace("sample: {", "sample: {score: chain, "))
    items = brain_slices(16, 3)[:3] if config.data.is_mri else [portrait(16)]
    posterior_samples(denoiser, items, config)
    batches_of_items = [4, 2] if config.data.is_mri else [2]  # two samples of each
    assert denoiser.network.batches == [calls * n for n in batches_of_items for _ in range(3)]
    denoiser.network.batches.clear()
    prior_samples(denoiser, config.data, config.sample, coil_maps(items) if config.data.is_mri else None)
    assert denoiser.network.batches == [3 * calls] * 3


def test_scores_and_their_summary():
    x = torch.linspace(-1, 1, 2 * 64).reshape(2, 1, 8, 8)
    records = score("mean", "shifted", x + 0.2, x, ["a", "b"]) + score("mean", "equal", x + 1e-3, x, ["a", "b"])
    shifted, same = summary(records, {"equal": "the same"})
    assert list(shifted) == ["Method", "PSNR, dB ↑", "SSIM ↑", "NMSE ↓"] and same["Method"] == "the same"
    assert (shifted["PSNR, dB ↑"], same["PSNR, dB ↑"]) == ("20.00", "* 66.02")
    assert all(same[name].startswith("* ") and not shifted[name].startswith("*") for name in list(same)[1:])
    assert len(shifted["NMSE ↓"]) == len(same["NMSE ↓"]) - 2 == 9  # so many that the smaller one can be read
    assert all(record.plain and record.published for record in records)


def test_what_ends_one_process_ends_all(monkeypatch):
    """The others would wait for its results."""
    told = []

    def failing(numbers):
        raise DataError("here")

    monkeypatch.setattr("msm.system.processes.gather_object", lambda done: told.extend(done) or done)
    with pytest.raises(DataError, match="here"):
        shared_out(4, 2, failing)
    assert len(told) == 1  # they are told
    monkeypatch.setattr("msm.system.processes.gather_object", lambda done: [*done, (1, DataError("elsewhere"))])
    with pytest.raises(DataError, match="elsewhere"):
        shared_out(4, 2, list)


def draw_posterior(denoiser, config, items, keep):
    return posterior_samples(denoiser, items, config, keep=keep)


def draw_prior(denoiser, config, items, keep):
    settings = config.sample.model_copy(update={"count": 6})
    return prior_samples(denoiser, config.data, settings, coil_maps(items), keep=keep)


def draw_of_one(denoiser, config, items, keep):
    seen = observe(items[:1], config.inverse_problem, config.data)
    measured = Measurement(seen.y, seen.operator.mask, items[0].maps[None])
    return samples_of(denoiser, measured, seeds=range(6), sampler=make_sampler(config.sample), batch_size=4, keep=keep)


@pytest.mark.parametrize("value", [float("nan"), 300.0])
@pytest.mark.parametrize("samples", [draw_posterior, draw_prior, draw_of_one])
def test_samples_are_looked_through_before_they_are_kept(tmp_path, capsys, samples, value):
    """Batch by batch; of values far out one warning, of what is no number an error."""
    denoiser, config = denoiser_and_config(tmp_path, MRI)
    denoiser.network.weight.data.fill_(value)
    kept = []

    def keep(draw, reused):
        def drawn(numbers):
            result = draw(numbers)
            kept.append((len(numbers), capsys.readouterr().err.count("where 1 is the range")))
            return result

        return drawn

    if value == 300:
        samples(denoiser, config, brain_slices(16, 3)[:3], keep)
        assert kept == [(4, 1), (2, 0)]
    else:
        with pytest.raises(DataError, match="values that are not finite"):
            samples(denoiser, config, brain_slices(16, 3)[:3], keep)
        assert not kept


def test_work_is_shared_out_in_batches():
    assert shared_out(5, 2, list) == [[0, 1], [2, 3], [4]] and shared_out(0, 2, list) == []


def test_pictures_hold_what_they_should(tmp_path):
    image = torch.tensor([[-1.0, 1.0], [0.0, 3.0]])[None, None].expand(1, 3, 2, 2)
    write_picture(tmp_path / "one.png", image)
    with Image.open(tmp_path / "one.png") as picture:
        assert np.array_equal(np.asarray(picture)[..., 0], [[0, 255], [128, 255]])
    assert displayable(torch.full((1, 1, 2, 2), 0.6 + 0.8j)).unique().tolist() == [1.0]
    x = torch.rand(2, 1, 8, 8, dtype=torch.complex64)
    columns = [Column("truth", x, ["1 dB", "2 dB"]), Column("error", error_map(x, 0 * x), is_map=True)]
    write_comparison(tmp_path / "figure.png", "title", ["a", "b"], columns)
    with Image.open(tmp_path / "figure.png") as picture:
        assert picture.width > 200
    assert sorted(path.name for path in tmp_path.iterdir()) == ["figure.png", "one.png"]


def test_spread_is_the_standard_deviation_of_the_samples():
    samples = torch.randn(1, 4000, 3, 2, 2, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(spread(samples), torch.ones(1, 1, 2, 2), rtol=0.05, atol=0)


# The bundled models


def bundled(name, *overrides):
    folder = Path(msm.__file__).parent / "assets" / name
    config = load_config(folder / "config.yaml", list(overrides))
    network = ADMNetwork.load(folder)
    assert network.settings == config.network.model_dump(mode="json")
    return make_denoiser(network, config.diffusion, make_masks(config.data.mask, config.data.image_size)).eval(), config


def mean_psnr(x_hat, items):
    values = psnr(x_hat, torch.stack([item.image for item in items]), convention="plain")
    return sum(values) / len(values)


def test_the_bundled_brain_model_gains_three_decibels_on_zero_filling_in_few_calls():
    problem = "inverse_problem={operator: undersampling, mask: {kind: cartesian, center: 10}}"
    few = ["sample.steps=8", "sample.samples=2", "sample.data_step={kind: proximal}"]
    denoiser, config = bundled("brain", problem, *few)
    items = brain_slices(128, 8)[:2]
    inputs, samples = posterior_samples(denoiser, items, config)
    assert mean_psnr(samples.mean(1), items) > mean_psnr(inputs, items) + 3


@pytest.mark.parametrize("name", ["faces", "faces_refined"])
def test_the_bundled_face_models_gain_one_decibel_on_a_hole_in_few_calls(name):
    few = ["sample.steps=15", "sample.samples=2", "sample.data_step={kind: proximal}"]
    denoiser, config = bundled(name, "inverse_problem={operator: box, hole: 32}", *few)
    items = [portrait(64)]
    inputs, samples = posterior_samples(denoiser, items, config)
    assert mean_psnr(samples.mean(1), items) > mean_psnr(inputs, items) + 1
