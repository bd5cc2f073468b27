"""The gallery rows most similar to a query: exact search, or an inverted file index."""

import logging
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float32, Int64, UInt8

logger = logging.getLogger(__name__)

RECALL_GOAL = 0.96  # share of the ten most similar rows that the lists must find
JUDGED = 10
SAMPLE = 400  # rows: half to tune nprobe on, half to measure the recall on
FEW = 20  # queries; below, faiss compares row by row on one thread, and a matrix product is more than twice as fast
SEED = 1
POINTS_PER_LIST = 64
TRAINING_STEPS = 6
BLOCK = 256
SPARE = 32  # rows beyond k that are compared exactly, because the lists hold float16


@dataclass(frozen=True, slots=True, eq=False)
class Hits:
    """Gallery rows, most similar first, and their inner products."""

    rows: Int64[np.ndarray, "q k"]
    similarities: Float32[np.ndarray, "q k"]


def most_similar(queries: Float32[np.ndarray, "q d"], gallery: Float32[np.ndarray, "n d"], k: int) -> Hits:
    """Compare every query with every gallery row (unit rows; the gallery may be mapped from a file).

    Cost: q n d multiplications, and one read of the gallery for every 4,096 queries. Holds only the result; for fewer
    than 20 queries, 4 bytes for each query and gallery row.
    """
    import faiss  # here, because it brings an OpenMP of its own

    k = min(k, len(gallery))
    if len(queries) < FEW:
        return _best(queries @ gallery.T, k)
    similarities, rows = faiss.knn(
        np.ascontiguousarray(queries), np.ascontiguousarray(gallery), k, metric=faiss.METRIC_INNER_PRODUCT
    )
    return Hits(rows, similarities)


def most_similar_of(
    queries: Float32[np.ndarray, "q d"], gallery: Float32[np.ndarray, "n d"], rows: Int64[np.ndarray, " m"], k: int
) -> Hits:
    """As `most_similar`, of the given rows only, which ascend; fewer than k where there are not as many.

    Cost: that of all rows, because a product with every one is faster than a copy of some; 4 bytes for each query and
    gallery row.
    """
    found = _best((queries @ gallery.T)[:, rows], min(k, len(rows)))
    return Hits(rows[found.rows], found.similarities)


def _best(products: Float32[np.ndarray, "q n"], k: int) -> Hits:
    """The columns of the k largest products of each row, largest first, ties by smaller column."""
    columns = products.shape[1]
    best = np.argpartition(products, columns - k, axis=1)[:, columns - k :] if k else np.empty((len(products), 0), int)
    best.sort(axis=1)
    order = np.argsort(-np.take_along_axis(products, best, axis=1), axis=1, kind="stable")
    rows = np.take_along_axis(best, order, axis=1)
    return Hits(rows, np.take_along_axis(products, rows, axis=1))


class GalleryLists:
    """A gallery in inverted lists (k-means), of which a search visits the nearest.

    `effort` is the number of lists that a search visits (nprobe); `recall` the share of the ten most similar rows that
    it finds, over rows on which nprobe was not tuned.
    """

    def __init__(self, index: Any, effort: int, recall: float) -> None:
        self._index = index
        self.effort = effort
        self.recall = recall

    @classmethod
    def build(cls, gallery: Float32[np.ndarray, "n d"], *, sample: int = SAMPLE) -> "GalleryLists":
        """Sort a gallery into lists, and raise nprobe until 0.96 of the ten most similar rows are found.

        The recall is that of gallery rows as queries (`sample`: half for tuning, half for measuring). Queries of
        another modality are further away and may have a lower one.

        Cost: n sqrt(n) d multiplications; half of the gallery's size in memory.

        Source: Sivic and Zisserman, ICCV 2003, as in faiss.
        """
        import faiss

        count, dim = gallery.shape
        lists = max(1, 2 * int(count**0.5))
        centres = faiss.IndexFlatIP(dim)
        kind = faiss.ScalarQuantizer.QT_fp16
        index = faiss.IndexIVFScalarQuantizer(centres, dim, lists, kind, faiss.METRIC_INNER_PRODUCT)
        index.cp.seed, index.cp.niter = SEED, TRAINING_STEPS
        index.cp.min_points_per_centroid, index.cp.max_points_per_centroid = 1, POINTS_PER_LIST
        drawn = np.random.default_rng(SEED).permutation(count)
        shown = np.ascontiguousarray(gallery[np.sort(drawn[: lists * POINTS_PER_LIST])])
        index.train(shown)
        index.add(np.ascontiguousarray(gallery))
        half = min(sample, count) // 2
        tuning, judging = np.sort(drawn[:half]), np.sort(drawn[half : 2 * half])
        found = cls(index, 1, 0.0)
        expected = most_similar(gallery[tuning], gallery, JUDGED + 1).rows
        while found._recall(gallery, tuning, expected) < RECALL_GOAL and found.effort < lists:
            found.effort = min(lists, 1 + found.effort * 3 // 2)
        found.recall = found._recall(gallery, judging, most_similar(gallery[judging], gallery, JUDGED + 1).rows)
        logger.info(
            "%s rows in %s lists, of which a search visits %d: recall %.3f on %d rows",
            f"{count:,}", f"{lists:,}", found.effort, found.recall, len(judging),
        )  # fmt: skip
        return found

    def search(self, queries: Float32[np.ndarray, "q d"], gallery: Float32[np.ndarray, "n d"], k: int) -> Hits:
        """Nearly the rows that `most_similar` finds in the same gallery, re-ranked exactly.

        A query whose lists hold fewer than k rows is compared with every row.
        """
        k = min(k, len(gallery))
        self._index.nprobe = self.effort
        # In blocks: the rows that are compared exactly are copied, 340 KB a query at 2,048 numbers and k = 10.
        blocks = [self._search(queries[start : start + BLOCK], gallery, k) for start in range(0, len(queries), BLOCK)]
        return Hits(
            np.concatenate([np.empty((0, k), np.int64), *(hits.rows for hits in blocks)]),
            np.concatenate([np.empty((0, k), np.float32), *(hits.similarities for hits in blocks)]),
        )

    def _search(self, queries: Float32[np.ndarray, "q d"], gallery: Float32[np.ndarray, "n d"], k: int) -> Hits:
        _, candidates = self._index.search(np.ascontiguousarray(queries), min(k + SPARE, len(gallery)))
        short = np.flatnonzero((candidates >= 0).sum(axis=1) < k)
        near = np.maximum(candidates, 0)
        similarities = np.einsum("qd,qcd->qc", queries, gallery[near], dtype=np.float32)
        similarities[candidates < 0] = -np.inf
        order = np.argsort(-similarities, axis=1, kind="stable")[:, :k]
        hits = Hits(np.take_along_axis(near, order, axis=1), np.take_along_axis(similarities, order, axis=1))
        if len(short):
            exact = most_similar(queries[short], gallery, k)
            hits.rows[short], hits.similarities[short] = exact.rows, exact.similarities
        return hits

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and dimensions of the gallery."""
        return int(self._index.ntotal), int(self._index.d)

    def to_bytes(self) -> UInt8[np.ndarray, " b"]:
        """The lists as faiss serialises them, without `effort` and `recall`."""
        import faiss

        content: UInt8[np.ndarray, " b"] = faiss.serialize_index(self._index)
        return content

    @classmethod
    def from_bytes(cls, content: UInt8[np.ndarray, " b"], effort: int, recall: float) -> "GalleryLists":
        """Load what `to_bytes` returned.

        Raises:
            ValueError: The content is no faiss index.
        """
        import faiss

        try:
            return cls(faiss.deserialize_index(content), effort, recall)
        except RuntimeError as error:
            raise ValueError(f"not a faiss index: {str(error).splitlines()[0]}") from error

    def _recall(
        self, gallery: Float32[np.ndarray, "n d"], rows: Int64[np.ndarray, " s"], expected: Int64[np.ndarray, "s e"]
    ) -> float:
        """Share of the expected rows that are found, without each query's own row (always the first)."""
        wanted = expected[:, 1:, None]
        found = self.search(gallery[rows], gallery, expected.shape[1]).rows
        return float((wanted == found[:, None, :]).any(axis=2).mean()) if wanted.size else 1.0
