"""One instant of one person before one camera: pose, view, crop, and the joints."""

from dataclasses import dataclass
from math import cos, pi, sin
from typing import Literal

import numpy as np

from pipeline.data.synthetic.cameras import Camera
from pipeline.data.synthetic.knobs import SyntheticKnobs
from pipeline.data.synthetic.people import Body

View = Literal["front", "back", "left", "right"]
Point = tuple[float, float, float]
"""Pixels right, pixels down, and nearness to the camera in body heights."""


@dataclass(frozen=True, slots=True)
class Pose:
    """Properties that change between images: angles in radians, lengths in body heights, crops in image shares."""

    facing: float
    phase: float
    stride: float
    swing: float
    lean: float
    shift_x: float
    shift_y: float
    zoom: float

    @property
    def view(self) -> View:
        """The visible side; `left` is the person's left side."""
        if abs(self.facing) < 0.3 * pi:
            return "front"
        if abs(self.facing) > 0.7 * pi:
            return "back"
        return "right" if self.facing > 0 else "left"


def draw_pose(rng: np.random.Generator, camera: Camera, knobs: SyntheticKnobs) -> Pose:
    """Sample an instant: people mostly face the walking direction of the camera's place, or its opposite."""
    facing = camera.facing + (pi if rng.random() < 0.35 else 0.0) + float(rng.normal(0.0, camera.facing_spread))
    walking = rng.random() < 0.8
    spread = knobs.pose_spread
    return Pose(
        facing=(facing + pi) % (2 * pi) - pi,
        phase=float(rng.uniform(0.0, 2 * pi)),
        stride=float(rng.uniform(0.2, 0.55)) * spread if walking else 0.08,
        swing=float(rng.uniform(0.1, 0.5)) * spread,
        lean=float(rng.normal(0.0, 0.03)) * spread,
        shift_x=float(rng.normal(0.0, knobs.crop_jitter)),
        shift_y=float(rng.normal(0.0, knobs.crop_jitter)) * 0.7,
        zoom=float(np.exp(rng.normal(0.0, knobs.crop_jitter))),
    )


@dataclass(frozen=True, slots=True)
class Frame:
    """The map from a body to an image: lateral, up and forward in body heights to pixels."""

    pose: Pose
    height_pixels: float
    ground_x: float
    ground_y: float
    elevation: float

    def project(self, lateral: float, up: float, forward: float) -> Point:
        """Image position of a point of the body. Lateral grows to the person's left."""
        turn, rise = self.pose.facing, self.elevation
        across = lateral * cos(turn) + forward * sin(turn) + self.pose.lean * up
        nearness = forward * cos(turn) - lateral * sin(turn)
        scale = self.height_pixels
        return (
            self.ground_x + scale * across,
            self.ground_y - scale * (up * cos(rise) - nearness * sin(rise)),
            nearness,
        )

    def half_width(self, lateral: float, forward: float) -> float:
        """Half the width in pixels of an upright elliptic column with these half axes."""
        turn = self.pose.facing
        return self.height_pixels * float(((lateral * cos(turn)) ** 2 + (forward * sin(turn)) ** 2) ** 0.5)


@dataclass(frozen=True, slots=True)
class Limb:
    """Three joints of an arm or a leg, from the trunk outwards, and the person's side: 1 is left."""

    side: int
    root: Point
    middle: Point
    end: Point


@dataclass(frozen=True, slots=True)
class Skeleton:
    """Joints of one instant, in pixels."""

    frame: Frame
    legs: tuple[Limb, Limb]
    arms: tuple[Limb, Limb]
    hip_up: float
    shoulder_up: float
    head: Point
    head_radius: float


def make_skeleton(body: Body, pose: Pose, camera: Camera, height: int, width: int) -> Skeleton:
    """Place the joints of a body in an image of `height` x `width` pixels."""
    pixels = 0.86 * height * camera.scale * pose.zoom * (body.height / 1.75) ** 0.7
    frame = Frame(
        pose,
        pixels,
        ground_x=width * (0.5 + pose.shift_x) - pose.lean * 0.5 * pixels,
        ground_y=height * (0.96 + pose.shift_y),
        elevation=camera.elevation,
    )
    shoulder_up = 0.815 + 0.3 * (body.leg - 0.47)
    head_radius = 0.064 * body.head
    return Skeleton(
        frame,
        legs=(_leg(frame, body, 1), _leg(frame, body, -1)),
        arms=(_arm(frame, body, shoulder_up, 1), _arm(frame, body, shoulder_up, -1)),
        hip_up=body.leg,
        shoulder_up=shoulder_up,
        head=frame.project(0.0, shoulder_up + 0.04 + head_radius * 1.1, 0.015),
        head_radius=head_radius * pixels,
    )


def _leg(frame: Frame, body: Body, side: int) -> Limb:
    pose = frame.pose
    phase = pose.phase + (0.0 if side > 0 else pi)
    thigh = pose.stride * sin(phase)
    shin = thigh - pose.stride * 1.1 * max(0.0, cos(phase)) - 0.03
    lateral = side * body.hip * 0.27
    half = body.leg * 0.5
    knee_up, knee_forward = body.leg - half * cos(thigh), half * sin(thigh)
    ankle_up, ankle_forward = knee_up - 0.9 * half * cos(shin), knee_forward + 0.9 * half * sin(shin)
    return Limb(
        side,
        frame.project(lateral, body.leg, 0.0),
        frame.project(lateral, knee_up, knee_forward),
        frame.project(lateral, ankle_up, ankle_forward),
    )


def _arm(frame: Frame, body: Body, shoulder_up: float, side: int) -> Limb:
    pose = frame.pose
    phase = pose.phase + (pi if side > 0 else 0.0)
    upper = pose.swing * sin(phase)
    lower = upper + 0.15 + 0.4 * pose.swing
    lateral = side * (body.shoulder * 0.5 + 0.004)
    elbow_up, elbow_forward = shoulder_up - 0.175 * cos(upper), 0.175 * sin(upper)
    hand_up, hand_forward = elbow_up - 0.165 * cos(lower), elbow_forward + 0.165 * sin(lower)
    return Limb(
        side,
        frame.project(lateral, shoulder_up - 0.02, 0.0),
        frame.project(lateral + side * 0.018, elbow_up, elbow_forward),
        frame.project(lateral + side * 0.022, hand_up, hand_forward),
    )
