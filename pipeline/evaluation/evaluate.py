"""From the features of the test images to the numbers of every search."""

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float32, Int64

from models.modality import Modality, PerModality
from pipeline.data.truth import SplitTables
from pipeline.errors import DataError
from pipeline.evaluation.protocol import RetrievalTrial, Sightings, plan_trials
from pipeline.evaluation.ranking import TrialMetrics, rank_queries, summarise, unit_rows
from pipeline.evaluation.report import SearchReport, report_search


@runtime_checkable
class Features(Protocol):
    """Anything with one vector an image, such as a `FeatureBank`; of any length above 0."""

    @property
    def vectors(self) -> Float32[np.ndarray, "n d"]:
        """Row = image, in the order of the test table."""
        ...


def evaluate_features(
    features: PerModality[Features],
    tables: SplitTables,
    *,
    searches: Sequence[str] = ("sysu/all", "sysu/indoor"),
    trials: int = 10,
) -> tuple[SearchReport, ...]:
    """Evaluate the features of all test images in every search asked for.

    Every test image is encoded once, by the caller; one matrix of similarities serves all trials and searches of a
    direction.

    Args:
        features: One vector for each row of the test tables, in their order.
        tables: The test images and the people on them.
        searches: Names that `plan_trials` knows; one report each, in this order.
        trials: How many galleries each search draws; published numbers use 10.

    Returns:
        One report a search.

    Raises:
        ConfigError: There is no such search, or fewer than one trial is asked for.
        DataError: The features do not fit the tables, a vector is zero or not finite, or a search has no valid query.

    Cost:
        The similarities of SYSU-MM01, 3,803 x 6,775 in float32, take 103 MB; ten trials of `all` and of `indoor` at
        2,048 dimensions take a few seconds on two cores.
    """
    people: PerModality[Int64[np.ndarray, "n"]] = tables.people.map(lambda truth: truth.ids)
    cameras: PerModality[Int64[np.ndarray, "n"]] = tables.images.map(lambda images: images.cameras)
    paths: PerModality[Sequence[str]] = tables.images.map(lambda images: images.paths)
    plans = [plan_trials(search, people, cameras, paths, trials=trials) for search in searches]
    _check_fit(features, paths)
    units = PerModality.build(
        lambda modality: unit_rows(features[modality].vectors, f"{modality} features", paths[modality])
    )
    sightings = people.map_with(Sightings, cameras)
    similarities: dict[Modality, Float32[np.ndarray, "q g"]] = {}
    reports = []
    for plan in plans:
        query = plan[0].search.query
        if query not in similarities:
            similarities[query] = units[query] @ units[query.other].T
        metrics = [evaluate_trial(trial, similarities[query], sightings) for trial in plan]
        reports.append(report_search(plan[0].search, metrics, len(plan[0].gallery)))
    return tuple(reports)


def evaluate_trial(
    trial: RetrievalTrial, similarity: Float32[np.ndarray, "n m"], sightings: PerModality[Sightings]
) -> TrialMetrics:
    """Rank the gallery of one trial for its queries, and sum up.

    Args:
        trial: Which rows are queries, which are gallery, and what is hidden.
        similarity: Row = image of the query modality, column = image of the other one; all rows of both test tables.
        sightings: All rows of both test tables.

    Raises:
        DataError: No query has a match that it may see.
    """
    query = trial.search.query
    ranks = rank_queries(
        similarity[np.ix_(trial.query, trial.gallery)],
        sightings[query].people[trial.query],
        sightings[query.other].people[trial.gallery],
        trial.hidden(sightings),
        rank_by=trial.search.rank_by,
    )
    return summarise(ranks)


def _check_fit(features: PerModality[Features], paths: PerModality[Sequence[str]]) -> None:
    """Refuse features of other images, and features of two widths: both would rank without a complaint, or crash."""
    hint = "extract the features again, with one model and from this data set"
    for modality, bank in features.items():
        rows, images = len(bank.vectors), len(paths[modality])
        if rows != images:
            raise DataError(f"{rows:,} {modality} features for {images:,} test images", hint)
    widths = features.map(lambda bank: bank.vectors.shape[1])
    if widths.visible != widths.infrared:
        raise DataError(f"visible features have {widths.visible} dimensions, infrared {widths.infrared}", hint)
