"""A disc seen by several coils, and the settings to reconstruct it with."""

import pytest
import torch
from runs import save_weights

from msm.data.acquire import simulate_scan
from msm.transforms import MultiCoil

CONFIG = """
setting: {{save_dir: {root}/out, dataset_dir: {file}, pretrained_model_dir: {root}/weights}}
data: {{kind: raw, image_size: 16, mask: {{kind: cartesian, center: 4}}}}
network: {{image_size: 16, in_channels: 2, num_channels: 32, num_res_blocks: 1, channel_mult: [1, 1],
  attention_resolutions: [], num_head_channels: 32}}
sample: {{samples: 3, steps: 2, draws: 1, batch_size: 2}}
"""
H, W, COILS = 31, 24, 4  # the network takes even sides: H is padded


def disc(name, height=H, width=W, coils=COILS):
    """Fully sampled k-space (coils, H, W) of a disc in birdcage coils."""
    pytest.importorskip("sigpy")
    y, x = torch.meshgrid(torch.linspace(-1, 1, height), torch.linspace(-1, 1, width), indexing="ij")
    magnitude = ((x / 0.7) ** 2 + (y / 0.8) ** 2 < 1) * (0.7 + 0.2 * torch.cos(7 * x))
    source = simulate_scan(name, magnitude, coils, seed=0)
    return MultiCoil(source.maps[None]).forward(source.image[None])[0], source.maps


def undersampled(k_space):
    """Every other column left out beyond the middle half."""
    k_space = k_space.clone()
    outer = [i for i in range(k_space.shape[-1]) if abs(i - k_space.shape[-1] // 2) > k_space.shape[-1] // 4]
    k_space[..., outer[::2]] = 0
    return k_space


def write_config(root, file):
    save_weights(root / "weights", channels=2, levels=2)
    (root / "config.yaml").write_text(CONFIG.format(root=root, file=file))
    return str(root / "config.yaml")
