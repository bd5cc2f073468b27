"""One image of one person by one camera, and any image of a data set by name."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from models.modality import Modality
from pipeline.data.synthetic.cameras import NOISE_BANK, Camera, Station, noise_bank, station_cameras
from pipeline.data.synthetic.captions import Attributes, caption_of, guess_colours, name_attributes, visible_attributes
from pipeline.data.synthetic.figure import add_arms, add_bag, add_hat, add_head, add_legs, add_occluder, add_trunk
from pipeline.data.synthetic.knobs import SyntheticKnobs
from pipeline.data.synthetic.people import Person, data_set_people
from pipeline.data.synthetic.pose import Pose, draw_pose, make_skeleton
from pipeline.data.synthetic.raster import Sketch, develop, fill, shade
from pipeline.runtime.seeds import numpy_generator


@dataclass(frozen=True, slots=True, eq=False)
class SyntheticImage:
    """Pixels as uint8 [height, width, 3], or [height, width] in infrared, with pose and occlusion."""

    pixels: NDArray[np.uint8]
    pose: Pose
    occluded: bool


def draw_image(
    rng: np.random.Generator, person: Person, camera: Camera, knobs: SyntheticKnobs, height: int, width: int
) -> SyntheticImage:
    """Draw one image; all random choices come from `rng`.

    Cost: about 1 ms at 64 x 128, most of it filling and shading. Infrared and visible images use the same random
    numbers in the same order, so that two instants differ by their generator's key only.
    """
    pose = draw_pose(rng, camera, knobs)
    skeleton = make_skeleton(person.body, pose, camera, height, width)
    sketch = Sketch(skeleton.frame)
    add_legs(sketch, person, skeleton)
    add_trunk(sketch, person, skeleton)
    add_arms(sketch, person, skeleton)
    add_head(sketch, person, skeleton)
    add_hat(sketch, person, skeleton)
    add_bag(sketch, person, skeleton)
    occluded = bool(rng.random() < knobs.occlusion)
    if occluded:
        add_occluder(sketch, rng, height, width)
    primitives, paints = sketch.finish()
    infrared = camera.modality is Modality.INFRARED
    owner = np.empty((2 * height, 2 * width), np.int16)
    fill(primitives, owner)
    scene = np.empty((height, width, 1 if infrared else 3), np.float32)
    light = _light(rng, camera, knobs)
    shade(primitives, paints, owner, _crop(rng, camera.scene, height, width), light, infrared, scene)
    return SyntheticImage(_develop(rng, scene, camera), pose, occluded)


def _crop(rng: np.random.Generator, scene: NDArray[np.float32], height: int, width: int) -> NDArray[np.float32]:
    top = int(rng.integers(scene.shape[0] - height + 1))
    left = int(rng.integers(scene.shape[1] - width + 1))
    return scene[top : top + height, left : left + width]


def _light(rng: np.random.Generator, camera: Camera, knobs: SyntheticKnobs) -> NDArray[np.float32]:
    """The camera's light with this instant's small change."""
    flicker = float(np.exp(rng.normal(0.0, 0.05 * knobs.camera_shift)))
    aim_x, aim_y = 0.5 + rng.normal(0.0, 0.06, 2)
    red, green, blue = (gain * flicker * 1.08 for gain in camera.gains)
    if camera.modality is Modality.INFRARED:
        red = green = blue = green * 0.95
    values = (red, green, blue, camera.light_direction, camera.ambient, camera.fall_off, aim_x, aim_y)
    return np.array(values, np.float32)


def _develop(rng: np.random.Generator, scene: NDArray[np.float32], camera: Camera) -> NDArray[np.uint8]:
    pixels = np.empty(scene.shape, np.uint8)
    motion = camera.motion * float(rng.uniform(0.0, 1.0))
    noise = np.array([camera.shot_noise, camera.read_noise], np.float32)
    across, down = _taps(camera.defocus + motion), _taps(camera.defocus)
    develop(scene, across, down, noise_bank(), int(rng.integers(NOISE_BANK)), noise, camera.tone, pixels)
    return pixels[:, :, 0] if camera.modality is Modality.INFRARED else pixels


def _taps(sigma: float) -> NDArray[np.float32]:
    """Five weights of a Gaussian."""
    offsets = np.arange(-2, 3, dtype=np.float64)
    weights = np.exp(-0.5 * (offsets / max(sigma, 1e-3)) ** 2)
    taps: NDArray[np.float32] = (weights / weights.sum()).astype(np.float32)
    return taps


@dataclass(frozen=True, slots=True)
class StudioSettings:
    """Everything that pixels depend on. Sizes in pixels."""

    seed: int
    num_people: int
    knobs: SyntheticKnobs
    stations: tuple[Station, ...]
    height: int
    width: int


@dataclass(frozen=True, slots=True, eq=False)
class Portrait:
    """One image with its ground truth. `pixels` is uint8, [height, width, 3] or in infrared [height, width]."""

    pixels: NDArray[np.uint8]
    modality: Modality
    pose: Pose
    occluded: bool
    shown: Attributes
    caption: str


class Studio:
    """Draws image `index` of a person at a station; the pixels do not depend on earlier calls.

    Cost: about .15 ms a person and 5 ms a camera to open.
    """

    def __init__(self, settings: StudioSettings) -> None:
        self._settings = settings
        self.people = data_set_people(settings.seed, settings.num_people, settings.knobs)
        cameras = station_cameras(settings.stations, settings.seed, settings.knobs, settings.height, settings.width)
        self.cameras = {camera.station: camera for camera in cameras}

    def draw(self, person_number: int, station_number: int, index: int) -> Portrait:
        """Draw one image; people and images are numbered from 1, stations as in the layout."""
        settings, knobs = self._settings, self._settings.knobs
        person, camera = self.people[person_number - 1], self.cameras[station_number]
        key = ("image", person_number, station_number, index)
        image = draw_image(
            numpy_generator(settings.seed, "drawn", *key), person, camera, knobs, settings.height, settings.width
        )
        shown = visible_attributes(person, image.pose, camera.modality)
        rng = numpy_generator(settings.seed, "drawn", "caption", *key)
        named = name_attributes(shown, rng, drop=knobs.caption_noise, swap=knobs.caption_noise / 3)
        if camera.modality is Modality.INFRARED:
            guesses = numpy_generator(settings.seed, "drawn", "infrared colours", *key)
            named = guess_colours(named, person, guesses, knobs.infrared_colours)
        caption = caption_of(named, camera.modality)
        return Portrait(image.pixels, camera.modality, image.pose, image.occluded, shown, caption)
