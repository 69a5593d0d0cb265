"""Two processes against one: the same samples bit for bit, the same weights to rounding, one of them writes."""

import os
import re
import socket
import subprocess
import sys

import numpy as np
import pytest
import torch
from runs import PHOTOS, write_config
from runs import msm as command

from msm.network import ADMNetwork
from msm.system.memory import most_memory
from msm.system.processes import arithmetic, cost_of, usable


def msm(processes, *arguments):
    """Run the command under torchrun, on the CPU; returns what it said."""
    start = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={processes}", "-m"]
    environment = os.environ | {"CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}
    done = subprocess.run([*start, "msm", *arguments], capture_output=True, text=True, env=environment, timeout=300)
    assert done.returncode == 0, done.stderr
    return done.stdout


TRAIN = ("train.images=200", "train.checkpoint_images=100", "train.lr=1e-4")


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """The folder with a training and its samples by 1 process in "1/", and by 2 in "2/"."""
    root = tmp_path_factory.mktemp("processes")
    config = write_config(root, **PHOTOS)
    for processes in (1, 2):
        msm(processes, "train", config, *TRAIN, f"setting.save_dir={root}/{processes}")
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


def test_two_nodes_are_two_processes(runs):
    """A torchrun on each of two nodes, met as on a cluster, gives the bits of one torchrun with two processes."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    start = [sys.executable, "-m", "torch.distributed.run", "--nnodes=2", "--nproc_per_node=1", "--rdzv_backend=c10d"]
    start += [f"--rdzv_endpoint=localhost:{port}", "--rdzv_id=7", "--local_addr=localhost", "-m", "msm"]
    environment = os.environ | {"CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}
    command = [*start, "train", f"{runs}/config.yaml", *TRAIN, f"setting.save_dir={runs}/nodes"]
    nodes = [subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment) for _ in "12"]
    said = [node.communicate(timeout=300) for node in nodes]
    assert [node.returncode for node in nodes] == [0, 0], said
    assert sum(out.count(b"averaged weights") for out, _ in said) == 1
    found, two = (ADMNetwork.load(runs / name / "weights").state_dict().values() for name in ("nodes", "2"))
    assert all(torch.equal(a, b) for a, b in zip(found, two))


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


def test_a_run_says_what_it_takes(tmp_path, capfd):
    """Training and sampling, on standard output; the memory is that of this process."""
    config = write_config(tmp_path, **PHOTOS)
    assert command("train", config, "train.images=12") == 0
    assert (
        command("sample", config, f"setting.pretrained_model_dir={tmp_path}/run", f"setting.save_dir={tmp_path}/s") == 0
    )
    said = capfd.readouterr()
    for label in ("training", "generating"):
        line = rf"^{label}: about \d+ s from here, (\d+\.\d) GB of memory, measured on one step$"
        found = re.search(line, said.out, re.MULTILINE)
        assert found, said.out
        assert 0.2 < float(found[1]) <= most_memory() / 1e9 + 0.1
    assert "about" not in said.err


@pytest.mark.gpu
def test_on_a_gpu_it_says_the_memory_of_both():
    torch.ones(2**26, device="cuda")
    assert re.fullmatch(r"\d+\.\d of \d+ GB of GPU memory and \d+\.\d GB of memory", cost_of(1).memory())
