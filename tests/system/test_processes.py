"""Two processes against one: the same samples bit for bit, the same weights to rounding, one of them writes."""

import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from runs import PHOTOS, write_config

from msm.network import ADMNetwork
from msm.system.processes import arithmetic, usable


def msm(processes, *arguments):
    """Run the command under torchrun, on the CPU; returns what it said."""
    start = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={processes}", "-m"]
    environment = os.environ | {"CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}
    done = subprocess.run([*start, "msm", *arguments], capture_output=True, text=True, env=environment, timeout=300)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """The folder with a training and its samples by 1 process in "1/", and by 2 in "2/"."""
    root = tmp_path_factory.mktemp("processes")
    config = write_config(root, **PHOTOS)
    for processes in (1, 2):
        train = ["train.images=200", "train.checkpoint_images=100", "train.lr=1e-4"]
        msm(processes, "train", config, *train, f"setting.save_dir={root}/{processes}")
        sampler = ["sample.count=5", "sample.samples=2", f"setting.pretrained_model_dir={root}/1/weights"]
        box = "inverse_problem={operator: box, hole: 8}"
        said = msm(processes, "sample", config, *sampler, box, f"setting.save_dir={root}/{processes}/box")
        assert said.count("mean over") == 1
    return root


def loaded(runs):
    return [ADMNetwork.load(runs / name / "weights") for name in "12"]


def test_weights_after_50_steps(runs):
    """To 1e-5 of their norm. Biases before a normalisation have no gradient but rounding, which Adam blows up."""
    one, two = (torch.nn.utils.parameters_to_vector(network.parameters()) for network in loaded(runs))
    assert (one - two).norm() < 1e-5 * one.norm()
    log = [(runs / name / "log.jsonl").read_text().splitlines() for name in "12"]
    assert len(log[0]) == len(log[1]) == 1


def test_samples(runs):
    one, two = (np.load(runs / name / "box" / "samples.npy") for name in "12")
    assert one.shape[:2] == (5, 2) and np.array_equal(one, two)
    metrics = [(runs / name / "box" / "metrics.csv").read_text() for name in "12"]
    assert metrics[0] == metrics[1]


@pytest.mark.parametrize("capability, expected", [("AVX2", "no"), ("AVX512", "bf16")])
def test_processors_without_half_precision_compute_in_float32(monkeypatch, capsys, capability, expected):
    if torch.accelerator.is_available():
        pytest.skip("an accelerator is there, and has half precision")
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: capability)
    usable.cache_clear()
    try:
        assert [usable("bf16") for _ in range(2)] == [expected] * 2 and usable("no") == "no"
        with arithmetic("bf16"):
            assert torch.is_autocast_enabled("cpu") == (expected == "bf16")
        assert capsys.readouterr().err.count("computing in float32") == (expected == "no")
    finally:
        usable.cache_clear()
