"""What a run computes with: the device and its arithmetic, and the processes that torchrun starts."""

import atexit
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import cache
from typing import TypeVar

import torch
from accelerate import PartialState
from accelerate.utils import gather_object

Result = TypeVar("Result")


@cache
def processes() -> PartialState:
    """The processes of this run, one if there is no torchrun. accelerate counts those on the CPU if told to only."""
    state = PartialState(cpu=not torch.accelerator.is_available())
    atexit.register(state.destroy_process_group)  # else its threads may outlive the interpreter, which aborts then
    return state


@cache
def usable(precision: str) -> str:
    """The precision asked for, "no", "bf16" or "fp16"; "no" (float32) on processors that only emulate it.

    They are a hundred times slower then. Said once, on standard error.
    """
    state = processes()
    if precision == "no" or state.device.type != "cpu" or torch.backends.cpu.get_cpu_capability() == "AVX512":
        return precision
    if state.is_main_process:
        print(f"msm: note: this processor has no {precision} arithmetic; computing in float32", file=sys.stderr)
    return "no"


def arithmetic(precision: str) -> AbstractContextManager[object]:
    """Autocast of networks to a precision, where the device has it."""
    low = torch.float16 if precision == "fp16" else torch.bfloat16
    return torch.autocast(processes().device.type, low, enabled=usable(precision) != "no")


def shared_out(total: int, size: int, work: Callable[[range], Result]) -> list[Result]:
    """Work on the numbers 0 … total − 1 in batches, each done by one of the processes.

    A batch is the same however many processes there are, so the results are too, bit for bit.

    Args:
        total: how many numbers.
        size: numbers in a batch.
        work: what is to be done with a batch; its result lies on the CPU.

    Returns:
        the results of all batches in order, on every process.
    """
    state = processes()
    groups = [range(start, min(start + size, total)) for start in range(0, total, size)]
    own = range(state.process_index, len(groups), state.num_processes)
    done = dict(gather_object([(n, work(groups[n])) for n in own]))
    return [done[n] for n in range(len(groups))]
