"""Cameras (geometry, light, optics, sensor) and the static scenes behind the people."""

from dataclasses import dataclass
from functools import cache
from typing import Final

import numpy as np
from numpy.typing import NDArray

from models.modality import Modality
from pipeline.data.synthetic.knobs import SyntheticKnobs
from pipeline.data.synthetic.people import REFLECTANCE
from pipeline.runtime.seeds import numpy_generator

PLACES: Final = ("room", "gate", "garden", "passage")
# Scene size relative to the image, so that no two crops agree.
MARGIN: Final = (1.25, 2.0)

Plane = NDArray[np.float32]
TONE_STEPS: Final = 1024
NOISE_BANK: Final = 1 << 16
_LLCM_PLACES: Final = ("gate", "passage", "garden", "room", "gate", "garden", "passage", "room", "garden")


def draw_scene(
    place: str, modality: Modality, rng: np.random.Generator, knobs: SyntheticKnobs, size: tuple[int, int]
) -> Plane:
    """One static scene as [height, width, channels], for images of `size`; one channel for infrared.

    Equal generators give the same shapes in either modality.
    """
    height, width = round(size[0] * MARGIN[0]), round(size[1] * MARGIN[1])
    canvas = np.empty((height, width, 4), np.float32)
    wall = _scene_surface(rng, "wall")
    floor = _scene_surface(rng, "floor")
    horizon = int(height * rng.uniform(0.45, 0.7))
    canvas[:horizon], canvas[horizon:] = wall, floor
    _FURNISH[place](canvas, horizon, rng)
    canvas += 0.5 * _clouds(rng, height, width)[:, :, None] * np.float32(0.2)
    flat = np.array([0.45, 0.45, 0.45, 0.4], np.float32)
    calm = flat + np.float32(knobs.background) * (canvas - flat)
    channels = calm[:, :, :3] if modality is Modality.VISIBLE else calm[:, :, 3:]
    return np.ascontiguousarray(np.clip(channels, 0.02, 0.98))


def _scene_surface(rng: np.random.Generator, kind: str) -> NDArray[np.float32]:
    """Visible colour and infrared reflectance, independent of each other as dyes and materials are."""
    value = rng.uniform(0.25, 0.75) if kind != "object" else rng.uniform(0.1, 0.9)
    tint = rng.normal(0.0, 0.05 if kind != "object" else 0.16, 3)
    reflectance = rng.uniform(0.15, 0.7)
    surface: NDArray[np.float32] = np.clip([*(value + tint), reflectance], 0.03, 0.97).astype(np.float32)
    return surface


def _boxes(canvas: Plane, horizon: int, rng: np.random.Generator) -> None:
    """Furniture and doors of a room: boxes around the horizon."""
    height, width, _ = canvas.shape
    for _ in range(int(rng.integers(4, 9))):
        left = int(rng.uniform(-0.1, 1.0) * width)
        top = int(horizon - rng.uniform(0.05, 0.45) * height)
        right = left + int(rng.uniform(0.05, 0.3) * width)
        canvas[max(top, 0) : horizon + int(rng.uniform(0.0, 0.12) * height), max(left, 0) : right] = _scene_surface(
            rng, "object"
        )


def _bars(canvas: Plane, horizon: int, rng: np.random.Generator) -> None:
    """A gate: upright bars before a bright background, two cross bars."""
    _boxes(canvas, horizon, rng)
    height, width, _ = canvas.shape
    bar = _scene_surface(rng, "object")
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
    """A passage: walls, floor slabs and ceiling lines that meet in one point."""
    height, width, _ = canvas.shape
    rows, columns = np.mgrid[0:height, 0:width]
    x, y = rng.uniform(0.3, 0.7) * width, rng.uniform(0.3, 0.5) * height
    angle = np.arctan2(rows - y, columns - x)
    sectors = int(rng.integers(7, 12))
    band = np.floor((angle + np.pi) / (2 * np.pi) * sectors + rng.uniform()).astype(int) % sectors
    surfaces = np.stack([_scene_surface(rng, "object") for _ in range(sectors)])
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


@dataclass(frozen=True, slots=True, eq=False)
class Camera:
    """One fixed camera. `facing` is the mean angle of people towards it, in radians: 0 is the front.

    `scene` is [height, width, channels], larger than an image: each image shows another crop of it.
    """

    station: int
    modality: Modality
    place: str
    elevation: float
    scale: float
    facing: float
    facing_spread: float
    gains: tuple[float, float, float]
    light_direction: float
    ambient: float
    fall_off: float
    defocus: float
    motion: float
    shot_noise: float
    read_noise: float
    jpeg_quality: int
    tone: NDArray[np.uint8]
    scene: NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Station:
    """The fixed properties of a camera in a layout; `make_camera` samples the others.

    A camera that takes visible images by day and infrared ones by night is two stations with one `camera` and one
    `geometry`.
    """

    number: int
    """Unique over all layouts, so that no two layouts repeat an instant."""
    camera: int
    """Camera number in the data set."""
    modality: Modality
    place: str
    geometry: int
    """Stations with equal geometry numbers have the same position: by day and at night."""


SYSU_STATIONS: Final = (
    Station(1, 1, Modality.VISIBLE, "room", 1),
    Station(2, 2, Modality.VISIBLE, "room", 2),
    Station(3, 3, Modality.INFRARED, "room", 2),
    Station(4, 4, Modality.VISIBLE, "gate", 4),
    Station(5, 5, Modality.VISIBLE, "garden", 5),
    Station(6, 6, Modality.INFRARED, "passage", 6),
)
REGDB_STATIONS: Final = (Station(11, 1, Modality.VISIBLE, "gate", 11), Station(12, 2, Modality.INFRARED, "gate", 11))
LLCM_STATIONS: Final = tuple(
    Station(first + camera, camera, modality, place, 20 + camera)
    for first, modality in ((20, Modality.VISIBLE), (30, Modality.INFRARED))
    for camera, place in enumerate(_LLCM_PLACES, start=1)
)


def station_cameras(
    stations: tuple[Station, ...], seed: int, knobs: SyntheticKnobs, height: int, width: int
) -> tuple[Camera, ...]:
    """The cameras of a layout, for images of `height` x `width` pixels. Cost: about 5 ms a camera."""
    return tuple(make_camera(station, seed, knobs, height, width) for station in stations)


def wild_camera(rng: np.random.Generator, modality: Modality, knobs: SyntheticKnobs, height: int, width: int) -> Camera:
    """A camera outside any layout, with random place and light, for pre-training."""
    seed = int(rng.integers(1 << 62))
    place = PLACES[int(rng.integers(len(PLACES)))]
    station = Station(0, 0, modality, place, int(rng.integers(1 << 30)))
    return make_camera(station, seed, knobs, height, width)


def make_camera(station: Station, seed: int, knobs: SyntheticKnobs, height: int, width: int) -> Camera:
    """Sample a station's camera; the seed and the station determine it."""
    geometry = numpy_generator(seed, "drawn", "geometry", station.geometry)
    rng = numpy_generator(seed, "drawn", "camera", station.number, station.modality.value)
    shift = knobs.camera_shift
    infrared = station.modality is Modality.INFRARED
    gain = float(np.exp(rng.normal(0.0, 0.16 * shift)))
    warmth = rng.normal(0.0, 0.1 * shift, 2)
    gamma = float(np.exp(rng.normal(0.0, 0.14 * shift)))
    black = float(rng.uniform(0.0, 0.05 * shift))
    elevation = float(geometry.uniform(0.02, 0.02 + 0.33 * min(shift + 0.3, 1.0)))
    facing = float(geometry.uniform(-np.pi, np.pi))
    scene = draw_scene(
        station.place, station.modality, numpy_generator(seed, "scene", station.geometry), knobs, (height, width)
    )
    return Camera(
        station=station.number,
        modality=station.modality,
        place=station.place,
        elevation=elevation,
        scale=float(np.exp(geometry.normal(0.0, 0.025 * shift))),
        facing=facing,
        facing_spread=1.25 * knobs.view_spread,
        gains=(gain * float(np.exp(warmth[0])), gain, gain * float(np.exp(warmth[1]))),
        light_direction=float(rng.uniform(-0.6, 0.6)),
        ambient=float(rng.uniform(0.35, 0.6)),
        fall_off=float(rng.uniform(0.3, 1.4)) * min(shift + 0.2, 1.0) if infrared else 0.0,
        defocus=knobs.blur * float(rng.uniform(0.25, 0.9)) * height / 256,
        motion=knobs.blur * float(rng.uniform(0.2, 1.0)) * height / 256,
        shot_noise=knobs.noise * float(rng.uniform(0.015, 0.05)),
        read_noise=knobs.noise * float(rng.uniform(0.012, 0.04) if infrared else rng.uniform(0.004, 0.02)),
        jpeg_quality=int(rng.integers(86, 95)),
        tone=_tone_curve(gamma, black),
        scene=scene,
    )


@cache
def noise_bank() -> NDArray[np.float32]:
    """Standard normal values from which all images take their noise, each at its own offset."""
    bank = numpy_generator(0, "drawn", "noise bank").standard_normal(NOISE_BANK, dtype=np.float32)
    bank.setflags(write=False)
    return bank


def _tone_curve(gamma: float, black: float) -> NDArray[np.uint8]:
    steps = np.linspace(0.0, 1.0, TONE_STEPS)
    curve: NDArray[np.uint8] = np.rint((black + (1.0 - black) * steps**gamma) * 255.0).astype(np.uint8)
    return curve
