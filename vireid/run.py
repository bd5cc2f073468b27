"""Runs as pandas tables, images as vectors and ranked lists. What is slow to import is imported where it is used."""

import importlib
import logging
import os
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pipeline.config.experiment import flat
from pipeline.errors import ConfigError, DataError, VireidError
from pipeline.storage.run_reader import RecordedRun, read_run, read_runs

if TYPE_CHECKING:
    from pandas import DataFrame

    from pipeline.data.image_list import ImageList
    from pipeline.inference.encoder import TrainedEncoder

logger = logging.getLogger(__name__)

AnyPath = str | os.PathLike[str]
Images = AnyPath | Iterable[AnyPath]
"""A folder, a manifest, a list of paths (.txt) or an image; or several images."""

ModalityName = Literal["visible", "infrared"]


def runs(folder: AnyPath = "runs") -> "DataFrame":
    """List the runs of a folder, the oldest first; a running one is not disturbed.

    Returns:
        A row a run, indexed by its name: path, method, data set, split, seed, finished and planned rounds, state, the
        headline search with Rank-1 and mAP of its last evaluated round in percent, and the time of the last change.
        What cannot be read is logged as a warning.

    Raises:
        ConfigError: The folder cannot be listed, or pandas is missing.
    """
    rows = []
    for one in read_runs(Path(folder)):
        if isinstance(one, VireidError):
            logger.warning("skipped: %s", one.message)
            continue
        last = one.scores[-1] if one.scores else None
        rows.append(
            {
                "run": one.name,
                "path": str(one.path),
                "method": one.config.method,
                "data": one.config.data.name,
                "split": one.config.data.split,
                "seed": one.config.seed,
                "rounds": len(one.rounds),
                "planned": one.planned,
                "state": one.state,
                "search": one.headline,
                "rank1": None if last is None else 100 * last.r1,
                "mAP": None if last is None else 100 * last.map,
                "written": one.written,
            }
        )
    columns = ["run", "path", "method", "data", "split", "seed", "rounds", "planned", "state", "search", "rank1", "mAP"]
    rows.sort(key=lambda row: (row["written"], row["run"]))
    return _pandas().DataFrame(rows, columns=[*columns, "written"]).set_index("run")


def open_run(run: AnyPath, *, device: str = "auto") -> "Run":
    """Open a run by its folder, a checkpoint in it, or its model in MLflow, such as `models:/NAME/1`.

    `device` is that of the encoder: `auto`, `cpu`, `cuda` or `cuda:N`. Nothing is read before a method needs it.
    """
    return Run(os.fspath(run), device)


@dataclass(frozen=True)
class Run:
    """A run: tables of its rounds and clusters from its folder, vectors and searches by its encoder."""

    run: str
    device: str = "auto"

    def settings(self) -> dict[str, Any]:
        """The recorded settings by dotted names, such as `labelling.visible.eps`."""
        return dict(flat(self._record().recorded))

    def rounds(self) -> "DataFrame":
        """All numbers and timings of the finished rounds, indexed by the round; names are those of MLflow.

        Raises:
            CheckpointError: There is no run, or it cannot be read.
            ConfigError: pandas is missing.
        """
        rows = list(self._record().rounds.values())
        return _pandas().DataFrame(rows, columns=None if rows else ["round"]).set_index("round")

    def labels(self, round: int | None = None) -> "DataFrame":  # noqa: A002 - `run.labels(round=12)`
        """The clusters of a round, the last finished one by default: a row a training image.

        Returns:
            `modality`; `file` relative to the data set's folder; `cluster`, -1 for an outlier; `core`, whether it is a
            core point; `similarity` to the prototype; and `pair`, the cluster of the other modality that was taken for
            the same person, -1 without one. Columns that the label file lacks are absent: those of earlier versions
            have neither files nor pairs.

        Raises:
            DataError: The round has no labels, as in methods with identities, or the file is damaged.
            CheckpointError: There is no run.
            ConfigError: pandas is missing.
        """
        from models.modality import Modality
        from pipeline.storage.label_files import read_labels

        record = self._record()
        number = max(record.rounds, default=0) if round is None else round
        found = read_labels(record.path, number)
        if found is None:
            raise DataError(
                f"round {number} of {record.path} has no labels",
                hint="methods with identities make no clusters; see `rounds()`",
            )
        tables = []
        for modality, one in found.clusterings.items():
            columns: dict[str, Any] = {"cluster": one.labels, "core": one.core}
            if found.paths is not None:
                columns = {"file": found.paths[modality]} | columns
            if found.similarity is not None:
                columns["similarity"] = found.similarity[modality]
            table = _pandas().DataFrame({"modality": str(modality), **columns})
            if found.pairs is not None:
                sides = {Modality.VISIBLE: found.pairs.visible, Modality.INFRARED: found.pairs.infrared}
                partners = dict(zip(sides[modality].tolist(), sides[modality.other].tolist(), strict=True))
                table["pair"] = [partners.get(cluster, -1) for cluster in one.labels.tolist()]
            tables.append(table)
        return _pandas().concat(tables, ignore_index=True)

    def embed(
        self, images: Images, modality: ModalityName | None = None, *, batch_size: int = 64, workers: int | None = None
    ) -> "DataFrame":
        """Encode images: a row of the vector's numbers for each readable image, indexed by its path.

        Args:
            images: A folder, a manifest, a list of paths or an image; or several images.
            modality: Of all images; a manifest names its own, and the modality then selects rows.
            batch_size: Images encoded at once.
            workers: Images decoded at once; one for each core by default.

        Raises:
            VireidError: The encoder or the images cannot be read.
        """
        from pipeline.inference.embedding import embed_images, require_some

        chosen = _listed(images, modality)
        found = require_some(embed_images(self._encoder, chosen, batch_size=batch_size, workers=workers))
        paths = _pandas().Index([chosen.paths[row] for row in found.rows], name="file")
        return _pandas().DataFrame(found.vectors, index=paths)

    def search(
        self,
        query: Images,
        gallery: AnyPath,
        direction: Literal["infrared_to_visible", "visible_to_infrared"],
        *,
        top: int = 10,
        group: str = "",
        group_by: Literal["mean", "medoid"] = "mean",
        false_match: float | None = None,
        index: AnyPath | None = None,
        batch_size: int = 64,
        workers: int | None = None,
    ) -> "DataFrame":
        """Rank the images of a gallery for each query: a row a query and rank, as `vireid search` prints them.

        Args:
            query: As for `embed`.
            gallery: A folder, a manifest, a list of paths, the folder of an index, or its address in Milvus.
            direction: Modality of the queries, and of the gallery.
            top: Retrieved images for each query.
            group: `track`, `folder` or a pattern of paths: queries and gallery images searched as one.
            group_by: Vector of a group.
            false_match: Hits that fewer than this share of strangers reach are kept; needs `vireid calibrate`.
            index: The folder of the gallery's index, or its address in Milvus; in `indexes` by default.
            batch_size: Images encoded at once.
            workers: Images decoded at once; one for each core by default.

        Raises:
            VireidError: The encoder, the images or the index cannot be read.
        """
        from models.modality import Modality
        from pipeline.config.datasets import DIRECTIONS
        from pipeline.inference.groups import Grouping
        from pipeline.inference.index import INDEXES, GallerySource
        from pipeline.inference.index_refresh import open_or_refresh
        from pipeline.inference.milvus_calibration import calibrations_of
        from pipeline.inference.searching import search_gallery

        if direction not in DIRECTIONS:
            raise ConfigError(f"direction {direction!r} does not exist", hint=f"choose from: {', '.join(DIRECTIONS)}")
        asking, _, asked = direction.partition("_to_")
        queries, source = _listed(query, asking), GallerySource(Path(gallery), Modality(asked))
        folder = None if index is None else Path(index)
        opened, place = open_or_refresh(source, folder, INDEXES, self._encoder, batch_size=batch_size, workers=workers)
        found = search_gallery(
            self._encoder,
            queries,
            opened,
            top,
            batch_size=batch_size,
            workers=workers,
            grouping=Grouping(group, group, group_by),
            calibrations=calibrations_of(opened, place),
            false_match=false_match,
        )
        rows = [
            {"query": one.path, "rank": rank, **asdict(hit)}
            for one in found.queries
            for rank, hit in enumerate(one.hits, start=1)
        ]
        known = ["path", "camera", "person", "track", "time", "group", "images", "right"]
        table = _pandas().DataFrame(rows, columns=["query", "rank", "score", "one_in", *known])
        return table.rename(columns={"path": "file"})

    @cached_property
    def _encoder(self) -> "TrainedEncoder":
        from pipeline.inference.run_encoder import open_encoder

        return open_encoder(self.run, self.device)

    def _record(self) -> RecordedRun:
        return read_run(Path(self.run))


def _listed(images: Images, modality: str | None) -> "ImageList":
    """The images that a user names."""
    import numpy as np

    from models.modality import Modality
    from pipeline.data.image_list import ImageList, list_images

    if modality is not None and modality not in {one.value for one in Modality}:
        raise ConfigError(f"modality {modality!r} does not exist", hint="choose visible or infrared")
    of_all = None if modality is None else Modality(modality)
    if isinstance(images, (str, os.PathLike)):
        return list_images(Path(images), of_all)
    paths = tuple(dict.fromkeys(Path(one).as_posix() for one in images))
    if not paths or of_all is None:
        raise ConfigError(
            "the images may be visible or infrared" if paths else "no image is given",
            hint="give paths and their modality: it is never guessed from pixels",
        )
    return ImageList(Path(), paths, np.full(len(paths), of_all is Modality.INFRARED))


def _pandas() -> Any:
    try:
        return importlib.import_module("pandas")
    except ImportError as error:
        raise ConfigError(
            "pandas is not installed", hint="it is installed with MLflow: `make setup`, or pip install pandas"
        ) from error
