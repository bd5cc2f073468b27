"""What the training benchmark trains on: sizes, how much of them is measured where, and drawn images, labels and texts.

Pixels are noise, which no transform, network or store treats differently from a photograph. Labels are people in a
random order, without outliers; prototypes of a person in both modalities are alike, so that pairing clusters is easy.
"""

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float32, Int64

from clustering.dbscan import Clustering
from models.clip import LoadedClip, load_clip
from models.encoder import DualStemEncoder
from models.modality import Modality, PerModality
from pipeline.config.cclnet import CclnetConfig
from pipeline.config.presets import load_config
from pipeline.data.images import TestImages, TrainingImages
from pipeline.data.samplers.sampling import CrossModalBatches, cross_modal_batches
from pipeline.runtime.seeds import numpy_generator
from tests.reference.feature_sets import unit

SizeName = Literal["demo", "sysu", "sysu-128", "tiny"]

SEED = 1
ALIKE = 1.5  # length of what the prototypes of a person share, over that of what they do not


@dataclass(frozen=True, slots=True)
class Size:
    """A data set, and the preset whose values are used with it.

    Args:
        preset: The preset's name.
        changes: What is set otherwise.
        training: Training images of each modality.
        test: Test images of each modality.
        people: Who is on the training images, and so the number of clusters.
    """

    preset: str
    changes: tuple[str, ...]
    training: PerModality[int]
    test: PerModality[int]
    people: int


SIZES: dict[SizeName, Size] = {
    # The drawn data set: about 20 visible and 10 infrared training images a person.
    "demo": Size("demo", (), PerModality(2_200, 1_100), PerModality(1_500, 750), 110),
    # SYSU-MM01.
    "sysu": Size("cclnet-sysu", ("model.weights=random",), PerModality(22_258, 11_909), PerModality(6_775, 3_803), 395),
    # The same in batches of 128 + 128.
    "sysu-128": Size(
        "cclnet-sysu",
        ("model.weights=random", "batches.clusters_per_batch=8"),
        PerModality(22_258, 11_909),
        PerModality(6_775, 3_803),
        395,
    ),
    # To try the script.
    "tiny": Size(
        "smoke",
        ("model.architecture=tiny", "model.weights=random", "images.height=96", "images.width=48"),
        PerModality(160, 80),
        PerModality(40, 20),
        10,
    ),
}


@dataclass(frozen=True, slots=True)
class Amount:
    """How much of a data set is measured.

    Args:
        steps: Training steps of a repeat.
        images: Images whose features are extracted, in a repeat.
        pool: Different images that are drawn of each modality; further ones repeat them.
        warm_up: Training steps before anything counts.
        round_steps: Training steps of a round; None for all.
        round_images: Images of each modality that a round extracts and learns prompts on; None for all.
    """

    steps: int
    images: int
    pool: int
    warm_up: int
    round_steps: int | None = None
    round_images: int | None = None

    @staticmethod
    def of(name: SizeName, on_gpu: bool, full: bool) -> "Amount":
        """What takes minutes on the device."""
        everything = max(SIZES[name].training)
        if name == "tiny":
            return Amount(steps=3, images=64, pool=everything, warm_up=1, round_steps=2, round_images=32)
        if name == "demo":
            return Amount(
                steps=200 if on_gpu else 24, images=everything if on_gpu else 1_000, pool=everything, warm_up=2
            )
        if on_gpu:
            return Amount(steps=100, images=8_192, pool=everything if full else 8_192, warm_up=3)
        return Amount(steps=1, images=64, pool=512, warm_up=0, round_steps=1, round_images=128)

    def with_steps(self, steps: int) -> "Amount":
        """The same with other steps a repeat, where any are named."""
        return replace(self, steps=steps or self.steps)


@dataclass(frozen=True, slots=True, eq=False)
class Task:
    """What both sides work on.

    Args:
        name: Of the size.
        config: The preset's values.
        clip: Where both networks come from.
        encoder: Ours, on the CPU as it is made.
        images: Training images.
        labels: Of these images.
        prototypes: Unit rows, one a cluster.
        texts: One row a cluster, in the space of the projection.
        batches: One epoch.
    """

    name: SizeName
    config: CclnetConfig
    clip: LoadedClip
    encoder: DualStemEncoder
    images: PerModality[TrainingImages]
    labels: PerModality[Clustering]
    prototypes: PerModality[Float32[np.ndarray, "clusters width"]]
    texts: PerModality[Float32[np.ndarray, "clusters embed"]]
    batches: CrossModalBatches

    @property
    def size(self) -> Size:
        """The data set."""
        return SIZES[self.name]

    def steps(self, count: int) -> CrossModalBatches:
        """So many batches; those of an epoch over and over again if it has fewer."""
        rows = np.arange(count) % len(self.batches)
        return CrossModalBatches(self.batches.positions.map(lambda at: at[rows]), self.batches.clusters_per_batch)

    def test_images(self) -> PerModality[TestImages]:
        """Images to be evaluated: those that are trained on, as many as the test set has."""

        def cut(images: TrainingImages, count: int) -> TestImages:
            rows = images.rows[np.arange(count) % len(images)]
            return TestImages(images.pixels, rows, np.zeros(count, dtype=np.int64), images.modality)

        return self.images.map_with(cut, self.size.test)


def draw_task(name: SizeName, pool: int) -> Task:
    """Draw everything; seconds, and the pixels in memory: 4.25 GB for all of SYSU-MM01's training images."""
    size = SIZES[name]
    config = load_config(size.preset, size.changes)
    clip = load_clip(config.model.architecture, config.model.weights, seed=SEED)
    height, width = config.images.height, config.images.width
    encoder = DualStemEncoder.from_clip(clip, image_height=height, image_width=width)
    images = PerModality.build(lambda modality: draw_images(modality, size.training[modality], pool, height, width))
    labels = images.map(lambda some: draw_labels(some, size.people))
    return Task(
        name=name,
        config=config,
        clip=clip,
        encoder=encoder,
        images=images,
        labels=labels,
        prototypes=draw_prototypes(size.people, encoder.feature_width),
        texts=draw_texts(size.people, encoder.projection_width),
        batches=cross_modal_batches(
            labels.map(lambda found: found.labels),
            clusters_per_batch=config.batches.clusters_per_batch,
            images_per_cluster=config.batches.images_per_cluster,
            replacement=config.batches.replacement,
            generator=numpy_generator(SEED, "batches"),
        ),
    )


def draw_images(modality: Modality, count: int, pool: int, height: int, width: int) -> TrainingImages:
    """So many images, of which `pool` at most are different; in an order that is not that of the store."""
    generator = numpy_generator(SEED, "pixels", modality)
    stored = min(count, pool)
    pixels = generator.integers(0, 256, size=(stored, height, width, 3), dtype=np.uint8)
    rows = generator.permutation(count) % stored
    return TrainingImages(pixels, rows, np.zeros(count, dtype=np.int64), modality)


def draw_labels(images: TrainingImages, people: int) -> Clustering:
    """Who is on each image; images with the same pixels show the same person."""
    clusters = images.rows % people
    return Clustering(labels=clusters, core=np.ones(len(images), dtype=np.bool_))


def draw_prototypes(people: int, width: int) -> PerModality[Float32[np.ndarray, "clusters width"]]:
    """The same person's are nearest to each other."""
    generator = numpy_generator(SEED, "prototypes")
    shared = ALIKE * generator.standard_normal((people, width))
    return PerModality.build(lambda _: unit(shared + generator.standard_normal((people, width))))


def draw_texts(people: int, embed: int) -> PerModality[Float32[np.ndarray, "clusters embed"]]:
    """Any directions."""
    generator = numpy_generator(SEED, "texts")
    return PerModality.build(lambda _: unit(generator.standard_normal((people, embed))))


def positions_in_pool(images: TrainingImages, at: Int64[np.ndarray, "steps batch"]) -> Int64[np.ndarray, " shown"]:
    """The rows of the pixels that batches show, flat."""
    return images.rows[at].reshape(-1)


def labels_of_pool(images: TrainingImages, people: int) -> Int64[np.ndarray, " stored"]:
    """Who is on each of the different images."""
    return np.arange(len(images.pixels)) % people


def on_device(rows: PerModality[np.ndarray], device: torch.device) -> PerModality[torch.Tensor]:
    """As tensors of their own."""
    return rows.map(lambda one: torch.tensor(one, device=device))
