"""What waits until the clusters of a round are good enough, and the line that says it."""

import logging

import numpy as np
import pytest

from pipeline.methods.cclnet.finding import clusters_for_export
from tests.pipeline.methods.cclnet import small_run as small

ACROSS = ("loss.contrast=unified", "prompts.cross_weight=0.5", "loss.distillation=1", "augmentation.channel=exchange")
WITHIN = ["loss/visible_prototype", "loss/infrared_prototype", "loss/visible_text", "loss/infrared_text", "loss/total"]
ALL = [
    "loss/visible_unified", "loss/infrared_unified", "loss/distillation", "loss/visible_text", "loss/infrared_text",
    "loss/visible_cross_text", "loss/infrared_cross_text", "loss/total",
]  # fmt: skip
JOINT = "labelling.space=joint_balanced"
LINE = "clusters each modality alone: "


def share() -> float:
    """The mutual share of the clusters, with which terms across modalities begin."""
    return small.cluster(small.small_run()).mutual_share


def test_contrast_distillation_and_cross_texts_wait_for_mutual_pairs(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        assert list(small.losses(*ACROSS, f"loss.min_mutual_share={share()}", text=True)) == ALL
        assert "no terms across modalities" not in caplog.text
        assert list(small.losses(*ACROSS, f"loss.min_mutual_share={share() + 1e-6}", text=True)) == WITHIN
    line = f"no terms across modalities in round 3: {share():.0%} of the clusters are in mutual pairs, fewer than"
    assert line in caplog.text


@pytest.mark.parametrize(("number", "names"), [(3, WITHIN), (4, ALL)])
def test_terms_across_modalities_wait_for_the_round_of_the_stage(
    number: int, names: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO):
        assert list(small.losses(*ACROSS, "loss.start=2", number=number, text=True)) == names
    assert "no terms" not in caplog.text


def test_without_terms_across_modalities_no_line_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        small.losses("loss.min_mutual_share=1", "prompts.shared=true")
    assert "no terms" not in caplog.text


@pytest.mark.parametrize("enough", [True, False])
def test_prompts_know_no_pairs_of_clusters_that_are_not_mutual_enough(
    enough: bool, caplog: pytest.LogCaptureFixture
) -> None:
    least = share() if enough else share() + 1e-6
    run = small.small_run("prompts.shared=true", f"loss.min_mutual_share={least}")
    clusters = small.cluster(run)
    described, pairs = clusters.described(run.config), len(clusters.matching.visible)
    assert pairs > 1
    assert [len(own) for own in described.pairs] == [pairs if enough else 0] * 2
    assert len(described.confidence) == len(described.pairs.visible)
    assert small.same([*described.labels], [*clusters.labels])
    with caplog.at_level(logging.INFO):
        texts = small.texts(run, clusters)
    assert ("the prompts of round 3 know no pairs" in caplog.text) == (not enough)
    tied = [
        np.array_equal(texts.visible.context[one], texts.infrared.context[other])
        for one, other in zip(clusters.matching.visible, clusters.matching.infrared, strict=True)
    ]
    assert all(one == enough for one in tied)
    assert all((one.partners >= 0).any() == enough for one in texts)


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        (("labelling.min_two_modality_share=1",), r"% of the joint clusters hold both, fewer than 100%"),
        (("labelling.start=2",), ""),
        (("labelling.joint.eps=0.99",), "the joint clustering has only 1 with images of one modality"),
        (("labelling.joint.min_samples=90",), "the joint clustering has only 0 with images of one modality"),
    ],
)
def test_a_joint_clustering_waits(changes: tuple[str, ...], line: str, caplog: pytest.LogCaptureFixture) -> None:
    alone, run = small.cluster(small.small_run()), small.small_run(JOINT, *changes)
    with caplog.at_level(logging.INFO):
        clusters = small.cluster(run)
    assert clusters.two_modality_share is None
    assert small.same([*clusters.labels, *clusters.pairs], [*alone.labels, *alone.pairs])
    lines = [one for one in caplog.messages if LINE in one]
    assert len(lines) == bool(line)
    assert all(one.startswith("round 3 ") and line in one for one in lines)


def test_a_joint_clustering_begins_at_its_share_and_in_its_round(caplog: pytest.LogCaptureFixture) -> None:
    joint = small.cluster(small.small_run(JOINT))
    least = joint.two_modality_share
    assert least is not None and 0 < least < 1
    with caplog.at_level(logging.INFO):
        later = small.small_run(JOINT, "labelling.start=2", f"labelling.min_two_modality_share={least}").at(4)
        again = small.cluster(later)
    assert again.two_modality_share == least
    assert small.same([*again.labels], [*joint.labels])
    assert LINE not in caplog.text


def test_anomalies_of_a_joint_clustering_are_logged(caplog: pytest.LogCaptureFixture) -> None:
    run = small.small_run(JOINT, "labelling.max_largest_share=0.01", "labelling.joint.eps=0.55")
    with caplog.at_level(logging.WARNING):
        clusters = small.cluster(run)
    assert clusters.two_modality_share is not None
    for modality, found in clusters.clusterings.items():
        line = f"one cluster holds {100 * found.largest_share:.0f}% of the {modality} images at eps 0.55"
        assert line in caplog.messages


@pytest.mark.parametrize(("start", "joint"), [(1, True), (2, True), (3, False)])
def test_clusters_that_are_exported_after_training_are_those_of_the_last_round(start: int, joint: bool) -> None:
    changes = (JOINT, f"labelling.start={start}", "labelling.subset=0.5", "stages.label_export=after_training")
    run = small.small_run(*changes, "labelling.outliers=assign")
    last = small.cluster(run.at(2))
    assert (last.two_modality_share is not None) == joint
    run.state.method.clusters = last.clusterings
    exported, expected = clusters_for_export(run.at(3)), last.described(run.config)
    assert small.same([*exported.labels, *exported.pairs], [*expected.labels, *expected.pairs])
    assert np.array_equal(exported.confidence, expected.confidence)


def test_a_modality_without_clusters_exports_those_of_the_last_round() -> None:
    run = small.small_run("labelling.visible.min_samples=60")
    before = small.cluster(small.small_run()).clusterings
    run.state.method.clusters = before
    exported = clusters_for_export(run)
    assert exported.clusterings.visible is before.visible
    assert small.same([exported.labels.infrared], [before.infrared.labels])
