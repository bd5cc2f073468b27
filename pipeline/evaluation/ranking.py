"""From a similarity matrix to metrics: ranks, average precision, inverse negative penalty, and their means."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from jaxtyping import Bool, Float, Float64, Int64

from clustering.parallel import over_blocks
from pipeline.errors import DataError
from pipeline.evaluation.ranking_kernels import best_rows, rank_rows

CURVE_LENGTH = 20
"""Ranks that a CMC curve covers."""

ROWS_AT_ONCE = 8_192
"""Rows that are measured or scaled at a time."""

RankBy = Literal["person", "image"]
"""What the rank of a query counts: other people before the first match, or images."""


@dataclass(frozen=True, slots=True, eq=False)
class QueryRanks:
    """Results of each query of one trial; `rank`, from 1, and the two metrics in (0, 1] are 0 where `valid` is false.

    Attributes:
        inverse_negative_penalty: Number of matches / position of the last one.
        valid: Whether the gallery holds a match that is not excluded.
        matches: Number of such matches.
        shown: Gallery images that are not excluded.
    """

    rank: Int64[np.ndarray, " q"]
    average_precision: Float64[np.ndarray, " q"]
    inverse_negative_penalty: Float64[np.ndarray, " q"]
    valid: Bool[np.ndarray, " q"]
    matches: Int64[np.ndarray, " q"]
    shown: Int64[np.ndarray, " q"]
    excluded: Int64[np.ndarray, " q"]


@dataclass(frozen=True, slots=True, eq=False)
class TrialMetrics:
    """Metrics of one trial, as fractions of 1; all means are over valid queries.

    Attributes:
        cmc: Share of queries with a rank of at most 1, 2, ..., 20.
        map: Mean average precision.
        minp: Mean inverse negative penalty.
        hidden_pairs: Pairs of query and gallery image that the protocol excludes.
        chance_r1: Expected Rank-1 of a random order.
    """

    cmc: Float64[np.ndarray, "20"]
    map: float
    minp: float
    valid_queries: int
    queries: int
    hidden_pairs: int
    chance_r1: float


def unit_rows(
    features: Float[np.ndarray, "n d"], name: str, row_names: Sequence[str] | None = None
) -> Float[np.ndarray, "n d"]:
    """Scale every row to length 1, in its own precision; `name` and `row_names` (paths) are for the error message.

    Raises:
        DataError: A row is all zeros or not finite: its similarities would be NaN or all equal, and rank silently.
    """
    lengths = row_lengths(features, name, row_names)
    units: Float[np.ndarray, "n d"] = features / lengths[:, None].astype(features.dtype)
    return units


def row_lengths(
    features: Float[np.ndarray, "n d"], name: str, row_names: Sequence[str] | None = None
) -> Float64[np.ndarray, " n"]:
    """The length of every row. Arguments and errors as `unit_rows`. Cost: no copy, the file may be mapped."""
    lengths, usable = np.empty(len(features), np.float64), np.empty(len(features), np.bool_)
    for start in range(0, len(features), ROWS_AT_ONCE):
        rows, block = features[start : start + ROWS_AT_ONCE], slice(start, start + ROWS_AT_ONCE)
        # Summed in float64, so that rows of very small or very large float32 values keep their direction.
        lengths[block] = np.sqrt(np.einsum("nd,nd->n", rows, rows, dtype=np.float64))
        usable[block] = np.isfinite(rows).all(axis=1) & (lengths[block] > 0)
    if not usable.all():
        row = int(np.argmin(usable))
        problem = "is all zeros" if lengths[row] == 0 else "holds a value that is not finite"
        which = f"row {row}" if row_names is None else f"row {row} ({row_names[row]})"
        raise DataError(
            f"{name}: {which} {problem}; {np.count_nonzero(~usable)} of {len(features)} rows cannot be compared",
            hint="extract the features again; if it stays, the encoder has diverged: take an earlier round",
        )
    return lengths


def inner_products(query: Float[np.ndarray, "q d"], gallery: Float[np.ndarray, "g d"]) -> Float[np.ndarray, "q g"]:
    """Inner products, summed in float64 and rounded to the precision of the arguments.

    Summed in float32, their last digit would depend on the number of rows multiplied at once, and near-ties would be
    ranked differently in a run and from its exported features.
    """
    exact: Float[np.ndarray, "q g"] = query.astype(np.float64) @ gallery.astype(np.float64).T
    return exact.astype(query.dtype, copy=False)


def rank_trial(
    query_features: Float[np.ndarray, "q d"],
    gallery_features: Float[np.ndarray, "g d"],
    *,
    query_people: Int64[np.ndarray, " q"],
    gallery_people: Int64[np.ndarray, " g"],
    excluded: Bool[np.ndarray, "q g"],
    rank_by: RankBy = "person",
) -> TrialMetrics:
    """Rank a gallery for every query by cosine similarity and average; arguments as for `rank_queries`.

    Raises:
        DataError: A row has no direction, or no query is valid.
    """
    similarity = inner_products(
        unit_rows(query_features, "query features"), unit_rows(gallery_features, "gallery features")
    )
    return summarise(rank_queries(similarity, query_people, gallery_people, excluded, rank_by=rank_by))


def rank_queries(
    similarity: Float[np.ndarray, "q m"],
    query_people: Int64[np.ndarray, " q"],
    gallery_people: Int64[np.ndarray, " g"],
    excluded: Bool[np.ndarray, "q g"],
    *,
    rank_by: RankBy = "person",
    columns: Int64[np.ndarray, " g"] | None = None,
) -> QueryRanks:
    """Rank a gallery for every query, highest similarity (no NaN) first; ties keep gallery order.

    Average precision and inverse negative penalty always count images. The result does not depend on the number of
    threads or on which queries are ranked together.

    Args:
        similarity: Row = query. It may have more columns than this gallery.
        query_people: Identity of each query.
        gallery_people: Identity of each gallery image.
        excluded: True where the protocol excludes a gallery image from a query's ranking.
        rank_by: `person`: 1 + number of other people before the first match. `image`: its position.
        columns: Column of `similarity` of each gallery image, so that the galleries of all trials share one matrix;
            None if the columns are the gallery.

    Raises:
        DataError: The gallery is empty.

    Cost: nothing is sorted: r g comparisons for a query with r matches, and r^2 / 4 moves. 3,803 queries on two cores:
    0.01 s for a gallery of 301 images, 0.05 s for 3,010. Similarities are copied only if not contiguous or of 16 bits.

    Source: CMC by person: the SYSU-MM01 authors' evaluation. Inverse negative penalty: Ye et al., TPAMI 2022.
    """
    columns = _checked_columns(similarity, excluded, columns)
    assert len(query_people) == len(excluded) and len(gallery_people) == len(columns)
    if gallery_people.size == 0:
        raise DataError("the gallery is empty", hint="check the split and the cameras of the test images")
    names, people = np.unique(gallery_people, return_inverse=True)
    places = np.minimum(np.searchsorted(names, query_people), len(names) - 1)
    persons = np.where(names[places] == query_people, places, -1).astype(np.int32)
    queries = len(query_people)
    ranks, matches, shown = (np.zeros(queries, np.int64) for _ in range(3))
    average_precision, inverse_negative_penalty = np.zeros(queries), np.zeros(queries)
    results = (ranks, average_precision, inverse_negative_penalty, matches, shown)
    gallery = (columns, people.astype(np.int32))

    def rank_block(start: int, stop: int) -> None:
        rows, mask = _as_rows(similarity[start:stop]), np.ascontiguousarray(excluded[start:stop])
        block = (array[start:stop] for array in results)
        rank_rows(rows, mask, *gallery, persons[start:stop], rank_by == "person", *block)

    over_blocks(rank_block, queries)
    return QueryRanks(
        rank=ranks,
        average_precision=average_precision,
        inverse_negative_penalty=inverse_negative_penalty,
        valid=matches > 0,
        matches=matches,
        shown=shown,
        excluded=len(gallery_people) - shown,
    )


def best_gallery(
    similarity: Float[np.ndarray, "q m"],
    excluded: Bool[np.ndarray, "q g"],
    columns: Int64[np.ndarray, " g"] | None = None,
    *,
    count: int = 10,
) -> Int64[np.ndarray, "q count"]:
    """The gallery images ranked first for each query, ties in gallery order; arguments as for `rank_queries`.

    Returns:
        Positions in the gallery, not columns of `similarity`; -1 where a query has fewer images.
    """
    columns = _checked_columns(similarity, excluded, columns)
    assert count >= 1
    best = np.full((len(excluded), count), -1, np.int64)

    def list_block(start: int, stop: int) -> None:
        mask = np.ascontiguousarray(excluded[start:stop])
        best_rows(_as_rows(similarity[start:stop]), mask, columns, best[start:stop])

    over_blocks(list_block, len(excluded))
    return best


def summarise(ranks: QueryRanks) -> TrialMetrics:
    """Average over valid queries.

    Raises:
        DataError: No query is valid.
    """
    queries = len(ranks.valid)
    valid_queries = int(np.count_nonzero(ranks.valid))
    if valid_queries == 0:
        raise DataError(
            f"none of {queries:,} queries has a match in the gallery",
            hint="queries and gallery must show the same people, from cameras that may be shown to each other",
        )
    histogram = np.bincount(np.minimum(ranks.rank[ranks.valid], CURVE_LENGTH + 1), minlength=CURVE_LENGTH + 2)
    return TrialMetrics(
        cmc=np.cumsum(histogram[1 : CURVE_LENGTH + 1]) / valid_queries,
        map=float(ranks.average_precision[ranks.valid].mean()),
        minp=float(ranks.inverse_negative_penalty[ranks.valid].mean()),
        valid_queries=valid_queries,
        queries=queries,
        hidden_pairs=int(ranks.excluded.sum()),
        chance_r1=float((ranks.matches[ranks.valid] / ranks.shown[ranks.valid]).mean()),
    )


def _checked_columns(
    similarity: Float[np.ndarray, "q m"], excluded: Bool[np.ndarray, "q g"], columns: Int64[np.ndarray, " g"] | None
) -> Int64[np.ndarray, " g"]:
    """The column of each gallery image, checked: compiled loops read past the end of an array silently."""
    queries, gallery = excluded.shape
    if columns is None:
        columns = np.arange(similarity.shape[1])
    assert len(similarity) == queries and len(columns) == gallery
    assert columns.min(initial=0) >= 0 and columns.max(initial=-1) < similarity.shape[1]
    return np.ascontiguousarray(columns)


def _as_rows(similarity: Float[np.ndarray, "b m"]) -> Float[np.ndarray, "b m"]:
    """Contiguous rows in float32 or float64, for the compiled loops; widening 16 bits changes no value."""
    precision: type[np.floating[Any]] = np.float64 if similarity.dtype == np.float64 else np.float32
    return np.ascontiguousarray(similarity, dtype=precision)
