"""A run that is stopped while a stage begins: checkpoints describe finished rounds, and learned prompts are kept."""

from pathlib import Path

import pytest
import torch

from pipeline.config.cclnet import CclnetConfig
from pipeline.methods.cclnet import prompts, stages
from pipeline.runs.open import run_path
from pipeline.storage.run_folder import read_checkpoint
from tests.flows.plain_runs import assert_same_result, checkpoint_of, run_plainly


def two_rounds(config: CclnetConfig, runs: Path) -> CclnetConfig:
    """One of stage `prepare`, one of stage `clip`; every checkpoint is kept."""
    stage_lengths = config.stages.model_copy(update={"prepare_rounds": 1, "clip_rounds": 1})
    execution = config.execution.model_copy(update={"runs_folder": runs, "keep_checkpoints": "all", "figures": False})
    return config.model_copy(update={"stages": stage_lengths, "execution": execution})


@pytest.mark.slow
def test_a_stop_after_prompt_learning_keeps_the_end_of_stage_prepare_and_the_texts(
    smoke_config: CclnetConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calm, stopped = two_rounds(smoke_config, tmp_path / "calm"), two_rounds(smoke_config, tmp_path / "stopped")
    run_plainly(calm)
    expected = read_checkpoint(run_path(calm) / "checkpoints" / "round-001.pt")
    assert expected is not None

    real, calls = stages.run_epoch, list[int]()

    def interrupt_the_second_epoch(*given: object, **named: object) -> object:
        calls.append(len(calls))
        if len(calls) == 2:
            raise KeyboardInterrupt
        return real(*given, **named)

    with monkeypatch.context() as patch:
        patch.setattr(stages, "run_epoch", interrupt_the_second_epoch)
        with pytest.raises(KeyboardInterrupt):
            run_plainly(stopped)
    folder = run_path(stopped)
    assert (folder / "pending" / "texts-002.pt").is_file()

    def weights_after_round_one(path: Path) -> None:
        found = read_checkpoint(path)
        assert found is not None and found["completed"] == 1
        for name, value in expected["encoder"].items():
            assert torch.equal(found["encoder"][name], value), name

    weights_after_round_one(folder / "checkpoint.pt")
    with monkeypatch.context() as patch:
        patch.setattr(prompts, "learn_prompts", None)  # would fail if it were called
        run_plainly(stopped)
    weights_after_round_one(folder / "checkpoints" / "round-001.pt")
    assert_same_result(calm, stopped)
    assert checkpoint_of(stopped)["completed"] == 2
    assert not list((folder / "pending").iterdir())
