"""Where people are seen from: geometry, light, optics and sensor of one camera, and the scene behind the people."""

from dataclasses import dataclass
from functools import cache
from typing import Final

import numpy as np
from numpy.typing import NDArray

from models.modality import Modality
from pipeline.data.synthetic.knobs import DrawnKnobs
from pipeline.data.synthetic.scenes import PLACES, draw_scene
from pipeline.runtime.seeds import numpy_generator

TONE_STEPS: Final = 1024
NOISE_BANK: Final = 1 << 16


@dataclass(frozen=True, slots=True, eq=False)
class Camera:
    """One fixed camera. `facing` is the angle that people usually show it, in radians: 0 is the front.

    `scene` is [height, width, channels], larger than a picture: each image sees another part of it.
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
    """What a layout says about a camera before chance fills in the rest.

    A camera that takes visible images by day and infrared ones by night is two stations with one `camera` and one
    `geometry`.
    """

    number: int
    """Which station this is. Layouts with cameras of their own share no number, so that none repeats an instant."""
    camera: int
    """What a user of the data set calls it."""
    modality: Modality
    place: str
    geometry: int
    """Stations with one geometry number hang in the same spot: by day and in the dark."""


SYSU_STATIONS: Final = (
    Station(1, 1, Modality.VISIBLE, "room", 1),
    Station(2, 2, Modality.VISIBLE, "room", 2),
    Station(3, 3, Modality.INFRARED, "room", 2),
    Station(4, 4, Modality.VISIBLE, "gate", 4),
    Station(5, 5, Modality.VISIBLE, "garden", 5),
    Station(6, 6, Modality.INFRARED, "passage", 6),
)
REGDB_STATIONS: Final = (
    Station(11, 1, Modality.VISIBLE, "gate", 11),
    Station(12, 2, Modality.INFRARED, "gate", 11),
)
_LLCM_PLACES: Final = ("gate", "passage", "garden", "room", "gate", "garden", "passage", "room", "garden")
LLCM_STATIONS: Final = tuple(
    Station(first + camera, camera, modality, place, 20 + camera)
    for first, modality in ((20, Modality.VISIBLE), (30, Modality.INFRARED))
    for camera, place in enumerate(_LLCM_PLACES, start=1)
)


def station_cameras(
    stations: tuple[Station, ...], seed: int, knobs: DrawnKnobs, height: int, width: int
) -> tuple[Camera, ...]:
    """The cameras of a layout, for pictures of `height` x `width` pixels. Cost: about 5 ms a camera."""
    return tuple(make_camera(station, seed, knobs, height, width) for station in stations)


def wild_camera(rng: np.random.Generator, modality: Modality, knobs: DrawnKnobs, height: int, width: int) -> Camera:
    """A camera that belongs to no layout: any place, any light, for pre-training."""
    seed = int(rng.integers(1 << 62))
    place = PLACES[int(rng.integers(len(PLACES)))]
    station = Station(0, 0, modality, place, int(rng.integers(1 << 30)))
    return make_camera(station, seed, knobs, height, width)


def make_camera(station: Station, seed: int, knobs: DrawnKnobs, height: int, width: int) -> Camera:
    """Fill in one station: everything but the pictures it will take."""
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
    """Standard normal values that all images take their noise from, at an offset of their own."""
    bank = numpy_generator(0, "drawn", "noise bank").standard_normal(NOISE_BANK, dtype=np.float32)
    bank.setflags(write=False)
    return bank


def _tone_curve(gamma: float, black: float) -> NDArray[np.uint8]:
    steps = np.linspace(0.0, 1.0, TONE_STEPS)
    curve: NDArray[np.uint8] = np.rint((black + (1.0 - black) * steps**gamma) * 255.0).astype(np.uint8)
    return curve
