"""A run that is killed in every stage and started again ends as if nothing had happened."""

from pathlib import Path

import pytest

from pipeline.config.cclnet import CclnetConfig
from tests.flows.plain_runs import (
    BUNDLE,
    JOINT,
    assert_same_result,
    checkpoint_of,
    run_calm_and_killed,
    with_switches,
)

# In the order in which the run meets them; each start goes on from the last finished round.
KILL_POINTS = (
    "pipeline.methods.cclnet.clusters:label_images:2",  # labelling of round 1, visible done
    "pipeline.methods.cclnet.contrast:prototype_contrast:5",  # training of round 1, step 3
    "pipeline.runtime.atomic_files:Path.replace:6",  # round 1: labels and evaluation are written, the checkpoint is not
    "pipeline.storage.run_folder:RunFolder.write_metrics:2",  # round 1 counts, its metrics are not written
    "pipeline.methods.cclnet.prompts:prompt_contrast:7",  # prompts of round 3
    "pipeline.methods.cclnet.objective:text_classification:3",  # training of round 3: prompts are learned
    "pipeline.evaluation.evaluate:rank_queries:1",  # evaluation of round 3
)

BUNDLE_KILL_POINTS = (
    "pipeline.methods.cclnet.finding:assign_outliers:2",  # clusters of round 1
    "pipeline.methods.cclnet.contrast:unified_contrast:5",  # training of round 1, step 3
    "pipeline.methods.cclnet.objective:text_classification:3",  # training of round 3: prompts are learned
)

JOINT_KILL_POINTS = (
    "pipeline.methods.cclnet.clusters:label_jointly:1",  # clusters of round 2
    "pipeline.methods.cclnet.cameras:camera_contrast:5",  # training of round 2, step 3
    "pipeline.methods.cclnet.stages:run_epoch:3",  # training of round 4: prompts are learned again
)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("switches", "points"),
    [((), KILL_POINTS), (BUNDLE, BUNDLE_KILL_POINTS), (JOINT, JOINT_KILL_POINTS)],
    ids=["cclnet", "bundle", "joint"],
)
def test_a_run_killed_in_every_stage_equals_the_uninterrupted_run(
    smoke_config: CclnetConfig, tmp_path: Path, switches: tuple[str, ...], points: tuple[str, ...]
) -> None:
    config = with_switches(smoke_config, switches)
    calm, killed = run_calm_and_killed(config, points, tmp_path, figures=not switches)
    assert_same_result(calm, killed)
    rows = checkpoint_of(killed)["metrics"]
    assert len(rows) == 4
    jointly = ["labels/two_modality_share" in row for row in rows]
    assert jointly == ([False, True] * 2 if switches == JOINT else [False] * 4)
