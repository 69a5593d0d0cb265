"""Published state dicts."""

import os
import pickle

import pytest
import torch
from networks import SETTINGS, assert_one_line, busy_weights
from safetensors.torch import save_file
from torch.testing import assert_close

from msm.errors import DataError
from msm.network import ADMNetwork, PublishedWeights, load_published_weights, published_shapes
from msm.network.published import _published_names


@pytest.mark.parametrize("name", ["adm_keys_ffhq128", "adm_keys_fastmri256"])
def test_published_names_and_shapes_of_the_full_networks(golden, name):
    _, facts = golden(name)
    shapes = published_shapes(**facts["settings"])
    assert shapes == {key: tuple(shape) for key, shape in facts["state_dict"].items()}
    assert len(shapes) == facts["n_keys"]
    with torch.device("meta"):
        network = ADMNetwork(**facts["settings"])
    assert sum(p.numel() for p in network.parameters()) == facts["parameter_count"]
    assert not list(network.buffers())


@pytest.mark.slow
@pytest.mark.parametrize("name", ["adm_keys_ffhq128", "adm_keys_fastmri256"])
def test_full_network_loads_a_published_file(golden, tmp_path, name):
    _, facts = golden(name)
    weights = busy_weights(facts["settings"])
    torch.save(weights, tmp_path / "weights.pt")
    network = load_published_weights(tmp_path / "weights.pt", **facts["settings"])
    assert_close(network.unet.conv_out.weight.data, weights["out.2.weight"], rtol=0, atol=0)
    heads = weights["middle_block.1.qkv.weight"].reshape(8, 3, 64, 512)
    middle = network.unet.mid_block.attentions[0]
    for part, layer in enumerate((middle.to_q, middle.to_k, middle.to_v)):
        assert_close(layer.weight.data, heads[:, part].reshape(512, 512), rtol=0, atol=0)


@pytest.mark.parametrize("name", ["adm_keys_ffhq128", "adm_keys_fastmri256"])
def test_zero_initialised_layers_are_those_of_adm(golden, name):
    """The published list, on a network with the same blocks but fewer channels."""
    _, facts = golden(name)
    network = ADMNetwork(**{**facts["settings"], "num_channels": 32, "num_head_channels": 16})
    state = network.unet.state_dict()
    names = _published_names(network.unet)
    zero = {theirs for theirs, ours in names.items() if not any(state[our].any() for our in ours)}
    assert {name for name in zero if name.endswith(".weight")} == set(facts["zero_initialised_weights"])
    assert {name.replace(".weight", ".bias") for name in facts["zero_initialised_weights"]} <= zero


def assert_refused(path, message):
    with pytest.raises(ValueError, match=message) as info:
        load_published_weights(path, **SETTINGS)
    assert_one_line(info)
    assert str(path) in str(info.value)


KEY = "middle_block.1.qkv.weight"


@pytest.mark.parametrize("suffix", ["pt", "safetensors"])
@pytest.mark.parametrize(
    "change, message",
    [
        ({KEY: None}, rf"1 missing \(first: {KEY}\)"),
        ({"module.x": torch.zeros(1)}, r"1 unexpected \(first: 'module.x'\)"),
        (
            {KEY: torch.zeros(192, 64)},
            rf"1 misshapen \(first: {KEY}, \[192, 64\] instead of \[192, 64, 1\]\)",
        ),
        ({KEY: torch.zeros(192, 64, 1, dtype=torch.int64)}, rf"1 misshapen \(first: {KEY}, a torch.int64"),
    ],
)
def test_published_weights_that_do_not_fit(tmp_path, change, message, suffix):
    weights = {name: value for name, value in {**busy_weights(SETTINGS), **change}.items() if value is not None}
    path = tmp_path / f"weights.{suffix}"
    (torch.save if suffix == "pt" else save_file)(weights, path)
    assert_refused(path, message)


@pytest.mark.parametrize("content", [[1, 2], torch.zeros(3), {"state_dict": {}}, {3: torch.zeros(1)}, {KEY: 7}])
def test_published_file_of_something_else(tmp_path, content):
    torch.save(content, tmp_path / "weights.pt")
    assert_refused(tmp_path / "weights.pt", "expected a state dict|tensors do not fit")


def put(prefix, weights):
    return {f"{prefix}{name}": value for name, value in weights.items()}


def averaged(weights):
    return {name: value + 1 for name, value in weights.items()}


PLACES = {  # what a file holds, made of a state dict and its average: where it is found, what is left out
    "plain": (lambda w, a: a, "", ()),
    "prefix": (lambda w, a: put("module.", a), "module.", ()),
    "two prefixes": (lambda w, a: put("_orig_mod.module.", a), "_orig_mod.module.", ()),
    "average by torch": (lambda w, a: {"n_averaged": torch.tensor(5), **put("module.", a)}, "module.", ("n_averaged",)),
    "state_dict": (lambda w, a: {"state_dict": a, "epoch": 3}, "state_dict.", ("epoch",)),
    "state_dict with a prefix": (lambda w, a: {"state_dict": put("model.", a)}, "state_dict.model.", ()),
    "ema alone": (lambda w, a: {"ema": a}, "ema.", ()),
    "model and ema": (lambda w, a: {"model": w, "ema": a, "opt": {"lr": 1}}, "ema.", ("model", "opt")),
    "ema with a prefix": (lambda w, a: {"model": w, "model_ema": put("module.", a)}, "model_ema.module.", ("model",)),
    "ema_model. beside": (
        lambda w, a: {**put("online_model.", w), **put("ema_model.", a), "step": torch.tensor(1)},
        "ema_model.",
        ("online_model", "step"),
    ),
    "ema below the model": (lambda w, a: {**put("net.", w), **put("net.ema.", a)}, "net.ema.", ("net",)),
    "average as a list": (
        lambda w, a: {"model": w, "ema": {"decay": 0.9, "shadow_params": list(a.values())}},
        "ema.shadow_params.",
        ("model", "ema"),
    ),
}


@pytest.mark.parametrize("kind", PLACES)
def test_weights_are_found_where_they_lie(tmp_path, kind):
    make, place, left_out = PLACES[kind]
    weights = busy_weights(SETTINGS)
    torch.save(make(weights, averaged(weights)), tmp_path / "weights.pt")
    found = PublishedWeights.read(tmp_path / "weights.pt")
    assert (found.place, found.left_out) == (place, left_out)
    network = found.network(**SETTINGS)
    assert_close(network.unet.conv_out.weight.data, weights["out.2.weight"] + 1, rtol=0, atol=0)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda w: {"student": w, "teacher": averaged(w)}, r"holds 2 networks, student\., teacher\.; keep the one"),
        (lambda w: {"model": w, "ema_0.9999": w | {}, "ema_0.999": averaged(w)}, "holds 2 averages, ema_0.999"),
        (lambda w: {"model": put("module.", {**w, "x": torch.zeros(1)})}, r"1 unexpected \(first: 'x'\)"),
    ],
)
def test_a_file_in_which_several_could_be_meant_is_refused(tmp_path, make, message):
    torch.save(make(busy_weights(SETTINGS)), tmp_path / "weights.pt")
    assert_refused(tmp_path / "weights.pt", message)


def test_a_prefix_in_a_safetensors_file(tmp_path):
    weights = busy_weights(SETTINGS)
    save_file(put("module.", weights), tmp_path / "weights.safetensors")
    network = load_published_weights(tmp_path / "weights.safetensors", **SETTINGS)
    assert_close(network.unet.conv_out.weight.data, weights["out.2.weight"], rtol=0, atol=0)


def test_a_dictionary_that_holds_itself(tmp_path):
    content = {"state_dict": busy_weights(SETTINGS)}
    content["again"] = content
    torch.save(content, tmp_path / "weights.pt")
    assert PublishedWeights.read(tmp_path / "weights.pt").place == "state_dict."


def thin(shapes):
    """Tensors of these shapes that take no room."""
    return {name: torch.zeros(1).expand(shape) for name, shape in shapes.items()}


@pytest.mark.parametrize("name", ["adm_keys_ffhq128", "adm_keys_fastmri256"])
def test_tensors_of_the_two_full_sizes_tell_the_network(golden, tmp_path, name):
    _, facts = golden(name)
    torch.save(put("module.", thin(facts["state_dict"])), tmp_path / "weights.pt")
    found = PublishedWeights.read(tmp_path / "weights.pt").settings
    assert ADMNetwork.empty(found).settings == ADMNetwork.empty(facts["settings"]).settings


def test_grey_photos_of_a_full_size_are_told_too(golden, tmp_path):
    _, facts = golden("adm_keys_ffhq128")
    settings = {**facts["settings"], "in_channels": 1}
    torch.save(thin(published_shapes(**settings)), tmp_path / "weights.pt")
    assert PublishedWeights.read(tmp_path / "weights.pt").settings["in_channels"] == 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"out.2.weight": torch.zeros(6, 128, 3, 3)},
            r"1 misshapen \(first: out.2.weight, \[6, 128, 3, 3\] instead of",
        ),
        (
            {"out.2.weight": None},
            r"1 missing \(first: out.2.weight\) \(taken for the published one of 128 px\); give --config",
        ),
        ({"label_emb.weight": torch.zeros(10, 512)}, r"1 unexpected \(first: 'label_emb.weight'\)"),
        ({"input_blocks.0.0.weight": torch.zeros(3)}, "1 misshapen"),
    ],
)
def test_tensors_of_another_network_are_told(golden, tmp_path, change, message):
    """Of one that learns σ, of one with classes: what differs from the nearest published one."""
    _, facts = golden("adm_keys_ffhq128")
    weights = {name: value for name, value in {**thin(facts["state_dict"]), **change}.items() if value is not None}
    torch.save(weights, tmp_path / "weights.pt")
    with pytest.raises(DataError, match=message):
        load_published_weights(tmp_path / "weights.pt")


class Hostile:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("write", [torch.save, lambda content, path: path.write_bytes(pickle.dumps(content))])
def test_published_file_with_code_is_refused_and_not_run(tmp_path, write):
    write({"weights": Hostile(tmp_path / "executed")}, tmp_path / "weights.pt")
    assert_refused(tmp_path / "weights.pt", "not a readable state dict of plain tensors")
    assert not (tmp_path / "executed").exists()


@pytest.mark.parametrize("kept", [0, 1, 1000, 100_000])
@pytest.mark.parametrize("suffix", ["pt", "safetensors"])
def test_published_file_truncated(tmp_path, suffix, kept):
    path = tmp_path / f"weights.{suffix}"
    (torch.save if suffix == "pt" else save_file)(busy_weights(SETTINGS), path)
    path.write_bytes(path.read_bytes()[:kept])
    assert_refused(path, "not a readable state dict|damaged")


def test_published_file_missing(tmp_path):
    with pytest.raises(DataError, match=r"weights\.pt: no such file") as info:
        load_published_weights(tmp_path / "weights.pt", **SETTINGS)
    assert_one_line(info)


def test_published_half_precision_becomes_float32(tmp_path):
    save_file({name: value.half() for name, value in busy_weights(SETTINGS).items()}, tmp_path / "w.safetensors")
    loaded = load_published_weights(tmp_path / "w.safetensors", **SETTINGS)
    assert {value.dtype for value in loaded.parameters()} == {torch.float32}
