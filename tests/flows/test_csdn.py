"""The supervised flow: it learns from identities, resumes in every stage, and never reaches the unsupervised branch."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from pipeline.config.csdn import CsdnConfig
from pipeline.config.presets import load_config
from pipeline.errors import CheckpointError, ConfigError
from pipeline.methods.csdn.method import CSDN
from pipeline.methods.csdn.stages import fuse_texts, learn_prompts
from pipeline.runs.open import open_run, run_path
from tests.flows.plain_runs import assert_same_result, checkpoint_of, run_calm_and_killed, run_plainly

SMALL = {
    "images": {"height": 64, "width": 32},
    "model": {"architecture": "tiny", "weights": "random"},
    "stages": {"image_rounds": 2},
    "prompts": {"epochs": 2, "warmup_epochs": 1},
    "fusion": {"epochs": 2, "warmup_epochs": 1},
    "batches": {"people_per_batch": 4, "images_per_person": 3},
    "evaluation": {"every": 1, "trials": 2},
}

# In the order in which the run meets them; each start goes on from the last finished round.
KILL_POINTS = (
    "pipeline.methods.csdn.prompts:text_contrast:5",  # stage `prompts`
    "pipeline.methods.csdn.prompts:text_contrast:25",  # stage `fusion`: `prompts` takes 20 calls before it
    "pipeline.methods.supervised:weighted_triplet:5",  # stage `image`, round 1
    "pipeline.runtime.atomic_files:Path.replace:4",  # a file of a round is written, the checkpoint is not
)


@pytest.fixture
def small_csdn(smoke_data: Path, tmp_path: Path) -> CsdnConfig:
    execution = {"device": "cpu", "runs_folder": str(tmp_path / "runs"), "tracking": False, "figures": False}
    config = load_config("csdn-sysu", (), {**SMALL, "data": {"root": str(smoke_data)}, "execution": execution})
    assert isinstance(config, CsdnConfig)
    return config


def rows_of(config: CsdnConfig) -> list[dict[str, object]]:
    return [json.loads(line) for line in (run_path(config) / "metrics.jsonl").read_text().splitlines()]


def test_a_run_learns_texts_then_trains_and_tells_every_loss(small_csdn: CsdnConfig) -> None:
    report = run_plainly(small_csdn)
    rows = rows_of(small_csdn)
    assert [row["stage"] for row in rows] == ["prompts", "fusion", "image", "image"]
    losses = {name.removeprefix("train/loss/") for name in rows[-1] if name.startswith("train/loss/")}
    assert losses == {"identity", "triplet", "gap", "visible_text", "infrared_text", "total"}
    total = sum(rows[-1][f"train/loss/{name}"] for name in losses - {"total"})
    assert rows[-1]["train/loss/total"] == pytest.approx(total, rel=1e-5)
    assert all(np.isfinite(value) for row in rows for value in row.values() if isinstance(value, float))
    # Two heads side by side, and those of the mirrored image: 2 x (neck + projection).
    encoder = checkpoint_of(small_csdn)["encoder"]
    width = len(encoder["neck.weight"]) + len(encoder["projection_neck.weight"])
    assert report is not None and report.features.dim == 2 * width


def test_texts_stay_as_they_were_learned_while_images_are_trained(small_csdn: CsdnConfig) -> None:
    short = small_csdn.model_copy(update={"stages": small_csdn.stages.model_copy(update={"image_rounds": 1})})
    for config in (short, small_csdn):
        run_plainly(config)
    one, two = checkpoint_of(short), checkpoint_of(small_csdn)
    assert torch.equal(one["method"]["fused"], two["method"]["fused"])
    weight = "trunk.layer1.0.conv1.weight"
    assert not torch.equal(one["encoder"][weight], two["encoder"][weight])
    assert not torch.equal(one["method"]["classifier"]["neck.weight"], two["method"]["classifier"]["neck.weight"])


def test_without_text_losses_no_texts_are_learned(small_csdn: CsdnConfig) -> None:
    losses = small_csdn.losses.model_copy(update={"visible_text_weight": 0.0, "infrared_text_weight": 0.0})
    config = small_csdn.model_copy(update={"losses": losses})
    run_plainly(config)
    assert [row["stage"] for row in rows_of(config)] == ["image", "image"]


@pytest.mark.parametrize("banks", ["two", "one"])
def test_without_fusion_images_are_compared_with_the_texts_of_their_own_modality(
    small_csdn: CsdnConfig, banks: str
) -> None:
    changes = {"fusion": {"kind": "none"}, "prompts": {"banks": banks}}
    config = small_csdn.model_copy(
        update={name: getattr(small_csdn, name).model_copy(update=some) for name, some in changes.items()}
    )
    run_plainly(config)
    assert [row["stage"] for row in rows_of(config)] == ["prompts", "image", "image"]
    assert {"train/loss/visible_text", "train/loss/infrared_text"} <= rows_of(config)[-1].keys()
    learned = checkpoint_of(config)["method"]
    assert learned["fused"] is None
    assert torch.equal(*learned["texts"]) == (banks == "one")


@pytest.mark.slow
def test_a_run_killed_in_every_stage_equals_the_uninterrupted_run(small_csdn: CsdnConfig, tmp_path: Path) -> None:
    calm, killed = run_calm_and_killed(small_csdn, KILL_POINTS, tmp_path)
    assert_same_result(calm, killed)
    assert torch.equal(checkpoint_of(calm)["method"]["fused"], checkpoint_of(killed)["method"]["fused"])


def test_the_switches_of_the_released_slips_change_what_they_name(small_csdn: CsdnConfig) -> None:
    def variant(section: str, **values: object) -> dict[str, object]:
        changed = getattr(small_csdn, section).model_copy(update=values)
        config = small_csdn.model_copy(update={section: changed, "name": "-".join(values).replace("_", "-")})
        with open_run(config, CSDN) as run:
            prototypes, texts = learn_prompts(run)
            before = run.state.encoder.state_dict()["trunk.layer1.0.bn1.running_mean"].clone()
            _, fused = fuse_texts(run, prototypes)
            after = run.state.encoder.state_dict()["trunk.layer1.0.bn1.running_mean"]
            return {"texts": texts, "fused": fused, "moved": not torch.equal(before, after)}

    plain = variant("fusion", dropout=0.1)
    in_training = variant("fusion", batch_statistics="batch")
    one_relu = variant("network", stem_activation="last")
    assert not plain["moved"] and in_training["moved"]
    assert plain["texts"] == in_training["texts"] and plain["fused"] != in_training["fused"]
    assert plain["texts"] != one_relu["texts"]


def test_a_checkpoint_of_other_people_is_refused(small_csdn: CsdnConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    run_plainly(small_csdn)
    from pipeline.data import supervision
    from pipeline.data.supervision import PersonLabels

    real = supervision.person_labels
    monkeypatch.setattr(
        supervision, "person_labels", lambda *told: PersonLabels(real(*told).labels, real(*told).num_people + 1)
    )
    with pytest.raises(CheckpointError, match=r"classifies \d+ people"):
        run_plainly(small_csdn)


def test_a_vision_transformer_is_refused(small_csdn: CsdnConfig) -> None:
    model = small_csdn.model.model_copy(update={"architecture": "ViT-S-32"})
    with pytest.raises(ConfigError, match="needs a ResNet"):
        run_plainly(small_csdn.model_copy(update={"model": model}))


@pytest.mark.slow
def test_a_network_without_text_trains_on_people_alone(small_csdn: CsdnConfig, smoke_data: Path) -> None:
    execution = small_csdn.execution.model_dump()
    small = {name: SMALL[name] for name in ("images", "batches", "evaluation")}
    values = {**small, "model": {"weights": "random"}, "stages": {"image_rounds": 1}, "execution": execution}
    config = load_config("csdn-imagenet-sysu", (), {**values, "data": {"root": str(smoke_data)}})
    report = run_plainly(config)
    losses = {name for name in rows_of(config)[-1] if name.startswith("train/loss/")}
    assert losses == {f"train/loss/{name}" for name in ("identity", "triplet", "gap", "total")}
    # The neck of ResNet-50, and that of the mirrored image.
    assert report is not None and report.features.dim == 2 * 2048


@pytest.mark.parametrize(
    ("preset", "changes"),
    [
        ("csdn-sysu", {}),
        ("csdn-imagenet-sysu", {"evaluation": {"heads": ("neck", "projection")}}),
        ("eees-sysu", {"evaluation": {"heads": ("neck",)}}),
        ("cclnet-sysu", {}),
    ],
)
def test_a_network_without_text_is_refused_where_texts_are_met(
    preset: str, changes: dict[str, dict[str, object]], small_csdn: CsdnConfig, smoke_data: Path
) -> None:
    values = {"model": {"architecture": "resnet50", "weights": "random"}, "images": SMALL["images"], **changes}
    execution = small_csdn.execution.model_dump()
    config = load_config(preset, (), {**values, "data": {"root": str(smoke_data)}, "execution": execution})
    with pytest.raises(ConfigError, match="has no text encoder"):
        run_plainly(config)


def test_texts_are_drawn_when_they_are_learned_and_what_queries_found_when_that_is_measured(
    small_csdn: CsdnConfig,
) -> None:
    execution = small_csdn.execution.model_copy(update={"figures": True})
    small_csdn = small_csdn.model_copy(update={"execution": execution})
    run_plainly(small_csdn)
    figures = sorted(file.name for file in (run_path(small_csdn) / "figures").iterdir())
    assert figures[-1] == "text-similarity-001.png"
    assert {name.rpartition("-")[0] for name in figures} == {"learning-curves", "retrieval", "text-similarity"}
    assert "retrieval-004.jpg" in figures
