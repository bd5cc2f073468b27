"""The retrieval panel: queries and the images ranked first, right and wrong ones marked."""

from dataclasses import dataclass, replace
from typing import BinaryIO

import numpy as np
from jaxtyping import Bool, Int64, UInt8

from models.modality import Modality, PerModality
from pipeline.data.images import StoredImages, gather_pixels
from pipeline.evaluation.evaluate import Features
from pipeline.evaluation.protocol import RetrievalTrial, Samples
from pipeline.evaluation.ranking import best_gallery, unit_rows

# Blue and orange differ for every kind of colour vision; a cross marks wrong hits without colour.
RIGHT, WRONG, QUERY = (0x00, 0x72, 0xB2), (0xD5, 0x5E, 0x00), (0x40, 0x40, 0x40)

_HEIGHT = 112  # pixels of an image in the panel
_FRAME, _GAP, _CROSS = 3, 4, 16


@dataclass(frozen=True, slots=True, eq=False)
class Found:
    """The hits of some queries, best first: rows of the two test tables, -1 where there are fewer hits."""

    modality: Modality
    query: Int64[np.ndarray, " q"]
    best: Int64[np.ndarray, "q b"]
    right: Bool[np.ndarray, "q b"]


def look_up(
    trial: RetrievalTrial,
    queries: Int64[np.ndarray, " q"],
    features: PerModality[Features],
    samples: PerModality[Samples],
    count: int = 10,
) -> Found:
    """Rank the gallery of a trial for some of its queries (ascending rows of the test table), by its protocol.

    Cost: one product of the queries with all features of the gallery's modality, which are not copied.
    """
    modality = trial.search.query
    some = replace(trial, query=queries)
    units = unit_rows(features[modality].vectors[queries], f"{modality} features")
    # Not `inner_products`, which copies the gallery to float64: the order of near-ties does not matter here.
    gallery = features[modality.other].vectors
    similarity = units @ gallery.T / np.sqrt(np.einsum("nd,nd->n", gallery, gallery))
    positions = best_gallery(similarity, some.excluded(samples), trial.gallery, count=count)
    best = np.where(positions >= 0, trial.gallery[positions], -1)
    people = samples[modality].people[queries]
    right = (samples[modality.other].people[best] == people[:, None]) & (best >= 0)
    return Found(modality, queries, best, right)


def draw_panel(found: Found, images: PerModality[StoredImages], file: BinaryIO) -> None:
    """Draw one row per query as a JPEG: the query, then its hits, right ones framed in blue, wrong ones crossed.

    Cost: 66 images are read; about 0.1 s and 100 KB.
    """
    from PIL import Image

    height, width = images.visible.pixels.shape[1:3]
    size = (_HEIGHT, round(_HEIGHT * width / height))
    step = (size[0] + 2 * _FRAME + _GAP, size[1] + 2 * _FRAME + _GAP)
    rows, columns = found.best.shape
    # Twice the gap after the query.
    canvas = np.full((rows * step[0] + _GAP, (columns + 1) * step[1] + 3 * _GAP, 3), 255, np.uint8)

    def paste(row: int, column: int, picture: UInt8[np.ndarray, "h w 3"], colour: tuple[int, int, int]) -> None:
        top, left = _GAP + row * step[0], _GAP + column * step[1] + 2 * _GAP * (column > 0)
        canvas[top : top + size[0] + 2 * _FRAME, left : left + size[1] + 2 * _FRAME] = colour
        inside = canvas[top + _FRAME : top + _FRAME + size[0], left + _FRAME : left + _FRAME + size[1]]
        inside[:] = np.asarray(Image.fromarray(picture).resize((size[1], size[0])))
        if colour == WRONG:
            _cross_out(inside)

    shown = gather_pixels(images[found.modality], found.query)
    for row in range(rows):
        paste(row, 0, shown[row], QUERY)
        present = np.flatnonzero(found.best[row] >= 0)
        pixels = gather_pixels(images[found.modality.other], found.best[row][present])
        for column, picture in zip(present, pixels, strict=True):
            paste(row, int(column) + 1, picture, RIGHT if found.right[row, column] else WRONG)
    Image.fromarray(canvas).save(file, format="jpeg", quality=88, subsampling=0)


def _cross_out(picture: UInt8[np.ndarray, "h w 3"]) -> None:
    """Draw a cross on white into the upper right corner."""
    size = min(_CROSS, *picture.shape[:2])
    corner = picture[:size, -size:]
    corner[:] = 255
    along = np.arange(2, size - 2)
    for shift in (-1, 0, 1):
        across = np.clip(along + shift, 0, size - 1)
        corner[along, across] = WRONG
        corner[along, size - 1 - across] = WRONG
