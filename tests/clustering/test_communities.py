"""Clusters by connection and by modularity."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from clustering.communities import components, louvain
from clustering.dbscan import OUTLIER, dbscan
from clustering.jaccard import RadiusGraph, smallest_overlap

ONE = 1 << 30
TRIANGLES = [(0, 2, 0.2), (0, 4, 0.2), (2, 4, 0.2), (1, 3, 0.2), (1, 5, 0.2), (3, 5, 0.2)]  # even and odd images


def graph_of_pairs(num_images, pairs, eps=0.7):
    """A graph of (image, image, distance)."""
    source, target, distance = zip(*pairs, strict=True) if pairs else ((), (), ())
    overlap = np.array([smallest_overlap(value, ONE) for value in distance], dtype=np.int64)
    return RadiusGraph(num_images, np.array(source, np.int32), np.array(target, np.int32), overlap, ONE, eps)


def random_graph(seed, images=40, pairs=60):
    generator = np.random.default_rng(seed)
    ends = np.unique(np.sort(generator.integers(images, size=(pairs, 2)), axis=1), axis=0)
    ends = ends[ends[:, 0] < ends[:, 1]]
    return graph_of_pairs(
        images, [(*end, d) for end, d in zip(ends.tolist(), generator.random(len(ends)) * 0.7, strict=True)]
    )


def by_flooding(graph, eps, min_samples):
    near = {image: set() for image in range(graph.num_images)}
    least = smallest_overlap(eps, ONE)
    for one, two, overlap in zip(graph.source.tolist(), graph.target.tolist(), graph.overlap.tolist(), strict=True):
        if overlap >= least:
            near[one].add(two)
            near[two].add(one)
    labels, clusters = [None] * graph.num_images, 0
    for image in range(graph.num_images):
        if labels[image] is None:
            reached, border = {image}, {image}
            while border:
                border = set().union(*(near[one] for one in border)) - reached
                reached |= border
            for one in reached:
                labels[one] = clusters if len(reached) >= min_samples else OUTLIER
            clusters += len(reached) >= min_samples
    return labels


@given(seed=st.integers(0, 10_000), eps=st.floats(0.05, 0.7), min_samples=st.integers(1, 5))
def test_components_are_those_of_flooding(seed, eps, min_samples):
    graph = random_graph(seed)
    assert components(graph, eps, min_samples).labels.tolist() == by_flooding(graph, eps, min_samples)


@given(seed=st.integers(0, 10_000), eps=st.floats(0.05, 0.7))
def test_components_are_dbscan_where_two_images_are_enough(seed, eps):
    # With min_samples 2, whoever has a neighbour is core: density says nothing any more.
    graph = random_graph(seed)
    assert components(graph, eps, 2).labels.tolist() == dbscan(graph, eps, 2).labels.tolist()


@pytest.mark.parametrize("method", [components, louvain])
def test_clusters_are_numbered_by_their_smallest_image_and_small_ones_are_outliers(method):
    # Image 6 is alone, 7 and 8 are two; cluster 0 begins with image 0, cluster 1 with image 1.
    graph = graph_of_pairs(9, [*TRIANGLES, (7, 8, 0.1)])
    found = method(graph, 0.5, 3)
    assert found.labels.tolist() == [0, 1, 0, 1, 0, 1, OUTLIER, OUTLIER, OUTLIER]
    assert found.core.tolist() == [True] * 6 + [False] * 3
    assert method(graph, 0.5, 2).labels.tolist() == [0, 1, 0, 1, 0, 1, OUTLIER, 2, 2]
    assert method(graph, 0.5, 1).labels.tolist() == [0, 1, 0, 1, 0, 1, 2, 3, 3]


def test_a_single_pair_joins_components_and_louvain_cuts_it():
    # Two triangles of weight 0.8 a pair and a bridge of 0.4: m = 5.2. Apart, modularity is
    # 2 (2.4 / 5.2 - (5.2 / 10.4)^2) = 0.423; together it is 0.
    graph = graph_of_pairs(6, [*TRIANGLES, (4, 5, 0.6)])
    assert components(graph, 0.7, 3).labels.tolist() == [0] * 6
    assert louvain(graph, 0.7, 3).labels.tolist() == [0, 1, 0, 1, 0, 1]


def test_louvain_weighs_pairs_by_nearness():
    # A path of four: 0-1 and 2-3 at distance 0.1, 1-2 at 0.6. The far pair in the middle is cut.
    found = louvain(graph_of_pairs(4, [(0, 1, 0.1), (1, 2, 0.6), (2, 3, 0.1)]), 0.7, 2)
    assert found.labels.tolist() == [0, 0, 1, 1]


@pytest.mark.parametrize("seed", range(5))
def test_the_order_of_pairs_does_not_change_the_communities(seed):
    graph = random_graph(seed, pairs=120)
    order = np.random.default_rng(seed).permutation(len(graph.source))
    mixed = RadiusGraph(40, graph.source[order], graph.target[order], graph.overlap[order], ONE, graph.eps)
    assert louvain(mixed, 0.7, 2).labels.tolist() == louvain(graph, 0.7, 2).labels.tolist()


@pytest.mark.parametrize("method", [components, louvain])
def test_an_image_at_distance_exactly_eps_is_a_neighbour(method):
    graph = graph_of_pairs(2, [(0, 1, 0.5)])
    assert method(graph, 0.5, 2).labels.tolist() == [0, 0]
    assert method(graph, 0.4999, 2).labels.tolist() == [OUTLIER, OUTLIER]


@pytest.mark.parametrize("method", [components, louvain])
def test_without_pairs_there_is_no_cluster(method):
    assert method(graph_of_pairs(0, []), 0.5, 4).num_clusters == 0
    assert method(graph_of_pairs(3, []), 0.5, 2).labels.tolist() == [OUTLIER] * 3


@pytest.mark.parametrize("method", [components, louvain])
@pytest.mark.parametrize(("eps", "least", "message"), [(0.8, 4, "eps cannot be 0.8"), (0.5, 0, "at least 1, not 0")])
def test_what_the_graph_does_not_hold_is_refused(method, eps, least, message):
    with pytest.raises(ValueError, match=message):
        method(graph_of_pairs(2, []), eps, least)
