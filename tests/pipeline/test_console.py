"""Log lines of the command line."""

import logging

import pytest

from pipeline import console


def test_a_closed_terminal_does_not_end_a_run_that_ignores_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def closed(*_: object, **__: object) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(console._STDERR, "print", closed)
    console._ConsoleHandler().handle(logging.makeLogRecord({"msg": "round 1"}))
