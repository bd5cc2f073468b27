"""Any command that a signal ends: one line, and the exit code of that signal."""

import os
import signal
from threading import Event

import pytest

from pipeline.config import presets
from tests.flows.command_line import Call
from tests.pipeline.runtime.test_signals import interruptible


@pytest.mark.parametrize(("number", "expected"), [(signal.SIGHUP, 129), (signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_a_command_with_its_exit_code(
    number: int, expected: int, vireid: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object) -> None:
        os.kill(os.getpid(), number)
        Event().wait(60)  # the signal may reach another thread first

    monkeypatch.setattr(presets, "load_config", interrupted)
    with interruptible():
        code, out, err = vireid("config", "show", "smoke")
    assert (code, out) == (expected, "")
    assert "stopped; finished work is kept" in err and "Traceback" not in err
    assert signal.getsignal(signal.SIGHUP) is signal.SIG_DFL
