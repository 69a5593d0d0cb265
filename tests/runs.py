"""The command line on small made-up photos."""

import sys

import numpy as np
import pytest
from PIL import Image

from msm.cli import main
from msm.denoiser import PartialDenoiser
from msm.network import ADMNetwork
from msm.schedule import VPSchedule
from msm.system.manifest import MANIFEST


def msm(*arguments: object) -> int:
    """Run the command line here; its exit code."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["msm", *map(str, arguments)])
        try:
            main()
        except SystemExit as stop:
            return int(stop.code or 0)
    return 0


def run(monkeypatch, *arguments):
    """The same, as long as tests hand over their monkeypatch."""
    return msm(*arguments)


def unlist(folder):
    """Leave a folder without the sums of its files: of files of others nobody knows what was in them."""
    (folder / MANIFEST).unlink()


CONFIG = """
setting: {{save_dir: {root}/run, dataset_dir: {root}/photos}}
data: {{kind: {kind}, image_size: 16, held_out: 2, mask: {mask}}}
network: {{image_size: 16, in_channels: {channels}, num_channels: 32, num_res_blocks: 1, channel_mult: [1],
  attention_resolutions: [], num_head_channels: 32}}
train: {{images: 8, batch_size: 4, checkpoint_images: 4}}
sample: {{count: 2, steps: 3, batch_size: 2}}
"""
PHOTOS = {"kind": "images", "channels": 3, "mask": "{kind: box}"}
SLICES = {"kind": "slices", "channels": 2, "mask": "{kind: cartesian, center: 4}"}
PROBLEMS = {
    "images": "{operator: box, hole: 8}",
    "slices": "{operator: undersampling, mask: {kind: cartesian, center: 4}}",
}


def write_config(root, **choices):
    """Settings of one of these kinds, and five photos in a folder beside them."""
    (root / "photos").mkdir(exist_ok=True)
    rng = np.random.default_rng(0)
    for i in range(5):
        Image.fromarray(rng.integers(0, 255, (20, 24, 3), dtype=np.uint8)).save(root / "photos" / f"{i}.png")
    path = root / "config.yaml"
    path.write_text(CONFIG.format(root=root, **choices))
    return str(path)


def save_weights(folder, channels=3, levels=1):
    """A denoiser with a small network as `write_config` has it, not trained; returns its folder."""
    network = ADMNetwork(16, channels, 32, 1, [1] * levels, [], 32)
    PartialDenoiser(network, VPSchedule()).save(folder)
    return folder
