"""A small ADM network with known weights."""

import math

import torch

from msm.network import published_shapes

SETTINGS = {
    "image_size": 16,
    "in_channels": 2,
    "num_channels": 32,
    "num_res_blocks": 1,
    "channel_mult": [1, 2],
    "attention_resolutions": [8],
    "num_head_channels": 16,
    "num_groups": 32,
    "patch_size": 1,
}


def busy_weights(settings):
    """Published tensors with no zero layer, the same on every machine; the square makes them of full rank."""
    weights = {}
    for i, (name, shape) in enumerate(published_shapes(**settings).items()):
        n = torch.arange(math.prod(shape), dtype=torch.float64)
        weights[name] = (0.2 * torch.sin(i + 0.7 * n**2)).float().reshape(shape)
    return weights


def assert_one_line(info):
    assert "\n" not in str(info.value)
