"""Drawn features on which the clustering is verified: people under cameras, and the hard cases."""

import numpy as np
from jaxtyping import Float32, Float64


def identity_features(
    num_images: int, num_people: int, width: int, *, seed: int = 1, num_cameras: int = 4
) -> Float32[np.ndarray, "n d"]:
    """Unit rows of people seen by cameras, in shuffled order.

    A row is the direction of person + 0.35 camera + 0.62 (person, camera) + 1.35 heavy-tailed noise + 0.55 isotropic.
    Person and (person, camera) lie in one subspace of 96 dimensions with variances 1/sqrt(rank), the heavy-tailed noise
    (Student's t with four degrees of freedom, scaled to variance 1) in one of 48. Every part has a root mean square
    length of 1 before its factor.
    """
    generator = np.random.default_rng(seed)
    person_basis = generator.standard_normal((96, width)) / np.sqrt(width)
    noise_basis = generator.standard_normal((48, width)) / np.sqrt(width)
    spread = np.arange(1.0, 97.0) ** -0.25
    spread /= np.linalg.norm(spread)
    people = generator.standard_normal((num_people, 96)) * spread
    people_in_camera = generator.standard_normal((num_people, num_cameras, 96)) * spread
    cameras = generator.standard_normal((num_cameras, width)) / np.sqrt(width)
    person = generator.integers(num_people, size=num_images)
    camera = generator.integers(num_cameras, size=num_images)
    tails = np.sqrt(2.0 / generator.chisquare(4, size=(num_images, 1)))  # E[2 / chi-square(4)] = 1
    noise = generator.standard_normal((num_images, 48)) / np.sqrt(48) * tails
    rows = (people[person] + 0.62 * people_in_camera[person, camera]) @ person_basis
    rows += 0.35 * cameras[camera] + 1.35 * noise @ noise_basis
    rows += 0.55 * generator.standard_normal((num_images, width)) / np.sqrt(width)
    return unit(rows)


def unit(rows: Float64[np.ndarray, "n d"]) -> Float32[np.ndarray, "n d"]:
    """Scale rows to unit length."""
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def gaussian_features(num_images: int, width: int, *, seed: int = 1) -> Float32[np.ndarray, "n d"]:
    """Directions without any structure: every image is an outlier."""
    return unit(np.random.default_rng(seed).standard_normal((num_images, width)))


def untrained_features(num_images: int, width: int, *, seed: int = 1) -> Float32[np.ndarray, "n d"]:
    """Features as an untrained network gives them after a ReLU: a large common part, so that some images are hubs."""
    return unit(1.0 + 0.3 * np.abs(np.random.default_rng(seed).standard_normal((num_images, width))))


def copied_features(num_different: int, copies: int, width: int, *, seed: int = 1) -> Float32[np.ndarray, "n d"]:
    """Each image `copies` times, in shuffled order."""
    generator = np.random.default_rng(seed)
    rows = np.repeat(unit(generator.standard_normal((num_different, width))), copies, axis=0)
    return rows[generator.permutation(len(rows))]


def blob_features(num_images: int, width: int, *, seed: int = 1) -> Float32[np.ndarray, "n d"]:
    """One dense blob: all images close around one direction."""
    generator = np.random.default_rng(seed)
    return unit(generator.standard_normal(width) + 0.05 * generator.standard_normal((num_images, width)))
