"""Pseudo-labels and matchings judged by true identities, on cases small enough to count by hand."""

import math

import numpy as np
import pytest

from clustering.matching import Matching
from models.modality import PerModality
from pipeline.evaluation.diagnostics import label_diagnostics, majority_people, matching_diagnostics

SCORES = ("ari", "nmi", "homogeneity", "completeness")


def matching_of(*pairs):
    visible, infrared = np.array(pairs, dtype=np.int64).reshape(-1, 2).T
    return Matching(visible=visible, infrared=infrared, similarity=np.ones(len(pairs), dtype=np.float32))


def test_labels_that_rename_people_are_perfect():
    scores = label_diagnostics(np.array([2, 2, 0, 0, 1]), np.array([7, 7, 3, 3, 9]))
    assert scores == pytest.approx({f"{name}_{images}": 1.0 for name in SCORES for images in ("clustered", "all")})


def test_the_adjusted_rand_index_counts_pairs():
    # Clusters 0 0 0 1 1 1, people 1 1 2 2 2 2. Pairs together in both: {0,1}, and {3,4} {3,5} {4,5}: 4.
    # Pairs together in clusters: 3 + 3 = 6, in people: 1 + 6 = 7, of 15: expected 6 * 7 / 15 = 2.8, at most 6.5.
    scores = label_diagnostics(np.array([0, 0, 0, 1, 1, 1]), np.array([1, 1, 2, 2, 2, 2]))
    assert scores["ari_clustered"] == scores["ari_all"] == pytest.approx((4 - 2.8) / (6.5 - 2.8))


def test_a_mixed_cluster_costs_homogeneity_and_a_split_person_completeness():
    mixed = label_diagnostics(np.array([0, 0, 0, 0]), np.array([1, 1, 2, 2]))
    assert (mixed["homogeneity_all"], mixed["completeness_all"]) == pytest.approx((0.0, 1.0))
    # Two people, each split in two equal clusters: H(clusters) = log 4, H(clusters | people) = log 2.
    split = label_diagnostics(np.array([0, 1, 2, 3]), np.array([1, 1, 2, 2]))
    assert (split["homogeneity_all"], split["completeness_all"]) == pytest.approx((1.0, 1 / 2))
    # Their harmonic mean, 2 (1 * 1/2) / (1 + 1/2) = 2/3.
    assert split["nmi_all"] == pytest.approx(2 / 3)


def test_outliers_are_left_out_of_one_convention_and_stand_alone_in_the_other():
    labels, people = np.array([0, 0, 1, 1, -1, -1]), np.array([1, 1, 2, 2, 1, 2])
    scores = label_diagnostics(labels, people)
    assert scores["ari_clustered"] == 1.0
    # Alone: clusters 0 0 1 1 2 3. Pairs together in both 2, in clusters 2, in people 3 + 3 = 6, of 15: expected .8.
    assert scores["ari_all"] == pytest.approx((2 - 0.8) / (4 - 0.8))
    assert scores["homogeneity_all"] == pytest.approx(1.0)
    assert scores["completeness_all"] < scores["completeness_clustered"] == 1.0


def test_nothing_but_outliers_leaves_nothing_to_judge_among_clusters():
    scores = label_diagnostics(np.full(4, -1), np.array([1, 1, 2, 2]))
    assert set(scores) == {f"{name}_all" for name in SCORES}
    # No pair is together in clusters: the index is 0.
    assert scores["ari_all"] == 0.0


def test_diagnosing_leaves_the_labels_alone():
    labels = np.array([0, -1, 0])
    label_diagnostics(labels, np.array([1, 1, 1]))
    assert labels.tolist() == [0, -1, 0]


def test_no_score_depends_on_the_order_of_images_or_the_names_of_clusters():
    generator = np.random.default_rng(0)
    labels, people = generator.integers(-1, 5, 60), generator.integers(0, 4, 60)
    order, names = generator.permutation(60), np.append(generator.permutation(5), -1)
    assert label_diagnostics(names[labels][order], people[order]) == pytest.approx(label_diagnostics(labels, people))


def test_a_cluster_stands_for_the_person_on_most_of_its_images():
    labels = np.array([1, 1, 1, 0, 0, -1, -1, -1, 2])
    people = np.array([5, 9, 9, 4, 3, 1, 1, 1, 8])
    # Cluster 0 shows people 4 and 3 once each: the smaller id. Outliers have no say.
    assert majority_people(labels, people).tolist() == [3, 9, 8]


def test_no_cluster_stands_for_nobody():
    assert majority_people(np.array([-1, -1]), np.array([1, 2])).tolist() == []


def test_precision_counts_pairs_and_recall_counts_people():
    # Visible clusters stand for people 1 1 2 3, infrared ones for 1 1 3 4.
    labels = PerModality(np.arange(4), np.arange(4))
    people = PerModality(np.array([1, 1, 2, 3]), np.array([1, 1, 3, 4]))
    # Pairs 1-1, 1-3, 2-4, 3-1: one of four is right. People in both: 1 and 3, of whom 1 is found.
    scores = matching_diagnostics(matching_of((0, 0), (1, 2), (2, 3), (3, 1)), labels, people)
    assert scores == pytest.approx({"precision": 1 / 4, "recall": 1 / 2})
    # Two right pairs of person 1 find one person, not two.
    scores = matching_diagnostics(matching_of((0, 0), (1, 1)), labels, people)
    assert scores == pytest.approx({"precision": 1.0, "recall": 1 / 2})


def test_a_matching_may_come_as_a_pair_of_arrays():
    labels, people = PerModality(np.arange(2), np.arange(2)), PerModality(np.array([1, 2]), np.array([2, 1]))
    pairs = PerModality(np.array([0, 1]), np.array([1, 1]))
    # Visible 0 and infrared 1 both stand for person 1; visible 1 stands for person 2.
    assert matching_diagnostics(pairs, labels, people) == {"precision": 0.5, "recall": 0.5}


def test_without_pairs_nobody_is_found_and_precision_is_absent():
    labels = PerModality(np.array([0, 0]), np.array([0, -1]))
    people = PerModality(np.array([1, 1]), np.array([1, 2]))
    assert matching_diagnostics(matching_of(), labels, people) == {"recall": 0.0}


def test_without_common_people_recall_is_absent():
    labels = PerModality(np.array([0, 0]), np.array([0, 0]))
    people = PerModality(np.array([1, 1]), np.array([2, 2]))
    assert matching_diagnostics(matching_of((0, 0)), labels, people) == {"precision": 0.0}


def test_exchanging_the_modalities_changes_nothing():
    generator = np.random.default_rng(1)
    labels = PerModality(np.arange(40) % 6, np.arange(50) % 5)
    people = PerModality(generator.integers(0, 4, 40), generator.integers(0, 4, 50))
    pairs = [(0, 4), (2, 1), (5, 0), (3, 3)]
    there = matching_diagnostics(matching_of(*pairs), labels, people)
    back = matching_diagnostics(
        matching_of(*[(infrared, visible) for visible, infrared in pairs]),
        PerModality(labels.infrared, labels.visible),
        PerModality(people.infrared, people.visible),
    )
    assert there == back
    assert not any(map(math.isnan, there.values()))
