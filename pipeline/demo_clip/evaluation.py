"""Measures of the demo CLIP: zero-shot attributes and recall, and frozen features on the demonstration data.

The gate: with one prototype a true person and modality, the Hungarian method must match at least `GATE` of the training
people correctly. Below it, cross-modal cluster matching propagates its own errors and does not recover.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from scipy.optimize import linear_sum_assignment
from torch import Tensor, nn

from models.encoder import DualStemEncoder, Head
from models.modality import Modality, PerModality
from pipeline.data.synthetic.cameras import SYSU_STATIONS
from pipeline.data.synthetic.captions import ATTRIBUTES
from pipeline.data.synthetic.images import Studio, StudioSettings
from pipeline.data.synthetic.knobs import SyntheticKnobs
from pipeline.data.synthetic.layouts import plan_sysu
from pipeline.data.synthetic.plan import SIZES, Shot, Split
from pipeline.demo_clip.pairs import PairSettings, PairSource, attribute_prompts, attribute_values, tokenize
from pipeline.demo_clip.training import encode_captions, encode_images, normalise
from pipeline.evaluation.protocol import Samples
from pipeline.evaluation.ranking import rank_trial, unit_rows
from pipeline.evaluation.searches import plan_search

_BATCH = 128
_RECALL_POOL = 256
_MIDDLE = 1  # grid column of held-out images in the square
GATE: Final = 0.3
HEADS: Final = (Head.POOLED, Head.PROJECTION)
_MODALITY_OF: Final = {station.number: station.modality for station in SYSU_STATIONS}


@dataclass(frozen=True, slots=True)
class AttributeScore:
    """Accuracy of an attribute, beside a random guess and the most frequent value."""

    accuracy: float
    chance: float
    commonest: float
    num_images: int


@dataclass(frozen=True, slots=True)
class ZeroShotReport:
    """Scores of each attribute, and recall at 1 of 256 captions, by modality."""

    attributes: PerModality[dict[str, AttributeScore]]
    recall: PerModality[float]


def measure_zero_shot(network: nn.Module, settings: PairSettings, num_images: int = 1024) -> ZeroShotReport:
    """Classify the attributes of held-out people by prompts, and retrieve each image's caption among 256.

    Cost: about 10 s a thousand images and modality on one core.
    """
    scores = PerModality.build(lambda modality: _measure(network, settings, modality, num_images))
    return ZeroShotReport(scores.map(lambda score: score[0]), scores.map(lambda score: score[1]))


@torch.inference_mode()
def _measure(
    network: Any, settings: PairSettings, modality: Modality, num_images: int
) -> tuple[dict[str, AttributeScore], float]:
    source = PairSource(settings, f"held out {modality.value}")
    pairs = [source.draw(modality) for _ in range(num_images)]
    was_training = network.training
    network.eval()
    pixels = torch.from_numpy(np.stack([pair.pixels for pair in pairs]))
    images = torch.cat([encode_images(network, normalise(some), _MIDDLE) for some in pixels.split(_BATCH)])
    captions = torch.cat(
        [
            encode_captions(
                network, torch.from_numpy(tokenize([pair.caption for pair in pairs[start : start + _BATCH]]))
            )
            for start in range(0, num_images, _BATCH)
        ]
    )
    prompts = encode_captions(network, torch.from_numpy(tokenize(attribute_prompts())))
    network.train(was_training)
    values = torch.tensor([attribute_values(pair.shown) for pair in pairs])
    return _name_attributes(images @ prompts.T, values), _recall(images, captions)


def _name_attributes(similarity: Tensor, values: Tensor) -> dict[str, AttributeScore]:
    blocks = similarity.split([len(options) for options in ATTRIBUTES.values()], dim=1)
    scores = {}
    for (name, options), block, of_one in zip(ATTRIBUTES.items(), blocks, values.T, strict=True):
        shown = of_one >= 0
        if shown.any():
            right = block[shown].argmax(dim=1) == of_one[shown]
            commonest = of_one[shown].bincount().max() / shown.sum()
            scores[name] = AttributeScore(
                right.float().mean().item(), 1 / len(options), commonest.item(), int(shown.sum())
            )
    return scores


def _recall(images: Tensor, captions: Tensor) -> float:
    """Share of images whose own caption is the most similar of 256, averaged over groups of 256."""
    groups = range(0, len(images) - _RECALL_POOL + 1, _RECALL_POOL)
    hits = [
        (images[start : start + _RECALL_POOL] @ captions[start : start + _RECALL_POOL].T).argmax(dim=1)
        == torch.arange(_RECALL_POOL)
        for start in groups
    ]
    return torch.cat(hits).float().mean().item()


@dataclass(frozen=True, slots=True, eq=False)
class SyntheticImages:
    """Images of one modality in adapter order, with the ground truth: for evaluation, never for training."""

    pixels: list[NDArray[np.uint8]]
    shots: list[Shot]


@dataclass(frozen=True, slots=True, eq=False)
class FrozenFigures:
    """Quality of one kind of frozen features, as shares of 1."""

    feature: str
    pairs: float
    rank1: float
    map: float


def generate_demo(knobs: SyntheticKnobs, seed: int, per_camera: int) -> dict[Split, PerModality[SyntheticImages]]:
    """The demo's training and test images in memory, at most `per_camera` images a person and camera."""
    plan, facts = plan_sysu("demo", seed, knobs), SIZES["demo"]
    studio = Studio(StudioSettings(seed, plan.num_people, knobs, SYSU_STATIONS, facts.height, facts.width))
    drawn: dict[Split, PerModality[SyntheticImages]] = {}
    for split in ("train", "test"):
        images = PerModality.build(lambda _: SyntheticImages([], []))
        members = set(plan.people[split])
        for shot in plan.shots:
            if shot.person in members and shot.index <= per_camera:
                of_one = images[_MODALITY_OF[shot.camera]]
                of_one.pixels.append(studio.draw(shot.person, shot.camera, shot.index).pixels)
                of_one.shots.append(shot)
        drawn[split] = images
    return drawn


def measure_frozen(
    encoder: DualStemEncoder, drawn: dict[Split, PerModality[SyntheticImages]], height: int, width: int
) -> list[FrozenFigures]:
    """Gate and retrieval of pooled and projected features, raw and centred by modality, of an untrained encoder.

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
        raw = {split: by.map(lambda some: unit_rows(some[head], head)) for split, by in features.items()}  # noqa: B023 (used at once)
        centred = {split: by.map(_centred) for split, by in raw.items()}
        for kind, vectors in (("raw", raw), ("centred", centred)):
            rank1, mean_precision = _retrieval(vectors["test"], drawn["test"])
            pairs = pairs_right(vectors["train"], drawn["train"].map(_people))
            figures.append(FrozenFigures(f"{kind} {head.value}", pairs, rank1, mean_precision))
    return figures


def pairs_right(vectors: PerModality[NDArray[np.float32]], people: PerModality[NDArray[np.int64]]) -> float:
    """Share of the people with both modalities whose two prototypes the Hungarian method matches.

    >>> eye, names = np.eye(3, dtype=np.float32), np.arange(3)
    >>> pairs_right(PerModality(eye, eye), PerModality(names, names))
    1.0
    """
    names = np.intersect1d(people.visible, people.infrared)
    means = vectors.map_with(lambda some, of: np.stack([some[of == person].mean(axis=0) for person in names]), people)
    prototypes = means.map(lambda some: unit_rows(some, "prototypes"))
    rows, columns = linear_sum_assignment(-prototypes.visible @ prototypes.infrared.T)
    return float((rows == columns).mean())


@torch.inference_mode()
def _extract(
    encoder: DualStemEncoder, images: SyntheticImages, modality: Modality, height: int, width: int
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


def _people(images: SyntheticImages) -> NDArray[np.int64]:
    return np.array([shot.person for shot in images.shots], np.int64)


def _centred(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    return unit_rows(vectors - vectors.mean(axis=0), "centred features")


def _retrieval(vectors: PerModality[NDArray[np.float32]], images: PerModality[SyntheticImages]) -> tuple[float, float]:
    """Rank-1 and mAP of infrared queries in ten single-shot visible galleries."""
    people = images.map(_people)
    cameras = images.map(lambda some: np.array([shot.camera for shot in some.shots], np.int64))
    paths: PerModality[Sequence[str]] = images.map(lambda some: [shot.path.as_posix() for shot in some.shots])
    samples = people.map_with(Samples, cameras, paths)
    metrics = [
        rank_trial(
            vectors.infrared[trial.query],
            vectors.visible[trial.gallery],
            query_people=people.infrared[trial.query],
            gallery_people=people.visible[trial.gallery],
            excluded=trial.excluded(samples),
        )
        for trial in plan_search("sysu/all", samples)[0]
    ]
    return float(np.mean([some.cmc[0] for some in metrics])), float(np.mean([some.map for some in metrics]))
