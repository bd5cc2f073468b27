"""Pseudo-labels from features: arrays in, arrays out; no settings, no files, no torch at import.

`neighbours` (nearest neighbours) -> `jaccard` (k-reciprocal Jaccard distance as a sparse graph) -> `dbscan` or
`communities` (clusters and outliers) -> `prototypes` (one unit vector a cluster) -> `matching` (visible clusters to
infrared ones). `labelling.label_images` runs the first three. Nothing of size n x n is held.

Beyond CCLNet: `joint` (one clustering of both modalities), `partners` and `transport` (clusters with the same partner),
`whitening`, `local_scaling` and `sub_prototypes` (other similarities of clusters), `relabelling` (images move, outliers
join) and `neighbour_votes` (soft targets).

Modules named `torch` compute on a GPU what compiled loops compute on the CPU, equal to the last bit up to the list of
near pairs: floats are added in one fixed order and weights are integers. So labels depend neither on the device, nor on
the number of threads, nor on the block size.
"""
