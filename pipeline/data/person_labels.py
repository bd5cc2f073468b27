"""People as losses know them: a number for each training image. Who they are stands in `pipeline.data.truth`."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Int64

from models.modality import PerModality

LEFT_OUT = -1
"""The label of an image whose person is seen in one modality only."""


@dataclass(frozen=True, slots=True)
class PersonLabels:
    """Who is shown in each training image, 0 to `num_people - 1` in the order of true numbers, or `LEFT_OUT`."""

    labels: PerModality[Int64[np.ndarray, " _"]]
    num_people: int
