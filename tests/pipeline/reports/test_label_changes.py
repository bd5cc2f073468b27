"""Splits, merges and other pairs between two rounds, on labels written out by hand."""

import numpy as np

from clustering.dbscan import Clustering
from clustering.quality import ScoredPairs
from models.modality import PerModality
from pipeline.reports.label_changes import Regrouping, Repairing, find_changes
from pipeline.storage.label_files import RoundLabels


def labels_of(visible: list[int], infrared: list[int], pairs: dict[int, int] | None) -> RoundLabels:
    numbers = np.zeros(len(pairs or {}), np.float32)
    return RoundLabels(
        PerModality(np.array(visible), np.array(infrared)).map(lambda some: Clustering(some, some >= 0)),
        pairs=None
        if pairs is None
        else ScoredPairs(
            np.array(list(pairs), np.int64), np.array(list(pairs.values()), np.int64), numbers, numbers, numbers
        ),
    )


def test_a_split_and_a_merge_are_found_and_a_stray_image_is_neither():
    before = labels_of([0, 0, 0, 0, 1, 1, 2, 2, -1, 3], [0, 0, 1], None)
    # Cluster 0 falls into 0 and 1; clusters 1 and 2 become 2; one image of 3 joins a cluster of strangers.
    now = labels_of([0, 0, 1, 1, 2, 2, 2, 2, 1, -1], [0, 0, 1], None)
    changes = find_changes(before, now)
    assert changes.splits.visible == (Regrouping(0, (0, 1)),)
    assert changes.merges.visible == (Regrouping(2, (1, 2)),)
    assert changes.splits.infrared == changes.merges.infrared == ()
    assert (changes.joined.visible, changes.left.visible) == (1, 1)


def test_half_of_a_cluster_does_not_continue_it():
    changes = find_changes(labels_of([0, 0, 1, 1], [0], None), labels_of([0, 1, 0, 1], [0], None))
    assert changes.splits.visible == changes.merges.visible == ()


def test_a_pair_is_the_same_under_other_numbers_and_another_one_otherwise():
    visible, infrared = [0, 0, 1, 1, 2, 2], [0, 0, 1, 1]
    before = labels_of(visible, infrared, {0: 0, 1: 1})
    renamed = labels_of([2, 2, 1, 1, 0, 0], [1, 1, 0, 0], {2: 1, 1: 0})
    assert find_changes(before, renamed).repaired == ()
    swapped = labels_of(visible, infrared, {0: 1, 2: 0})
    assert find_changes(before, swapped).repaired == (Repairing(0, 0, 1), Repairing(1, 1, None), Repairing(2, None, 0))


def test_labels_of_an_earlier_version_have_no_pairs_to_compare():
    before = labels_of([0, 0], [0], None)
    assert find_changes(before, labels_of([0, 0], [0], {0: 0})).repaired == ()
