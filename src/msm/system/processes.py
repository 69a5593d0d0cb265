"""What a run computes with: the device and its arithmetic, and the processes that torchrun starts."""

import atexit
from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import cache
from typing import Any, TypeVar

import torch
from accelerate import PartialState
from accelerate.utils import gather_object

from ..errors import ConfigError, MsmError
from .console import Cost, note, warn
from .memory import most_memory, out_of_memory

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
    note(f"this processor has no {precision} arithmetic; computing in float32")
    return "no"


def arithmetic(precision: str) -> AbstractContextManager[object]:
    """Autocast of networks to a precision, where the device has it."""
    low = torch.float16 if precision == "fp16" else torch.bfloat16
    return torch.autocast(processes().device.type, low, enabled=usable(precision) != "no")


def cost_of(batch: int) -> Cost:
    """How a progress bar measures what a run takes whose steps are those of so many images."""
    return Cost(batch, _memory_taken)


def _memory_taken() -> str:
    """The most memory that this process has taken so far, of the machine and of a GPU, once the device is idle."""
    taken = f"{most_memory() / 1e9:.1f} GB of memory"
    device = processes().device
    if device.type != "cuda":
        return taken
    torch.cuda.synchronize(device)
    reserved, there = torch.cuda.max_memory_reserved(device), torch.cuda.get_device_properties(device).total_memory
    return f"{reserved / 1e9:.1f} of {there / 1e9:.0f} GB of GPU memory and {taken}"


def shared_out(total: int, size: int, work: Callable[[range], Result]) -> list[Result]:
    """Work on the numbers 0 … total − 1 in batches, each done by one of the processes.

    A batch is the same however many processes there are, so the results are too, bit for bit. Where memory does not
    suffice a batch is done in halves, and the batches after it too.

    Args:
        total: how many numbers.
        size: numbers in a batch.
        work: what is to be done with a batch; its result lies on the CPU.

    Returns:
        the results of all batches, or of the parts they were done in, in order, on every process.

    Raises:
        ConfigError: if memory does not suffice for a single number.
        MsmError: what work on a batch raised, on every process: the others would wait for its result.
    """
    state = processes()
    groups = [range(start, min(start + size, total)) for start in range(0, total, size)]
    done: list[tuple[int, Any]] = []  # results of a batch, or the error that ended it
    fitting = size
    for n in range(state.process_index, len(groups), state.num_processes):
        try:
            results, fitting = _in_parts(groups[n], fitting, work)
        except MsmError as error:
            done.append((n, error))
            break
        done.append((n, results))
    everything = sorted(gather_object(done), key=lambda pair: pair[0])
    for _, found in everything:
        if isinstance(found, MsmError):
            raise found
    return [result for _, results in everything for result in results]


def _in_parts(numbers: range, size: int, work: Callable[[range], Result]) -> tuple[list[Result], int]:
    """The results of a batch done `size` numbers at a time, or as many as memory allows, and how many these were."""
    results: list[Result] = []
    while numbers:
        try:
            results.append(work(numbers[:size]))
        except Exception as error:
            if not out_of_memory(error):
                raise
        else:
            numbers = numbers[size:]
            continue
        size = min(size, len(numbers)) // 2  # here the error is gone, and with it the tensors that it held
        if size == 0:
            raise ConfigError("memory does not suffice for a single image; sample.mixed_precision=bf16 needs less")
        warn(f"memory does not suffice for sample.batch_size; going on with {size}")
    return results, size
