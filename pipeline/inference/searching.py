"""Search a gallery, and score the result where identities are known."""

import logging
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np
from jaxtyping import Float32, Float64

from clustering.gallery_search import Hits, most_similar
from pipeline.data.image_files import Unreadable
from pipeline.data.image_list import ImageList, ListedImage
from pipeline.data.synthetic.record import shows_synthetic
from pipeline.errors import ConfigError
from pipeline.evaluation.ranking import unit_rows
from pipeline.inference.calibration import Calibrations
from pipeline.inference.embedding import embed_images, require_some
from pipeline.inference.encoder import TrainedEncoder
from pipeline.inference.false_match import FalseMatch
from pipeline.inference.groups import SINGLE, Entry, Grouping, entry_of, group_entries
from pipeline.inference.index import Gallery
from pipeline.inference.milvus_gallery import MilvusGallery, refuse_groups
from pipeline.runtime.parquet_files import Columns

logger = logging.getLogger(__name__)

_CALIBRATE = "`vireid calibrate` takes strangers, who are not in the gallery, and stores the result with the index"


@dataclass(frozen=True, slots=True)
class Hit:
    """A gallery image found by a query, or a group by its most central image, with the cosine similarity.

    `camera`, `person`, `track` and `group` are names, `time` is ISO 8601; empty if unknown, or if a group's images
    differ. `images` is the number of images of the group, 1 for an image. `right` is whether it shows the query's
    person, None if unknown. `one_in` is the number of strangers of whom one scores as high, None without a calibration.
    """

    path: str
    score: float
    camera: str
    person: str
    track: str
    time: str
    group: str
    images: int
    right: bool | None
    one_in: float | None


@dataclass(frozen=True, slots=True)
class FoundByQuery:
    """A query, an image or a group as in `Hit`, and its most similar images, best first; none without a match.

    `vectors` are the unit vectors of the hits, of a gallery folder as views of its mapped file.
    """

    path: str
    camera: str
    person: str
    group: str
    images: int
    hits: tuple[Hit, ...]
    vectors: tuple[Float32[np.ndarray, " dim"], ...] = field(default=(), repr=False, compare=False)


@dataclass(frozen=True, slots=True)
class Score:
    """Rank-1, and the share with a right hit, over queries whose person is known and in the gallery."""

    queries: int
    rank1: float
    found_in_hits: float


@dataclass(frozen=True, slots=True)
class GallerySearchResult:
    """The hits of all queries; `synthetic` names which of `encoder`, `queries` and `gallery` are so.

    Below `threshold`, the score of `--false-match`, nothing counts as found; None without one.
    """

    queries: tuple[FoundByQuery, ...]
    unreadable: tuple[Unreadable, ...]
    score: Score | None
    recall: float | None
    synthetic: tuple[str, ...] = ()
    threshold: float | None = None

    @property
    def caution(self) -> str | None:
        """A warning about synthetic images; None without any."""
        return f"synthetic people, not photographs: {', '.join(self.synthetic)}" if self.synthetic else None

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON types, without vectors."""
        without = tuple(replace(query, vectors=()) for query in self.queries)
        record = asdict(replace(self, queries=without))
        for query in record["queries"]:
            del query["vectors"]
        return record


def search_gallery(
    encoder: TrainedEncoder,
    images: ImageList,
    gallery: Gallery | MilvusGallery,
    k: int,
    *,
    batch_size: int,
    workers: int | None = None,
    grouping: Grouping = SINGLE,
    calibrations: Calibrations | None = None,
    false_match: float | None = None,
) -> GallerySearchResult:
    """Find the k most similar gallery images of every readable query. No image is excluded, unlike in protocols.

    * `grouping`: Which images are searched, and found, as one. A gallery in groups is compared in full, without lists.
    * `calibrations`: Those of the gallery, see `read_calibrations`.
    * `false_match`: Share of strangers for whom something may be found; hits with lower scores are dropped.

    Raises:
        ConfigError: `false_match` without a calibration for `grouping`, or too small for its number of strangers.
        DataError: No query can be read; and see `group_entries`.
        TrainingError: See `TrainedEncoder.encode`.
    """
    calibration = (calibrations or {}).get(grouping)
    if calibrations and calibration is None:
        logger.info("scores of %s are not calibrated: `vireid calibrate` with the same --group", grouping)
    threshold = None if false_match is None else score_threshold(calibration, grouping, false_match)
    embedded = require_some(
        embed_images(encoder, images, batch_size=batch_size, workers=workers, description="embed queries")
    )
    readable = images.only(embedded.rows)
    queries = unit_rows(embedded.vectors, "queries").astype(np.float32)
    found = find_similar(readable.listed(), queries, gallery, k, grouping, calibration, threshold)
    people = gallery.people({one.person for one in found if one.person})
    drawn = {"queries": shows_synthetic(images.root / images.paths[0]), "gallery": shows_synthetic(gallery.root)}
    origins = {"encoder": encoder.synthetic, **drawn}
    return GallerySearchResult(
        queries=found,
        unreadable=embedded.unreadable,
        score=_score([one for one in found if one.person in people]),
        recall=None if grouping.gallery else gallery.recall,
        synthetic=tuple(name for name, is_so in origins.items() if is_so),
        threshold=threshold,
    )


def find_similar(
    images: Sequence[ListedImage],
    vectors: Float32[np.ndarray, "n dim"],
    gallery: Gallery | MilvusGallery,
    k: int,
    grouping: Grouping = SINGLE,
    calibration: FalseMatch | None = None,
    threshold: float | None = None,
) -> tuple[FoundByQuery, ...]:
    """The k most similar gallery images of each query, given as a unit row, or of each group of queries.

    Raises:
        DataError: See `group_entries`; the queries have another width than the gallery.
    """
    asking = group_entries(images, vectors, grouping.query, grouping.by)
    found, entry, vector = _find(asking.vectors, gallery, k, grouping)
    rates = None if calibration is None else calibration.rates(found.similarities)
    least = -np.inf if threshold is None else threshold
    return tuple(
        _found(
            asking.entry(query),
            entry,
            vector,
            found.rows[query][kept := (found.similarities[query] >= least) & (found.rows[query] >= 0)],
            found.similarities[query][kept],
            None if rates is None else rates[query][kept],
        )
        for query in range(len(asking))
    )


def _find(
    queries: Float32[np.ndarray, "n dim"], gallery: Gallery | MilvusGallery, k: int, grouping: Grouping
) -> tuple[Hits, Callable[[int], Entry], Callable[[int], Float32[np.ndarray, " dim"]]]:
    """The most similar rows, with -1 for none; and the description and the vector of a row."""
    if isinstance(gallery, MilvusGallery):
        refuse_groups(grouping)
        hits, found = gallery.search(queries, k)
        return hits, lambda row: entry_of(found[row].file), lambda row: found[row].vector
    there = group_entries(gallery.files, gallery.vectors, grouping.gallery, grouping.by)
    hits = most_similar(queries, there.vectors, k) if grouping.gallery else gallery.search(queries, k)
    return hits, there.entry, lambda row: there.vectors[row]


def hit_columns(result: GallerySearchResult, encoder: str, *, vectors: bool = True) -> Columns:
    """A row a query and rank; a query without a match has one row without rank.

    `false_match_rate` is the share of strangers who score as high, empty without a calibration; `vector` is the unit
    vector of the hit, of which the score is the inner product with the query's, and absent without `vectors`.

    Cost: none for the vectors until they are written.
    """
    pairs: list[tuple[FoundByQuery, int | None, Hit | None]] = []
    for query in result.queries:
        pairs += [(query, rank, hit) for rank, hit in enumerate(query.hits, start=1)] or [(query, None, None)]
    known = ("path", "camera", "person", "track", "time", "group", "images", "score", "right")
    columns: dict[str, Sequence[Any]] = {
        "encoder": [encoder] * len(pairs),
        "query": [query.path for query, _, _ in pairs],
        "query_group": [query.group for query, _, _ in pairs],
        "rank": [rank for _, rank, _ in pairs],
        **{name: [None if hit is None else getattr(hit, name) for _, _, hit in pairs] for name in known},
        "false_match_rate": [None if hit is None or hit.one_in is None else 1 / hit.one_in for _, _, hit in pairs],
    }
    found = [vector for query in result.queries for vector in (query.vectors or (None,))]
    return columns | ({"vector": found} if vectors else {})


def one_in_text(one_in: float) -> str:
    """The share of strangers of `Hit.one_in` in words.

    >>> one_in_text(1.04), one_in_text(1.3), one_in_text(812.0)
    ('almost all', '1 in 1.3', '1 in 810')
    """
    if one_in < 1.05:
        return "almost all"
    return f"1 in {one_in:.1f}" if one_in < 10 else f"1 in {float(f'{one_in:.2g}'):,.0f}"


def score_threshold(calibration: FalseMatch | None, grouping: Grouping, false_match: float) -> float:
    """The score that a share of strangers reaches.

    Raises:
        ConfigError: Without a calibration for `grouping`; or the share is too small for its number of strangers.
    """
    if calibration is None:
        raise ConfigError(f"the index has no calibration for {grouping}, which --false-match needs", hint=_CALIBRATE)
    try:
        return calibration.score_at(false_match)
    except ValueError as error:
        raise ConfigError(f"--false-match {false_match:g}: {error}", hint=_CALIBRATE) from error


def _found(
    query: Entry,
    there: Callable[[int], Entry],
    vector: Callable[[int], Float32[np.ndarray, " dim"]],
    rows: np.ndarray,
    similarities: Float32[np.ndarray, " k"],
    rates: Float64[np.ndarray, " k"] | None,
) -> FoundByQuery:
    hits = []
    for at, row in enumerate(rows.tolist()):
        entry = there(row)
        hits.append(
            Hit(
                **asdict(entry),
                score=float(similarities[at]),
                right=_right(query.person, entry.person),
                one_in=None if rates is None else 1 / float(rates[at]),
            )
        )
    vectors = tuple(vector(row) for row in rows.tolist())
    return FoundByQuery(query.path, query.camera, query.person, query.group, query.images, tuple(hits), vectors)


def _right(person: str, found: str) -> bool | None:
    return person == found if person and found else None


def _score(judged: list[FoundByQuery]) -> Score | None:
    if not judged:
        return None
    first = sum(bool(one.hits) and one.hits[0].right is True for one in judged)
    anywhere = sum(any(hit.right for hit in one.hits) for one in judged)
    return Score(len(judged), first / len(judged), anywhere / len(judged))
