"""Speed and memory: freed pages stay at hand, no step waits for the host, errors of memory are told from others."""

import os
import platform
import resource
import subprocess
import sys
from functools import partial

import pytest
import torch
from runs import PHOTOS, write_config
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from msm import CartesianMasks, MultiCoil, PartialDenoiser, VPSchedule, generate, reconstruct
from msm.data_step import GradientStep, Proximal
from msm.denoiser import EDM, Epsilon, Sense
from msm.masks import VariableDensityMasks
from msm.operators import Problem, Undersampling
from msm.sampling import Sampler
from msm.system.memory import check_room, out_of_memory, shortage

PAGE_FAULTS = """
import resource, torch
from msm.system.memory import keep_memory
{call}
for turn in range(20):  # some until the heap is large enough for its gaps
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for size in (2**22, 2**24, 2**23):  # 16, 64 and 32 MB
        torch.ones(size)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="mallopt is glibc's")
def test_tensors_take_the_pages_of_those_before():
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MALLOC_")}

    def faults(call):
        command = [sys.executable, "-c", PAGE_FAULTS.format(call=call)]
        return int(subprocess.run(command, check=True, capture_output=True, text=True, env=environment).stdout)

    assert faults("keep_memory()") < 100 < faults("")


def test_errors_of_memory():
    with pytest.raises(RuntimeError) as error:
        torch.empty(2**55)
    assert out_of_memory(error.value) and out_of_memory(MemoryError())
    assert out_of_memory(RuntimeError("unable to mmap 743108 bytes from file <a>: Cannot allocate memory (12)"))
    assert out_of_memory(torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB."))
    assert not out_of_memory(RuntimeError("The size of tensor a (3) must match"))


@pytest.mark.parametrize(
    "said",
    [
        "[enforce fail at alloc_cpu.cpp:127] . DefaultCPUAllocator: can't allocate memory: you tried to allocate",
        "MPS backend out of memory (MPS allocated: 1 GB)",
        "cuDNN error: CUDNN_STATUS_NOT_SUPPORTED. This error may appear if the input is not contiguous",
        "PT_DEVMEM Allocation failed",
        "CUDA error: out of memory. Compile with TORCH_USE_CUDA_DSA",
    ],
)
def test_every_device_has_words_of_its_own_for_it(said):
    assert out_of_memory(RuntimeError(said)) and not out_of_memory(ValueError(said))


def caused_by(cause):
    error = RuntimeError("Failed to import diffusers")
    error.__cause__ = cause
    return error


NOT_LOADED = ImportError("IMPORTANT\n\nOriginal error was: libopenblas.so: failed to map segment from shared object")


@pytest.mark.parametrize("error", [NOT_LOADED, caused_by(NOT_LOADED), caused_by(MemoryError("of an array"))])
def test_what_memory_does_not_hold_is_told_from_its_cause(error):
    assert "memory does not suffice (" in shortage(error) and "\n" not in shortage(error)
    assert shortage(ImportError("no module named x")) is None and shortage(RuntimeError("x")) is None


@pytest.mark.parametrize(
    "error",
    [caused_by(SystemError("error return without exception set")), RuntimeError("could not create a primitive")],
)
def test_under_a_limit_python_and_onednn_fail_for_want_of_memory(monkeypatch, error):
    assert shortage(error) is None
    monkeypatch.setattr(resource, "getrlimit", lambda which: (2**30, 2**30))
    assert "memory does not suffice (" in shortage(error)


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("[pair.cc:561] Connection closed by peer [127.0.0.1]:24995. GLHF!"),
        torch.distributed.DistNetworkError("Failed to recv, got 0 bytes. Connection was likely closed."),
    ],
)
def test_a_process_whose_peer_is_gone_says_so(monkeypatch, error):
    assert shortage(error) is None
    monkeypatch.setenv("RANK", "1")
    assert shortage(error) == "another process of this run ended; what it said tells why"


@pytest.mark.skipif(sys.platform != "linux", reason="limits as Linux has them")
@pytest.mark.parametrize("command", ["train", "acquire", "sample"])
def test_libraries_that_memory_does_not_hold_are_one_line(command, tmp_path):
    """ulimit -v of 250 MB, which PyTorch alone does not fit into."""
    limit = partial(resource.setrlimit, resource.RLIMIT_AS, (250 * 2**20,) * 2)
    words = [sys.executable, "-m", "msm", command, write_config(tmp_path, **PHOTOS)]
    words += ["-o", str(tmp_path / "a.h5")] if command == "acquire" else []
    done = subprocess.run(words, capture_output=True, text=True, preexec_fn=limit, timeout=120)
    assert done.returncode == 2 and "memory does not suffice" in done.stderr and done.stderr.count("\n") == 1, (
        done.stderr
    )


ROOM = """
import resource, sys
import torch
from msm.system.memory import LIBRARIES
has = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (has + int(float(sys.argv[1]) * LIBRARIES),) * 2)
sys.argv = ["msm", "train", sys.argv[2]]
from msm.cli import main
main()
"""


@pytest.mark.skipif(sys.platform != "linux", reason="limits as Linux has them")
def test_too_little_room_for_the_libraries_of_networks_is_one_line(tmp_path):
    """Imports that run out of memory half-way end in any error, or not at all."""
    words = [sys.executable, "-c", ROOM, "0.9", write_config(tmp_path, **PHOTOS)]
    done = subprocess.run(words, capture_output=True, text=True, timeout=120)
    assert done.returncode == 2 and "the libraries of networks take 0.5 GB beside PyTorch" in done.stderr, done.stderr
    assert done.stderr.count("\n") == 1 and not (tmp_path / "run").exists()


def test_without_a_limit_nothing_is_asked(monkeypatch):
    monkeypatch.delitem(sys.modules, "diffusers", raising=False)
    monkeypatch.setattr("mmap.mmap", lambda *given: pytest.fail("memory was taken"))
    check_room()


class ScalarReads(TorchDispatchMode):
    """Counts the values that Python asks of a tensor: on a GPU each of them waits for all work before it."""

    count = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.count += function in (torch.ops.aten._local_scalar_dense.default, torch.ops.aten.nonzero.default)
        return function(*args, **(kwargs or {}))


class Half(nn.Module):
    def forward(self, u, t):
        return u / 2


@pytest.mark.parametrize("masks", [CartesianMasks(16, 4, 4), VariableDensityMasks(16, 4, 4)])
@pytest.mark.parametrize(
    ("score", "data_step"),
    [("average", None), ("chain", None), ("average", Proximal()), ("average", GradientStep(2.0))],
)
@pytest.mark.parametrize("parametrisation", [Epsilon(), EDM(), Sense()])
def test_no_step_waits_for_a_value(parametrisation, score, data_step, masks):
    maps = torch.randn(2, 3, 16, 16, dtype=torch.complex64)
    transform = MultiCoil(maps / maps.abs().square().sum(1, keepdim=True).sqrt())
    denoiser = PartialDenoiser(Half(), VPSchedule(), parametrisation, masks)
    operator, y = Undersampling(masks.sample(2)), torch.randn(2, 3, 16, 16, dtype=torch.complex64)
    seen, options = [], {"seeds": [0, 1], "sampler": Sampler(steps=4, score=score)}
    options["callback"] = lambda *_: seen.append(reads.count)
    with ScalarReads() as reads:
        torch.ones(1).item()
        assert reads.count == 1
        if data_step is None:
            generate(denoiser, (3, 16, 16), transform=transform, **options)
        else:
            reconstruct(denoiser, Problem(y, operator, transform), data_step=data_step, **options)
    assert len(seen) == 4 and seen[-1] == seen[0]
