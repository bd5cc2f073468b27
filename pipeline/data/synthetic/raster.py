"""From primitives to pixels: a list of painted primitives, and compiled filling, shading, blur, noise and tone.

A primitive is a row of `PRIMITIVE_WIDTH` numbers: shape, x0, y0, r0, x1, y1, r1, paint, v0, v1, shade. Lengths are
pixels, y grows downwards; v runs along the primitive in pixels from the garment's upper end; later rows cover earlier
ones. A paint is a row of `PAINT_WIDTH`: two visible colours, two infrared reflectances, texture, period and extent
in pixels. No fast-math: geometry must agree between machines.
"""

from functools import partial
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from clustering.parallel import kernel
from pipeline.data.synthetic.people import TEXTURES, Garment, Tone
from pipeline.data.synthetic.pose import Frame, Point

PRIMITIVE_WIDTH: Final = 11
PAINT_WIDTH: Final = 11
CAPSULE, SLAB, ELLIPSE = 0, 1, 2

Row = tuple[float, ...]
Pair = tuple[float, float]
_NONE: Pair = (0.0, 0.0)

_compiled: Any = kernel  # of functions without annotations


@partial(_compiled, inline="always")
def _locate(shape, x0, y0, r0, x1, y1, r1, x, y):  # type: ignore[no-untyped-def]
    """Whether (x, y) is in the primitive, the position along it in [0, 1], and across it in [-1, 1]."""
    dx = x1 - x0
    dy = y1 - y0
    px = x - x0
    py = y - y0
    if shape == ELLIPSE:
        u = px / r0
        v = py / r1
        return u * u + v * v <= 1.0, 0.5 + 0.5 * v, u
    length2 = dx * dx + dy * dy + np.float32(1e-6)
    t = (px * dx + py * dy) / length2
    if shape == SLAB and (t < 0.0 or t > 1.0):
        return False, t, np.float32(0.0)
    tc = min(max(t, np.float32(0.0)), np.float32(1.0))
    radius = r0 + tc * (r1 - r0)
    cross = (px * dy - py * dx) / np.sqrt(length2)
    if shape == SLAB:
        return abs(cross) <= radius, tc, -cross / radius
    qx = px - tc * dx
    qy = py - tc * dy
    return qx * qx + qy * qy <= radius * radius, tc, -cross / radius


@_compiled
def fill(primitives, owner):  # type: ignore[no-untyped-def]
    """Write, for each of the 2 x 2 samples of each pixel, the last primitive that covers it (-1: none).

    From front to back, so that a covered sample is not tested again.
    """
    rows, columns = owner.shape
    owner[:] = -1
    for index in range(primitives.shape[0] - 1, -1, -1):
        row = primitives[index]
        shape, x0, y0, r0, x1, y1, r1 = row[0], row[1], row[2], row[3], row[4], row[5], row[6]
        if shape == ELLIPSE:
            left, right, top, bottom = x0 - r0, x0 + r0, y0 - r1, y0 + r1
        else:
            reach = max(r0, r1)
            left, right = min(x0, x1) - reach, max(x0, x1) + reach
            top, bottom = min(y0, y1) - reach, max(y0, y1) + reach
        first_row, last_row = max(int(top * 2), 0), min(int(bottom * 2) + 2, rows)
        first_column, last_column = max(int(left * 2), 0), min(int(right * 2) + 2, columns)
        for i in range(first_row, last_row):
            y = np.float32(0.5) * (np.float32(i) + np.float32(0.5))
            for j in range(first_column, last_column):
                if owner[i, j] < 0:
                    x = np.float32(0.5) * (np.float32(j) + np.float32(0.5))
                    inside, _, _ = _locate(shape, x0, y0, r0, x1, y1, r1, x, y)
                    if inside:
                        owner[i, j] = index


@partial(_compiled, inline="always")
def _second_tone(texture, v, u, period, extent):  # type: ignore[no-untyped-def]
    """Whether the texture has its second tone at v pixels down the garment and u pixels across."""
    if texture == 0:
        return False
    a = v / period
    b = u / period + np.float32(100.25)
    a -= np.floor(a)
    b -= np.floor(b)
    if texture == 1:
        return a > 0.5
    if texture == 2:
        return b > 0.5
    if texture == 3:
        return (a > 0.5) != (b > 0.5)
    if texture == 4:
        return (a - 0.5) * (a - 0.5) + (b - 0.5) * (b - 0.5) < 0.1
    share = v / extent
    if texture == 5:
        return 0.16 < share < 0.46
    return share > 0.5


@_compiled
def shade(primitives, paints, owner, background, light, infrared, out):  # type: ignore[no-untyped-def]
    """Colour every pixel.

    `background` is [h, w, c] in scene units; `light` = (gains of three channels, direction x, ambient share, centre
    fall-off, fall-off centre x, fall-off centre y); `out` is [h, w, c] with c = 1 for infrared, 3 for visible.
    """
    height, width, channels = out.shape
    for i in range(height):
        for j in range(width):
            first = owner[2 * i, 2 * j]
            same = (
                owner[2 * i, 2 * j + 1] == first
                and owner[2 * i + 1, 2 * j] == first
                and owner[2 * i + 1, 2 * j + 1] == first
            )
            samples = 1 if same else 4
            for c in range(channels):
                out[i, j, c] = 0.0
            for sample in range(samples):
                y = np.float32(i) + (np.float32(0.5) if same else np.float32(0.25 + 0.5 * (sample // 2)))
                x = np.float32(j) + (np.float32(0.5) if same else np.float32(0.25 + 0.5 * (sample % 2)))
                index = owner[2 * i + sample // 2, 2 * j + sample % 2]
                if index < 0:
                    for c in range(channels):
                        out[i, j, c] += background[i, j, c]
                    continue
                row = primitives[index]
                paint = paints[int(row[7])]
                _, t, s = _locate(row[0], row[1], row[2], row[3], row[4], row[5], row[6], x, y)
                v = row[8] + t * (row[9] - row[8])
                u = s * (row[3] + t * (row[6] - row[3]))
                second = _second_tone(paint[8], v, u, paint[9], paint[10])
                depth = np.sqrt(max(np.float32(1.0) - s * s, np.float32(0.0)))
                facing = depth if infrared else max(s * light[3] + depth * np.float32(0.8), np.float32(0.0))
                value = row[10] * (light[4] + (np.float32(1.0) - light[4]) * facing)
                if infrared:
                    out[i, j, 0] += value * paint[7 if second else 6]
                else:
                    for c in range(channels):
                        out[i, j, c] += value * paint[c + 3 if second else c]
            fx = (np.float32(j) / np.float32(width) - light[6]) * np.float32(width) / np.float32(height)
            fy = np.float32(i) / np.float32(height) - light[7]
            fall = np.float32(1.0) / (np.float32(1.0) + light[5] * (fx * fx + fy * fy))
            for c in range(channels):
                out[i, j, c] *= fall * light[c] / np.float32(samples)


@_compiled
def _blur_rows(source, taps, target, channels):  # type: ignore[no-untyped-def]
    """Five taps along the rows of [h, w * channels]; edge values are repeated."""
    height, length = source.shape
    a, b, c, d, e = taps[0], taps[1], taps[2], taps[3], taps[4]
    two = 2 * channels
    for i in range(height):
        line = source[i]
        for m in range(two, length - two):
            near = a * line[m - two] + b * line[m - channels]
            target[i, m] = near + c * line[m] + d * line[m + channels] + e * line[m + two]
        for edge in range(2 * two):
            m = edge if edge < two else length - 2 * two + edge
            total = np.float32(0.0)
            for k in range(-2, 3):
                other = m + k * channels
                if other < 0:
                    other = m % channels
                elif other >= length:
                    other = length - channels + m % channels
                total += taps[k + 2] * line[other]
            target[i, m] = total


@_compiled
def _blur_columns(source, taps, target):  # type: ignore[no-untyped-def]
    """Five taps down the columns of [h, w * channels]; edge values are repeated."""
    height, length = source.shape
    a, b, c, d, e = taps[0], taps[1], taps[2], taps[3], taps[4]
    last = height - 1
    for i in range(height):
        far_up, up, own = source[max(i - 2, 0)], source[max(i - 1, 0)], source[i]
        down, far_down = source[min(i + 1, last)], source[min(i + 2, last)]
        for m in range(length):
            target[i, m] = a * far_up[m] + b * up[m] + c * own[m] + d * down[m] + e * far_down[m]


@_compiled
def develop(scene, taps_x, taps_y, bank, offset, noise, tone, out):  # type: ignore[no-untyped-def]
    """Blur the scene, add noise from the bank, apply the tone curve: [h, w, c] floats to bytes.

    `noise` = (shot, read) standard deviations; `bank` holds standard normal values, a power of two of them;
    `tone` maps 1,024 steps of brightness to bytes.
    """
    height, width, channels = scene.shape
    swap = np.empty_like(scene)
    flat, flat_swap = scene.reshape(height, width * channels), swap.reshape(height, width * channels)
    _blur_rows(flat, taps_x, flat_swap, channels)
    _blur_columns(flat_swap, taps_y, flat)
    mask = bank.shape[0] - 1
    position = offset
    for i in range(height):
        for j in range(width):
            for c in range(channels):
                value = min(max(scene[i, j, c], np.float32(0.0)), np.float32(1.0))
                spread = np.sqrt(noise[0] * noise[0] * value + noise[1] * noise[1])
                value += spread * bank[position & mask]
                position += 1
                value = min(max(value, np.float32(0.0)), np.float32(1.0))
                out[i, j, c] = tone[int(value * np.float32(1023.0) + np.float32(0.5))]


class Sketch:
    """A list of primitives with layers; `finish` sorts them so that higher layers cover lower ones.

    Args:
        frame: The map from body to image; its scale turns periods from body heights into pixels.
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
        self, layer: float, paint: int, start: Point, end: Point, radii: Pair, along: Pair = _NONE, shade: float = 1.0
    ) -> None:
        """A limb with round ends; radii and `along` (position on the garment) in body heights."""
        self._segment(CAPSULE, layer, paint, (start, end), radii, along, shade)

    def slab(
        self, layer: float, paint: int, start: Point, end: Point, radii: Pair, along: Pair = _NONE, shade: float = 1.0
    ) -> None:
        """A trapezium with flat ends; half widths and `along` in body heights."""
        self._segment(SLAB, layer, paint, (start, end), radii, along, shade)

    def ellipse(self, layer: float, paint: int, centre: Pair, radii: Pair, shade: float = 1.0) -> None:
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
        self, shape: int, layer: float, paint: int, ends: tuple[Point, Point], radii: Pair, along: Pair, shade: float
    ) -> None:
        scale = self.frame.height_pixels
        (x0, y0, _), (x1, y1, _) = ends
        first, last = max(scale * radii[0], 0.3), max(scale * radii[1], 0.3)
        row = (shape, x0, y0, first, x1, y1, last, paint, scale * along[0], scale * along[1], shade)
        self._rows.append((layer, len(self._rows), row))


def between(start: Point, end: Point, share: float) -> Point:
    """Interpolate from `start` (share 0) to `end` (share 1)."""
    x, y, near = (first + share * (last - first) for first, last in zip(start, end, strict=True))
    return x, y, near
