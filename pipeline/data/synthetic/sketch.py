"""A list of painted primitives under construction: what the figure's parts are added to, and what is rasterised."""

import numpy as np
from numpy.typing import NDArray

from pipeline.data.synthetic.people import Tone
from pipeline.data.synthetic.pose import Frame, Point
from pipeline.data.synthetic.raster import CAPSULE, ELLIPSE, PAINT_WIDTH, PRIMITIVE_WIDTH, SLAB
from pipeline.data.synthetic.wardrobe import TEXTURES, Garment

Row = tuple[float, ...]


class Sketch:
    """Primitives with a layer each; `finish` sorts them so that higher layers hide lower ones.

    Args:
        frame: The map from body to picture; its scale turns periods from body heights into pixels.
    """

    def __init__(self, frame: Frame) -> None:
        self.frame = frame
        self._rows: list[tuple[float, int, Row]] = []
        self._paints: list[Row] = []

    def garment(self, garment: Garment, extent: float) -> int:
        """The paint of a garment that is `extent` body heights long."""
        scale = self.frame.height_pixels
        (ground, second), (low, high) = garment.albedo, garment.reflectance
        texture = TEXTURES.index(garment.texture)
        self._paints.append((*ground, *second, low, high, texture, garment.period * scale, extent * scale))
        return len(self._paints) - 1

    def plain(self, tone: Tone, factor: float = 1.0) -> int:
        """The paint of a plain surface, darkened by `factor`."""
        red, green, blue = (factor * value for value in tone.albedo)
        rho = factor * tone.reflectance
        self._paints.append((red, green, blue, red, green, blue, rho, rho, 0.0, 1.0, 1.0))
        return len(self._paints) - 1

    def capsule(
        self,
        layer: float,
        paint: int,
        start: Point,
        end: Point,
        radii: tuple[float, float],
        along: tuple[float, float] = (0.0, 0.0),
        shade: float = 1.0,
    ) -> None:
        """A limb with round ends; radii and `along` (where it lies on the garment) in body heights."""
        self._segment(CAPSULE, layer, paint, (start, end), radii, along, shade)

    def slab(
        self,
        layer: float,
        paint: int,
        start: Point,
        end: Point,
        radii: tuple[float, float],
        along: tuple[float, float] = (0.0, 0.0),
        shade: float = 1.0,
    ) -> None:
        """A trapezium with flat ends; half widths and `along` in body heights."""
        self._segment(SLAB, layer, paint, (start, end), radii, along, shade)

    def ellipse(
        self, layer: float, paint: int, centre: tuple[float, float], radii: tuple[float, float], shade: float = 1.0
    ) -> None:
        """An upright ellipse; centre and radii in pixels."""
        row = (ELLIPSE, centre[0], centre[1], max(radii[0], 0.3), 0.0, 0.0, max(radii[1], 0.3), paint, 0.0, 0.0, shade)
        self._rows.append((layer, len(self._rows), row))

    def finish(self) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Primitives [n, 11] from back to front, and paints [m, 11]."""
        self._rows.sort()
        primitives = np.array([row for _, _, row in self._rows], np.float32).reshape(-1, PRIMITIVE_WIDTH)
        paints = np.array(self._paints, np.float32).reshape(-1, PAINT_WIDTH)
        return primitives, paints

    def _segment(
        self,
        shape: int,
        layer: float,
        paint: int,
        ends: tuple[Point, Point],
        radii: tuple[float, float],
        along: tuple[float, float],
        shade: float,
    ) -> None:
        scale = self.frame.height_pixels
        (x0, y0, _), (x1, y1, _) = ends
        first, last = max(scale * radii[0], 0.3), max(scale * radii[1], 0.3)
        row = (shape, x0, y0, first, x1, y1, last, paint, scale * along[0], scale * along[1], shade)
        self._rows.append((layer, len(self._rows), row))


def between(start: Point, end: Point, share: float) -> Point:
    """The point that lies `share` of the way from `start` to `end`."""
    return (
        start[0] + share * (end[0] - start[0]),
        start[1] + share * (end[1] - start[1]),
        start[2] + share * (end[2] - start[2]),
    )
