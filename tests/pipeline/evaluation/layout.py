"""Test tables with the SYSU-MM01 folder layout, from a count of images for each person and camera."""

from pathlib import Path

import numpy as np

from models.modality import PerModality
from pipeline.data.images import ImageTable
from pipeline.data.truth import PersonIds, SplitTables
from pipeline.evaluation.protocols.spec import GalleryDraws
from pipeline.evaluation.searches import plan_search, samples_of

CAMERAS = PerModality((1, 2, 4, 5), (3, 6))


def sysu_layout(images):
    """The tables of a test split: person ascending, camera ascending, image ascending.

    Args:
        images: (person, camera) -> number of images.
    """

    def rows(modality):
        return [
            (person, camera, f"cam{camera}/{person:04d}/{number:04d}.jpg")
            for (person, camera), count in sorted(images.items())
            if camera in CAMERAS[modality]
            for number in range(1, count + 1)
        ]

    def table(modality):
        cameras = np.array([camera for _, camera, _ in rows(modality)], dtype=np.int64)
        return ImageTable(Path("data"), tuple(path for _, _, path in rows(modality)), cameras, modality)

    def people(modality):
        return PersonIds(np.array([person for person, _, _ in rows(modality)], dtype=np.int64))

    return SplitTables(PerModality.build(table), PerModality.build(people))


def small_layout(people=12, images=5):
    """Some people in all six cameras; the first three have no indoor image, and camera 6 misses the last."""
    layout = {(person, camera): images + person % 3 for person in range(1, people + 1) for camera in range(1, 7)}
    for person in (1, 2, 3):
        del layout[person, 1], layout[person, 2]
    del layout[people, 6]
    return sysu_layout(layout)


def trials_of(tables, search, trials=10, **draws):
    """The plans of `plan_search` on the rows of `tables`: one a draw and number of shots."""
    return plan_search(search, samples_of(tables), draws=GalleryDraws(trials=trials, **draws))


def gallery_paths(tables, trial):
    """The paths of a trial's gallery, in its order."""
    paths = tables.images[trial.search.query.other].paths
    return [paths[row] for row in trial.gallery]


def random_features(tables, width, seed):
    """Float32 normal vectors for every image, under the attribute that a feature bank has."""

    class Bank:
        def __init__(self, vectors):
            self.vectors = vectors

    generator = np.random.default_rng(seed)
    return PerModality.build(
        lambda modality: Bank(generator.standard_normal((len(tables.images[modality]), width), dtype=np.float32))
    )
