"""A denoiser saved into one folder is all that is needed to sample."""

import json

import pytest
import torch
from networks import SETTINGS
from runs import unlist
from torch import nn

from msm import (
    EDM,
    ADMNetwork,
    BoxMasks,
    CartesianMasks,
    EmpiricalMasks,
    Epsilon,
    FullMask,
    PartialDenoiser,
    Sampler,
    Sense,
    VariableDensityMasks,
    VPSchedule,
    generate,
)
from msm.errors import DataError
from msm.mri_prior import ImagePrior

LAWS = {
    "full": FullMask(16),
    "box": BoxMasks((16, 32), drop=0.25, grid=2),
    "cartesian": CartesianMasks(16, 3, 4, "uniform"),
    "density": VariableDensityMasks(16, 4, 6, "random", corners=False),
    "empirical": EmpiricalMasks(torch.rand(3, 1, 16, 16, generator=torch.Generator().manual_seed(0)) < 0.5),
}
PRIOR = ImagePrior(band_variance=0.01, corner=0.5, phase_width=3.0, phase_residual=0.1)


def made(parametrisation=Epsilon(), masks=None, **more):
    torch.manual_seed(0)
    network = ADMNetwork(**{**SETTINGS, "in_channels": 1})
    for parameter in network.parameters():
        nn.init.normal_(parameter, std=0.05)
    return PartialDenoiser(network, VPSchedule(beta_end=0.015), parametrisation, masks, **more)


@pytest.mark.parametrize("law", LAWS)
def test_the_mask_law_comes_back(law, tmp_path):
    masks = LAWS[law]
    made(masks=masks).save(tmp_path)
    loaded = PartialDenoiser.load(tmp_path).masks
    draws = [m.sample(4, torch.Generator().manual_seed(1)) for m in (masks, loaded)]
    assert type(loaded) is type(masks) and loaded.size == masks.size and torch.equal(*draws)


@pytest.mark.parametrize("parametrisation", [Epsilon(), EDM(0.3), Sense(PRIOR, 0.2, iterations=7)])
def test_everything_else_comes_back(parametrisation, tmp_path):
    record = {"scale": "real, in [-1, 1]", "train": {"images": 3}}
    denoiser = made(parametrisation, FullMask(16), prior=PRIOR, record=record)
    denoiser.save(tmp_path)
    loaded = PartialDenoiser.load(tmp_path)
    assert loaded.parametrisation == denoiser.parametrisation and loaded.prior == PRIOR
    assert loaded.record == denoiser.record and torch.equal(loaded.schedule.sigmas, denoiser.schedule.sigmas)
    assert all(torch.equal(a, b) for a, b in zip(loaded.parameters(), denoiser.parameters()))


def test_it_samples_alike(tmp_path):
    denoiser = made(EDM(), BoxMasks(16)).eval()
    denoiser.save(tmp_path)
    z, again = (
        generate(d, (1, 16, 16), seeds=[0, 1], sampler=Sampler(steps=3))
        for d in (denoiser, PartialDenoiser.load(tmp_path).eval())
    )
    assert torch.equal(z, again) and z.std() > 0.1


def test_a_law_of_ones_own_is_asked_for_again(tmp_path):
    class Own(BoxMasks):
        kind = "own"

    made(masks=Own(16)).save(tmp_path)
    loaded = PartialDenoiser.load(tmp_path)
    assert loaded.masks is None
    with pytest.raises(ValueError, match="give masks"):
        generate(loaded, (1, 16, 16), seeds=[0])


def test_what_cannot_be_written_is_refused(tmp_path):
    with pytest.raises(ValueError, match="Identity with Epsilon cannot be written"):
        PartialDenoiser(nn.Identity(), VPSchedule()).save(tmp_path / "a")

    class Own(Epsilon):
        """Another parametrisation."""

    with pytest.raises(ValueError, match="with Own cannot be written"):
        made(Own()).save(tmp_path / "b")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda about: about | {"format": 0}, "not of format 1"),
        (lambda about: [about], "not the record of a denoiser, but a list"),
        (lambda about: about | {"prior": {"phase_width": 2.0, "other": 1}}, "damaged"),
        (lambda about: about | {"prior": None}, "damaged"),
        (lambda about: about | {"parametrisation": {"kind": "none of ours"}}, "damaged"),
        (lambda about: about | {"masks": {"kind": "box", "size": [16, 16], "drop": 7}}, "damaged"),
        (lambda about: {name: value for name, value in about.items() if name != "record"}, "damaged"),
    ],
)
def test_a_damaged_folder_is_one_line(change, message, tmp_path):
    made(masks=BoxMasks(16)).save(tmp_path)
    unlist(tmp_path)
    path = tmp_path / "denoiser.json"
    path.write_text(json.dumps(change(json.loads(path.read_text()))))
    with pytest.raises(DataError, match=message) as caught:
        PartialDenoiser.load(tmp_path)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ["", "{", "[" * 10**5])
def test_no_json_is_one_line(text, tmp_path):
    made().save(tmp_path)
    unlist(tmp_path)
    (tmp_path / "denoiser.json").write_text(text)
    with pytest.raises(DataError, match=r"denoiser.json: not the record of a denoiser"):
        PartialDenoiser.load(tmp_path)


@pytest.mark.parametrize("missing", ["denoiser.json", "config.json", "model.safetensors", "masks.safetensors"])
def test_a_missing_file_is_named(missing, tmp_path):
    made(masks=LAWS["empirical"]).save(tmp_path)
    (tmp_path / missing).unlink()
    with pytest.raises(DataError, match=missing):
        PartialDenoiser.load(tmp_path)
