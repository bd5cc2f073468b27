"""Control captions, which replace the true ones: a gain that remains with them does not come from caption content.

Equal results mean that captions carry no signal and training is merely regularised; a better result of
`infrared_from_visible` means that noise of infrared captions dominates.
"""

import logging
from typing import Final

import numpy as np

from models.modality import Modality, PerModality
from pipeline.data.truth import PersonIds
from pipeline.errors import DataError
from pipeline.runtime.seeds import numpy_generator

CONSTANT: Final = "A photo of a person."

logger = logging.getLogger(__name__)


def shuffled_captions(texts: tuple[str, ...], people: PersonIds, modality: Modality, seed: int) -> tuple[str, ...]:
    """Give every image the caption of another person's image; each caption is used once.

    Images are sorted by person, in random order within a person, and captions shifted by the largest person's image
    count.

    Raises:
        DataError: An image has no known person, or one person has more than half of the images.
    """
    _require_known(people, modality)
    rng = numpy_generator(seed, "captions", "shuffled", modality.value)
    order = np.lexsort((rng.random(len(texts)), people.ids))
    largest = int(np.unique(people.ids, return_counts=True)[1].max())
    if len(texts) < 2 * largest:
        raise DataError(
            f"one person has {largest} of the {len(texts)} {modality} training images: captions cannot be exchanged "
            "between persons",
            hint="use another control, or more persons",
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

    Raises:
        DataError: An image has no known person.
    """
    for modality, some in people.items():
        _require_known(some, modality)
    rng = numpy_generator(seed, "captions", "infrared_from_visible")
    alone = int((~np.isin(people.infrared.ids, people.visible.ids)).sum())
    if alone:
        logger.info("%d infrared images keep their captions: their persons have no visible images", alone)
    return PerModality(
        texts.visible, _of_the_same_person(texts.infrared, people.infrared, texts.visible, people.visible, rng)
    )


def same_person_captions(texts: tuple[str, ...], people: PersonIds, modality: Modality, seed: int) -> tuple[str, ...]:
    """Give every image the caption of a random image of its person and modality, itself included.

    Raises:
        DataError: An image has no known person.
    """
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
