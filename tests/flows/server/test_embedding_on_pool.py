"""The deployment `embed/images` on a real server and worker: shards are flow runs of the pool, merged into one file."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from models.modality import Modality
from pipeline.config.cclnet import CclnetConfig
from pipeline.data.image_list import list_images
from pipeline.evaluation.feature_files import read_record, read_vectors
from pipeline.inference.embedded_files import embed_to_file
from pipeline.inference.run_encoder import open_encoder
from pipeline.runs.open import run_path
from tests.flows.command_line import vireid_command
from tests.flows.server.test_operations import Servers, serving


def call(servers: Servers, command: list[str]) -> str:
    done = subprocess.run(command, env=servers.environment, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.slow
def test_a_worker_takes_the_shards(finished_run: CclnetConfig, smoke_data: Path, tmp_path: Path) -> None:
    run, images, out = run_path(finished_run), smoke_data / "cam1", tmp_path / "features" / "f.parquet"
    values = {"run": run, "images": images, "out": out, "modality": "visible", "shards": 2, "on_pool": "true"}
    start = [sys.executable, "-m", "prefect", "deployment", "run", "embed/images", "--watch"]
    for name, value in (values | {"device": "cpu"}).items():
        start += ["--param", f"{name}={value}"]
    with serving(tmp_path) as servers:
        call(servers, vireid_command("deploy", "embed/images"))
        call(servers, start)
        found = servers.answer("/flow_runs/filter", {})
        tasks = servers.answer("/task_runs/filter", {})
    shards = [one["parameters"].get("shard") for one in found if one["deployment_id"]]
    assert sorted(shards, key=str) == ["1/2", "2/2", None]
    assert {one["state_type"] for one in found} == {"COMPLETED"}
    names = {one["name"] for one in tasks}
    assert {"shard-on-pool-1/2", "shard-on-pool-2/2", "embed-shard-1/2", "embed-shard-2/2"} <= names
    expected = tmp_path / "whole.npz"
    embed_to_file(open_encoder(str(run), "cpu"), list_images(images, Modality.VISIBLE), expected, batch_size=64)
    np.testing.assert_allclose(read_vectors(out), read_vectors(expected), atol=1e-6)
    assert read_record(out)["shard"] is None and [file.name for file in out.parent.iterdir()] == ["f.parquet"]
