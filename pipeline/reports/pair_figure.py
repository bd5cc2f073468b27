"""A strip of matched pairs: the most typical images of a visible and an infrared cluster side by side."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import BinaryIO

import numpy as np
from jaxtyping import Int64, UInt8

from clustering.quality import ScoredPairs
from models.modality import PerModality
from pipeline.reports.cluster_figures import spread
from pipeline.storage.label_files import RoundLabels

PAIRS = 8
IMAGES = 5
_HEIGHT = 96  # pixels of an image in the figure
_GAP, _CAPTION = 4, 22


@dataclass(frozen=True, slots=True, eq=False)
class ShownPair:
    """A pair: a line about it, and the pixels of each cluster's images, the most typical one first."""

    caption: str
    images: PerModality[Sequence[UInt8[np.ndarray, "height width 3"]]]


def by_certainty(pairs: ScoredPairs) -> Int64[np.ndarray, " m"]:
    """Positions of the pairs from the least to the most certain one: by margin, then by similarity."""
    return np.lexsort((pairs.similarity, pairs.margin)).astype(np.int64)


def most_typical(labels: Int64[np.ndarray, " n"], similarity: np.ndarray, cluster: int) -> Int64[np.ndarray, " m"]:
    """The images of a cluster, from the most to the least similar to its prototype."""
    rows = np.flatnonzero(labels == cluster)
    return rows[np.argsort(-similarity[rows], kind="stable")].astype(np.int64)


def sample_typical(labels: RoundLabels) -> list[tuple[str, PerModality[Int64[np.ndarray, " _"]]]]:
    """Captions and image rows of at most `PAIRS` pairs, evenly spaced from the most to the least certain one."""
    pairs, similarity = labels.pairs, labels.similarity
    assert pairs is not None and similarity is not None, "a label file of this version"
    order = by_certainty(pairs)[::-1]
    chosen = []
    for place in order[spread(len(order), PAIRS)].tolist():
        clusters = PerModality(int(pairs.visible[place]), int(pairs.infrared[place]))
        rows = labels.labels.map_with(most_typical, similarity, clusters)
        caption = (
            f"visible {clusters.visible}, {len(rows.visible)} images; infrared {clusters.infrared}, "
            f"{len(rows.infrared)} images; similarity {pairs.similarity[place]:.2f}, margin {pairs.margin[place]:+.2f}"
        )
        chosen.append((caption, rows.map(lambda some: some[spread(len(some), IMAGES)])))
    return chosen


def draw_pairs(shown: Sequence[ShownPair], title: str, file: BinaryIO) -> None:
    """Draw one row per pair as a JPEG, visible images at the left; 80 images, about 0.1 s and 100 KB."""
    from PIL import Image, ImageDraw, ImageFont

    height, width = shown[0].images.visible[0].shape[:2]
    size = (round(_HEIGHT * width / height), _HEIGHT)
    step, half = size[0] + _GAP, IMAGES * (size[0] + _GAP) + 4 * _GAP
    canvas = Image.new("RGB", (2 * half, _CAPTION + len(shown) * (_CAPTION + _HEIGHT + _GAP)), "white")
    draw, font = ImageDraw.Draw(canvas), ImageFont.load_default(12)
    draw.text((_GAP, 4), title, fill="black", font=font)
    for row, pair in enumerate(shown):
        top = _CAPTION + row * (_CAPTION + _HEIGHT + _GAP)
        draw.text((_GAP, top + 5), pair.caption, fill="black", font=font)
        for left, some in zip((_GAP, half), pair.images, strict=True):
            for place, pixels in enumerate(some):
                picture = Image.fromarray(np.ascontiguousarray(pixels)).resize(size)
                canvas.paste(picture, (left + place * step, top + _CAPTION))
    canvas.save(file, format="jpeg", quality=88, subsampling=0)
