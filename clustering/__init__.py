"""Pseudo-labels from features: arrays in, arrays out.

The chain is `neighbours` (exact nearest neighbours), `jaccard` (k-reciprocal Jaccard distance as a sparse graph),
`dbscan` (clusters and outliers), `prototypes` (one unit vector a cluster) and `matching` (visible clusters to infrared
ones); `labelling.label_images` runs the first three. Nothing of size n x n is ever held. From the quantised weights on,
all arithmetic is on integers: the labels depend neither on the number of threads nor on how the work is cut up.
Whoever calls decides what a modality, a file or a round is; none of them exists here.
"""
