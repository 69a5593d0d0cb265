"""Requests to stop."""

import os
import signal

import pytest

from msm.system.signals import stop_asked


def test_the_second_interruption_ends_at_once(capsys):
    with stop_asked() as asked:
        os.kill(os.getpid(), signal.SIGINT)
        assert asked() and "Ctrl-C again" in capsys.readouterr().err
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
