"""The people of the training images, as supervised training may know them: numbers from 0, one space for all.

The only way from true identities to a loss. Unsupervised training cannot import this module; a contract checks it.
"""

import logging
from dataclasses import dataclass

import numpy as np
from jaxtyping import Int64

from models.modality import PerModality
from pipeline.data.person_labels import LEFT_OUT, PersonLabels
from pipeline.data.truth import Dataset
from pipeline.errors import DataError

FEWEST_PEOPLE = 2

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, eq=False)
class Supervision:
    """What a supervised method is given besides images.

    Attributes:
        dataset: With identities, for captions and their checks.
        rows: The training images in the order in which they are trained on, as rows of the store.
    """

    dataset: Dataset
    rows: PerModality[Int64[np.ndarray, " _"]]

    def people(self) -> PersonLabels:
        """Who is shown in each training image; see `person_labels`."""
        return person_labels(self.dataset, self.rows)


def person_labels(dataset: Dataset, rows: PerModality[Int64[np.ndarray, " _"]]) -> PersonLabels:
    """Number the people who are seen in both modalities; the others, whom nothing can be matched with, are left out.

    Args:
        dataset: With its training people.
        rows: The training images in the order in which they are trained on, as rows of the store.

    Raises:
        DataError: An image does not say whom it shows, or fewer than two people are seen in both modalities.
    """
    people = dataset.training_people(rows)
    for modality, some in people.items():
        if not some.known:
            raise DataError(
                f"{modality} training images of {dataset.root} do not all say whom they show, and this method is "
                "supervised",
                hint="give every training image a person, or train without: `vireid train cclnet-sysu` and its like",
            )
    ids = people.map(lambda some: some.ids)
    both = np.intersect1d(ids.visible, ids.infrared)
    alone = ids.map(lambda some: len(np.setdiff1d(some, both)))
    if len(both) < FEWEST_PEOPLE:
        raise DataError(
            f"{len(both)} people of {dataset.root} are seen in both modalities; at least {FEWEST_PEOPLE} are needed",
            hint="check that a person has the same name in both modalities, or add images",
        )
    if any(alone):
        logger.info(
            "%d people are left out: %d are seen in visible images only, %d in infrared ones", sum(alone), *alone
        )
    return PersonLabels(ids.map(lambda some: _number(some, both)), len(both))


def _number(ids: Int64[np.ndarray, " n"], known: Int64[np.ndarray, " people"]) -> Int64[np.ndarray, " n"]:
    places = np.searchsorted(known, ids).clip(max=len(known) - 1)
    return np.where(known[places] == ids, places, LEFT_OUT).astype(np.int64)
