"""Labels of persons for losses, without true identities (`pipeline.data.truth`)."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Int64

from models.modality import PerModality

LEFT_OUT = -1  # label of an image whose person has images of one modality only


@dataclass(frozen=True, slots=True)
class PersonLabels:
    """The person of each training image, 0 to `num_people - 1` in the order of true numbers, or `LEFT_OUT`."""

    labels: PerModality[Int64[np.ndarray, " _"]]
    num_people: int
