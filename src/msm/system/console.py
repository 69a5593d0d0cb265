"""What a person sees while a command works: notes, warnings, progress."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.progress import Progress

from .processes import processes


@contextmanager
def progress_bar(label: str, total: int) -> Iterator[Callable[[int], None]]:
    """A progress bar with the time left; gives the function that moves it on. Of several processes one shows it."""
    state = processes()
    total = -(-total // state.num_processes)
    with Progress(disable=not state.is_main_process) as progress:
        bar = progress.add_task(label, total=total)
        yield lambda steps: progress.advance(bar, steps)
