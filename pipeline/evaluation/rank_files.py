"""Evaluate feature files of any program under a protocol, as for a paper's table."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from jaxtyping import Bool, Float, Int64
from pydantic import TypeAdapter
from pydantic.dataclasses import dataclass as checked_dataclass

from models.modality import Modality, PerModality
from pipeline.config.datasets import Split
from pipeline.errors import ConfigError, DataError
from pipeline.evaluation.evaluate import QueryResults, SearchResult, evaluate_features
from pipeline.evaluation.feature_files import ImageFeatures
from pipeline.evaluation.protocol import Direction, Samples, direction_from, query_modality
from pipeline.evaluation.protocols import PROTOCOLS
from pipeline.evaluation.protocols.spec import FileRules, GalleryDraws, GalleryRules, SearchProtocol
from pipeline.evaluation.ranking import unit_rows
from pipeline.evaluation.report import CLOSED, SearchReport
from pipeline.evaluation.searches import plan_search, possible_directions

logger = logging.getLogger(__name__)


@checked_dataclass(frozen=True, slots=True, config=CLOSED)
class RankReport:
    """The numbers of features from files.

    Attributes:
        protocol: The value of `--protocol`.
        normalised: Whether rows were scaled to length 1.
        order: Sorts the images of a person and camera before a gallery is sampled.
        partial: Counts differ from the published ones, which the user allowed.
        visible: Images.
        infrared: Images.
    """

    protocol: str
    dim: int
    normalised: bool
    order: Literal["paths", "rows"]
    partial: bool
    visible: int
    infrared: int
    searches: tuple[SearchReport, ...]
    format: Literal[1] = 1

    def to_dict(self) -> dict[str, Any]:
        """The report as plain JSON types."""
        record: dict[str, Any] = TypeAdapter(RankReport).dump_python(self, mode="json")
        return {"format": record.pop("format"), **record}


@dataclass(frozen=True, slots=True, eq=False)
class Vectors:
    """The features of one modality."""

    vectors: Float[np.ndarray, "n d"]


def rank_files(
    query: ImageFeatures,
    gallery: ImageFeatures | None,
    protocol: str,
    *,
    direction: Direction | None = None,
    draws: GalleryDraws | None = None,
    rules: GalleryRules | None = None,
    split: Split | None = None,
    rerank: Literal["none", "k_reciprocal"] = "none",
    raw: bool = False,
    allow_partial: bool = False,
    keep_queries: bool = False,
    protocols: Sequence[SearchProtocol] = PROTOCOLS,
) -> tuple[RankReport, tuple[SearchResult, ...]]:
    """Evaluate features from files.

    An option that does not apply to the protocol is refused.

    Args:
        query: All test images if `gallery` is None, else the queries only.
        gallery: The gallery images: all that galleries are sampled from.
        protocol: One of `file_protocols()`.
        direction: The only direction to run; all that the images allow when None.
        draws: For protocols that sample galleries.
        rules: For `pairs`.
        split: Which of RegDB's ten splits the features belong to.
        rerank: Also rank by k-reciprocal neighbourhoods.
        raw: Compare by inner products of unscaled features instead of cosines.
        allow_partial: Accept counts that differ from the published ones.
        keep_queries: Also return the results of each query.
        protocols: The protocols to choose from.

    Returns:
        The report, and the results of each search, whose rows are those of the files.

    Raises:
        ConfigError: No such protocol, none in this direction, or an option that is for another protocol.
        DataError: The features do not fit the protocol.

    Cost: ten trials of SYSU-MM01, at 2,048 dimensions: about three seconds on two cores, below 1 GB.
    """
    its_protocol, wanted = _protocol_for_files(protocol, protocols)
    _check_options(protocol, its_protocol, draws, rules, split, protocols)
    # Before the files are joined, so that messages have the row numbers of each file.
    for name, images in (("features", query),) if gallery is None else (("queries", query), ("gallery", gallery)):
        unit_rows(images.vectors, name, images.paths)
    everything = _joined(query, gallery, None if wanted.infrared_cameras else direction)
    _check_cameras(everything, protocol, wanted, rules)
    infrared = _is_infrared(everything, protocol, wanted)
    # Without published counts, either file may contain both modalities.
    if gallery is not None and wanted.count_rows is not None:
        _check_sides(infrared, len(query), protocol, wanted)
    parts = PerModality(np.flatnonzero(~infrared), np.flatnonzero(infrared))
    features = parts.map(lambda rows: Vectors(everything.vectors[rows]))
    roles = _roles(len(query), gallery)
    samples = parts.map(lambda rows: _samples(everything, roles, rows))
    partial = _check_counts(protocol, wanted, samples, allow_partial)
    plans = [
        plan
        for search in _searches(protocol, wanted, direction, samples)
        for plan in plan_search(search, samples, draws=draws, rules=rules, split=split, protocols=protocols)
    ]
    results = evaluate_features(features, samples, plans, rerank=rerank, normalise=not raw, keep_queries=keep_queries)
    report = RankReport(
        protocol=protocol,
        dim=everything.vectors.shape[1],
        normalised=not raw,
        order="rows" if everything.paths is None else "paths",
        partial=partial,
        visible=len(parts.visible),
        infrared=len(parts.infrared),
        searches=tuple(result.report for result in results),
    )
    return report, tuple(_in_rows_of_files(result, parts, len(query), gallery) for result in results)


def file_protocols(protocols: Sequence[SearchProtocol] = PROTOCOLS) -> tuple[str, ...]:
    """The values of `vireid rank --protocol`."""
    return tuple(name for protocol in protocols if protocol.files is not None for name in protocol.files.names)


def _protocol_for_files(name: str, protocols: Sequence[SearchProtocol]) -> tuple[SearchProtocol, FileRules]:
    for protocol in protocols:
        if protocol.files is not None and name in protocol.files.names:
            return protocol, protocol.files
    raise ConfigError(f"there is no protocol '{name}'", hint=f"choose from: {', '.join(file_protocols(protocols))}")


def _check_options(
    name: str,
    protocol: SearchProtocol,
    draws: GalleryDraws | None,
    rules: GalleryRules | None,
    split: Split | None,
    protocols: Sequence[SearchProtocol],
) -> None:
    usual, draws = GalleryDraws(), draws or GalleryDraws()
    for option, setting, is_given in (
        ("--draw", "evaluation.draws", draws.draws != usual.draws),
        ("--shots", "evaluation.shots", draws.shots != usual.shots),
        ("--trials", "evaluation.trials", draws.trials != usual.trials),
        ("--exclude or --rank-by", "evaluation.rules", rules is not None),
        ("--split", "data.split", split is not None),
    ):
        if is_given and not _applies(setting, protocol):
            others = ", ".join(one.name for one in protocols if one.files is not None and _applies(setting, one))
            raise ConfigError(f"{option} is for {others}, not for {name}", hint="remove it")
    if split is not None and split not in protocol.options.splits:
        known = ", ".join(map(str, protocol.options.splits))
        raise ConfigError(f"{protocol.name} has no split {split!r}", hint=f"choose from: {known}")


def _applies(setting: str, protocol: SearchProtocol) -> bool:
    options = protocol.options
    return options.model_per_split if setting == "data.split" else setting in options.settings


def _check_counts(name: str, wanted: FileRules, samples: PerModality[Samples], allow_partial: bool) -> bool:
    """Whether counts differ from the published ones; extra people are refused, not dropped."""
    rows = [] if wanted.count_rows is None else wanted.count_rows(name, samples)
    failures = [f"{row.name}: found {row.found:,}, expected {row.expected:,}" for row in rows if not row.passed]
    if not failures:
        return False
    message = f"these are not the test images of {name}: {'; '.join(failures)}"
    if not allow_partial:
        raise DataError(
            message,
            hint="give the features of all test images and no others, or use --allow-partial, which marks the result",
        )
    logger.warning("%s", message)
    return True


def _searches(
    name: str, wanted: FileRules, direction: Direction | None, samples: PerModality[Samples]
) -> Sequence[str]:
    if wanted.query is not None:
        if direction not in (None, direction_from(wanted.query)):
            raise ConfigError(
                f"{name} has no {wanted.query.other} queries",
                hint=f"it searches {direction_from(wanted.query)} only: omit --direction",
            )
        return [name]
    directions = (direction,) if direction else possible_directions(samples)
    if not directions:
        raise DataError(
            "no direction has both queries and gallery images",
            hint="queries and gallery must be of different modalities: check `modalities` in the files",
        )
    return [f"{name}/{one}" for one in directions]


def _joined(query: ImageFeatures, gallery: ImageFeatures | None, direction: Direction | None) -> ImageFeatures:
    """One table of all images; without `modalities`, that of the queries follows from the direction."""
    if gallery is None:
        return query
    if query.vectors.shape[1] != gallery.vectors.shape[1]:
        raise DataError(
            f"queries have {query.vectors.shape[1]} dimensions, the gallery {gallery.vectors.shape[1]}",
            hint="take both from one model",
        )
    columns: dict[str, Any] = {}
    for name in ("cameras", "infrared", "paths"):
        first, second = getattr(query, name), getattr(gallery, name)
        if (first is None) != (second is None):
            raise DataError(
                f"only one of the two files has `{'modalities' if name == 'infrared' else name}`",
                hint="write it into both, or into neither",
            )
        columns[name] = first
        if first is not None:
            columns[name] = first + second if name == "paths" else np.concatenate([first, second])
    if columns["infrared"] is None and direction is not None:
        is_query = np.arange(len(query) + len(gallery)) < len(query)
        columns["infrared"] = is_query if query_modality(direction) is Modality.INFRARED else ~is_query
    return ImageFeatures(
        np.concatenate([query.vectors, gallery.vectors]), np.concatenate([query.people, gallery.people]), **columns
    )


def _check_cameras(images: ImageFeatures, name: str, wanted: FileRules, rules: GalleryRules | None) -> None:
    if images.cameras is not None:
        return
    if wanted.cameras is not None:
        raise DataError(f"{name} needs `cameras`", hint=f"write the camera, 1 to {wanted.cameras}, of every image")
    if rules is not None and rules.exclude not in (None, "none"):
        raise DataError(f"--exclude {rules.exclude} needs `cameras`", hint="write the camera of every image")


def _check_sides(infrared: Bool[np.ndarray, " n"], num_queries: int, name: str, wanted: FileRules) -> None:
    """Refuse images in the wrong file: they would be counted, but belong to no search."""
    queries = wanted.query or (Modality.INFRARED if infrared[0] else Modality.VISIBLE)
    sides = zip(("queries", "gallery"), (queries, queries.other), np.split(infrared, [num_queries]), strict=True)
    for file, modality, side in sides:
        wrong = int(np.count_nonzero(side != (modality is Modality.INFRARED)))
        if wrong:
            raise DataError(
                f"{name}: {wrong:,} of {len(side):,} images in the file of the {file} are {modality.other}",
                hint=f"give the {queries} images with --query, and the {queries.other} ones with --gallery",
            )


def _is_infrared(images: ImageFeatures, name: str, wanted: FileRules) -> Bool[np.ndarray, " n"]:
    if wanted.infrared_cameras:
        assert images.cameras is not None, "checked before"
        from_camera: Bool[np.ndarray, " n"] = np.isin(images.cameras, wanted.infrared_cameras)
        if images.infrared is not None and not np.array_equal(images.infrared, from_camera):
            row = int(np.argmax(images.infrared != from_camera))
            which = f"row {row}" if images.paths is None else images.paths[row]
            raise DataError(
                f"{which}: camera {images.cameras[row]}, but `modalities` is "
                f"{Modality.INFRARED if images.infrared[row] else Modality.VISIBLE}",
                hint=f"cameras {' and '.join(map(str, wanted.infrared_cameras))} are infrared, the others visible",
            )
        return from_camera
    if images.infrared is None:
        raise DataError(
            f"{name} needs `modalities`",
            hint="write visible or infrared for every image; for two files, --direction is enough",
        )
    return images.infrared


def _roles(num_queries: int, gallery: ImageFeatures | None) -> Bool[np.ndarray, " n"] | None:
    """Which rows are from the file of queries; None for one file, whose images may be either."""
    return None if gallery is None else np.arange(num_queries + len(gallery)) < num_queries


def _samples(
    images: ImageFeatures, is_query: Bool[np.ndarray, " n"] | None, rows: np.ndarray[Any, np.dtype[np.int64]]
) -> Samples:
    # Without cameras, visible and infrared get different ones, so that nothing is excluded.
    unknown = np.zeros(len(images), dtype=np.int64) if images.infrared is None else images.infrared.astype(np.int64)
    cameras = unknown if images.cameras is None else images.cameras
    return Samples(
        people=images.people[rows],
        cameras=cameras[rows],
        paths=None if images.paths is None else [images.paths[row] for row in rows.tolist()],
        query=None if is_query is None else is_query[rows],
        gallery=None if is_query is None else ~is_query[rows],
    )


def _in_rows_of_files(
    result: SearchResult, parts: PerModality[Int64[np.ndarray, " _"]], num_queries: int, gallery: ImageFeatures | None
) -> SearchResult:
    """The results of queries, with the row numbers of the files instead of those of our tables."""
    skipped = 0 if gallery is None else num_queries

    def in_rows_of_files(one: QueryResults) -> QueryResults:
        modality = one.trial.search.query
        shown = parts[modality.other] - skipped
        trial = replace(one.trial, query=parts[modality][one.trial.query], gallery=shown[one.trial.gallery])
        return replace(one, trial=trial, best=np.where(one.best >= 0, shown[one.best], -1))

    return replace(result, queries=tuple(map(in_rows_of_files, result.queries)))
