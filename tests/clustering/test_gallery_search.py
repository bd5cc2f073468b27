"""The most similar rows of a gallery: all compared against a plain scan, lists against that."""

import numpy as np
import pytest

from clustering.gallery_search import GalleryLists, most_similar, most_similar_of


def people(count: int, images: int, dim: int = 64, noise: float = 0.6, seed: int = 0) -> np.ndarray:
    """Unit rows, `images` of each of `count` people, in random order."""
    generator = np.random.default_rng(seed)
    centres = generator.standard_normal((count, dim))
    rows = centres.repeat(images, axis=0) + noise * generator.standard_normal((count * images, dim))
    rows = generator.permutation(rows)
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def scan(queries: np.ndarray, gallery: np.ndarray, k: int) -> np.ndarray:
    return np.argsort(-(queries.astype(np.float64) @ gallery.T.astype(np.float64)), axis=1, kind="stable")[:, :k]


@pytest.mark.parametrize("k", [1, 7, 300, 5_000])
def test_every_row_is_compared(k: int) -> None:
    gallery, queries = people(100, 3), people(10, 2, seed=1)
    hits = most_similar(queries, gallery, k)
    np.testing.assert_array_equal(hits.rows, scan(queries, gallery, k))
    expected = np.take_along_axis(queries @ gallery.T, hits.rows, axis=1)
    np.testing.assert_allclose(hits.similarities, expected, atol=1e-6)


def test_lists_find_nearly_all_and_compare_exactly() -> None:
    gallery, queries = people(500, 12), people(40, 2, seed=1)
    lists = GalleryLists.build(gallery)
    assert lists.recall >= 0.93
    hits = lists.search(queries, gallery, 10)
    expected = np.take_along_axis(queries @ gallery.T, hits.rows, axis=1)
    np.testing.assert_allclose(hits.similarities, expected, atol=1e-6)
    assert (np.diff(hits.similarities, axis=1) <= 0).all()
    own = gallery[:200]
    found = lists.search(own, gallery, 10).rows
    share = np.mean([len(set(one) & set(other)) / 10 for one, other in zip(found, scan(own, gallery, 10), strict=True)])
    assert share >= 0.93


def test_a_query_whose_lists_hold_too_few_is_compared_with_every_row() -> None:
    gallery, queries = people(60, 2), people(4, 1, seed=1)
    lists = GalleryLists.build(gallery)
    lists.effort = 1
    np.testing.assert_array_equal(lists.search(queries, gallery, 120).rows, scan(queries, gallery, 120))


def test_lists_are_the_same_after_they_were_written() -> None:
    gallery, queries = people(200, 5), people(10, 2, seed=1)
    lists = GalleryLists.build(gallery)
    again = GalleryLists.from_bytes(lists.to_bytes(), lists.effort, lists.recall)
    hits, others = lists.search(queries, gallery, 5), again.search(queries, gallery, 5)
    np.testing.assert_array_equal(hits.rows, others.rows)
    np.testing.assert_array_equal(hits.similarities, others.similarities)


def test_the_same_gallery_gives_the_same_lists() -> None:
    gallery = people(200, 5)
    first, second = GalleryLists.build(gallery), GalleryLists.build(gallery)
    assert (first.effort, first.recall) == (second.effort, second.recall)
    np.testing.assert_array_equal(first.to_bytes(), second.to_bytes())


@pytest.mark.parametrize("content", [b"", b"nothing of faiss", b"IwSq"])
def test_other_bytes_are_refused(content: bytes) -> None:
    with pytest.raises(ValueError, match="not a faiss index"):
        GalleryLists.from_bytes(np.frombuffer(content, dtype=np.uint8), 1, 1.0)


def test_many_queries_find_what_each_finds_alone() -> None:
    gallery = people(100, 5)
    lists = GalleryLists.build(gallery)
    together = lists.search(gallery, gallery, 5)
    alone = [lists.search(gallery[row : row + 1], gallery, 5).rows[0] for row in (0, 255, 256, 499)]
    np.testing.assert_array_equal(together.rows[[0, 255, 256, 499]], alone)
    assert together.rows.shape == (500, 5)
    assert lists.search(gallery[:0], gallery, 5).rows.shape == (0, 5)


@pytest.mark.parametrize(("k", "rows"), [(5, [3, 4, 70, 71, 299]), (9, [3, 4, 70, 71, 299]), (5, [8]), (5, [])])
def test_a_search_among_some_rows_finds_the_best_of_these(k: int, rows: list[int]) -> None:
    gallery, queries = people(100, 3), people(4, 1, seed=1)
    hits = most_similar_of(queries, gallery, np.array(rows, dtype=np.int64), k)
    expected = np.array(rows, dtype=np.int64)[scan(queries, gallery[rows], k)]
    np.testing.assert_array_equal(hits.rows, expected)
    np.testing.assert_array_equal(hits.similarities, np.take_along_axis(queries @ gallery.T, hits.rows, axis=1))
