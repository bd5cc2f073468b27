"""What holds for every function of the package."""

import numpy as np
import pytest
import torch

from clustering.communities import components, louvain
from clustering.dbscan import dbscan, eps_curve
from clustering.joined_torch import join_on_device
from clustering.joint import label_jointly, split_by_modality
from clustering.labelling import join_on_cpu, label_images
from clustering.local_scaling import locally_scaled
from clustering.matching import assign_sparsely, match_clusters
from clustering.neighbour_votes import soft_labels
from clustering.neighbours import nearest_neighbours
from clustering.parallel import over_blocks
from clustering.prototypes import cluster_prototypes
from clustering.relabelling import assign_outliers, relabel_by_density
from clustering.sub_prototypes import sub_prototypes
from clustering.whitening import whitened_similarity
from tests.clustering.graphs import jaccard_distances, jaccard_graph
from tests.reference.feature_sets import copied_features, identity_features

FEATURES = identity_features(200, 5, 32)
NEIGHBOURS = nearest_neighbours(FEATURES, 10)
GRAPH = jaccard_graph(FEATURES, NEIGHBOURS, k1=10, k2=6, eps=0.7)
CLUSTERING = dbscan(GRAPH, 0.6, 4)
LABELS = CLUSTERING.labels
JOIN = {
    "k1": 10, "k2": 6, "eps": 0.6, "wider": (0.7,), "k1_counts_self": True, "neighbour_method": "exact",
}  # fmt: skip
CALLS = {
    "nearest_neighbours": lambda: nearest_neighbours(FEATURES, 10),
    "jaccard_graph": lambda: jaccard_graph(FEATURES, NEIGHBOURS, k1=10, k2=6, eps=0.7),
    "jaccard_distances": lambda: jaccard_distances(GRAPH),
    "dbscan": lambda: dbscan(GRAPH, 0.6, 4),
    "eps_curve": lambda: eps_curve(GRAPH, 4, (0.5, 0.6)),
    "components": lambda: components(GRAPH, 0.6, 4),
    "louvain": lambda: louvain(GRAPH, 0.6, 4),
    "join_on_cpu": lambda: join_on_cpu(FEATURES, **JOIN),
    "join_on_device": lambda: join_on_device(FEATURES, device=torch.device("cpu"), **JOIN),
    "label_images": lambda: label_images(FEATURES),
    "label_jointly": lambda: label_jointly(FEATURES[:120], FEATURES[120:]),
    "split_by_modality": lambda: split_by_modality(CLUSTERING, FEATURES[:120], FEATURES[120:]),
    "relabel_by_density": lambda: relabel_by_density(FEATURES, CLUSTERING),
    "assign_outliers": lambda: assign_outliers(FEATURES, CLUSTERING),
    "soft_labels": lambda: soft_labels(label_images(FEATURES, k1=8).ranks, LABELS, LABELS),
    "locally_scaled": lambda: locally_scaled(FEATURES[:20] @ FEATURES[20:50].T),
    "whitened_similarity": lambda: whitened_similarity(FEATURES[:20], FEATURES[20:50]),
    "sub_prototypes": lambda: sub_prototypes(FEATURES, LABELS),
    "cluster_prototypes": lambda: cluster_prototypes(FEATURES, LABELS),
    "match_clusters": lambda: match_clusters(FEATURES[:20], FEATURES[20:50]),
    "assign_sparsely": lambda: assign_sparsely(FEATURES[:20], FEATURES[20:50], candidates=4),
}


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS.keys())
def test_inputs_may_be_read_only_and_stay_as_they_are(call):
    arrays = [FEATURES, NEIGHBOURS.ranks, GRAPH.source, GRAPH.target, GRAPH.overlap, LABELS, CLUSTERING.core]
    before = [array.copy() for array in arrays]
    for array in arrays:
        array.setflags(write=False)  # a write would raise
    call()
    for array, copy in zip(arrays, before, strict=True):
        assert np.array_equal(array, copy)


@pytest.mark.parametrize(
    "features", [FEATURES[::2], np.asfortranarray(FEATURES), np.ascontiguousarray(FEATURES[:, ::2])[:, :16]]
)
def test_the_memory_layout_of_features_does_not_matter(features):
    # Half of the columns are not of unit length any more: scaled again, in the layout at hand.
    rows = features / np.linalg.norm(features, axis=1, keepdims=True)
    expected = label_images(np.ascontiguousarray(rows))
    assert np.array_equal(label_images(rows).clustering.labels, expected.clustering.labels)


@pytest.mark.parametrize("call", [nearest_neighbours, lambda rows, k: label_images(rows, k1=k, k2=1)])
def test_ties_longer_than_the_candidates_leave_read_only_features_as_they_are(call):
    rows = copied_features(2, 40, 8)
    rows.setflags(write=False)
    call(rows, 5)


@pytest.mark.parametrize("threads", [1, 2, 7])
@pytest.mark.parametrize("num_rows", [0, 1, 15, 16, 17, 1_000])
def test_blocks_cover_every_row_once_in_order(threads, num_rows, monkeypatch):
    monkeypatch.setattr("clustering.parallel.num_threads", lambda: threads)
    blocks = over_blocks(lambda start, stop: (start, stop), num_rows)
    assert [row for start, stop in blocks for row in range(start, stop)] == list(range(num_rows))
    assert all(start < stop for start, stop in blocks)
