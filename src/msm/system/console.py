"""What a person sees while a command works: results, notes, warnings, progress, each said by the first process only.

The number that torchrun gave the process is read from its environment: accelerate takes seconds to import.
"""

import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence, Sized
from contextlib import contextmanager
from dataclasses import dataclass
from time import monotonic
from typing import Protocol, TypeVar

from ..errors import printable

Item = TypeVar("Item")
FIRST_LINE, LONGEST_SILENCE = 30, 600  # seconds


class Advance(Protocol):
    """What moves a progress bar on."""

    def __call__(self, steps: int, note: str = "", /) -> None:
        """By so many steps, with a note beside it."""


def _is_first() -> bool:
    return os.environ.get("RANK", "0") == "0"


def say(text: str) -> None:
    """Print what a command has to tell, on standard output."""
    if _is_first():
        print(printable(text), flush=True)


def note(text: str) -> None:
    """Print what a user may like to know, on standard error."""
    if _is_first():
        print(printable(f"msm: note: {text}"), file=sys.stderr)


def warn(text: str, *, by_every_process: bool = False) -> None:
    """Print what a user should look into, on standard error; by every process if one of the others may alone know."""
    if by_every_process or _is_first():
        print(printable(f"msm: warning: {text}"), file=sys.stderr)


def fail(text: str) -> None:
    """Print why the command ends, on standard error. Every process does: one of the others may alone know."""
    print(printable(f"msm: {text}"), file=sys.stderr)


def table(title: str, rows: Sequence[dict[str, str]]) -> None:
    """Print rows of one kind as a table; a cell that begins with a * is the best of its column, and bold."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    shown = Table()
    for number, name in enumerate(rows[0]):
        shown.add_column(Text(name), justify="left" if number == 0 else "right")
    for row in rows:
        cells = ((printable(value), "bold" if value.startswith("*") else "") for value in row.values())
        shown.add_row(*(Text(*cell) for cell in cells))
    say(title)
    if _is_first():
        Console().print(shown)
    if any(value.startswith("* ") for row in rows for value in row.values()):
        say("* the best of its column")


class _Pace:
    """How far something is, and how long the rest takes at its mean pace; a slow step does not make that unknown."""

    def __init__(self, total: int | None, begun: int):
        self.total, self.begun, self.done, self.started = total, begun, begun, monotonic()

    def share(self) -> str:
        """Of the total, or the number where that is not known."""
        return f"{self.done / self.total:.0%}" if self.total else str(self.done)

    def left(self) -> str:
        """The time left; nothing before the first step, and after the last one."""
        if not self.total or not self.begun < self.done < self.total:
            return ""
        rest = (monotonic() - self.started) * (self.total - self.done) / (self.done - self.begun)
        return f"{duration(rest)} left"


def duration(seconds: float) -> str:
    """A time in words."""
    units = ((86400, "d", 3600, "h"), (3600, "h", 60, "min"), (60, "min", 0, ""))
    for size, unit, small, part in units:
        if seconds >= size:
            behind = f" {seconds % size / small:.0f} {part}" if small else ""
            return f"{seconds // size:.0f} {unit}{behind}"
    return f"{seconds:.0f} s"


@dataclass(frozen=True)
class Cost:
    """How it is measured what a run takes.

    Args:
        batch: images that take a step together; more steps than these at once are those that an earlier run did.
        memory: waits for the device, and says what memory is taken.
    """

    batch: int
    memory: Callable[[], str]


class _Forecast:
    """What a run takes, told after its second step: the first one also loads, compiles and fills caches."""

    def __init__(self, label: str, pace: _Pace, cost: "Cost"):
        self.label, self.pace, self.cost, self.steps, self.since = label, pace, cost, 0, 0.0

    def __call__(self, steps: int) -> None:
        """Note steps that are done together."""
        if self.steps == 2 or self.pace.total is None or not 0 < steps <= self.cost.batch:
            return
        self.steps += 1
        memory = self.cost.memory()  # first: it waits for the device
        if self.steps == 2:
            rest = (monotonic() - self.since) / steps * (self.pace.total - self.pace.done)
            say(f"{self.label}: about {duration(rest)} from here, {memory}, measured on one step")
        self.since = monotonic()


@contextmanager
def progress(
    label: str,
    total: int | None,
    *,
    shared: bool = False,
    begun: int = 0,
    cost: Cost | None = None,
) -> Iterator[Advance]:
    """A progress bar with the time left; gives the function that moves it on.

    Where there is no terminal, as in the log of a job, it is a line now and then: after half a minute, rarer as the
    work goes on, one in ten minutes at least, and one at the end.

    Args:
        label: what is done.
        total: number of steps, None if it is not known.
        shared: whether the processes share the steps out, so that this one moves it on by its own.
        begun: steps that were done earlier.
        cost: given: after the second step a line says how long the rest takes, and how much memory.
    """
    if not _is_first():
        yield lambda steps, note="": None
        return
    from rich.console import Console

    if shared and total is not None:
        total = -(-total // int(os.environ.get("WORLD_SIZE", "1")))
    console, pace = Console(), _Pace(total, begun)
    forecast = None if cost is None else _Forecast(label, pace, cost)
    with (_bar if console.is_terminal or console.is_jupyter else _lines)(label, pace) as show:

        def advance(steps: int, note: str = "") -> None:
            pace.done += steps
            if forecast is not None:
                forecast(steps)
            show(note)

        yield advance


@contextmanager
def _bar(label: str, pace: _Pace) -> Iterator[Callable[[str], None]]:
    from rich.progress import BarColumn, Progress, TextColumn

    texts = (TextColumn(f"{{task.fields[{name}]}}") for name in ("share", "note"))
    with Progress(TextColumn("{task.description}"), BarColumn(), *texts) as bars:
        bar = bars.add_task(label, total=pace.total, completed=pace.done, share=pace.share(), note="")

        def show(note: str) -> None:
            text = " · ".join(filter(None, (note, pace.left())))
            bars.update(bar, completed=pace.done, share=pace.share(), note=text)

        yield show


@contextmanager
def _lines(label: str, pace: _Pace) -> Iterator[Callable[[str], None]]:
    latest, due = "", float(FIRST_LINE)

    def line() -> None:
        say(" · ".join(filter(None, (f"{label}: {pace.share()}", latest, pace.left()))))

    def show(note: str) -> None:
        nonlocal latest, due
        latest, elapsed = note, monotonic() - pace.started
        if elapsed >= due and pace.done != pace.total:
            line()
            due = elapsed + min(max(FIRST_LINE, elapsed / 10), LONGEST_SILENCE)

    try:
        yield show
    finally:
        if pace.done > pace.begun:
            line()


def track(items: Iterable[Item], label: str, total: int | None = None) -> Iterator[Item]:
    """The items, with a progress bar that counts them."""
    with progress(label, len(items) if isinstance(items, Sized) else total) as advance:
        for item in items:
            yield item
            advance(1)
