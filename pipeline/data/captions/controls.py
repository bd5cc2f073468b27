"""Captions that say nothing, or something else, in place of the true ones: what they leave of a gain is no gain.

Source: ours. Read with the full method: equal results mean that captions carry no signal and training is merely
regularised; a better result of `infrared_from_visible` means that noise of infrared captions dominates.
"""

import logging
from typing import Final

import numpy as np
from jaxtyping import Int64

from models.modality import Modality, PerModality
from pipeline.data.truth import PersonIds
from pipeline.errors import DataError
from pipeline.runtime.seeds import numpy_generator

CONSTANT: Final = "A photo of a person."

logger = logging.getLogger(__name__)


def shuffled_captions(texts: tuple[str, ...], people: PersonIds, modality: Modality, seed: int) -> tuple[str, ...]:
    """Give every image the caption of another person's image; each caption is used once.

    Images are put in order of person, at random inside a person, and each takes the caption that stands as many places
    further as the person with most images has images.

    Args:
        texts: One caption an image.
        people: Whom the images show.
        modality: Which images they are.
        seed: Decides the order inside a person.

    Raises:
        DataError: An image says not whom it shows, or one person has more than half of the images.
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

    An image of a person without visible images keeps its own caption; pairs are never drawn from such people.

    Args:
        texts: One caption an image.
        people: Whom the images show.
        seed: Decides which visible image.

    Raises:
        DataError: An image says not whom it shows.
    """
    for modality, some in people.items():
        _require_known(some, modality)
    rng = numpy_generator(seed, "captions", "infrared_from_visible")
    alone = int((~np.isin(people.infrared.ids, people.visible.ids)).sum())
    if alone:
        logger.info("%d infrared images keep their captions: nobody on them is seen in visible images", alone)
    return PerModality(
        texts.visible, _of_the_same_person(texts.infrared, people.infrared, texts.visible, people.visible, rng)
    )


def same_person_captions(texts: tuple[str, ...], people: PersonIds, modality: Modality, seed: int) -> tuple[str, ...]:
    """Give every image the caption of a random image of its person and modality, itself among them.

    Args:
        texts: One caption an image of one modality.
        people: Whom they show.
        modality: Which, for the seed and for errors.
        seed: Decides which image.

    Raises:
        DataError: An image says not whom it shows.
    """
    _require_known(people, modality)
    rng = numpy_generator(seed, "captions", "same_person", modality.value)
    return _of_the_same_person(texts, people, texts, people, rng)


def _of_the_same_person(
    own: tuple[str, ...], people: PersonIds, texts: tuple[str, ...], described: PersonIds, rng: np.random.Generator
) -> tuple[str, ...]:
    """For every image a random one of the texts about its person; its own text where there is none."""
    rows_of = _rows_of(described.ids)
    return tuple(
        texts[int(rng.choice(rows_of[person]))] if person in rows_of else text
        for text, person in zip(own, people.ids.tolist(), strict=True)
    )


def _rows_of(ids: Int64[np.ndarray, " n"]) -> dict[int, Int64[np.ndarray, " _"]]:
    return {int(person): np.flatnonzero(ids == person) for person in np.unique(ids)}


def _require_known(people: PersonIds, modality: Modality) -> None:
    if not people.known:
        raise DataError(
            f"{modality} training images do not all say whom they show, and this control of captions needs it",
            hint="give every training image a person, or use control constant",
        )
