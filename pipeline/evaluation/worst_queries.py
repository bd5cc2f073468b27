"""The queries of a search that found their person last, kept for each round to be looked at."""

from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from models.modality import Modality, PerModality
from pipeline.evaluation.evaluate import Features, QueryResults
from pipeline.evaluation.protocol import Samples
from pipeline.evaluation.ranking import unit_rows

MOST = 50


@dataclass(frozen=True, slots=True)
class WorstQuery:
    """A query, the images ranked first, and which of them show its person; all by their paths.

    `rank` is that of the first image of its person, `match`, counted from 1 as the protocol counts.
    """

    path: str
    rank: int
    average_precision: float
    match: str
    found: tuple[str, ...]
    right: tuple[bool, ...]


@dataclass(frozen=True, slots=True)
class WorstQueries:
    """The worst of `queries` queries of a search's first trial, the worst first; `modality` is that of the queries."""

    search: str
    modality: Modality
    queries: int
    worst: tuple[WorstQuery, ...]

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON types."""
        return asdict(self)


def find_worst(
    search: str, result: QueryResults, features: PerModality[Features], samples: PerModality[Samples]
) -> WorstQueries:
    """The valid queries with the highest rank of their person, then with the lowest average precision.

    `result` holds the ten best images of each query; `samples` have paths. Cost: 50 queries times the gallery.
    """
    trial, ranks = result.trial, result.ranks
    modality = trial.search.query
    valid = np.flatnonzero(ranks.valid)
    order = np.lexsort((valid, ranks.average_precision[valid], -ranks.rank[valid]))
    chosen = valid[order][:MOST]
    some = replace(trial, query=trial.query[chosen])
    shown, gallery = samples[modality], samples[modality.other]
    queries = unit_rows(features[modality].vectors[some.query], f"{modality} features")
    others = unit_rows(features[modality.other].vectors[trial.gallery], f"{modality.other} features")
    same = shown.people[some.query][:, None] == gallery.people[trial.gallery][None]
    similarity = np.where(same & ~some.excluded(samples), queries @ others.T, -np.inf)
    matches = trial.gallery[similarity.argmax(axis=1)]

    def name(of: Samples, row: int) -> str:
        assert of.paths is not None, "samples of a data set"
        return of.paths[row]

    def describe(place: int, row: int, match: int) -> WorstQuery:
        best = result.best[place][result.best[place] >= 0]
        return WorstQuery(
            name(shown, row),
            int(ranks.rank[place]),
            float(ranks.average_precision[place]),
            name(gallery, match),
            tuple(name(gallery, one) for one in best),
            tuple(bool(gallery.people[one] == shown.people[row]) for one in best),
        )

    worst = tuple(map(describe, chosen.tolist(), some.query.tolist(), matches.tolist()))
    return WorstQueries(search, modality, len(valid), worst)
