"""What a round's clusters and pairs show: view of a label file, with its data set's people where they are known."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int64

from clustering.dbscan import OUTLIER
from clustering.quality import ScoredPairs
from models.modality import Modality, PerModality
from pipeline.data.dataset import Dataset, read_dataset, reading_of
from pipeline.data.image_files import ImageReading
from pipeline.errors import CheckpointError, ConfigError, DataError
from pipeline.evaluation.diagnostics import majority_people
from pipeline.evaluation.worst_queries import WorstQueries
from pipeline.reports.label_changes import LabelChanges, find_changes
from pipeline.reports.pair_figure import by_certainty, most_typical
from pipeline.reports.quality import quality_of
from pipeline.runtime import atomic_files
from pipeline.storage import layout
from pipeline.storage.label_files import RoundLabels, read_labels
from pipeline.storage.run_reader import RecordedRun, read_run

NO_PERSON = -1


@dataclass(frozen=True, eq=False)
class Look:
    """A round of a run. `people` are those of the training images, None where unknown; `notes` name what is missing.

    Attributes:
        base: The folder that paths start from.
        changes: Since the round before; None without its labels.
        queries: The worst queries of the round, or None.
    """

    run: RecordedRun
    number: int
    labels: RoundLabels
    pairs: ScoredPairs
    paths: PerModality[tuple[str, ...]]
    similarity: PerModality[np.ndarray]
    base: Path
    reading: ImageReading
    synthetic: bool
    people: PerModality[Int64[np.ndarray, " _"]] | None
    changes: LabelChanges | None
    queries: WorstQueries | None
    notes: tuple[str, ...]

    @cached_property
    def order(self) -> list[int]:
        """Positions of the pairs, from the least to the most certain one."""
        found: list[int] = by_certainty(self.pairs).tolist()
        return found

    @cached_property
    def majority(self) -> PerModality[Int64[np.ndarray, " _"]] | None:
        """The person on most images of each cluster."""
        return None if self.people is None else self.labels.labels.map_with(majority_people, self.people)

    @cached_property
    def sizes(self) -> PerModality[Int64[np.ndarray, " _"]]:
        """The number of images of each cluster."""
        return self.labels.labels.map(lambda some: np.bincount(some[some != OUTLIER]).astype(np.int64))

    @cached_property
    def unmatched(self) -> PerModality[list[int]]:
        """Clusters without a partner, the largest first."""
        matched = PerModality(self.pairs.visible, self.pairs.infrared)

        def left(sizes: Int64[np.ndarray, " _"], pairs: Int64[np.ndarray, " _"]) -> list[int]:
            found = np.setdiff1d(np.flatnonzero(sizes), pairs)
            return [int(one) for one in found[np.argsort(-sizes[found], kind="stable")]]

        return self.sizes.map_with(left, matched)

    @cached_property
    def quality(self) -> dict[str, float]:
        """The round's numbers that need no identities."""
        return quality_of(self.run.rounds.get(self.number, {}))

    def typical(self, modality: Modality, cluster: int) -> list[int]:
        """The images of a cluster, from the most to the least typical one."""
        found: list[int] = most_typical(self.labels.labels[modality], self.similarity[modality], cluster).tolist()
        return found

    def is_wrong(self, place: int) -> bool | None:
        """Whether a pair joins two people; None where people are unknown."""
        if self.majority is None:
            return None
        visible, infrared = self.majority
        return bool(visible[self.pairs.visible[place]] != infrared[self.pairs.infrared[place]])

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON types."""
        found: dict[str, Any] = {
            "run": str(self.run.path),
            "round": self.number,
            "data": self.run.config.data.name,
            "synthetic": self.synthetic,
            "quality": self.quality,
            "pairs": [self.pair_row(place) for place in self.order],
            "unmatched": {str(modality): found for modality, found in self.unmatched.items()},
            "outliers": {str(modality): int((some == OUTLIER).sum()) for modality, some in self.labels.labels.items()},
            "changes": None if self.changes is None else asdict(self.changes),
            "worst_queries": None if self.queries is None else self.queries.to_dict(),
            "notes": list(self.notes),
        }
        return {name: atomic_files.plain(value) for name, value in found.items()}

    def pair_row(self, place: int) -> dict[str, Any]:
        """A pair as a row of the table."""
        pairs = self.pairs
        clusters = PerModality(int(pairs.visible[place]), int(pairs.infrared[place]))
        row: dict[str, Any] = {str(modality): cluster for modality, cluster in clusters.items()}
        row["similarity"] = float(pairs.similarity[place])
        row |= {f"{name}_margin": float(getattr(pairs, f"{name}_margin")[place]) for name in ("visible", "infrared")}
        for modality, cluster in clusters.items():
            row[f"{modality}_images"] = int(self.sizes[modality][cluster])
            row[f"{modality}_typical"] = self.paths[modality][self.typical(modality, cluster)[0]]
        if self.majority is not None:
            row |= {f"{modality}_person": int(self.majority[modality][one]) for modality, one in clusters.items()}
            row["wrong"] = self.is_wrong(place)
        return row


def look_at(
    path: Path, number: int | None = None, *, data_root: Path | None = None, images_root: Path | None = None
) -> Look:
    """Read a round of a run, by default the last one with labels; the data set gives people and the images' folder.

    `data_root` and `images_root` are the present folders of the data set and of a manifest's images. A data set that
    cannot be read is a note, not an error.

    Raises:
        ConfigError: There is no such round.
        CheckpointError: No run, no labels, or those of an earlier version, which have neither paths nor pairs.
    """
    run = read_run(path)
    labels, number = _labels_of(run, number)
    if labels.paths is None or labels.similarity is None or labels.pairs is None:
        raise CheckpointError(
            f"the label file of round {number} of {path} has no paths and no pairs: an earlier version wrote it",
            hint="look at a round that this version trained, or train again under another name",
        )
    config = run.config.data
    root, base = data_root or config.root or Path(), images_root or config.images_root
    notes: list[str] = []
    dataset = people = None
    try:
        dataset = read_dataset(
            config.name,
            root,
            split=config.split,
            images_root=base,
            allow_overlap=config.allow_overlap,
            allow_partial=config.allow_partial,
        )
        people = _people_of(dataset, labels.paths)
        if people is None:
            notes.append("the people of the training images are unknown: nothing is marked as right or wrong")
    except (DataError, ConfigError) as error:
        notes.append(f"the data set cannot be read, so people are unknown: {error.message}")
    before = read_labels(path, number - 1)
    same = before is not None and before.labels.map(len) == labels.labels.map(len)
    return Look(
        run=run,
        number=number,
        labels=labels,
        pairs=labels.pairs,
        paths=labels.paths,
        similarity=labels.similarity,
        base=dataset.root if dataset is not None else base or (root.parent if root.is_file() else root),
        reading=reading_of(config.name, orientation=config.orientation, deep_range=config.deep_range),
        synthetic=_is_synthetic(run, dataset),
        people=people,
        changes=find_changes(before, labels) if before is not None and same else None,
        queries=_queries_of(path, number),
        notes=tuple(notes),
    )


def _labels_of(run: RecordedRun, number: int | None) -> tuple[RoundLabels, int]:
    if not run.rounds:
        raise CheckpointError(f"{run.path} has no finished round yet", hint="wait for its first round")
    known = [one for one in run.rounds if layout.labels_path(run.path, one).is_file()]
    if number is not None and number not in run.rounds:
        raise ConfigError(
            f"{run.path} has no round {number}: its finished rounds are {min(run.rounds)} to {max(run.rounds)}",
            hint="name one of them with --round, or omit the option for the last one",
        )
    if not known:
        raise CheckpointError(
            f"{run.path} has no label files: {run.config.method} makes no clusters, or they were removed",
            hint=f"`vireid compare {run.path}` writes a page with its curves and its last figures, such as queries and "
            "what they found; `vireid search` writes one of any gallery",
        )
    number = known[-1] if number is None else number
    labels = read_labels(run.path, number)
    if labels is None:
        raise CheckpointError(
            f"{run.path} has no label file of round {number}",
            hint=f"rounds with labels: {known[0]} to {known[-1]}; name one with --round",
        )
    return labels, number


def _people_of(dataset: Dataset, paths: PerModality[tuple[str, ...]]) -> PerModality[Int64[np.ndarray, " _"]] | None:
    """The person of each training image by its path; None where some are unknown."""

    def of(own: tuple[str, ...], table: Any, people: Any) -> Int64[np.ndarray, " _"]:
        known: Mapping[str, int] = dict(zip(table.paths, people.ids.tolist(), strict=True))
        return np.array([known.get(path, NO_PERSON) for path in own], dtype=np.int64)

    found = paths.map_with(of, dataset.training.images, dataset.training.people)
    return None if any(bool((ids == NO_PERSON).any()) for ids in found) else found


def _is_synthetic(run: RecordedRun, dataset: Dataset | None) -> bool:
    if dataset is not None:
        return dataset.kind == "drawn"
    report = atomic_files.read_json(run.path / layout.EVALUATION) or {}
    data = report.get("data")
    return isinstance(data, dict) and data.get("kind") == "drawn"


def _queries_of(run: Path, number: int) -> WorstQueries | None:
    path = layout.queries_path(run, number)
    content = atomic_files.read_json(path)
    return None if content is None else atomic_files.checked(WorstQueries, content, path)
