"""Freed memory stays at hand; errors that say that memory does not suffice are told from others."""

import platform
import subprocess
import sys

import pytest
import torch

from msm.memory import out_of_memory

PAGE_FAULTS = """
import resource, torch
from msm.memory import keep_memory
{call}
for turn in range(3):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for size in (2**22, 2**24, 2**23):  # 16, 64 and 32 MB
        torch.ones(size)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="mallopt is glibc's")
def test_tensors_take_the_pages_of_those_before():
    def faults(call):
        script = PAGE_FAULTS.format(call=call)
        return int(subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True).stdout)

    assert faults("keep_memory()") < 100 < faults("")


def test_errors_of_memory():
    with pytest.raises(RuntimeError) as error:
        torch.empty(2**55)
    assert out_of_memory(error.value) and out_of_memory(MemoryError())
    assert out_of_memory(torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB."))
    assert not out_of_memory(RuntimeError("The size of tensor a (3) must match"))
