"""A polite request to stop: SIGTERM, as schedulers send it some time before they kill, or Ctrl-C."""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from .console import note

EXIT_CODE = 128 + signal.SIGTERM  # what a shell reports of a process that SIGTERM ended


@contextmanager
def stop_asked() -> Iterator[Callable[[], bool]]:
    """While this is open SIGTERM ends nothing, nor does the first Ctrl-C; the function it gives says whether one came.

    Python lets only the main thread hear signals: in another one they keep their meaning.
    """
    asked: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield lambda: False
        return

    def interrupted(number: int, frame: object) -> None:
        asked.append(number)
        signal.signal(signal.SIGINT, before[signal.SIGINT])
        note("stopping with a checkpoint; Ctrl-C again stops at once, without")

    handlers = {signal.SIGTERM: lambda number, frame: asked.append(number), signal.SIGINT: interrupted}
    before = {number: signal.signal(number, handler) for number, handler in handlers.items()}
    try:
        yield lambda: bool(asked)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
