"""One image of one person by one camera, in either modality."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from models.modality import Modality
from pipeline.data.synthetic.accessories import add_bag, add_hat, add_head, add_occluder
from pipeline.data.synthetic.cameras import NOISE_BANK, Camera, noise_bank
from pipeline.data.synthetic.clothes import add_arms, add_legs, add_trunk
from pipeline.data.synthetic.knobs import DrawnKnobs
from pipeline.data.synthetic.people import Person
from pipeline.data.synthetic.pose import Pose, draw_pose, make_skeleton
from pipeline.data.synthetic.raster import develop, fill, shade
from pipeline.data.synthetic.sketch import Sketch


@dataclass(frozen=True, slots=True, eq=False)
class DrawnImage:
    """Pixels as uint8 [height, width, 3], or [height, width] in infrared, and the instant that they show."""

    pixels: NDArray[np.uint8]
    pose: Pose
    occluded: bool


def draw_image(
    rng: np.random.Generator, person: Person, camera: Camera, knobs: DrawnKnobs, height: int, width: int
) -> DrawnImage:
    """Draw one image; everything that chance decides comes from `rng`.

    Cost: about 1 ms at 64 x 128, most of it filling and shading. Infrared and visible draw the same numbers in the
    same order, so that nothing but the key of the generator tells two instants apart.
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
    return DrawnImage(_develop(rng, scene, camera), pose, occluded)


def _crop(rng: np.random.Generator, scene: NDArray[np.float32], height: int, width: int) -> NDArray[np.float32]:
    top = int(rng.integers(scene.shape[0] - height + 1))
    left = int(rng.integers(scene.shape[1] - width + 1))
    return scene[top : top + height, left : left + width]


def _light(rng: np.random.Generator, camera: Camera, knobs: DrawnKnobs) -> NDArray[np.float32]:
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
