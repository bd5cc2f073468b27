"""A run of a hundred images and a tiny network without a folder, for stages of a round that are called alone."""

from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from types import SimpleNamespace
from typing import Any

import numpy as np

from models.clip import LoadedClip, load_clip
from models.encoder import DualStemEncoder, Head
from models.modality import Modality, PerModality
from pipeline.config.cclnet import CclnetConfig
from pipeline.config.presets import load_config
from pipeline.data.images import TrainingImages
from pipeline.features import FeatureBank
from pipeline.methods.cclnet import stages
from pipeline.methods.cclnet.clusters import Clusters
from pipeline.methods.cclnet.method import CCLNET
from pipeline.methods.cclnet.state import CclnetState, TextPrototypes
from pipeline.runs.run import Run
from pipeline.runtime.distributed import Processes
from tests.pipeline.training.small_training import CPU, SIZE, random_images, unit_rows
from tests.reference.feature_sets import unit

COUNTS = PerModality(60, 50)
PEOPLE = PerModality((0, 1, 2, 3, 4, 5), (0, 1, 2, 3, 6))
WIDTH, CAMERAS = 256, 3
BASE = (
    "stages.prepare_rounds=2", "stages.clip_rounds=2", f"images.height={SIZE[0]}", f"images.width={SIZE[1]}",
    "swap.mode=off", "labelling.visible.eps=0.5", "labelling.infrared.eps=0.5", "labelling.infrared.k1=10",
    "labelling.joint.k1=12", "labelling.joint.k2=3", "labelling.joint.eps=0.5",
)  # fmt: skip
"""No swapping, which many switches exclude, and clusters that fit the number of images."""


class SmallRun(Run[CclnetConfig, CclnetState]):
    """Its training features are `features`, whatever the encoder."""

    @property
    def record(self) -> Any:
        return SimpleNamespace(folder=SimpleNamespace(load_checkpoint=lambda: None))

    def extract_training_features(
        self,
        head: Head,
        encoder: DualStemEncoder | None = None,  # noqa: ARG002
    ) -> PerModality[FeatureBank]:
        assert head is Head.NECK
        return features()

    def at(self, number: int) -> "SmallRun":
        """This run in another round; those before are finished."""
        self.round, self.state.completed = self.rounds[number - 1], number - 1
        return self


@cache
def tiny_clip() -> LoadedClip:
    return load_clip("tiny", "random")


@cache
def features() -> PerModality[FeatureBank]:
    """Unit features of people in two clothes with heavy-tailed noise, not those of the network.

    Two visible people and an infrared one are in one modality only.
    """
    generator = np.random.default_rng(8)
    people, clothes = generator.normal(size=(7, WIDTH)), 0.8 * generator.normal(size=(7, 2, WIDTH))
    tones = PerModality(*(0.4 * generator.normal(size=(2, WIDTH))))

    def made(modality: Modality) -> FeatureBank:
        count, known = COUNTS[modality], np.array(PEOPLE[modality])
        who = known[np.sort(generator.integers(len(known), size=count))]
        rows = people[who] + clothes[who, generator.integers(2, size=count)] + tones[modality]
        noise = generator.normal(size=rows.shape) * np.sqrt(2 / generator.chisquare(3, size=(count, 1)))
        return FeatureBank(unit(rows + noise), modality)

    return PerModality.build(made)


def small_run(*changes: str) -> SmallRun:
    """Preset `smoke` with `BASE` and changes, two rounds a stage, in the first round of stage `clip`."""
    config = load_config("smoke", (*BASE, *changes))
    assert isinstance(config, CclnetConfig)

    def images(modality: Modality) -> TrainingImages:
        count = COUNTS[modality]
        return replace(random_images(count, modality), cameras=1 + np.arange(count) % CAMERAS)

    made = PerModality.build(images)
    return SmallRun(CCLNET, config, made, tiny_clip(), CPU, Processes(), record=None, evaluator=None).at(3)


def cluster(run: SmallRun) -> Clusters:
    """The clusters of `features` in the run's round."""
    return stages.cluster.function(run, features())


def texts(run: SmallRun, clusters: Clusters) -> PerModality[TextPrototypes]:
    """The prompts of random images of these clusters."""
    images = COUNTS.map(lambda count: unit_rows(count, run.text_tower.embed_dim, seed=count))
    return stages._learn_texts(run, images, clusters.described(run.config))


def losses(*changes: str, number: int = 3, text: bool = False) -> dict[str, float]:
    """The losses of one round with these changes."""
    run = small_run(*changes).at(number)
    clusters = cluster(run)
    return stages.train.function(run, clusters, texts(run, clusters) if text else None)


def parts(clusters: Clusters) -> dict[str, list[np.ndarray]]:
    """Labels, pairs and targets of a round."""
    targets = [] if clusters.targets is None else [*clusters.targets]
    arrays = [array for one in targets for array in (one.clusters, one.shares)]
    return {"labels": [*clusters.labels], "pairs": [*clusters.pairs], "targets": arrays}


def same(one: Sequence[np.ndarray], other: Sequence[np.ndarray]) -> bool:
    return len(one) == len(other) and all(np.array_equal(a, b) for a, b in zip(one, other, strict=True))
