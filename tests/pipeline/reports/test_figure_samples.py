"""A figure shows a bounded part of a round, and the part that it says."""

import numpy as np
import pytest

from clustering.matching import Matching
from models.modality import PerModality
from pipeline.reports.cluster_figures import UNPAIRED, principal_plane, sample_map, sample_pairs, spread


def matching_of(*similarity: float) -> Matching:
    numbers = np.arange(len(similarity), dtype=np.int64)
    return Matching(numbers, numbers[::-1].copy(), np.array(similarity, dtype=np.float32))


def unit(rows: np.ndarray) -> np.ndarray:
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def test_pairs_are_shown_from_the_most_to_the_least_similar() -> None:
    # In descending order: 0.9, 0.7, 0.5, 0.3, 0.1 at positions 3, 1, 4, 0, 2; of three, the first, middle and last.
    pairs = matching_of(0.3, 0.7, 0.1, 0.9, 0.5)
    assert sample_pairs(pairs, 3).tolist() == [3, 4, 2]
    assert sample_pairs(pairs, 9).tolist() == [3, 1, 4, 0, 2]
    assert sample_pairs(matching_of(), 3).tolist() == []


@pytest.mark.parametrize("total", [0, 1, 2, 47, 48, 49, 1000])
def test_what_is_spread_is_bounded_ascending_and_has_no_double(total: int) -> None:
    numbers = spread(total, 48)
    assert len(numbers) == min(total, 48)
    assert np.all(np.diff(numbers) > 0)
    assert total == 0 or (numbers[0] == 0 and numbers[-1] == total - 1)


def test_a_map_shows_the_pairs_in_both_modalities_and_others_around_them() -> None:
    visible = np.repeat(np.arange(4), 30)  # four clusters of 30 images
    infrared = np.append(np.repeat(np.arange(4), 5), [-1, -1])  # of 5, and two outliers
    matching = matching_of(0.1, 0.2, 0.3, 0.4)  # cluster i with cluster 3 - i
    labels = PerModality(visible, infrared)
    sample = sample_map(labels, matching, np.random.default_rng(1), pairs=2, images=20, others=7)
    # 7 others, then 20 images of each of two clusters; 7 others, then the 5 that each cluster has.
    assert [len(some.rows) for some in sample] == [47, 17]
    for modality, some in sample.items():
        assert len(set(some.rows.tolist())) == len(some.rows)
        assert np.count_nonzero(some.pairs == UNPAIRED) == 7
        clusters = [set(labels[modality][some.rows[some.pairs == pair]].tolist()) for pair in (0, 1)]
        assert all(len(one) == 1 for one in clusters)
    first = [labels[modality][some.rows[some.pairs == 0]][0] for modality, some in sample.items()]
    assert first[0] + first[1] == 3


def test_equal_generators_draw_equal_samples_and_nothing_is_needed() -> None:
    labels = PerModality(np.array([-1, -1, -1]), np.array([], dtype=np.int64))
    first, second = (sample_map(labels, matching_of(), np.random.default_rng(3)) for _ in range(2))
    assert first.visible.rows.tolist() == second.visible.rows.tolist()
    assert sorted(first.visible.rows.tolist()) == [0, 1, 2]
    assert first.infrared.rows.tolist() == []


def test_points_of_a_plane_keep_their_distances_and_their_variance() -> None:
    # A rectangle of sides 4 and 2 in the plane of the second and fourth axis.
    corners = np.zeros((4, 5), dtype=np.float32)
    corners[:, 1], corners[:, 3] = [2, 2, -2, -2], [1, -1, 1, -1]
    places, share = principal_plane(corners)
    assert share == pytest.approx(1)
    for one in range(4):
        for other in range(4):
            expected = np.linalg.norm(corners[one] - corners[other])
            assert np.linalg.norm(places[one] - places[other]) == pytest.approx(expected, abs=1e-6)
    # The longer side comes first: 4 x 2^2 of 4 x (2^2 + 1^2).
    assert (places[:, 0] ** 2).sum() == pytest.approx(16)


def test_the_largest_share_of_variance_is_shown() -> None:
    # Along three axes, at distance 3, 2 and 1 on both sides: (9 + 4) of (9 + 4 + 1).
    points = np.concatenate([np.diag([3.0, 2.0, 1.0]), -np.diag([3.0, 2.0, 1.0])]).astype(np.float32)
    assert principal_plane(points)[1] == pytest.approx(13 / 14)


def test_equal_points_and_one_point_have_a_map() -> None:
    for count in (3, 1):
        places, share = principal_plane(np.ones((count, 4), dtype=np.float32))
        assert np.all(places == 0) and share == 0
