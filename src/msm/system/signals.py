"""A polite request to stop: SIGTERM, as schedulers send it some time before they kill, or Ctrl-C."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from .console import note

EXIT_CODE = 128 + signal.SIGTERM  # what a shell reports of a process that SIGTERM ended


class Stopped(BaseException):
    """A request came where it ends what is being done; no error, so that nothing takes it for one."""


class Stop:
    """Whether a request came.

    Attributes:
        asked: whether one did.
    """

    def __init__(self) -> None:
        self.asked = self._at_once = False

    def ask(self) -> None:
        """Tell of a request; ends a block of `at_once`."""
        self.asked = True
        if self._at_once:
            raise Stopped

    @contextmanager
    def at_once(self) -> Iterator[None]:
        """A block that a request ends where it is, or does not let begin, and that leaves nothing half done.

        Raises:
            Stopped: a request came.
        """
        if self.asked:
            raise Stopped
        self._at_once = True
        try:
            yield
        finally:
            self._at_once = False


@contextmanager
def stop_asked() -> Iterator[Stop]:
    """While this is open SIGTERM ends nothing, nor does the first Ctrl-C; what it gives says whether one came.

    Python lets only the main thread hear signals: in another one they keep their meaning.
    """
    stop = Stop()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return

    def interrupted(number: int, frame: object) -> None:
        signal.signal(signal.SIGINT, before[signal.SIGINT])
        note("stopping with a checkpoint; Ctrl-C again stops at once, without")
        stop.ask()

    handlers = {signal.SIGTERM: lambda number, frame: stop.ask(), signal.SIGINT: interrupted}
    before = {number: signal.signal(number, handler) for number, handler in handlers.items()}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def deaf(worker: int) -> None:
    """Have a process that loads data leave Ctrl-C, which the terminal sends to all, to the one that trains."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
