"""Pseudo-labels from features: arrays in, arrays out.

The chain is `neighbours` (nearest neighbours), `jaccard` (k-reciprocal Jaccard distance as a sparse graph), `dbscan` or
`communities` (clusters and outliers), `prototypes` (one unit vector a cluster) and `matching` (visible clusters to
infrared ones); `labelling.label_images` runs the first three. Nothing of size n x n is ever held.

The modules with `torch` in their names do on a GPU what compiled loops do on the CPU, up to the list of near pairs, and
find the same to the last bit: floats are added in one fixed order, weights are integers, and what is summed after that
is exact. So labels depend neither on the device, nor on the number of threads, nor on how the work is cut up. Torch is
imported when one of these functions is called, and not before.

Whoever calls decides what a modality, a file or a round is; none of them exists here.
"""
