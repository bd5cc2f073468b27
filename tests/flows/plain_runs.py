"""Runs of any method without Prefect: to the end in this process, or in others that are killed."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar

import torch

from pipeline.config.cclnet import CclnetConfig
from pipeline.config.experiment import AnyConfig, changed_settings, record_of
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


def _bundle_of_preset() -> tuple[str, ...]:
    """What preset `plus-demo` changes in `demo`, but for when it starts: small runs are shorter, with fewer pairs."""
    changes = changed_settings(record_of(load_config("demo")), record_of(load_config("plus-demo")))
    later = ("loss.start", "loss.min_mutual_share")
    return tuple(f"{name}={value}" for name, value in changes.items() if name not in ("name", *later))


BUNDLE = (
    *_bundle_of_preset(), "loss.confidence=true", "loss.distillation=1",
    "augmentation.channel=exchange", "memory.hard=true", "labelling.outliers=assign", "labelling.relabel=density",
    "labelling.soft=neighbours", "labelling.soft_neighbours=6", "prompts.shared=true", "prompts.cross_weight=0.3",
    "prompts.logits=cosine",
)  # fmt: skip
"""The bundle, and every other switch that goes with all of these."""

JOINT = (
    *_bundle_of_preset(), "labelling.space=joint_balanced", "labelling.start=2", "labelling.subset=0.5",
    "labelling.joint.k1=12", "labelling.joint.k2=3", "labelling.joint.eps=0.4", "matching.cost=sub_prototypes",
    "memory.cameras=proxies", "prompts.refresh_every=none", "prompts.refresh_agreement=1",
)  # fmt: skip
"""The bundle with the remaining ones; the first round of a stage clusters each modality alone."""


def with_switches(config: CclnetConfig, switches: Sequence[str]) -> CclnetConfig:
    """The same experiment with other settings."""
    switched = load_config("smoke", switches, config.model_dump(mode="json"))
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
