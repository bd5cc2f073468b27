"""Is there something to learn on the demonstration data? Frozen features of the demo CLIP, before any training.

The gate: with one prototype a true person and modality, the Hungarian method pairs at least `GATE` of the training
people rightly. Below it, matching clusters across modalities exchanges wrong pairs and cannot pull itself up.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from scipy.optimize import linear_sum_assignment

from models.encoder import DualStemEncoder, Head
from models.modality import Modality, PerModality
from pipeline.data.synthetic.cameras import SYSU_STATIONS
from pipeline.data.synthetic.knobs import DrawnKnobs
from pipeline.data.synthetic.layout_sysu import plan_sysu
from pipeline.data.synthetic.plan import SIZES, Shot, Split
from pipeline.data.synthetic.studio import Studio, StudioSettings
from pipeline.demo_clip.network import normalise
from pipeline.evaluation.protocol import Sightings
from pipeline.evaluation.ranking import rank_trial
from pipeline.evaluation.searches import plan_search

GATE: Final = 0.3
HEADS: Final = (Head.POOLED, Head.PROJECTION)
_BATCH = 128
_MODALITY_OF: Final = {station.number: station.modality for station in SYSU_STATIONS}


@dataclass(frozen=True, slots=True, eq=False)
class DrawnImages:
    """Images of one modality in adapter order, with the truth: for measuring, never for training."""

    pixels: list[NDArray[np.uint8]]
    shots: list[Shot]


@dataclass(frozen=True, slots=True, eq=False)
class FrozenFigures:
    """What one kind of frozen features is worth: shares of 1."""

    feature: str
    pairs: float
    rank1: float
    map: float


def draw_demo(knobs: DrawnKnobs, seed: int, per_camera: int) -> dict[Split, PerModality[DrawnImages]]:
    """The demo's training and test people in memory, at most `per_camera` images a person and camera."""
    plan, facts = plan_sysu("demo", seed, knobs), SIZES["demo"]
    studio = Studio(StudioSettings(seed, plan.num_people, knobs, SYSU_STATIONS, facts.height, facts.width))
    drawn: dict[Split, PerModality[DrawnImages]] = {}
    for split in ("train", "test"):
        images = PerModality.build(lambda _: DrawnImages([], []))
        members = set(plan.people[split])
        for shot in plan.shots:
            if shot.person in members and shot.index <= per_camera:
                of_one = images[_MODALITY_OF[shot.camera]]
                of_one.pixels.append(studio.draw(shot.person, shot.camera, shot.index).pixels)
                of_one.shots.append(shot)
        drawn[split] = images
    return drawn


def measure_frozen(
    encoder: DualStemEncoder, drawn: dict[Split, PerModality[DrawnImages]], height: int, width: int
) -> list[FrozenFigures]:
    """Gate and retrieval of pooled and projected features, raw and centred by modality.

    Args:
        encoder: For images of this height and width, untrained.
        drawn: What `draw_demo` returned.
        height: Of the images that the encoder takes, in pixels.
        width: Likewise.

    Cost: about 2 ms an image of one core at 96 x 48.
    """
    features = {
        split: images.map_with(
            lambda some, modality: _extract(encoder, some, modality, height, width), PerModality.build(lambda m: m)
        )
        for split, images in drawn.items()
    }
    figures = []
    for head in HEADS:
        raw = {split: by.map(lambda some: _unit(some[head])) for split, by in features.items()}  # noqa: B023 (used at once)
        centred = {split: by.map(_centred) for split, by in raw.items()}
        for kind, vectors in (("raw", raw), ("centred", centred)):
            rank1, mean_precision = _retrieval(vectors["test"], drawn["test"])
            pairs = pairs_right(vectors["train"], drawn["train"].map(_people))
            figures.append(FrozenFigures(f"{kind} {head.value}", pairs, rank1, mean_precision))
    return figures


def pairs_right(vectors: PerModality[NDArray[np.float32]], people: PerModality[NDArray[np.int64]]) -> float:
    """Share of the people with both modalities whose two prototypes the Hungarian method pairs.

    >>> eye, names = np.eye(3, dtype=np.float32), np.arange(3)
    >>> pairs_right(PerModality(eye, eye), PerModality(names, names))
    1.0
    """
    names = np.intersect1d(people.visible, people.infrared)
    prototypes = vectors.map_with(
        lambda some, of: _unit(np.stack([some[of == person].mean(axis=0) for person in names])), people
    )
    rows, columns = linear_sum_assignment(-prototypes.visible @ prototypes.infrared.T)
    return float((rows == columns).mean())


@torch.inference_mode()
def _extract(
    encoder: DualStemEncoder, images: DrawnImages, modality: Modality, height: int, width: int
) -> dict[Head, NDArray[np.float32]]:
    parts: dict[Head, list[NDArray[np.float32]]] = {head: [] for head in HEADS}
    for start in range(0, len(images.pixels), _BATCH):
        resized = np.stack([_resized(one, height, width) for one in images.pixels[start : start + _BATCH]])
        encoded = encoder.encode(normalise(torch.from_numpy(resized)), modality, heads=frozenset(HEADS))
        for head in HEADS:
            parts[head].append(getattr(encoded, head.value).numpy())
    return {head: np.concatenate(some) for head, some in parts.items()}


def _resized(pixels: NDArray[np.uint8], height: int, width: int) -> NDArray[np.uint8]:
    return np.asarray(Image.fromarray(pixels).convert("RGB").resize((width, height), Image.Resampling.LANCZOS))


def _people(images: DrawnImages) -> NDArray[np.int64]:
    return np.array([shot.person for shot in images.shots], np.int64)


def _centred(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    return _unit(vectors - vectors.mean(axis=0))


def _unit(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    unit: NDArray[np.float32] = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    return unit


def _retrieval(vectors: PerModality[NDArray[np.float32]], images: PerModality[DrawnImages]) -> tuple[float, float]:
    """Rank-1 and mAP of infrared queries in ten single-shot visible galleries."""
    people = images.map(_people)
    cameras = images.map(lambda some: np.array([shot.camera for shot in some.shots], np.int64))
    paths: PerModality[Sequence[str]] = images.map(lambda some: [shot.path.as_posix() for shot in some.shots])
    sightings = people.map_with(Sightings, cameras, paths)
    metrics = [
        rank_trial(
            vectors.infrared[trial.query],
            vectors.visible[trial.gallery],
            query_people=people.infrared[trial.query],
            gallery_people=people.visible[trial.gallery],
            hidden=trial.hidden(sightings),
        )
        for trial in plan_search("sysu/all", sightings)[0]
    ]
    return float(np.mean([some.cmc[0] for some in metrics])), float(np.mean([some.map for some in metrics]))
