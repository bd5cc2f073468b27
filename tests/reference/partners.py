"""Partners of clusters from their definitions: float64, one pair after the other."""

import itertools
import math

import numpy as np


def progressive(similarity):
    """PGM, CVPR 2023: rounds of the best assignment, by trying all; at least as many rows as columns."""
    left, pairs = list(range(len(similarity))), set()
    columns = range(similarity.shape[1])
    while left and similarity.shape[1]:
        if len(left) >= len(columns):
            tried = [list(zip(rows, columns, strict=True)) for rows in itertools.permutations(left, len(columns))]
        else:
            tried = [list(zip(left, some, strict=True)) for some in itertools.permutations(columns, len(left))]
        best = max(tried, key=lambda found: sum(similarity[pair] for pair in found))
        pairs |= set(best)
        left = [row for row in left if row not in {row for row, _ in best}]
    return pairs


def transport(cost, rows, columns, regularisation, sweeps=20_000):
    """Sinkhorn's plan for given marginals, by scaling the kernel; the regularisation is not small."""
    kernel = np.exp(-cost / regularisation)
    right = np.ones(len(columns))
    for _ in range(sweeps):
        left = rows / (kernel @ right)
        right = columns / (kernel.T @ left)
    return left[:, None] * kernel * right


def confidence(similarity, pair, pairs, temperature):
    """sqrt(tanh(max(m, 0) / 2t) of the row x of the column); `pairs` are all pairs, which are no rivals."""
    row, column = pair
    others = [
        [similarity[row, other] for other in range(similarity.shape[1]) if (row, other) not in pairs],
        [similarity[other, column] for other in range(similarity.shape[0]) if (other, column) not in pairs],
    ]
    margins = [similarity[pair] - max(values) if values else math.inf for values in others]
    first, second = (math.tanh(max(margin, 0.0) / (2.0 * temperature)) for margin in margins)
    return math.sqrt(first * second)
