"""Bad input to the command line: one line that says what to do, exit code 2, and nothing is written."""

import h5py
import numpy as np
import pytest
import torch
from runs import PHOTOS, SLICES, run, save_weights, unlist, write_config
from stores import edit

from msm.data.acquire import Source, acquire
from msm.data.store import StoreWriter
from msm.masks import BoxMasks, CartesianMasks


def write_store(root, kind):
    """A store of five acquisitions that goes with the config."""
    masks = BoxMasks(16) if kind == "images" else CartesianMasks(16, 4, 4)
    generator, maps = torch.Generator().manual_seed(0), None
    with StoreWriter(root / "store.h5", {}) as writer:
        for i in range(5):
            image = torch.rand(3 if kind == "images" else 1, 16, 16, generator=generator)
            if kind == "slices":
                image, maps = image.to(torch.complex64), torch.full((2, 16, 16), 0.5**0.5, dtype=torch.complex64)
            m = acquire(Source(f"item{i}", image, maps), masks, 0.0, seed=0)
            writer.add(f"item{i}", m.values[0], m.mask[0], maps, 0.0)
    return root / "store.h5"


def with_nan(values):
    values[3, 0] = np.nan  # of the whole first channel, so some of it was measured
    return values


def damage(path):
    """Overwrite some bytes of the values of item 2."""
    with h5py.File(path) as file:
        at = file["values"].id.get_chunk_info(2).byte_offset
    content = bytearray(path.read_bytes())
    content[at + 100 : at + 110] = b"x" * 10
    path.write_bytes(content)


def spoil_store(what):
    def prepare(root, monkeypatch):
        kind = "slices" if "maps" in what else "images"
        store = write_store(root, kind)
        if what == "truncated":
            store.write_bytes(store.read_bytes()[:-5000])
        elif what == "damaged":
            damage(store)
        elif what == "no mask":
            edit(store, "mask", lambda mask: mask * np.array([1, 1, 0, 1, 1], bool)[:, None, None, None])
        elif what == "nan":
            edit(store, "values", with_nan)
        elif what == "maps of another size":
            edit(store, "maps", lambda maps: maps[..., :8])
        choices = SLICES if kind == "slices" else PHOTOS
        return ["train", write_config(root, **choices), f"setting.dataset_dir={store}"]

    return prepare


def spoil_config(command, *overrides):
    return lambda root, monkeypatch: [command, write_config(root, **PHOTOS), *(o.format(root=root) for o in overrides)]


def other_weights(command, damaged=False):
    def prepare(root, monkeypatch):
        folder = save_weights(root / "weights", levels=1 if damaged else 2)
        if damaged:
            file = folder / "model.safetensors"
            file.write_bytes(file.read_bytes()[:-100])
            unlist(folder)
        return [command, write_config(root, **PHOTOS), f"setting.pretrained_model_dir={folder}"]

    return prepare


def other_checkpoint(root, monkeypatch):
    config = write_config(root, **PHOTOS)
    assert run(monkeypatch, "train", config) == 0
    return ["train", config, "network.channel_mult=[1, 1]", "train.images=16"]


def small_config(root, monkeypatch):
    store = write_store(root, "images")
    return [
        "train",
        write_config(root, **PHOTOS),
        f"setting.dataset_dir={store}",
        "data.image_size=32",
        "network.image_size=32",
    ]


BAD = {  # what to do, then what the line must say: the file or field, what was found, what to do
    "truncated store": (spoil_store("truncated"), "store.h5", "cut off", "make it again"),
    "damaged store": (spoil_store("damaged"), "store.h5", "damaged", "make the file again"),
    "mask of zeros": (spoil_store("no mask"), "store.h5", "item 2 (item2)", "mask of zeros", "acquire it again"),
    "NaN in values": (spoil_store("nan"), "store.h5", "item 3 (item3)", "not finite", "acquire it again"),
    "maps of another size": (
        spoil_store("maps of another size"),
        "store.h5",
        "maps has shape (5, 2, 16, 8)",
        "write values, mask and maps",
    ),
    "another image size": (small_config, "store.h5", "(3, 16, 16)", "32 px", "use the config it was made with"),
    "unknown key": (
        spoil_config("train", "train.batchsize=3"),
        "config.yaml",
        "batchsize",
        "did you mean",
        "batch_size",
    ),
    "weights of another network": (other_weights("sample"), "weights", "channel_mult = [1, 1]", "use the config"),
    "start from another network": (other_weights("train"), "weights", "channel_mult = [1, 1]", "use the config"),
    "damaged weights": (other_weights("sample", damaged=True), "model.safetensors", "damaged", "copy or make it again"),
    "checkpoint of another network": (
        other_checkpoint,
        "checkpoints",
        "holds a run with network.channel_mult = [1], the config says [1, 1]",
        "use another setting.save_dir",
    ),
    "missing photos, acquire": (
        spoil_config("acquire", "-o", "{root}/out/s.h5", "--truth", "{root}/out/t.h5", "setting.dataset_dir={root}/no"),
        "/no: no such folder",
        "set setting.dataset_dir",
    ),
    "missing photos, train": (
        spoil_config("train", "setting.dataset_dir={root}/no"),
        "/no: no such folder",
        "set setting.dataset_dir",
    ),
    "missing store": (spoil_config("train", "setting.dataset_dir={root}/no.h5"), "no.h5: no such file", "msm acquire"),
    "missing weights": (
        spoil_config("sample", "setting.pretrained_model_dir={root}/no"),
        "/no: no such file or folder",
        "set setting.pretrained_model_dir",
    ),
    "missing test images": (
        lambda root, _: [
            "sample",
            write_config(root, **PHOTOS),
            f"setting.pretrained_model_dir={save_weights(root / 'w')}",
            "inverse_problem={operator: box, hole: 8}",
            f"setting.dataset_dir={root}/no",
        ],
        "/no: no such folder",
        "set setting.dataset_dir",
    ),
    "missing config": (lambda root, _: ["train", f"{root}/no.yaml"], "no.yaml"),
}


@pytest.mark.parametrize("what", list(BAD))
def test_bad_input_is_one_line_and_nothing_is_written(tmp_path, monkeypatch, capfd, what):
    prepare, *expected = BAD[what]
    arguments = prepare(tmp_path, monkeypatch)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    capfd.readouterr()
    assert run(monkeypatch, *arguments) == 2
    error = capfd.readouterr().err
    assert error.startswith("msm: ") and error.count("\n") == 1 and "Traceback" not in error
    assert all(words in error for words in expected), error
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before
