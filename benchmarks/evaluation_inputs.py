"""A test set of SYSU-MM01's size: drawn features, people and cameras."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float32, Int64

WIDTH = 2048
# Camera: test images and test people (SYSU-MM01, computed from its split files). 3 and 6 are infrared.
CAMERAS = {1: (1374, 56), 2: (1565, 56), 3: (1883, 93), 4: (1918, 94), 5: (1918, 95), 6: (1920, 96)}
LEAST_IMAGES = 13  # every person has at least so many in a camera where they have any
NUM_PEOPLE = 96


@dataclass(frozen=True, slots=True, eq=False)
class Images:
    """Images of one modality."""

    features: Float32[np.ndarray, "n d"]
    people: Int64[np.ndarray, " n"]
    cameras: Int64[np.ndarray, " n"]


def draw_test_split(generator: np.random.Generator) -> tuple[Images, Images]:
    """Visible and infrared images: who is in which camera is drawn, how many is not."""
    indoors = generator.permutation(NUM_PEOPLE)[: CAMERAS[1][1]]  # the same people in both bright rooms
    people, cameras = [], []
    for camera, (images, seen) in CAMERAS.items():
        persons = indoors if camera in (1, 2) else generator.permutation(NUM_PEOPLE)[:seen]
        spare = generator.multinomial(images - LEAST_IMAGES * seen, np.full(seen, 1 / seen))
        people.append(np.repeat(persons, LEAST_IMAGES + spare))
        cameras.append(np.full(images, camera))
    person, camera = np.concatenate(people), np.concatenate(cameras)
    features = draw_features(generator, person, camera)
    infrared = np.isin(camera, (3, 6))
    visible_images, infrared_images = (
        Images(features[which], person[which], camera[which]) for which in (~infrared, infrared)
    )
    return visible_images, infrared_images


def draw_features(
    generator: np.random.Generator, people: Int64[np.ndarray, " n"], cameras: Int64[np.ndarray, " n"]
) -> Float32[np.ndarray, "n d"]:
    """Person, camera, person in camera, modality and noise, each a random direction; Rank-1 is about a third."""
    directions = {
        name: generator.standard_normal((count, WIDTH)).astype(np.float32)
        for name, count in (("person", 96), ("camera", 7), ("both", 96 * 7), ("modality", 2))
    }
    features = 2.2 * generator.standard_normal((len(people), WIDTH), dtype=np.float32)
    features += 0.5 * directions["person"][people]
    features += 0.8 * directions["both"][people * 7 + cameras]
    features += 0.6 * directions["camera"][cameras]
    features += directions["modality"][np.isin(cameras, (3, 6)).astype(np.int64)]
    return features
