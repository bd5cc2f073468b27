"""Checkpoints of earlier rounds: which are kept, that a kill loses none, and that a run goes on from each."""

import errno
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from pipeline.config.cclnet import CclnetConfig
from pipeline.config.presets import load_config
from pipeline.errors import ConfigError
from pipeline.runs.open import run_path
from pipeline.storage.run_folder import RunFolder
from pipeline.tracking.replay import record_rounds
from pipeline.tracking.tracker import SilentTracker
from tests.flows.plain_runs import assert_same_result, checkpoint_of, run_plainly
from tests.flows.test_round_figures import with_execution


@pytest.fixture
def config(smoke_config: CclnetConfig) -> CclnetConfig:
    return with_execution(smoke_config, keep_checkpoints="all")


def kept_by(config: CclnetConfig) -> dict[str, int]:
    """Which files there are, and the round that each holds."""
    files = sorted((run_path(config) / "checkpoints").glob("*"))
    return {file.name: torch.load(file, weights_only=True)["completed"] for file in files}


@pytest.mark.slow
@pytest.mark.parametrize(("keep", "rounds"), [("last", ()), (3, (3,)), (2, (2, 4)), ("all", (1, 2, 3, 4))])
def test_the_setting_says_whose_checkpoints_are_kept(
    config: CclnetConfig, keep: str | int, rounds: tuple[int, ...]
) -> None:
    config = with_execution(config, keep_checkpoints=keep)
    run_plainly(config)
    assert kept_by(config) == {f"round-{number:03d}.pt": number for number in rounds}
    if 4 in rounds:  # the last one costs nothing: it is the checkpoint itself, under a second name
        assert (run_path(config) / "checkpoint.pt").samefile(run_path(config) / "checkpoints" / "round-004.pt")


@pytest.mark.slow
def test_a_kill_between_a_round_and_its_keeping_loses_no_checkpoint(
    config: CclnetConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Killed(BaseException):
        pass

    def die(*_: object) -> None:
        raise Killed

    for point in ("hardlink_to", "replace"):
        run = with_execution(config, runs_folder=config.execution.runs_folder / point)
        real = getattr(Path, point)

        def last_call(path: Path, target: Path, point: str = point, real=real) -> object:
            if "round-002.pt" in path.name:
                die()
            return real(path, target)

        with monkeypatch.context() as patch:
            patch.setattr(Path, point, last_call)
            with pytest.raises(Killed):
                run_plainly(run)
        assert "round-001.pt" in kept_by(run)
        assert checkpoint_of(run)["completed"] == 2
        run_plainly(run)
        assert kept_by(run) == {f"round-{number:03d}.pt": number for number in (1, 2, 3, 4)}


@pytest.mark.slow
def test_a_run_goes_on_from_a_checkpoint_that_was_kept(config: CclnetConfig, tmp_path: Path) -> None:
    run_plainly(config)
    again = with_execution(config, runs_folder=tmp_path / "again")
    shutil.copytree(run_path(config), run_path(again))
    shutil.copy(run_path(again) / "checkpoints" / "round-002.pt", run_path(again) / "checkpoint.pt")
    run_plainly(again)
    assert_same_result(config, again)


@pytest.mark.slow
def test_a_disk_without_hard_links_gets_copies(config: CclnetConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.EPERM, os.strerror(errno.EPERM))

    monkeypatch.setattr(Path, "hardlink_to", refuse)
    run_plainly(config)
    assert kept_by(config) == {f"round-{number:03d}.pt": number for number in (1, 2, 3, 4)}
    assert not (run_path(config) / "checkpoint.pt").samefile(run_path(config) / "checkpoints" / "round-004.pt")


def test_checkpoints_go_to_the_tracker_only_where_that_is_asked_for(config: CclnetConfig) -> None:
    config = with_execution(config, keep_checkpoints=2)
    run_plainly(config)

    class Listener(SilentTracker):
        records = True

        def __init__(self) -> None:
            self.told: dict[int, set[str]] = {}

        def round(self, number: int, *given: Any) -> None:
            *_, files, _ = given
            self.told[number] = {path.name for path in files if path.suffix == ".pt"}

    for asked, expected in ((False, set()), (True, {"round-002.pt"})):
        listener = Listener()
        with RunFolder.reopen(run_path(config)) as folder:
            record_rounds(folder, listener, checkpoints=asked)
        assert (listener.told[1], listener.told[2]) == (set(), expected)


def test_nothing_else_can_be_asked_for() -> None:
    for value in ("0", "some"):
        with pytest.raises(ConfigError, match="keep_checkpoints"):
            load_config("smoke", [f"execution.keep_checkpoints={value}"])
    assert load_config("smoke", ["execution.keep_checkpoints=10"]).execution.keep_checkpoints == 10
