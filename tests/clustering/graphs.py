"""Radius graphs in one call, and their distances."""

from clustering.jaccard import neighbourhood_weights, overlap_distances, radius_graph


def jaccard_graph(features, neighbours, *, k1, k2, eps, k1_counts_self=True):
    weights = neighbourhood_weights(features, neighbours, k1=k1, k2=k2, k1_counts_self=k1_counts_self)
    return radius_graph(weights, eps)


def jaccard_distances(graph):
    return overlap_distances(graph.overlap, graph.scale)
