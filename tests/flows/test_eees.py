"""The flow that captions teach: which losses there are, what is learned, what it refuses, and that it resumes."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from models.text_tower import TextTower
from pipeline.config.eees import EeesConfig
from pipeline.config.experiment import digest_of
from pipeline.config.presets import load_config
from pipeline.errors import CheckpointError, ConfigError, DataError
from pipeline.methods import method_of
from pipeline.methods.eees.method import EEES
from pipeline.runs.open import open_run, reopen_run, run_path
from tests.flows.plain_runs import assert_same_result, checkpoint_of, run_calm_and_killed, run_plainly

SMALL = {
    "images": {"height": 64, "width": 32},
    "model": {"architecture": "tiny", "weights": "random"},
    "stages": {"image_rounds": 2},
    "views": {"heads": 2},
    "batches": {"people_per_batch": 4, "images_per_person": 3},
    "evaluation": {"every": 1, "trials": 2},
}
ALL_TERMS = {"identity", "gap", "alignment", "views", "distillation", "purification"}

# In the order in which the run meets them; each start goes on from the last finished round.
KILL_POINTS = (
    "models.text_tower:TextTower.encode_texts:2",  # infrared captions, before round 1
    "pipeline.methods.eees.objective:caption_contrast:5",  # round 1, step 3
    "pipeline.runtime.atomic_files:Path.replace:5",  # a file of round 1 is written, the checkpoint is not
    "pipeline.methods.eees.objective:caption_gap:2",  # round 2
)


@pytest.fixture
def captions(smoke_data: Path, tmp_path: Path) -> Path:
    """A copy of the drawn captions that a test may change."""
    path = tmp_path / "captions.jsonl"
    shutil.copy(smoke_data / "captions.jsonl", path)
    return path


@pytest.fixture
def small_eees(smoke_data: Path, tmp_path: Path) -> EeesConfig:
    execution = {"device": "cpu", "runs_folder": str(tmp_path / "runs"), "tracking": False, "figures": False}
    config = load_config("eees-sysu", (), {**SMALL, "data": {"root": str(smoke_data)}, "execution": execution})
    assert isinstance(config, EeesConfig)
    return config


def changed(config: EeesConfig, **sections: dict[str, object]) -> EeesConfig:
    updates = {name: getattr(config, name).model_copy(update=values) for name, values in sections.items()}
    return config.model_copy(update=updates)


def losses_of(config: EeesConfig) -> dict[str, float]:
    """The losses of the last round."""
    row = json.loads((run_path(config) / "metrics.jsonl").read_text().splitlines()[-1])
    return {name.removeprefix("train/loss/"): value for name, value in row.items() if name.startswith("train/loss/")}


def test_a_run_trains_with_the_drawn_captions_and_tells_every_loss(small_eees: EeesConfig) -> None:
    report = run_plainly(small_eees)
    losses = losses_of(small_eees)
    assert losses.keys() == ALL_TERMS | {"total"}
    assert all(np.isfinite(value) for value in losses.values())
    assert losses.pop("total") == pytest.approx(sum(losses.values()), rel=1e-5)
    # Two heads side by side, and those of the mirrored image: 2 x (neck + projection).
    encoder = checkpoint_of(small_eees)["encoder"]
    width = len(encoder["neck.weight"]) + len(encoder["projection_neck.weight"])
    assert report is not None and report.features.dim == 2 * width


@pytest.mark.parametrize(
    ("changes", "gone"),
    [
        ({"alignment_weight": 0.0}, {"alignment"}),
        ({"views_weight": 0.0}, {"views", "distillation"}),
        ({"purification_weight": 0.0}, {"purification"}),
        (
            {"alignment_weight": 0.0, "views_weight": 0.0, "purification_weight": 0.0},
            {"alignment", "views", "distillation", "purification"},
        ),
    ],
)
def test_a_weight_of_zero_removes_its_terms_and_what_only_they_need(
    small_eees: EeesConfig, changes: dict[str, object], gone: set[str]
) -> None:
    config = changed(small_eees, semantics=changes, stages={"image_rounds": 1})
    run_plainly(config)
    assert losses_of(config).keys() == ALL_TERMS - gone | {"total"}
    assert ("fusion" in checkpoint_of(config)["method"]["modules"]) == ("views" not in gone)


def test_a_frozen_text_tower_is_no_part_of_what_is_learned_and_a_tuned_one_learns(small_eees: EeesConfig) -> None:
    frozen = changed(small_eees, stages={"image_rounds": 1})
    tuned = changed(frozen, text={"tower": "tuned"})
    for config in (frozen, tuned):
        run_plainly(config)
    assert "tower" not in checkpoint_of(frozen)["method"]["modules"]
    learned = checkpoint_of(tuned)["method"]["modules"]["tower"]
    with open_run(tuned, EEES) as run:
        before = TextTower.from_clip(run.clip).state_dict()
        rates = [group["lr"] for group in run.state.optimiser.param_groups]
    moved = {name for name, value in before.items() if not torch.equal(value, learned[name])}
    assert "ln_final.weight" in moved and "token_embedding.weight" in moved
    # The schedule gives round 1 a hundredth of 3e-4, heads twice that; the tower keeps its own rate.
    assert rates == pytest.approx([3e-6, 6e-6, 1e-5])


@pytest.mark.parametrize(
    ("section", "values"),
    [
        ("semantics", {"alignment_feature": "pooled", "distillation": "relation"}),
        ("semantics", {"alignment_similarity": "raw", "alignment_target": "instance", "alignment_weight": 0.05}),
        ("semantics", {"purification": "csia", "purification_level": "fused", "fused_identity": True}),
        ("views", {"kind": "text_only", "zero_init": True}),
        ("views", {"kind": "shared"}),
        ("augmentation", {"recipe": "plain"}),
    ],
)
def test_every_alternative_trains_and_resumes(small_eees: EeesConfig, section: str, values: dict[str, object]) -> None:
    one_round = changed(small_eees, **{section: values}, stages={"image_rounds": 1})
    run_plainly(one_round)
    assert all(np.isfinite(value) for value in losses_of(one_round).values())
    with open_run(one_round, EEES) as run:
        assert not list(run.rounds_left())
        packed = run.state.method.pack()["modules"]
        kept = checkpoint_of_modules(one_round)
        assert packed.keys() == kept.keys()
        for name, weights in packed.items():
            assert all(torch.equal(value, kept[name][key]) for key, value in weights.items()), name


def checkpoint_of_modules(config: EeesConfig) -> dict[str, dict[str, torch.Tensor]]:
    """Read without taking the folder's lock, which the run holds."""
    checkpoint = torch.load(run_path(config) / "checkpoint.pt", weights_only=True)
    modules: dict[str, dict[str, torch.Tensor]] = checkpoint["method"]["modules"]
    return modules


def test_a_run_is_measured_again_without_its_captions(small_eees: EeesConfig, captions: Path) -> None:
    config = changed(small_eees, captions={"path": captions}, stages={"image_rounds": 1})
    report = run_plainly(config)
    captions.unlink()
    with reopen_run(run_path(config), method_of, data_root=None, device="cpu") as (run, evaluator):
        again = evaluator.measure_to_files(run)
    assert report is not None
    assert [search.mean for search in again.searches] == [search.mean for search in report.searches]


def test_a_run_does_not_go_on_with_other_captions(small_eees: EeesConfig, captions: Path) -> None:
    config = changed(small_eees, captions={"path": captions}, stages={"image_rounds": 1})
    run_plainly(config)
    rows = [json.loads(line) for line in captions.read_text().splitlines()]
    rows[0]["caption"] = "somebody else"
    captions.write_text("".join(json.dumps(row) + "\n" for row in rows))
    with pytest.raises(CheckpointError, match="begun with other captions"):
        run_plainly(config)


@pytest.mark.parametrize("control", ["shuffled", "constant", "same_person", "infrared_from_visible"])
def test_a_control_is_an_experiment_of_its_own(small_eees: EeesConfig, control: str) -> None:
    config = changed(small_eees, captions={"control": control}, stages={"image_rounds": 1})
    assert digest_of(config) != digest_of(small_eees)
    run_plainly(config)
    assert losses_of(config).keys() == ALL_TERMS | {"total"}


def test_missing_captions_end_the_run_before_anything_is_trained(small_eees: EeesConfig, tmp_path: Path) -> None:
    config = changed(small_eees, captions={"path": tmp_path / "nowhere.jsonl"})
    with pytest.raises(DataError, match=r"nowhere\.jsonl"):
        run_plainly(config)
    assert (run_path(config) / "metrics.jsonl").read_text() == ""


def test_heads_that_do_not_divide_the_width_are_refused(small_eees: EeesConfig) -> None:
    with pytest.raises(ConfigError, match="heads of attention do not divide"):
        run_plainly(changed(small_eees, views={"heads": 7}))


@pytest.mark.parametrize(
    "contradiction",
    [
        ["semantics.purification=csia", "semantics.purification_detach=intra"],
        ["semantics.purification=csia", "semantics.purification_distance=one_minus_cos"],
        ["semantics.fused_identity=true", "views.kind=text_only"],
        ["semantics.temperature=0"],
        ["views.kind=other"],
    ],
)
def test_settings_that_mean_nothing_together_are_refused(contradiction: list[str]) -> None:
    with pytest.raises(ConfigError, match=r"semantics|views"):
        load_config("eees-sysu", contradiction)


@pytest.mark.slow
def test_a_run_killed_in_every_part_equals_the_uninterrupted_run(small_eees: EeesConfig, tmp_path: Path) -> None:
    calm, killed = run_calm_and_killed(small_eees, KILL_POINTS, tmp_path)
    assert_same_result(calm, killed)
    left, right = (checkpoint_of(one)["method"]["modules"] for one in (calm, killed))
    for name, weights in left.items():
        assert all(torch.equal(value, right[name][key]) for key, value in weights.items()), name
