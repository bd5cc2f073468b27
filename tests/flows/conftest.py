"""The command line, called as a person would, and a run that is finished already."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from flows.cli import app as cli
from pipeline.config.cclnet import CclnetConfig
from tests.flows.command_line import Call
from tests.flows.plain_runs import run_plainly
from tests.flows.test_round_figures import with_execution


@pytest.fixture
def vireid(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Call:
    """Call the command line; gives exit code, stdout and stderr."""

    def call(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr("sys.argv", ["vireid", *arguments])
        try:
            cli.main()
            code = 0
        except SystemExit as leaving:
            code = int(leaving.code or 0)
        streams = capsys.readouterr()
        return code, streams.out, " ".join(streams.err.split())

    return call


@pytest.fixture
def finished_run(
    smoke_config: CclnetConfig, made_once: Callable[[str, Callable[[Path], object]], Path]
) -> CclnetConfig:
    """`smoke_config` after its run, with figures: a copy of what was trained once, which the test may change."""
    runs = made_once(
        "finished-run", lambda folder: run_plainly(with_execution(smoke_config, runs_folder=folder, figures=True))
    )
    shutil.copytree(runs, smoke_config.execution.runs_folder)
    return with_execution(smoke_config, figures=True)
