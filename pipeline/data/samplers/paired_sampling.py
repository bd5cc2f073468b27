"""Which images a step of supervised training shows: the same people in both modalities, drawn before the epoch begins.

As in `pipeline.data.samplers.sampling`, an epoch's batches are a value: iterating twice gives the same ones.
"""

import logging
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from jaxtyping import Int, Int64

from models.modality import PerModality
from pipeline.data.samplers.sampling import ImagesByLabel, Replacement, draw_images, sort_by_label

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class PairedIdentityBatches:
    """The batches of one epoch: some people, and as many images of each of them from either modality.

    Within a batch images of one person stand together, and the people stand in the same order in both modalities: the
    k-th visible image shows whom the k-th infrared image shows. A last, smaller batch never occurs.
    """

    positions: PerModality[Int64[np.ndarray, "steps batch"]]
    people_per_batch: int
    images_per_person: int

    def __len__(self) -> int:
        return len(self.positions.visible)

    def __iter__(self) -> Iterator[PerModality[Int64[np.ndarray, " batch"]]]:
        for visible, infrared in zip(self.positions.visible, self.positions.infrared, strict=True):
            yield PerModality(visible, infrared)


def paired_identity_batches(
    person_ids: PerModality[Int[np.ndarray, " n"]],
    *,
    people_per_batch: int,
    images_per_person: int,
    replacement: Replacement,
    generator: np.random.Generator,
) -> PairedIdentityBatches:
    """Draw an epoch of batches: P people, and I images of each of them from either modality.

    Images of people who are seen in one modality only are left out. Fewer than P people: all of them, in every batch,
    reported once. Fewer than I images of a person in a modality: drawn with repetition.
    The number of steps follows the longer list, and the P and I that were asked for.

    Args:
        person_ids: Who is shown in each image, numbers from 0 on; gaps do no harm; negative ones are left out.
        people_per_batch: P, at least 1; drawn without repetition within a batch.
        images_per_person: I, at least 1.
        replacement: `always`: images of a person are drawn with repetition even where there are enough; `when_short`:
            only where there are fewer than I.
        generator: Where the draws come from; for each batch the people, then visible, then infrared images.

    Returns:
        `max(images of a modality) // (P I) + 1` batches of positions in the vectors; images left out do not count.

    Cost:
        One sort of the numbers, then work in proportion to what is drawn; about 40 ms for the 696 batches of
        SYSU-MM01.

    Source: nengdong96/CSDN, public code, sampler of all stages. Differs: fewer people than P is not an error.
    """
    present = person_ids.map(lambda ids: np.unique(ids[ids >= 0]))
    both = np.intersect1d(present.visible, present.infrared, assume_unique=True)
    assert len(both) >= 2, "with one person there is nobody to tell from: refused where labels are made"
    num_people = min(people_per_batch, len(both))
    if num_people < people_per_batch:
        logger.info("batches show all %d people; %d were asked for", num_people, people_per_batch)
    people = person_ids.map(lambda ids: sort_by_label(np.where(np.isin(ids, both), ids, -1)))
    num_steps = max(len(one.images) for one in people) // (people_per_batch * images_per_person) + 1
    steps = [
        _draw_step(people, len(both), num_people, images_per_person, replacement, generator) for _ in range(num_steps)
    ]
    positions = PerModality.build(lambda modality: np.stack([step[modality] for step in steps]))
    return PairedIdentityBatches(positions, num_people, images_per_person)


def _draw_step(
    people: PerModality[ImagesByLabel],
    num_known: int,
    num_people: int,
    num_images: int,
    replacement: Replacement,
    generator: np.random.Generator,
) -> PerModality[Int64[np.ndarray, " batch"]]:
    # The same people are in both values, so a number stands for the same person in both.
    chosen = generator.choice(num_known, size=num_people, replace=False)
    return people.map(lambda one: draw_images(one, chosen, num_images, replacement, generator))
