"""A run that is killed in every stage and started again ends as if nothing had happened."""

import os
import subprocess
import sys
from pathlib import Path

import torch

from pipeline.config import ExperimentConfig
from pipeline.opening import run_path
from pipeline.run_folder import RunFolder

ROOT = Path(__file__).resolve().parents[2]

# In the order in which the run meets them; each start goes on from the last finished round.
KILL_POINTS = (
    "pipeline.data.pixel_supply:gather_pixels:2",  # extraction of round 1
    "pipeline.training.labelling:label_images:2",  # labelling of round 1, visible done
    "pipeline.stages:match_clusters:1",  # matching of round 1
    "pipeline.training.epoch:prototype_contrast:5",  # training of round 1, step 3
    "pipeline.durable_files:Path.replace:6",  # round 1: labels and evaluation are written, the checkpoint is not
    "pipeline.run_folder:RunFolder.write_metrics:2",  # round 1 counts, its metrics are not written
    "pipeline.training.prompting:prompt_contrast:7",  # prompts of round 3
    "pipeline.training.epoch:text_classification:3",  # training of round 3: prompts are learned, the round is not
    "pipeline.evaluation.evaluate:rank_queries:1",  # evaluation of round 3
)


def start(config: ExperimentConfig, folder: Path, *points: str) -> None:
    folder.mkdir()
    file = folder / "config.json"
    file.write_text(config.model_dump_json())
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "NUMBA_NUM_THREADS": "1"}
    subprocess.run(
        [sys.executable, "-m", "tests.flows.kill_points", str(file), *points],
        check=True,
        cwd=ROOT,
        env=environment,
        timeout=300,
    )


def test_a_run_killed_in_every_stage_equals_the_uninterrupted_run(
    smoke_config: ExperimentConfig, tmp_path: Path
) -> None:
    calm, killed = (
        smoke_config.model_copy(
            update={"execution": smoke_config.execution.model_copy(update={"runs_folder": tmp_path / name / "runs"})}
        )
        for name in ("calm", "killed")
    )
    start(calm, tmp_path / "calm")
    start(killed, tmp_path / "killed", *KILL_POINTS)

    with RunFolder.reopen(run_path(calm)) as expected, RunFolder.reopen(run_path(killed)) as found:
        assert (found.path / "metrics.jsonl").read_bytes() == (expected.path / "metrics.jsonl").read_bytes()
        assert (found.path / "evaluation.json").read_bytes() == (expected.path / "evaluation.json").read_bytes()
        left, right = expected.load_checkpoint(), found.load_checkpoint()
    assert left is not None and right is not None
    assert len(right["metrics"]) == 4
    for name, weights in left["encoder"].items():
        assert torch.equal(weights, right["encoder"][name]), name
