"""The flow under Prefect, its record in MLflow, and what must hold for every run."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from mlflow import MlflowClient

from pipeline.config.cclnet import CclnetConfig
from pipeline.errors import DataError
from pipeline.runs.open import run_path
from pipeline.storage.run_folder import RunFolder
from tests.flows.plain_runs import run_plainly

ROUNDS = 4


def changed(config: CclnetConfig, runs: Path, **sections: dict[str, object]) -> CclnetConfig:
    tree = config.model_dump()
    tree["execution"]["runs_folder"] = runs
    for section, values in sections.items():
        tree[section] |= values
    return CclnetConfig.model_validate(tree)


def encoder_weights(config: CclnetConfig) -> dict[str, torch.Tensor]:
    with RunFolder.reopen(run_path(config)) as folder:
        checkpoint = folder.load_checkpoint()
    assert checkpoint is not None
    weights: dict[str, torch.Tensor] = checkpoint["encoder"]
    return weights


@pytest.mark.usefixtures("prefect_backend")
def test_a_run_leaves_a_task_a_child_run_and_a_label_file_for_every_round(
    smoke_config: CclnetConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    from flows.deployments import train

    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    config = changed(smoke_config, smoke_config.execution.runs_folder, execution={"tracking": True, "figures": True})
    config = changed(config, smoke_config.execution.runs_folder)
    report = train(config)
    assert report is not None

    folder = run_path(config)
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert [row["round"] for row in rows] == [1, 2, 3, 4]
    assert [row["stage"] for row in rows] == ["prepare", "prepare", "clip", "clip"]
    assert rows[-1]["test/sysu/all/1-shot/agw/map"] == report.headline.map
    assert sorted(path.name for path in (folder / "labels").iterdir()) == [f"round-{n:03d}.npz" for n in range(1, 5)]
    # The text loss exists in stage `clip` alone.
    assert ["train/loss/visible_text" in row for row in rows] == [False, False, True, True]

    client = MlflowClient(tracking_uri=f"sqlite:///{(config.execution.runs_folder / 'mlflow.db').resolve()}")
    runs = client.search_runs([experiment.experiment_id for experiment in client.search_experiments()])
    children = sorted(run.info.run_name for run in runs if "mlflow.parentRunId" in run.data.tags)
    assert children == [f"round-{number:03d}" for number in range(1, ROUNDS + 1)]
    parent = next(run for run in runs if "mlflow.parentRunId" not in run.data.tags)
    assert parent.info.status == "FINISHED"
    history = client.get_metric_history(parent.info.run_id, "train/loss/total")
    assert [point.step for point in history] == [1, 2, 3, 4]
    artifacts = {item.path for item in client.list_artifacts(parent.info.run_id)}
    assert {"config.json", "environment.json", "evaluation.json", "checkpoint.pt"} <= artifacts
    first = next(run for run in runs if run.info.run_name == "round-001")
    kept = {item.path for item in client.list_artifacts(first.info.run_id)}
    figures = {path.name for path in (folder / "figures").glob("*-001.*")}
    assert kept == figures | {"round-001.npz"}
    assert {"feature-map-001.png", "retrieval-001.jpg"} <= figures


def test_starting_a_finished_run_again_returns_its_report_and_adds_nothing(smoke_config: CclnetConfig) -> None:
    first = run_plainly(smoke_config)
    before = (run_path(smoke_config) / "metrics.jsonl").read_bytes()
    assert run_plainly(smoke_config) == first
    assert (run_path(smoke_config) / "metrics.jsonl").read_bytes() == before


@pytest.mark.slow
def test_two_runs_with_one_seed_write_the_same_metrics_and_another_seed_does_not(
    finished_run: CclnetConfig, tmp_path: Path
) -> None:
    repeated = changed(finished_run, tmp_path / "again", execution={"figures": False})
    runs = [finished_run, repeated, CclnetConfig.model_validate(repeated.model_dump() | {"seed": 2})]
    for config in runs[1:]:
        run_plainly(config)
    same, again, other = ((run_path(config) / "metrics.jsonl").read_bytes() for config in runs)
    assert same == again
    assert same != other


@pytest.mark.slow
def test_measuring_during_training_changes_no_weight(finished_run: CclnetConfig, tmp_path: Path) -> None:
    seldom = changed(finished_run, tmp_path / "seldom", evaluation={"every": 100}, execution={"figures": False})
    run_plainly(seldom)
    left, right = encoder_weights(finished_run), encoder_weights(seldom)
    assert all(torch.equal(left[name], right[name]) for name in left)


def test_without_carry_over_stage_clip_starts_from_clip_and_with_it_from_stage_prepare(
    smoke_config: CclnetConfig, tmp_path: Path
) -> None:
    from pipeline.methods.cclnet import stages
    from pipeline.methods.cclnet.method import CCLNET
    from pipeline.runs.open import open_run
    from pipeline.runs.stages import extract

    for carry_over in (False, True):
        config = changed(
            smoke_config,
            tmp_path / str(carry_over),
            stages={"prepare_rounds": 1, "clip_rounds": 1, "carry_over": carry_over},
            prompts={"feature_source": "current"},
        )
        with open_run(config, CCLNET) as run:
            initial = {name: value.clone() for name, value in run.state.encoder.state_dict().items()}
            rounds = run.rounds_left()
            next(rounds)
            features = extract(run)
            clusters = stages.cluster(run, features)
            losses = stages.train(run, clusters, None)
            stages.log_round(run, features, clusters, None, losses, None)
            trained = {name: value.clone() for name, value in run.state.encoder.state_dict().items()}
            assert any(not torch.equal(initial[name], trained[name]) for name in initial)
            second = next(rounds)
            assert second.stage == "clip" and second.first_of_stage
            stages.begin_stage(run)
            expected = trained if carry_over else initial
            found = run.state.encoder.state_dict()
            assert all(torch.equal(found[name], expected[name]) for name in expected)
            assert run.state.method.exported is not None
            text = stages.learn_prompts(run, run.state.method.exported)
            assert text is not None
            # Prompts are learned on the clusters that stage `prepare` handed over.
            assert np.array_equal(text.visible.labels, clusters.labels.visible)


def test_every_number_of_a_round_is_finite(finished_run: CclnetConfig) -> None:
    for line in (run_path(finished_run) / "metrics.jsonl").read_text().splitlines():
        row = json.loads(line)
        assert all(math.isfinite(value) for value in row.values() if isinstance(value, int | float)), row


def test_decoded_images_that_were_changed_on_disk_are_refused(finished_run: CclnetConfig) -> None:
    array = next(finished_run.execution.runs_folder.glob("images/*/visible.npy"))
    with array.open("r+b") as file:
        file.seek(-1, 2)
        last = file.read(1)
        file.seek(-1, 2)
        file.write(bytes([last[0] ^ 1]))
    with pytest.raises(DataError, match="not the bytes that were written"):
        run_plainly(finished_run)
