"""A denoiser in the format of the hub: a model card beside the weights, uploaded as it is, read back by its name."""

import fnmatch
import re
import shutil
from pathlib import Path

import huggingface_hub
import pytest
import torch
from networks import SETTINGS
from runs import PHOTOS, msm, write_config
from torch import nn

from msm import ADMNetwork, BoxMasks, PartialDenoiser, VPSchedule, adapt
from msm.errors import ConfigError, DataError

RECORD = {"scale": "real, in [-1, 1]", "train": {"images": 8, "remask": False}, "data": {"noise_std": 0.1}}
SECTIONS = ["Data", "Masks and noise", "Scale convention", "Training", "Limits", "Licence"]


def made(record=RECORD, network=None):
    torch.manual_seed(0)
    network = network or ADMNetwork(**{**SETTINGS, "in_channels": 1})
    return PartialDenoiser(network, VPSchedule(), masks=BoxMasks(16, drop=0.4), record=record)


def alike(a, b):
    return all(torch.equal(x, y) for x, y in zip(a.state_dict().values(), b.state_dict().values()))


def test_the_card_says_what_is_known(tmp_path):
    made().save_pretrained(tmp_path / "faces", about="Photos of *nobody*.", licence="cc-by-4.0")
    card = huggingface_hub.ModelCard.load(tmp_path / "faces" / "README.md")
    assert card.data.license == "cc-by-4.0" and "inverse-problems" in card.data.tags
    assert re.findall("^## (.*)$", card.text, re.MULTILINE) == SECTIONS and "\n# faces\n" in card.text
    for said in (
        "Photos of *nobody*.",
        "Masks: kind box, size (16, 16), drop 0.4, grid 4; they keep 62%.",
        "Noise, ρ: 0.1 per real component at most.",
        "no clean image took part",
        "Images are real, in [-1, 1]",
        "* `train.images`: 8",
        "The error of its estimates was not measured",
        "not for diagnosis",
    ):
        assert said in card.text, said
    assert str(tmp_path) not in card.text


@pytest.mark.parametrize(
    ("record", "said"),
    [
        ({}, "Noise, ρ: not recorded."),
        ({"train": {"remask": True}}, "drawn anew at each step, from clean images"),
        ({"refined": {"from": "faces", "round": 1}}, "the masks above are what it takes, not what it saw"),
        ({"data": {"noise_std": 0.0}, "measurements": {"count": 3, "noise_std": 0.2}}, "Noise, ρ: 0.2 per real"),
        ({"imported": "weights.pt"}, "* `imported`: weights.pt"),
    ],
)
def test_the_card_says_what_is_not_known_or_not_clean(tmp_path, record, said):
    made(record).save_pretrained(tmp_path)
    text = (tmp_path / "README.md").read_text()
    assert said in text and "Not recorded: ask whoever trained it." in text and "None was given." in text
    assert huggingface_hub.ModelCard(text).data.license is None


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """The hub: a folder of repositories, of which snapshots are taken."""

    def snapshot(name, revision, allow_patterns):
        if not (tmp_path / "hub" / name).is_dir():
            raise huggingface_hub.errors.LocalEntryNotFoundError("cannot be\nreached")
        folder = tmp_path / "snapshot"
        folder.mkdir()
        for path in (tmp_path / "hub" / name).iterdir():
            if any(fnmatch.fnmatch(path.name, pattern) for pattern in allow_patterns):
                shutil.copy(path, folder)
        return str(folder)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot)
    monkeypatch.chdir(tmp_path)
    return tmp_path / "hub"


@pytest.mark.parametrize("ours", [True, False], ids=["our network", "adapted"])
def test_it_is_uploaded_as_it_is_and_read_by_its_name(hub, tmp_path, ours):
    def network():
        return None if ours else adapt(nn.Conv2d(1, 1, 3, padding=1))

    denoiser = made(network=network())
    denoiser.save_pretrained(tmp_path / "here")
    for path in Path("here").iterdir():  # what `upload_folder` commits, file by file
        operation = huggingface_hub.CommitOperationAdd(path.relative_to("here").as_posix(), path)
        target = hub / "me" / "faces" / operation.path_in_repo
        target.parent.mkdir(parents=True, exist_ok=True)
        with operation.as_file() as content:
            target.write_bytes(content.read())
    assert {path.name for path in (hub / "me" / "faces").iterdir()} == {path.name for path in Path("here").iterdir()}
    for name in ("here", tmp_path / "here", "me/faces"):
        found = PartialDenoiser.from_pretrained(name, network())
        assert alike(found, denoiser) and found.masks.settings == denoiser.masks.settings
    assert not (tmp_path / "snapshot" / "README.md").exists()


def test_a_bundled_model_and_names_of_nothing(hub):
    assert alike(PartialDenoiser.from_pretrained("bundled:faces"), PartialDenoiser.load("bundled:faces"))
    with pytest.raises(DataError, match=r"me/none: no such folder here, and not read from the hub \(cannot be reached"):
        PartialDenoiser.from_pretrained("me/none")
    with pytest.raises(DataError, match=r"nowhere/at/all/denoiser.json: not the record"):
        PartialDenoiser.from_pretrained("nowhere/at/all")
    with pytest.raises(ConfigError, match="a revision is for those"):
        PartialDenoiser.from_pretrained("bundled:faces", revision="main")


def test_a_card_of_others_is_not_lost(tmp_path):
    card = tmp_path / "README.md"
    card.write_text("mine")
    with pytest.raises(ConfigError, match=r"README.md: is there, and not listed as ours"):
        made().save_pretrained(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["README.md"]
    card.unlink()
    for _ in range(2):
        made().save_pretrained(tmp_path)
    card.write_text(card.read_text() + "More.")
    with pytest.raises(DataError, match="keep your text elsewhere"):
        made().save_pretrained(tmp_path)
    assert card.read_text().endswith("More.")


def test_a_training_says_how_many_measurements_it_had_and_their_noise(tmp_path):
    config = write_config(tmp_path, **PHOTOS)
    assert msm("train", config, "data.noise_std=0.05") == 0
    record = PartialDenoiser.load(tmp_path / "run").record
    assert record["measurements"] == {"count": 5, "noise_std": pytest.approx(0.05)}
