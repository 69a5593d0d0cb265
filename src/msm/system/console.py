"""What a person sees while a command works: results, notes, warnings, progress, each said by the first process only.

The number that torchrun gave the process is read from its environment: accelerate takes seconds to import.
"""

import os
import sys
from collections.abc import Iterable, Iterator, Sequence, Sized
from contextlib import contextmanager
from typing import Protocol, TypeVar

Item = TypeVar("Item")


class Advance(Protocol):
    """What moves a progress bar on."""

    def __call__(self, steps: int, note: str = "", /) -> None:
        """By so many steps, with a note beside it."""


def _is_first() -> bool:
    return os.environ.get("RANK", "0") == "0"


def say(text: str) -> None:
    """Print what a command has to tell, on standard output."""
    if _is_first():
        print(text)


def note(text: str) -> None:
    """Print what a user may like to know, on standard error."""
    if _is_first():
        print(f"msm: note: {text}", file=sys.stderr)


def warn(text: str) -> None:
    """Print what a user should look into, on standard error."""
    if _is_first():
        print(f"msm: warning: {text}", file=sys.stderr)


def fail(text: str) -> None:
    """Print why the command ends, on standard error. Every process does: one of the others may alone know."""
    print(f"msm: {text}", file=sys.stderr)


def table(title: str, rows: Sequence[dict[str, str]]) -> None:
    """Print rows of one kind as a table; a cell that begins with a * is the best of its column, and bold."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    shown = Table()
    for number, name in enumerate(rows[0]):
        shown.add_column(Text(name), justify="left" if number == 0 else "right")
    for row in rows:
        shown.add_row(*(Text(value, "bold" if value.startswith("*") else "") for value in row.values()))
    say(title)
    if _is_first():
        Console().print(shown)
    if any(value.startswith("* ") for row in rows for value in row.values()):
        say("* the best of its column")


@contextmanager
def progress(label: str, total: int | None, *, shared: bool = False) -> Iterator[Advance]:
    """A progress bar with the time left; gives the function that moves it on.

    Args:
        label: what is done.
        total: number of steps, None if it is not known.
        shared: whether the processes share the steps out, so that this one moves it on by its own.
    """
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

    if shared and total is not None:
        total = -(-total // int(os.environ.get("WORLD_SIZE", "1")))
    beside = TextColumn("{task.fields[note]}")
    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), beside, TimeRemainingColumn())
    with Progress(*columns, disable=not _is_first()) as bars:
        bar = bars.add_task(label, total=total, note="")
        yield lambda steps, note="": bars.update(bar, advance=steps, note=note)


def track(items: Iterable[Item], label: str, total: int | None = None) -> Iterator[Item]:
    """The items, with a progress bar that counts them."""
    with progress(label, len(items) if isinstance(items, Sized) else total) as advance:
        for item in items:
            yield item
            advance(1)
