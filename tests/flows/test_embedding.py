"""The flow `embed`: shards as tasks in the flow's process, or as flow runs of its deployment, then one file."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterId
from prefect.client.schemas.objects import State

from flows import embedding
from flows.embedding import embed
from models.modality import Modality
from pipeline.data.image_list import list_images
from pipeline.evaluation.feature_files import read_record, read_vectors
from pipeline.inference.embedded_files import embed_to_file
from tests.pipeline.inference.mean_encoder import MeanEncoder, paint

pytestmark = pytest.mark.usefixtures("prefect_backend")


@pytest.fixture(autouse=True)
def encoder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> MeanEncoder:
    """The encoder that every run has."""
    monkeypatch.chdir(tmp_path)
    one = MeanEncoder()
    monkeypatch.setattr(embedding, "open_encoder", lambda *_: one)
    return one


@pytest.fixture
def images(tmp_path: Path) -> Path:
    for number in range(7):
        paint(tmp_path / "images" / f"{number}.png", (10 * number, 0, 0))
    return tmp_path / "images"


def ended(**parameters: Any) -> State[Any]:
    return embed.with_options(retry_delay_seconds=0)(run="runs/a", modality="visible", **parameters, return_state=True)


def tasks_of(state: State[Any]) -> list[str]:
    identifier = state.state_details.flow_run_id
    assert identifier is not None
    with get_client(sync_client=True) as client:
        found = client.read_task_runs(flow_run_filter=FlowRunFilter(id=FlowRunFilterId(any_=[identifier])))
    return sorted(run.name for run in found)


def expect_whole(images: Path, file: Path) -> None:
    embed_to_file(MeanEncoder(), list_images(images, Modality.VISIBLE), Path("whole.npz"), batch_size=4)
    np.testing.assert_array_equal(read_vectors(file), read_vectors(Path("whole.npz")))
    assert read_record(file)["shard"] is None and not list(file.parent.glob("*shard*"))


def test_each_shard_is_a_task_and_a_finished_one_is_not_repeated(images: Path, encoder: MeanEncoder) -> None:
    assert ended(images=images, out="f.parquet", shards=3, shard="2/3").is_completed()
    assert Path("f.shard-2-of-3.parquet").exists() and encoder.encoded == 2
    state = ended(images=images, out="f.parquet", shards=3)
    assert state.is_completed() and encoder.encoded == 7
    assert [name.rpartition("-")[0] if "merge" in name else name for name in tasks_of(state)] == [
        "embed-shard-1/3", "embed-shard-2/3", "embed-shard-3/3", "merge-shards",
    ]  # fmt: skip
    expect_whole(images, Path("f.parquet"))


@pytest.mark.slow
def test_shards_on_the_pool_are_flow_runs_with_parameters_that_json_has(
    images: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started = []

    def run_deployment(name: str, parameters: dict[str, Any], **_: Any) -> SimpleNamespace:
        started.append((name, parameters["shard"]))
        return SimpleNamespace(state=ended(**other_than_run(json.loads(json.dumps(parameters)))))

    monkeypatch.setattr(embedding, "run_deployment", run_deployment)
    monkeypatch.setattr(embedding, "_own_deployment", lambda: "own")
    assert ended(images=images, out="f.npz", shards=2, on_pool=True).is_completed()
    assert sorted(started) == [("own", "1/2"), ("own", "2/2")]
    expect_whole(images, Path("f.npz"))


def other_than_run(parameters: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in parameters.items() if name not in ("run", "modality")}


def test_a_shard_that_fails_on_the_pool_ends_the_run_with_its_reason(
    images: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def run_deployment(*_: Any, **__: Any) -> SimpleNamespace:
        return SimpleNamespace(
            state=SimpleNamespace(is_completed=lambda: False, name="Failed", message="there is no run")
        )

    monkeypatch.setattr(embedding, "run_deployment", run_deployment)
    monkeypatch.setattr(embedding, "_own_deployment", lambda: "own")
    state = ended(images=images, out="f.npz", shards=1, on_pool=True)
    assert state.is_failed() and "shard 1/1 ended as Failed: there is no run" in str(state.message)


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"out": "f.npy"}, "vectors are written as a .npz archive or a .parquet table"),
        ({"out": "theirs.npz"}, "exists and does not contain features"),
        ({"out": "f.npz", "images": "nowhere"}, "nowhere"),
        ({"out": "f.npz", "shards": 9}, "shard 1/9 of 7 images is empty"),
        ({"out": "f.npz", "shard": "3"}, "'3' is not a shard"),
        ({"out": "f.npz", "on_pool": True}, "on_pool needs a deployment"),
    ],
    ids=["ending", "other file", "no images", "many", "no shard", "no deployment"],
)
def test_a_mistake_ends_the_run_at_once_with_a_hint(images: Path, parameters: dict[str, Any], message: str) -> None:
    Path("theirs.npz").write_bytes(b"text")
    state = ended(**({"images": images} | parameters))
    assert state.is_failed() and message in str(state.message) and "\nhint: " in str(state.message)
    assert Path("theirs.npz").read_bytes() == b"text"
