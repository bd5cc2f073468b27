"""Identity labels of the training images for supervised methods; unsupervised training cannot import this."""

import logging
from dataclasses import dataclass

import numpy as np
from jaxtyping import Int64

from models.modality import PerModality
from pipeline.data.truth import Dataset
from pipeline.errors import DataError

FEWEST_PEOPLE = 2
LEFT_OUT = -1  # label of an image whose person has images of one modality only

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class PersonLabels:
    """The person of each training image, 0 to `num_people - 1` in the order of true numbers, or `LEFT_OUT`."""

    labels: PerModality[Int64[np.ndarray, " _"]]
    num_people: int


@dataclass(frozen=True, slots=True, eq=False)
class Supervision:
    """Input of supervised methods: the data set with identities, and the stored rows of its training images."""

    dataset: Dataset
    rows: PerModality[Int64[np.ndarray, " _"]]

    def people(self) -> PersonLabels:
        """The person of each training image."""
        return person_labels(self.dataset, self.rows)


def person_labels(dataset: Dataset, rows: PerModality[Int64[np.ndarray, " _"]]) -> PersonLabels:
    """Number the people with images of both modalities; the others are excluded. `rows` are in training order.

    Raises:
        DataError: An image has no identity, or fewer than two people have images of both modalities.
    """
    people = dataset.training_people(rows)
    for modality, some in people.items():
        if not some.known:
            raise DataError(
                f"not all {modality} training images of {dataset.root} have a person, and this method is supervised",
                hint="give every training image a person, or train unsupervised, such as `vireid train cclnet-sysu`",
            )
    ids = people.map(lambda some: some.ids)
    both = np.intersect1d(ids.visible, ids.infrared)
    alone = ids.map(lambda some: len(np.setdiff1d(some, both)))
    if len(both) < FEWEST_PEOPLE:
        raise DataError(
            f"{len(both)} persons of {dataset.root} have images of both modalities; {FEWEST_PEOPLE} are needed",
            hint="check that a person has the same name in both modalities, or add images",
        )
    if any(alone):
        logger.info("%d persons are excluded: %d have visible images only, %d infrared ones only", sum(alone), *alone)
    return PersonLabels(ids.map(lambda some: _number(some, both)), len(both))


def _number(ids: Int64[np.ndarray, " n"], known: Int64[np.ndarray, " people"]) -> Int64[np.ndarray, " n"]:
    places = np.searchsorted(known, ids).clip(max=len(known) - 1)
    return np.where(known[places] == ids, places, LEFT_OUT).astype(np.int64)
