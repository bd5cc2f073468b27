"""Runs of any method without Prefect: to the end in this process, or in others that are killed."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar

import torch

from pipeline.config.cclnet import CclnetConfig
from pipeline.config.experiment import AnyConfig
from pipeline.config.presets import load_config
from pipeline.evaluation.report import EvaluationReport
from pipeline.methods import train
from pipeline.runs.open import run_path
from pipeline.storage.run_folder import RunFolder
from tests.fresh_process import run_fresh

ROOT = Path(__file__).resolve().parents[2]

Config = TypeVar("Config", bound=AnyConfig)


def run_plainly(config: AnyConfig) -> EvaluationReport | None:
    """Train without Prefect."""
    return train(config)


BUNDLE = (
    "matching.method=mutual", "swap.mode=off", "loss.contrast=unified", "loss.confidence=true", "loss.distillation=1",
    "augmentation.channel=exchange", "memory.hard=true", "labelling.outliers=assign", "labelling.relabel=density",
    "labelling.soft=neighbours", "labelling.soft_neighbours=6", "prompts.shared=true", "prompts.cross_weight=0.3",
    "prompts.logits=cosine",
)  # fmt: skip
"""Every switch beyond CCLNet that goes with the others."""


def bundled(config: CclnetConfig) -> CclnetConfig:
    """The same experiment with all of `BUNDLE`."""
    switched = load_config("smoke", BUNDLE, config.model_dump(mode="json"))
    assert isinstance(switched, CclnetConfig)
    return switched


def checkpoint_of(config: AnyConfig) -> dict[str, Any]:
    """What a finished run has kept."""
    with RunFolder.reopen(run_path(config)) as folder:
        checkpoint = folder.load_checkpoint()
    assert checkpoint is not None
    return checkpoint


def run_calm_and_killed(
    config: Config, points: Sequence[str], folder: Path, *, figures: bool = True
) -> tuple[Config, Config]:
    """Run an experiment twice in processes of its own: undisturbed, and killed at each point in turn."""
    both = []
    for name in ("calm", "killed"):
        execution = config.execution.model_copy(update={"runs_folder": folder / name / "runs", "figures": figures})
        both.append(config.model_copy(update={"execution": execution}))
        (folder / f"{name}.json").write_text(both[-1].model_dump_json())
    program = "import sys; from tests.flows.kill_points import main; main(*sys.argv[1:])"
    run_fresh(program, str(folder / "calm.json"), str(folder / "killed.json"), *points)
    return both[0], both[1]


def assert_same_result(calm: AnyConfig, killed: AnyConfig) -> None:
    """Metrics, evaluation and every weight are the same to the last bit."""
    for name in ("metrics.jsonl", "evaluation.json"):
        assert (run_path(killed) / name).read_bytes() == (run_path(calm) / name).read_bytes()
    left, right = checkpoint_of(calm), checkpoint_of(killed)
    assert left["encoder"].keys() == right["encoder"].keys()
    for name, weights in left["encoder"].items():
        assert torch.equal(weights, right["encoder"][name]), name
