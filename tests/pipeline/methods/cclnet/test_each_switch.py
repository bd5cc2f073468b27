"""Each setting beyond CCLNet, alone, changes what it is for: labels, pairs, targets, prompts or losses of a round."""

from functools import cache

import numpy as np
import pytest

from pipeline.config.experiment import _ADDED_TO, flat
from tests.pipeline.methods.cclnet import small_run as small

Changes = tuple[str, ...]
JOINT: Changes = ("labelling.space=joint_balanced",)
MERGED: Changes = ("labelling.visible.eps=0.8", "labelling.visible.k1=20")
STRICT: Changes = ("labelling.visible.k1=20", "labelling.visible.min_samples=10")
SOFT: Changes = ("labelling.soft=neighbours", "labelling.soft_neighbours=6")
UNIFIED: Changes = ("loss.contrast=unified",)
CROSS: Changes = ("loss.contrast=cross",)
COSINE: Changes = ("prompts.logits=cosine",)

CLUSTERING: list[tuple[str, Changes, str]] = [
    ("labels", (), "labelling.space=joint_balanced"),
    ("labels", JOINT, "labelling.start=2"),
    ("labels", JOINT, "labelling.min_two_modality_share=1"),
    ("labels", JOINT, "labelling.subset=0.5"),
    ("labels", JOINT, "labelling.joint.k1=20"),
    ("labels", JOINT, "labelling.joint.k2=1"),
    ("labels", JOINT, "labelling.joint.eps=0.4"),
    ("labels", JOINT, "labelling.joint.min_samples=8"),
    ("labels", JOINT, "labelling.joint.method=louvain"),
    ("labels", MERGED, "labelling.relabel=density"),
    ("labels", (*MERGED, "labelling.relabel=density"), "labelling.densest=3"),
    ("labels", STRICT, "labelling.outliers=assign"),
    ("targets", ("labelling.soft_neighbours=6",), "labelling.soft=neighbours"),
    ("targets", SOFT, "labelling.soft_neighbours=4"),
    ("pairs", (), "matching.method=mutual"),
    ("pairs", (), "matching.method=progressive"),
    ("pairs", (), "matching.method=transport"),
    ("pairs", (), "matching.cost=whitened"),
    ("pairs", (), "matching.local_scaling=3"),
    ("pairs", (), "matching.cost=sub_prototypes"),
    ("pairs", (), "matching.floor=0.3"),
]
"""What changes, settings in both runs, and the setting in one of them."""

TRAINING: list[tuple[Changes, str]] = [
    ((), "augmentation.channel=exchange"),
    ((), "loss.contrast=cross"),
    ((), "loss.contrast=unified"),
    (UNIFIED, "loss.start=2"),
    (UNIFIED, "loss.min_mutual_share=1"),
    (UNIFIED, "loss.confidence=true"),
    (CROSS, "loss.cross_weight=0.5"),
    (CROSS, "loss.confidence=true"),
    ((*UNIFIED, "augmentation.channel=exchange"), "loss.distillation=1"),
    ((), "memory.hard=true"),
    (("memory.hard=true",), "memory.hard_margin=0.5"),
    ((), "memory.cameras=proxies"),
    (("memory.cameras=proxies",), "memory.camera_weight=1"),
    (("memory.cameras=proxies",), "memory.camera_negatives=1"),
    (STRICT, "labelling.outliers=assign"),
    (("labelling.soft_neighbours=6",), "labelling.soft=neighbours"),
]
"""Settings in both runs, and the setting in one of them that changes losses."""

PROMPTS: list[tuple[Changes, str]] = [
    ((), "prompts.logits=cosine"),
    (COSINE, "prompts.scale=5"),
    ((), "prompts.shared=true"),
    ((), "prompts.cross_weight=0.5"),
    (("prompts.cross_weight=0.5",), "loss.confidence=true"),
]
"""The same, with prompts that are learned first."""

ELSEWHERE = {"prompts.refresh_agreement"}
"""Settings of `test_refresh.py`."""


@cache
def found(*changes: str) -> dict[str, list[np.ndarray]]:
    return small.parts(small.cluster(small.small_run(*changes)))


@cache
def losses(*changes: str, text: bool = False) -> dict[str, float]:
    return small.losses(*changes, text=text)


@pytest.mark.parametrize(("kind", "base", "switch"), CLUSTERING, ids=lambda some: some if isinstance(some, str) else "")
def test_a_switch_changes_what_a_round_finds(kind: str, base: Changes, switch: str) -> None:
    assert not small.same(found(*base)[kind], found(*base, switch)[kind])


@pytest.mark.parametrize(("base", "switch"), TRAINING, ids=lambda some: some if isinstance(some, str) else "")
def test_a_switch_changes_the_losses(base: Changes, switch: str) -> None:
    before, after = losses(*base), losses(*base, switch)
    assert all(np.isfinite(value) for value in after.values())
    assert after["loss/total"] != before["loss/total"]


@pytest.mark.parametrize(("base", "switch"), PROMPTS, ids=lambda some: some if isinstance(some, str) else "")
def test_a_switch_of_prompts_changes_the_losses_of_texts(base: Changes, switch: str) -> None:
    before, after = losses(*base, text=True), losses(*base, switch, text=True)
    texts = [name for name in before.keys() | after.keys() if name.endswith("_text")]
    assert any(before.get(name) != after.get(name) for name in texts)


def test_the_same_settings_twice_change_nothing() -> None:
    assert small.losses(text=True) == losses(text=True)


def test_every_setting_beyond_cclnet_is_here() -> None:
    switches = [switch for *_, switch in (*CLUSTERING, *TRAINING, *PROMPTS)]
    assert {name for name, _ in flat(_ADDED_TO["cclnet"])} <= {one.partition("=")[0] for one in switches} | ELSEWHERE
