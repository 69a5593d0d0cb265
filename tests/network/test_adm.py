"""The network against the published ADM U-Net: values, tensor names, initial weights, files."""

import copy
import json

import pytest
import torch
from networks import SETTINGS, assert_one_line, busy_weights
from safetensors.torch import save_file
from torch.testing import assert_close

from msm.errors import DataError
from msm.network import ADMNetwork, load_published_weights


@pytest.fixture(scope="module")
def network(tmp_path_factory):
    path = tmp_path_factory.mktemp("network") / "weights.safetensors"
    save_file(busy_weights(SETTINGS), path)
    return load_published_weights(path, **SETTINGS)


@pytest.fixture
def images():
    return torch.randn(3, 2, 16, 16, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("suffix", ["pt", "safetensors"])
@pytest.mark.parametrize("name", ["adm_tiny_rgb", "adm_tiny_mri"])
def test_golden_vectors(golden, tmp_path, name, suffix):
    weights, _ = golden(f"{name}_weights")
    vectors, facts = golden(name)
    path = tmp_path / f"{name}.{suffix}"
    (torch.save if suffix == "pt" else save_file)(weights, path)

    network = load_published_weights(path, **facts["settings"])

    assert network.settings == facts["settings"] | {"num_groups": 32, "patch_size": 1}
    assert sum(p.numel() for p in network.parameters()) == facts["parameter_count"]
    for kind in ("float", "int"):
        with torch.no_grad():
            eps = network(vectors["x"], vectors[f"t_{kind}"])
        assert_close(eps, vectors[f"eps_t_{kind}"], rtol=1e-4, atol=1e-5)


def test_values_have_not_moved(network):
    """Numbers of this implementation when it matched the golden vectors, for where those are not at hand."""
    u = torch.cos(torch.arange(512, dtype=torch.float64) ** 2).float().reshape(1, 2, 16, 16)
    with torch.no_grad():
        eps = network(u, torch.tensor(417.5))
    found = [eps.mean(), eps.std(), eps[0, 0, 0, 0], eps[0, 1, 8, 5]]
    assert_close(torch.stack(found), torch.tensor([0.093484, 0.312280, 0.228544, -0.138011]), rtol=1e-4, atol=1e-5)


# Initial weights


def test_output_is_zero_at_the_start(images):
    assert not ADMNetwork(**SETTINGS)(images, torch.tensor(3.0)).any()


# Forward


def test_gradients_reach_every_weight_and_the_input(network, images):
    trained = copy.deepcopy(network)
    u = images.requires_grad_()
    trained(u, torch.tensor(417.5)).square().sum().backward()
    assert u.grad.abs().sum() > 0
    # The bias of a key shifts all scores of a query alike, which the softmax ignores.
    silent = {name for name, p in trained.named_parameters() if p.grad.abs().max() < 1e-6 * u.grad.abs().max()}
    assert silent <= {name for name, _ in trained.named_parameters() if name.endswith("to_k.bias")}


def test_fractional_time_is_not_truncated(network, images):
    with torch.no_grad():
        at = {t: network(images, torch.tensor(t)) for t in (417.0, 417.5)}
        assert (at[417.5] - at[417.0]).abs().max() > 1e-3
        assert_close(network(images, 417.5), at[417.5], rtol=0, atol=0)
        assert_close(network(images, torch.tensor(417)), at[417.0], rtol=0, atol=0)


def test_items_of_a_batch_are_independent(network, images):
    t = torch.tensor([3.0, 417.5, 995.0])
    with torch.no_grad():
        together = network(images, t)
        alone = torch.cat([network(images[i : i + 1], t[i]) for i in range(3)])
    assert_close(together, alone, rtol=1e-4, atol=1e-5)


def test_other_image_sizes(network):
    assert network(torch.zeros(1, 2, 24, 6), torch.tensor(5.0)).shape == (1, 2, 24, 6)


def test_a_patch_is_one_place_of_the_first_level(images, tmp_path):
    """With patches of 2 px the levels see half the side and four times the channels, one for each place in a patch."""
    settings = {**SETTINGS, "patch_size": 2, "channel_mult": [1], "attention_resolutions": []}
    save_file(busy_weights(settings), tmp_path / "weights.safetensors")
    network = load_published_weights(tmp_path / "weights.safetensors", **settings)
    patches = torch.stack([images[:, :, i::2, j::2] for i in (0, 1) for j in (0, 1)], 2).flatten(1, 2)
    assert patches.shape == (3, 8, 8, 8)
    with torch.no_grad():
        found, inside = network(images, 417.5), network.unet(patches, torch.full((3,), 417.5)).sample
    for place in range(4):
        assert_close(found[:, :, place // 2 :: 2, place % 2 :: 2], inside[:, place::4], rtol=0, atol=0)
    assert network.divisor == 2
    network.save(tmp_path)
    assert_close(ADMNetwork.load(tmp_path)(images, 417.5), found, rtol=0, atol=0)


def test_sides_are_multiples_of_the_patches_that_the_levels_halve():
    network = ADMNetwork(**{**SETTINGS, "patch_size": 2, "attention_resolutions": []})
    assert network(torch.zeros(1, 2, 12, 4), 5.0).shape == (1, 2, 12, 4)
    with pytest.raises(ValueError, match="multiples of 4"):
        network(torch.zeros(1, 2, 10, 4), 5.0)


@pytest.mark.parametrize("groups", [4, 32])
def test_channels_of_a_group_share_their_normalisation(groups):
    """With as many groups as channels a constant added to one of them is forgotten."""
    network = ADMNetwork(**{**SETTINGS, "num_groups": groups})
    norm = network.unet.conv_norm_out
    assert {m.num_groups for m in network.modules() if isinstance(m, torch.nn.GroupNorm)} == {groups}
    u = torch.randn(1, 32, 8, 8, generator=torch.Generator().manual_seed(2))
    brighter = u.clone()
    brighter[:, 0] += 1
    assert torch.allclose(norm(u), norm(brighter), atol=1e-5) == (groups == 32)


def test_networks_saved_before_there_were_groups_and_patches_load(network, images, tmp_path):
    network.write(tmp_path)
    settings = {name: value for name, value in SETTINGS.items() if name not in ("num_groups", "patch_size")}
    (tmp_path / "config.json").write_text(json.dumps(settings))
    assert_close(ADMNetwork.load(tmp_path)(images, 5.5), network(images, 5.5), rtol=0, atol=0)


@pytest.mark.parametrize(
    "shape, t, message",
    [
        ((1, 2, 15, 16), 0.0, "multiples of 2"),
        ((1, 2, 16, 15), 0.0, "multiples of 2"),
        ((1, 3, 16, 16), 0.0, r"expected real \(B, 2, H, W\)"),
        ((2, 16, 16), 0.0, r"expected real \(B, 2, H, W\)"),
        ((2, 2, 16, 16), [0.0, 1.0, 2.0], r"t has shape \[3\], expected a scalar or \[2\]"),
        ((2, 2, 16, 16), [[0.0], [1.0]], r"t has shape \[2, 1\]"),
    ],
)
def test_forward_refuses(network, shape, t, message):
    with pytest.raises(ValueError, match=message) as info:
        network(torch.zeros(shape), torch.tensor(t))
    assert_one_line(info)


def test_forward_refuses_complex_images(network):
    with pytest.raises(ValueError, match="complex64"):
        network(torch.zeros(1, 2, 16, 16, dtype=torch.complex64), torch.tensor(0.0))


# Settings


def test_settings_are_the_arguments(network):
    assert network.settings == SETTINGS == json.loads(json.dumps(network.settings))
    network.settings["channel_mult"].append(3)
    assert network.settings == SETTINGS
    assert (network.image_size, network.in_channels) == (16, 2)
    assert ADMNetwork(**{**SETTINGS, "channel_mult": (1, 2)}).settings == SETTINGS


@pytest.mark.parametrize(
    "change, message",
    [
        ({"image_size": 15}, "channel_mult: found .*a side of 15 cannot be halved 1 times"),
        ({"patch_size": 3}, "patch_size: found 3; use a divisor of image_size 16"),
        ({"patch_size": 0}, "patch_size: found 0; use a positive whole number"),
        ({"patch_size": 4}, r"attention_resolutions: found 8; the levels of channel_mult are at \[4, 2\]"),
        ({"num_channels": 48}, "num_channels: found 48; use a multiple of num_groups 32"),
        (
            {"num_head_channels": 48},
            "num_head_channels: found 48; use a divisor of the 64 channels of the level of side 8",
        ),
        (
            {"attention_resolutions": [4]},
            r"attention_resolutions: found 4; the levels .* are at \[16, 8\]",
        ),
        ({"channel_mult": [2, 2]}, "channel_mult: found .*; begin with 1"),
        ({"channel_mult": []}, "channel_mult: found .*; begin with 1"),
        ({"channel_mult": "1,2"}, "channel_mult: found '1,2'; use a list"),
        ({"num_res_blocks": 1.0}, "num_res_blocks: found 1.0; use a positive whole number"),
        ({"in_channels": 0}, "in_channels: found 0"),
        ({"in_channels": True}, "in_channels: found True"),
    ],
)
def test_settings_refused(change, message):
    with pytest.raises(ValueError, match=message) as info:
        ADMNetwork(**{**SETTINGS, **change})
    assert_one_line(info)


# Our files


def test_save_and_load(network, images, tmp_path):
    network.save(tmp_path / "new" / "folder")
    random_state = torch.get_rng_state()
    loaded = ADMNetwork.load(tmp_path / "new" / "folder")
    assert torch.equal(torch.get_rng_state(), random_state)
    assert loaded.settings == SETTINGS
    files = sorted((tmp_path / "new" / "folder").iterdir())
    assert [file.name for file in files] == ["SHA256SUMS", "config.json", "model.safetensors"]
    assert len({file.stat().st_mode for file in files}) == 1
    for (name, value), other in zip(network.state_dict().items(), loaded.state_dict().values()):
        assert_close(value, other, rtol=0, atol=0, msg=name)
    assert all(parameter.requires_grad for parameter in loaded.parameters())
    assert_close(loaded(images, torch.tensor(5.5)), network(images, torch.tensor(5.5)), rtol=0, atol=0)


def test_save_replaces_an_older_network(network, tmp_path):
    ADMNetwork(**SETTINGS).save(tmp_path)
    older = ADMNetwork.load(tmp_path)
    copy.deepcopy(network).to(memory_format=torch.channels_last).save(tmp_path)
    assert not older.unet.conv_out.weight.any()
    assert_close(ADMNetwork.load(tmp_path).state_dict(), network.state_dict(), rtol=0, atol=0)


def test_save_in_half_precision(network, images, tmp_path):
    network.save(tmp_path / "single")
    network.save(tmp_path / "half", dtype=torch.float16)
    sizes = [(tmp_path / kind / "model.safetensors").stat().st_size for kind in ("single", "half")]
    assert sizes[1] < 0.55 * sizes[0]
    loaded = ADMNetwork.load(tmp_path / "half")
    for name, value in loaded.state_dict().items():
        assert_close(value, network.state_dict()[name].half().float(), rtol=0, atol=0)
    with pytest.raises(ValueError, match=r"torch\.int8"):
        network.save(tmp_path / "int", dtype=torch.int8)


@pytest.mark.parametrize("missing", ["config.json", "model.safetensors"])
def test_load_names_a_missing_file(network, tmp_path, missing):
    network.save(tmp_path)
    (tmp_path / missing).unlink()
    with pytest.raises(DataError, match=missing) as info:
        ADMNetwork.load(tmp_path)
    assert_one_line(info)


@pytest.mark.parametrize(
    "text, message",
    [
        ('{"image_size": 16', "config.json: not the settings"),
        ("[]", "config.json: not the settings"),
        (json.dumps({**SETTINGS, "dropout": 0.1}), "config.json: .*'dropout'"),
        (
            json.dumps({k: v for k, v in SETTINGS.items() if k != "num_channels"}),
            "config.json: .*'num_channels'",
        ),
        ("[" * 10**5, "config.json: not the settings"),
        (json.dumps({**SETTINGS, "num_res_blocks": 1000}), "config.json: .*blocks, model.safetensors holds"),
        (json.dumps({**SETTINGS, "num_channels": 40}), "config.json: .*num_channels: found 40"),
        (
            json.dumps({**SETTINGS, "in_channels": 3}),
            r"model.safetensors: .*3 misshapen \(first: conv_in.weight",
        ),
        (
            json.dumps({**SETTINGS, "num_res_blocks": 2}),
            r"model.safetensors: .*missing \(first: down_blocks.0.",
        ),
        (
            json.dumps({**SETTINGS, "attention_resolutions": []}),
            r"model.safetensors: .*unexpected \(first: 'down_blocks.1.attentions.0",
        ),
    ],
)
def test_load_refuses_settings(network, tmp_path, text, message):
    network.write(tmp_path)
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(ValueError, match=message) as info:
        ADMNetwork.load(tmp_path)
    assert_one_line(info)


@pytest.mark.parametrize("kept", [0, 5, 1000, 100_000])
def test_load_refuses_a_truncated_file(network, tmp_path, kept):
    network.write(tmp_path)
    path = tmp_path / "model.safetensors"
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(ValueError, match=r"model\.safetensors: damaged") as info:
        ADMNetwork.load(tmp_path)
    assert_one_line(info)
