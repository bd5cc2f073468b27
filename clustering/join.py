"""The min-sum join on all cores: pairs of weight rows that overlap enough, unless they are too many."""

from collections.abc import Sequence
from functools import partial

import numpy as np
from jaxtyping import Int32, Int64

from clustering import pair_limit
from clustering.join_kernels import count_pairs, list_pairs, transpose
from clustering.parallel import over_blocks


class RowJoin:
    """Rows of integer weights, ready to be joined with each other.

    Args:
        starts: Where each image's row starts in `columns` and `weights`; the last value is their length.
        columns: Image indices of the members.
        weights: Their weights; a row's sum fits 32 bits.

    Cost: 8 bytes a weight, beside the weights themselves.
    """

    def __init__(
        self, starts: Int64[np.ndarray, "n_plus_one"], columns: Int32[np.ndarray, "z"], weights: Int32[np.ndarray, "z"]
    ) -> None:
        self._num_images = len(starts) - 1
        column_starts = np.zeros(len(starts), np.int64)
        rows, row_weights = np.empty_like(columns), np.empty_like(weights)
        transpose(starts, columns, weights, column_starts, rows, row_weights)
        self._arrays = starts, columns, column_starts, rows, row_weights

    def pairs(self, least: int) -> Int32[np.ndarray, "e 3"] | None:
        """List (i, j, overlap) for i < j in ascending order of i, or give up where these are too many.

        Args:
            least: The smallest overlap that counts, 1 or more.

        Returns:
            Exact pairs, whatever the number of threads; nothing where they are more than `pair_limit.MOST_PAIRS`.
        """
        lengths: list[int] = []

        def list_block(start: int, stop: int) -> Int32[np.ndarray, "e 3"]:
            if not pair_limit.within_limit(sum(lengths)):
                return np.empty((0, 3), np.int32)
            pairs = list_pairs(*self._arrays, least, pair_limit.MOST_PAIRS, start, stop)
            lengths.append(len(pairs))
            return pairs

        blocks = over_blocks(list_block, self._num_images)
        if not pair_limit.within_limit(sum(lengths)):
            return None
        return np.concatenate([np.empty((0, 3), np.int32), *blocks])

    def count(self, least: Sequence[int]) -> tuple[int, ...]:
        """Count the pairs that overlap by at least each of these, in the time of one join and without holding them."""
        thresholds = np.array(least, np.int64)
        blocks = over_blocks(partial(count_pairs, *self._arrays, thresholds), self._num_images)
        return tuple(int(sum(block[place] for block in blocks)) for place in range(len(least)))
