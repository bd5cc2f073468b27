"""MLflow's pages of a run begin with its result, and say what was run, on what, and when."""

import json
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest
from mlflow import MlflowClient
from PIL import Image

from pipeline.storage.run_folder import RunFolder
from pipeline.tracking.mlflow_tracker import MlflowTracker
from pipeline.tracking.replay import read_note, span_of, write_note
from pipeline.tracking.sync import sync_run
from tests.pipeline.reports.recorded_runs import begin_run, row

ENVIRONMENT = {
    "versions": {"usl-vireid": "0.1.0"},
    "commit": "0123456789abcdef0123456789abcdef01234567",
    "modified": True,
    "weights": {"kind": "demo", "model": "demo_clip", "digest": "aa"},
    "data": {"training": "sha256:" + "a" * 64, "test": "sha256:" + "b" * 64},
    "data_set": {
        "name": "sysu-mm01",
        "kind": "drawn",
        "images": {"training": {"visible": 2346, "infrared": 1200}, "test": {"visible": 30, "infrared": 20}},
    },
    "flow_run": "http://127.0.0.1:4200/runs/flow-run/1",
}


def leave_run(path: Path, *changes: str) -> Path:
    """A finished run of two rounds, of which the second was measured, with a figure of each, made in 2026."""
    with begin_run(path, [row(1), row(2, 0.5, 0.25)], *changes) as folder:
        folder.write_environment(ENVIRONMENT)
        ends = ("2026-03-01T12:00:10.000+00:00", "2026-03-01T12:00:30.000+00:00")
        folder.write_timings(
            [
                {"search": "exact", "ended": end, "seconds/total": seconds}
                for end, seconds in zip(ends, (10, 20), strict=True)
            ]
        )
        for number in (1, 2):
            folder.save_figure(number, "eps-curve", lambda file: Image.new("RGB", (8, 6), "red").save(file, "PNG"))
    return path


@pytest.fixture
def run(made_runs: Path) -> Path:
    """The run, replayed from its folder."""
    path = leave_run(made_runs / "smoke-s1", "seed=3")
    sync_run(path)
    return path


@pytest.fixture
def client(made_runs: Path) -> MlflowClient:
    return MlflowClient(tracking_uri=f"sqlite:///{made_runs}/mlflow.db")


def parent_of(client: MlflowClient, run: Path):
    return client.get_run(read_note(run).run_id)


def children_of(client: MlflowClient, run: Path) -> list:
    parent = parent_of(client, run).info
    found = client.search_runs([parent.experiment_id], f"tags.`mlflow.parentRunId` = '{parent.run_id}'")
    return sorted(found, key=lambda child: child.info.run_name)


def test_the_first_numbers_of_a_run_and_of_its_measured_rounds_are_rank1_and_map_in_percent(run, client):
    first, second = children_of(client, run)
    for one in (parent_of(client, run), second):
        assert list(one.data.metrics)[:2] == ["rank1", "mAP"]
        assert (one.data.metrics["rank1"], one.data.metrics["mAP"]) == (50.0, 25.0)
    assert not {"rank1", "mAP"} & first.data.metrics.keys()


def test_a_new_run_begins_with_rank1_before_it_is_measured(made_runs, client):
    with begin_run(made_runs / "new", []) as folder:
        folder.write_environment(ENVIRONMENT)
        tracker = MlflowTracker(made_runs, folder)
        tracker.start(folder.config)
        assert list(parent_of(client, folder.path).data.metrics) == ["rank1", "mAP"]
        tracker.finish("KILLED")


def test_rounds_and_run_have_the_times_at_which_they_were_trained(run, client):
    noon = 1_772_366_400_000  # ms, 2026-03-01T12:00Z
    spans = [(one.info.start_time - noon, one.info.end_time - noon) for one in children_of(client, run)]
    assert spans == [(0, 10_000), (10_000, 30_000)]
    parent = parent_of(client, run)
    assert (parent.info.start_time - noon, parent.info.end_time - noon) == (0, 30_000)
    (point,) = client.get_metric_history(parent.info.run_id, "test/sysu/all/1-shot/agw/r1")
    assert point.timestamp - noon == 30_000


@pytest.mark.parametrize("row", [{}, {"ended": "yesterday"}])
def test_a_round_of_an_earlier_version_has_no_known_time(row):
    assert span_of(row) is None


def test_figures_are_images_of_the_run_with_a_step(run, client):
    def images() -> list[str]:
        return [Path(item.path).name for item in client.list_artifacts(parent_of(client, run).info.run_id, "images")]

    found = images()
    assert sorted(name.partition("+timestamp")[0] for name in found if name.endswith(".png")) == [
        "eps-curve+step+1",
        "eps-curve+step+2",
    ]
    assert sum(name.endswith(".webp") for name in found) == 2
    write_note(run, read_note(run).__class__(read_note(run).run_id))  # as if MLflow had no round yet
    sync_run(run)
    assert sorted(images()) == sorted(found)


def test_the_description_says_what_was_run_on_which_data_and_the_result(run, client):
    lines = parent_of(client, run).data.tags["mlflow.note.content"].splitlines()
    data = "training 2,346 visible, 1,200 infrared images; test 30 visible, 20 infrared images"
    search = "`test/sysu/all/1-shot/agw`, **synthetic**"
    assert lines == [
        "- **method**: CCLNet, without identities",
        f"- **data set**: **synthetic** people in the layout of SYSU-MM01, not photographs; {data}",
        f"- **result**: Rank-1 50.00 %, mAP 25.00 % after round 2 ({search}); 2 of 2 rounds",
        "- **settings**: preset `smoke`, seed 3, but `stages.clip_rounds = 0`, `stages.prepare_rounds = 2`",
        "- **initial weights**: demo_clip (demo)",
        "- **code**: commit `0123456789ab`, with changes",
        "- **pairs, clusters and failures**: `vireid look runs/smoke-s1` in a terminal writes a page of them",
        "- **stages**: [the flow run in Prefect](http://127.0.0.1:4200/runs/flow-run/1)",
    ]


def test_a_description_that_somebody_has_written_stays(run, client):
    run_id = parent_of(client, run).info.run_id
    client.set_tag(run_id, "mlflow.note.content", "my notes")
    sync_run(run)
    assert client.get_run(run_id).data.tags["mlflow.note.content"] == "my notes"


def test_data_set_and_commit_are_recorded(run, client):
    sync_run(run)
    parent = parent_of(client, run)
    found = [(one.dataset.name, one.dataset.digest, one.tags[0].value) for one in parent.inputs.dataset_inputs]
    assert sorted(found) == [
        ("SYSU-MM01, synthetic, test", "b" * 12, "testing"),
        ("SYSU-MM01, synthetic, training", "a" * 12, "training"),
    ]
    assert parent.data.tags["mlflow.source.git.commit"] == ENVIRONMENT["commit"]
    assert parent.data.tags["mlflow.source.name"] == "usl-vireid 0.1.0"


def test_links_lead_to_the_table_of_runs_and_to_the_measured_rounds(run, client, made_runs):
    with RunFolder.reopen(run) as folder:
        tracker = MlflowTracker(made_runs, folder, live=False)
        tracker.start(folder.config)
        number = parent_of(client, run).info.experiment_id
        ui = "http://127.0.0.1:5001"
        assert tracker.table_url(ui) == f"{ui}/#/experiments/{number}/runs?workflowType=machine_learning"
        query = parse_qs(urlsplit(tracker.compare_url(ui)).fragment.partition("?")[2])
        tracker.finish("FINISHED")
    assert json.loads(query["runs"][0]) == [children_of(client, run)[1].info.run_id]
    assert query["workflowType"] == ["machine_learning"]
