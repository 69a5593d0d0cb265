"""Requests to stop."""

import os
import signal
from contextlib import suppress

import pytest

from msm.system.signals import Stopped, stop_asked


@pytest.fixture(autouse=True)
def interruptible():
    """SIGINT as in a terminal: a shell starts its background jobs with it ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def test_the_second_interruption_ends_at_once(capsys):
    with stop_asked() as stop:
        os.kill(os.getpid(), signal.SIGINT)
        assert stop.asked and "Ctrl-C again" in capsys.readouterr().err
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_what_may_end_at_once_does(number):
    reached = []
    with stop_asked() as stop:
        with suppress(Stopped), stop.at_once():
            reached.append("before")
            os.kill(os.getpid(), number)
            reached.append("after")
        assert stop.asked and reached == ["before"]
        with suppress(Stopped), stop.at_once():
            reached.append("again")
        assert reached == ["before"]
