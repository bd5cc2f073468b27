"""The captions of a data set's training images: read from a file, joined by path, checked before training.

Checks and controls read true identities: unsupervised training must not import this module.
"""

import hashlib
import logging
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

import numpy as np
from jaxtyping import Int64

from models.modality import Modality, PerModality
from pipeline.data.captions.controls import (
    constant_captions,
    infrared_from_visible,
    same_person_captions,
    shuffled_captions,
)
from pipeline.data.captions.files import CaptionRow, meta_path, read_caption_rows, some_of
from pipeline.data.captions.report import CaptionReport, describe_captions
from pipeline.data.truth import UNKNOWN_PERSON, Dataset
from pipeline.errors import DataError

Control = Literal["none", "shuffled", "constant", "same_person", "infrared_from_visible"]

logger = logging.getLogger(__name__)

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
    """The caption of every training image, in the order of the training tables; captions of other images are ignored.

    Raises:
        DataError: As for `load_captions`.
    """
    rows = read_caption_rows(path, caption_field=caption_field, path_prefix=path_prefix)
    if not meta_path(path).is_file():
        logger.warning("%s: no %s beside it: the origin of these captions is unknown", path, meta_path(path).name)
    by_path = _by_path(path, rows)
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
    """Log statistics of the captions, a line a modality.

    Raises:
        DataError: More than `max_truncated_share` of a modality's captions have more than 77 tokens.
    """
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
