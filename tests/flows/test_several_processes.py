"""Several processes train one model as one process does; one that is lost ends the run and spoils nothing."""

from pathlib import Path

import numpy as np
import pytest
import torch

from pipeline.config.cclnet import CclnetConfig
from pipeline.errors import ConfigError, DataError, RankError
from pipeline.runs.open import run_path
from pipeline.runtime.launcher import launch
from pipeline.storage.run_folder import RunFolder
from tests.flows import several_processes
from tests.flows.plain_runs import BUNDLE, run_plainly, with_switches


def with_runs(config: CclnetConfig, runs: Path, **execution: object) -> CclnetConfig:
    changes = {"runs_folder": runs} | execution
    return config.model_copy(update={"execution": config.execution.model_copy(update=changes)})


def short(config: CclnetConfig, prepare_rounds: int = 1) -> CclnetConfig:
    """Few rounds of stage `prepare` and one of `clip`, with swapping and texts, measured at the end of a stage."""
    stages = config.stages.model_copy(update={"prepare_rounds": prepare_rounds, "clip_rounds": 1})
    evaluation = config.evaluation.model_copy(update={"every": 100})
    return config.model_copy(update={"stages": stages, "evaluation": evaluation})


@pytest.fixture(scope="module")
def exchanged(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What each of two processes got from the other."""
    folder = tmp_path_factory.mktemp("exchanged")
    launch(several_processes.exchange_and_normalise, (folder,), count=2, device="cpu")
    return folder


def saved(folder: Path, name: str) -> list[dict[str, np.ndarray]]:
    return [dict(np.load(folder / f"{name}-{rank}.npz")) for rank in (0, 1)]


@pytest.mark.slow
def test_processes_tell_each_other_values_rows_and_features_with_gradients(exchanged: Path) -> None:
    first, second = saved(exchanged, "told")
    table = np.arange(15, dtype=np.float32).reshape(5, 3)
    for one in (first, second):
        assert one["told"].tolist() == [0, 0, 1, 2, 1]
        assert np.array_equal(one["rows"], table)
        assert np.array_equal(one["gathered"], table)
    gradients = np.concatenate([first["gradient"], second["gradient"]])
    assert np.array_equal(gradients, 2 * 2 * np.arange(1, 6)[:, None] * table)


@pytest.mark.slow
def test_batch_norm_over_processes_is_batch_norm_over_their_batches_together(exchanged: Path) -> None:
    first, second = saved(exchanged, "norm")
    generator = torch.Generator().manual_seed(3)
    images, weights = torch.randn(2, 7, 4, 3, 2, generator=generator, dtype=torch.float64)
    images.requires_grad_()
    norm = torch.nn.BatchNorm2d(4).double()
    output = norm(images)
    (output * weights).sum().backward()
    for name, expected in (("output", output.detach()), ("gradient", images.grad)):
        found = np.concatenate([first[name], second[name]])
        np.testing.assert_allclose(found, expected.numpy(), atol=1e-12)
    for one in (first, second):
        np.testing.assert_allclose(one["mean"], norm.running_mean.numpy(), atol=1e-14)
        np.testing.assert_allclose(one["variance"], norm.running_var.numpy(), atol=1e-14)
    np.testing.assert_allclose(first["scale"] + second["scale"], norm.weight.grad.numpy(), atol=1e-12)


@pytest.mark.slow
def test_a_rank_with_other_weights_ends_the_epoch_on_all_ranks(exchanged: Path) -> None:
    for rank in (0, 1):
        message = (exchanged / f"compared-{rank}.txt").read_text()
        assert message.startswith("1 of 2 trained tensors differ from those of rank 0 on rank 1;")


@pytest.mark.slow
@pytest.mark.parametrize("bundle", [False, True], ids=["cclnet", "bundle"])
def test_two_processes_train_what_one_trains_with_the_same_batches(
    smoke_config: CclnetConfig, tmp_path: Path, bundle: bool
) -> None:
    # In float64: in float32 the order of a sum decides on last bits, which Adam's division blows up (to 6e-4 in three
    # rounds of preset `smoke`).
    preset = short(with_switches(smoke_config, BUNDLE) if bundle else smoke_config)
    for count in (1, 2):
        memories = tmp_path / f"memories-{count}"
        memories.mkdir()
        config = with_runs(preset, tmp_path / f"runs-{count}")
        if count == 1:
            several_processes.train_in_float64(config, memories)
        else:
            launch(several_processes.train_in_float64, (config, memories), count=count, device="cpu")
    for number in (1, 2):
        names = [tmp_path / "memories-1" / f"{number}-0.npz"]
        names += [tmp_path / "memories-2" / f"{number}-{rank}.npz" for rank in (0, 1)]
        alone, first, second = (dict(np.load(name)) for name in names)
        for key, rows in alone.items():
            np.testing.assert_allclose(first[key], rows, atol=1e-5)
            assert np.array_equal(first[key], second[key]), "memories are identical on all processes"
        labels = [
            dict(
                np.load(run_path(with_runs(preset, tmp_path / f"runs-{count}")) / "labels" / f"round-{number:03d}.npz")
            )
            for count in (1, 2)
        ]
        assert all(np.array_equal(labels[0][key], labels[1][key]) for key in labels[0])


@pytest.mark.slow
def test_a_lost_process_ends_the_run_and_the_last_round_is_kept(smoke_config: CclnetConfig) -> None:
    config = short(smoke_config, prepare_rounds=2)
    # 10 steps an epoch, two calls a step: call 23 is in the second round.
    with pytest.raises(RankError, match="process 1 of 2 was killed by SIGKILL") as lost:
        launch(several_processes.lose_the_second_process, (config, 23), count=2, device="cpu")
    assert "repeat the command" in lost.value.hint
    with RunFolder.reopen(run_path(config)) as folder:
        checkpoint = folder.load_checkpoint()
    assert checkpoint is not None and checkpoint["completed"] == 1
    run_plainly(config)  # one process goes on where two have stopped
    assert len((run_path(config) / "metrics.jsonl").read_text().splitlines()) == 3


@pytest.mark.slow
def test_what_a_process_raises_is_raised_where_it_was_started(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(DataError, match="an image is missing") as known:
        launch(several_processes.fail, (1, "known"), count=2, device="cpu")
    assert known.value.hint == "bring it back"
    assert "Traceback" not in capfd.readouterr().err


@pytest.mark.slow
def test_a_mistake_in_a_process_is_shown_in_full(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(RankError, match="process 1 of 2 ended with exit code 1"):
        launch(several_processes.fail, (1, "mistake"), count=2, device="cpu")
    assert "ValueError: a mistake of ours" in capfd.readouterr().err


def test_more_processes_than_gpus_are_refused_before_one_is_started(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(ConfigError, match="2 processes for 1 GPU") as refused:
        launch(several_processes.fail, (0, "known"), count=2, device="cuda")
    assert refused.value.hint == "use --processes 1"


@pytest.mark.slow
@pytest.mark.usefixtures("prefect_backend")
def test_the_flow_shows_the_tasks_of_the_first_process(smoke_config: CclnetConfig, tmp_path: Path) -> None:
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.filters import FlowRunFilter

    from flows.deployments import train

    config = with_runs(smoke_config, tmp_path / "runs", processes=2)
    stages = config.stages.model_copy(update={"prepare_rounds": 1, "clip_rounds": 1})
    report = train(config.model_copy(update={"stages": stages}))
    assert report is not None and report.model.round == 2
    with get_client(sync_client=True) as client:
        flow_run = max(client.read_flow_runs(), key=lambda run: run.created)
        assert flow_run.state_name == "Completed"
        own = FlowRunFilter.model_validate({"id": {"any_": [flow_run.id]}})
        names = {task.name for task in client.read_task_runs(flow_run_filter=own)}
    assert {"extract-r001", "train-r002", "learn-prompts-r002", "log-round-r002"} <= names
