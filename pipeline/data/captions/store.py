"""The captions of a data set's training images: read from a file, joined by path, checked before training.

Checks and controls read true identities: unsupervised training must not import this module.
"""

import hashlib
import logging
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final, Literal

import numpy as np
from jaxtyping import Int64

from models.modality import Modality, PerModality
from pipeline.data.captions.files import CaptionRow, meta_path, read_caption_rows, some_of
from pipeline.data.captions.report import CaptionReport, describe_captions
from pipeline.data.truth import UNKNOWN_PERSON, Dataset, PersonIds
from pipeline.errors import DataError
from pipeline.runtime.names import Names, spelling_notes
from pipeline.runtime.seeds import numpy_generator

CONSTANT: Final = "A photo of a person."

logger = logging.getLogger(__name__)


def shuffled_captions(texts: tuple[str, ...], people: PersonIds, modality: Modality, seed: int) -> tuple[str, ...]:
    """Give every image the caption of another person's image; each caption is used once.

    Images are sorted by person, in random order within a person, and captions shifted by the largest person's image
    count.
    """
    _require_known(people, modality)
    rng = numpy_generator(seed, "captions", "shuffled", modality.value)
    order = np.lexsort((rng.random(len(texts)), people.ids))
    largest = int(np.unique(people.ids, return_counts=True)[1].max())
    if len(texts) < 2 * largest:
        raise DataError(
            f"one person has {largest} of the {len(texts)} {modality} training images: captions cannot be exchanged "
            "between people",
            hint="use another control, or more people",
        )
    exchanged = list(texts)
    for place, image in enumerate(order.tolist()):
        exchanged[image] = texts[order[(place + largest) % len(order)]]
    return tuple(exchanged)


def constant_captions(texts: tuple[str, ...]) -> tuple[str, ...]:
    """The same sentence for every image."""
    return (CONSTANT,) * len(texts)


def infrared_from_visible(
    texts: PerModality[tuple[str, ...]], people: PerModality[PersonIds], seed: int
) -> PerModality[tuple[str, ...]]:
    """Give every infrared image the caption of a random visible image of its person, so that no colours conflict.

    An image of a person without visible images keeps its own caption.
    """
    for modality, some in people.items():
        _require_known(some, modality)
    rng = numpy_generator(seed, "captions", "infrared_from_visible")
    alone = int((~np.isin(people.infrared.ids, people.visible.ids)).sum())
    if alone:
        logger.info("%d infrared images keep their captions: their people have no visible images", alone)
    return PerModality(
        texts.visible, _of_the_same_person(texts.infrared, people.infrared, texts.visible, people.visible, rng)
    )


def same_person_captions(texts: tuple[str, ...], people: PersonIds, modality: Modality, seed: int) -> tuple[str, ...]:
    """Give every image the caption of a random image of its person and modality, itself included."""
    _require_known(people, modality)
    rng = numpy_generator(seed, "captions", "same_person", modality.value)
    return _of_the_same_person(texts, people, texts, people, rng)


def _of_the_same_person(
    own: tuple[str, ...], people: PersonIds, texts: tuple[str, ...], described: PersonIds, rng: np.random.Generator
) -> tuple[str, ...]:
    """For every image a random text of its person; its own text if there is none."""
    rows_of = {int(person): np.flatnonzero(described.ids == person) for person in np.unique(described.ids)}
    return tuple(
        texts[int(rng.choice(rows_of[person]))] if person in rows_of else text
        for text, person in zip(own, people.ids.tolist(), strict=True)
    )


def _require_known(people: PersonIds, modality: Modality) -> None:
    if not people.known:
        raise DataError(
            f"not all {modality} training images have a person, which this control of captions needs",
            hint="give every training image a person, or use control constant",
        )


Control = Literal["none", "shuffled", "constant", "same_person", "infrared_from_visible"]


_LEAD_IN: Final = re.compile(
    r"\A(?:in (?:the|this) (?:image|picture|photo),?|"
    r"(?:the|this) (?:image|picture|photo) (?:features|shows|depicts|captures|is of))\s+(?=\S)",
    re.IGNORECASE,
)
_COMPLETE: Final = "complete it with `vireid caption`, which resumes a file"


@dataclass(frozen=True, slots=True)
class Captions:
    """One caption for each image of `training.images[modality].paths`, and the SHA-256 over these texts."""

    texts: PerModality[tuple[str, ...]]
    digest: str


def load_captions(
    dataset: Dataset,
    path: Path,
    *,
    caption_field: str = "caption",
    path_prefix: str = "",
    strip_lead_in: bool = False,
    control: Control = "none",
    control_seed: int = 1,
) -> Captions:
    """Read the captions of the training images, and apply the options.

    `strip_lead_in` removes a fixed opening such as `The image shows`. A `control` replaces the captions: by those of
    other people (`shuffled`), one for all (`constant`), those of any image of the same person and modality
    (`same_person`), or those of visible images for infrared ones; `control_seed` draws them.

    Raises:
        DataError: The file is missing or damaged, belongs to another data set, has no or two captions for an image, or
            contradicts the data set; or a control cannot be made.
    """
    texts = read_captions(path, dataset, caption_field=caption_field, path_prefix=path_prefix)
    if strip_lead_in:
        texts = texts.map(lambda some: tuple(_LEAD_IN.sub("", text, count=1) for text in some))
    people = dataset.training.people
    match control:
        case "none":
            pass
        case "shuffled":
            texts = PerModality.build(
                lambda modality: shuffled_captions(texts[modality], people[modality], modality, control_seed)
            )
        case "same_person":
            texts = PerModality.build(
                lambda modality: same_person_captions(texts[modality], people[modality], modality, control_seed)
            )
        case "constant":
            texts = texts.map(constant_captions)
        case "infrared_from_visible":
            texts = infrared_from_visible(texts, people, control_seed)
    return Captions(texts, _digest(texts))


def read_captions(
    path: Path, dataset: Dataset, *, caption_field: str = "caption", path_prefix: str = ""
) -> PerModality[tuple[str, ...]]:
    """The caption of every training image, in the order of the training tables; other captions are ignored."""
    rows = read_caption_rows(path, caption_field=caption_field, path_prefix=path_prefix)
    if not meta_path(path).is_file():
        logger.warning("%s: no %s beside it: the origin of these captions is unknown", path, meta_path(path).name)
    by_path = _by_path(path, _as_known(path, rows, dataset))
    _refuse_strangers(path, dataset, by_path)
    _refuse_contradictions(path, dataset, by_path)
    missing = [one for table in dataset.training.images for one in table.paths if one not in by_path]
    empty = [
        one for table in dataset.training.images for one in table.paths if one in by_path and not by_path[one].caption
    ]
    for paths, what in (
        (missing, "training images without a caption"),
        (empty, "training images with an empty caption"),
    ):
        if paths:
            raise DataError(f"{path}: {some_of(paths, what)}", hint=_COMPLETE)
    return dataset.training.images.map(lambda table: tuple(by_path[one].caption for one in table.paths))


def truncation_report(
    captions: Captions, count_tokens: Callable[[list[str]], Int64[np.ndarray, " _"]], *, max_truncated_share: float
) -> CaptionReport:
    """Log statistics of the captions, a line a modality."""
    report = describe_captions(captions.texts, count_tokens)
    for modality, one in report.modalities.items():
        logger.info("%s captions: %s", modality, one)
        if one.truncated_share > max_truncated_share:
            raise DataError(
                f"{one.truncated_share:.1%} of the {modality} captions have more than 77 tokens and would lose their "
                f"end; the longest has {one.max_tokens}",
                hint="caption again with a smaller --max-new-tokens, or raise max_truncated_share "
                f"(now {max_truncated_share})",
            )
    return report


def _as_known(path: Path, rows: list[CaptionRow], dataset: Dataset) -> list[CaptionRow]:
    """The rows with the data set's spelling of their paths."""
    names = Names(one for table in dataset.images for one in table.paths)
    known = [replace(row, path=names.find(row.path) or row.path) for row in rows]
    renamed = [(row.path, one.path) for row, one in zip(rows, known, strict=True) if row.path != one.path]
    for note in spelling_notes(renamed, "paths"):
        logger.info("%s: %s", path.name, note)
    return known


def _by_path(path: Path, rows: list[CaptionRow]) -> dict[str, CaptionRow]:
    by_path: dict[str, CaptionRow] = {}
    offenders: list[str] = []
    for row in rows:
        first = by_path.setdefault(row.path, row)
        if first.caption != row.caption:
            offenders.append(f"{row.path} ({first.place} and {row.place})")
    if offenders:
        raise DataError(
            f"{path}: {some_of(offenders, 'images with two different captions')}", hint="keep one line for each image"
        )
    return by_path


def _refuse_strangers(path: Path, dataset: Dataset, by_path: dict[str, CaptionRow]) -> None:
    known = {one for table in dataset.images for one in table.paths}
    strangers = [one for one in by_path if one not in known]
    if not strangers:
        return
    found = some_of(strangers, f"captions of images that {dataset.name} does not have")
    if dataset.partial and len(strangers) < len(by_path):
        logger.warning("%s: %s", path, found)
        return
    raise DataError(
        f"{path}: {found}", hint="is it the file of another data set? path_prefix removes a prefix of every path"
    )


def _refuse_contradictions(path: Path, dataset: Dataset, by_path: dict[str, CaptionRow]) -> None:
    offenders: list[str] = []

    def compare(modality: Modality) -> None:
        table, people = dataset.training.images[modality], dataset.training.people[modality]
        for one, camera, person in zip(table.paths, table.cameras.tolist(), people.ids.tolist(), strict=True):
            row = by_path.get(one)
            if row is None:
                continue
            for what, said, true in (
                ("modality", row.modality, modality),
                ("camera", row.camera, camera),
                ("person", row.person, None if person == UNKNOWN_PERSON else person),
            ):
                if said is not None and true is not None and said != true:
                    offenders.append(f"{row.place}: {what} is {said}, not {true}")

    for modality in Modality:
        compare(modality)
    if offenders:
        raise DataError(
            f"{path}: {some_of(offenders, 'contradictions to the data set')}",
            hint="is it the file of another data set, or of another version of this one?",
        )


def _digest(texts: PerModality[tuple[str, ...]]) -> str:
    digest = hashlib.sha256()
    for modality, some in texts.items():
        digest.update(f"{modality} {len(some)}\n".encode())
        for text in some:
            digest.update(f"{text}\n".encode())
    return digest.hexdigest()
