"""Several processes, as torchrun starts them: which one this is, and work shared out among them."""

import atexit
from collections.abc import Callable
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
