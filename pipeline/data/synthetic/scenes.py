"""What stands behind the people: one static scene a place, in both modalities, seen through a moving crop."""

from typing import Final

import numpy as np
from numpy.typing import NDArray

from models.modality import Modality
from pipeline.data.synthetic.knobs import DrawnKnobs
from pipeline.data.synthetic.wardrobe import REFLECTANCE

PLACES: Final = ("room", "gate", "garden", "passage")
# How much larger than a picture a scene is, so that no two crops agree.
MARGIN: Final = (1.25, 2.0)

Plane = NDArray[np.float32]


def draw_scene(
    place: str, modality: Modality, rng: np.random.Generator, knobs: DrawnKnobs, size: tuple[int, int]
) -> Plane:
    """One scene as [height, width, channels]; the same place has the same shapes in either modality.

    Args:
        place: One of `PLACES`.
        modality: Three channels for visible, one for infrared.
        rng: Decides shapes and surfaces; equal generators give the same place.
        knobs: `background` scales the distance from a flat grey.
        size: Height and width of the pictures that will be cut from it.
    """
    height, width = round(size[0] * MARGIN[0]), round(size[1] * MARGIN[1])
    canvas = np.empty((height, width, 4), np.float32)
    wall = _surface(rng, "wall")
    floor = _surface(rng, "floor")
    horizon = int(height * rng.uniform(0.45, 0.7))
    canvas[:horizon], canvas[horizon:] = wall, floor
    _FURNISH[place](canvas, horizon, rng)
    canvas += 0.5 * _clouds(rng, height, width)[:, :, None] * np.float32(0.2)
    flat = np.array([0.45, 0.45, 0.45, 0.4], np.float32)
    calm = flat + np.float32(knobs.background) * (canvas - flat)
    channels = calm[:, :, :3] if modality is Modality.VISIBLE else calm[:, :, 3:]
    return np.ascontiguousarray(np.clip(channels, 0.02, 0.98))


def _surface(rng: np.random.Generator, kind: str) -> NDArray[np.float32]:
    """Visible colour and infrared reflectance, independent of each other as dyes and materials are."""
    value = rng.uniform(0.25, 0.75) if kind != "object" else rng.uniform(0.1, 0.9)
    tint = rng.normal(0.0, 0.05 if kind != "object" else 0.16, 3)
    reflectance = rng.uniform(0.15, 0.7)
    surface: NDArray[np.float32] = np.clip([*(value + tint), reflectance], 0.03, 0.97).astype(np.float32)
    return surface


def _boxes(canvas: Plane, horizon: int, rng: np.random.Generator) -> None:
    """Furniture and doors of a room: boxes that stand around the horizon."""
    height, width, _ = canvas.shape
    for _ in range(int(rng.integers(4, 9))):
        left = int(rng.uniform(-0.1, 1.0) * width)
        top = int(horizon - rng.uniform(0.05, 0.45) * height)
        right = left + int(rng.uniform(0.05, 0.3) * width)
        canvas[max(top, 0) : horizon + int(rng.uniform(0.0, 0.12) * height), max(left, 0) : right] = _surface(
            rng, "object"
        )


def _bars(canvas: Plane, horizon: int, rng: np.random.Generator) -> None:
    """A gate: upright bars before a bright distance, two cross bars."""
    _boxes(canvas, horizon, rng)
    height, width, _ = canvas.shape
    bar = _surface(rng, "object")
    pitch = max(int(width * rng.uniform(0.05, 0.1)), 4)
    thickness = max(pitch // 4, 1)
    top = int(height * 0.12)
    for left in range(int(rng.integers(pitch)), width, pitch):
        canvas[top : horizon + height // 20, left : left + thickness] = bar
    for line in (top, (top + horizon) // 2):
        canvas[line : line + thickness] = bar


def _leaves(canvas: Plane, horizon: int, rng: np.random.Generator) -> None:
    """A garden: foliage above a lawn, bright in infrared."""
    height, width, _ = canvas.shape
    lawn = np.array([0.3, 0.45, 0.2, REFLECTANCE["foliage"] - 0.15], np.float32)
    canvas[horizon:] = lawn + rng.normal(0.0, 0.05, 4).astype(np.float32)
    rows, columns = np.mgrid[0:height, 0:width]
    for _ in range(int(rng.integers(14, 26))):
        y, x = rng.uniform(0.0, horizon), rng.uniform(0.0, width)
        radius_y, radius_x = rng.uniform(0.04, 0.14) * height, rng.uniform(0.04, 0.14) * width
        inside = ((rows - y) / radius_y) ** 2 + ((columns - x) / radius_x) ** 2 < 1.0
        green = np.array([0.2, 0.4, 0.15, REFLECTANCE["foliage"]]) * rng.uniform(0.5, 1.2)
        canvas[inside] = green.astype(np.float32)


def _vanishing(canvas: Plane, _horizon: int, rng: np.random.Generator) -> None:
    """A passage: walls, floor slabs and ceiling lines that run to one point."""
    height, width, _ = canvas.shape
    rows, columns = np.mgrid[0:height, 0:width]
    x, y = rng.uniform(0.3, 0.7) * width, rng.uniform(0.3, 0.5) * height
    angle = np.arctan2(rows - y, columns - x)
    sectors = int(rng.integers(7, 12))
    band = np.floor((angle + np.pi) / (2 * np.pi) * sectors + rng.uniform()).astype(int) % sectors
    surfaces = np.stack([_surface(rng, "object") for _ in range(sectors)])
    canvas[:] = 0.55 * canvas + 0.45 * surfaces[band]


_FURNISH: Final = {"room": _boxes, "gate": _bars, "garden": _leaves, "passage": _vanishing}


def _clouds(rng: np.random.Generator, height: int, width: int) -> NDArray[np.float32]:
    """Smooth noise in [-1, 1]: two octaves of bilinear interpolation."""
    total = np.zeros((height, width), np.float32)
    for cells, weight in ((5, 0.6), (14, 0.4)):
        grid = rng.uniform(-1.0, 1.0, (cells + 1, cells + 1)).astype(np.float32)
        y, x = np.linspace(0, cells - 1e-3, height), np.linspace(0, cells - 1e-3, width)
        i, j = y.astype(int), x.astype(int)
        fy, fx = (y - i)[:, None].astype(np.float32), (x - j)[None, :].astype(np.float32)
        upper = grid[i][:, j] * (1 - fx) + grid[i][:, j + 1] * fx
        lower = grid[i + 1][:, j] * (1 - fx) + grid[i + 1][:, j + 1] * fx
        total += np.float32(weight) * (upper * (1 - fy) + lower * fy)
    return total
