"""A polite request to stop: SIGTERM, as schedulers send it some time before they kill."""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

EXIT_CODE = 128 + signal.SIGTERM  # what a shell reports of a process that SIGTERM ended


@contextmanager
def stop_asked() -> Iterator[Callable[[], bool]]:
    """While this is open SIGTERM ends nothing; the function that it gives says whether one came.

    Python lets only the main thread hear signals: in another one SIGTERM keeps its meaning.
    """
    asked: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield lambda: False
        return
    before = signal.signal(signal.SIGTERM, lambda number, frame: asked.append(number))
    try:
        yield lambda: bool(asked)
    finally:
        signal.signal(signal.SIGTERM, before)
