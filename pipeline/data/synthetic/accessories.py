"""Head, hair, hat and bag of a figure, and what stands between camera and person."""

from math import cos, sin
from typing import Final

import numpy as np

from pipeline.data.synthetic.people import Person, Tone
from pipeline.data.synthetic.pose import Skeleton
from pipeline.data.synthetic.sketch import Sketch

_EYES = Tone((0.05, 0.05, 0.05), 0.08)
_LEAF = Tone((0.2, 0.42, 0.16), 0.8)
_POLE = Tone((0.45, 0.45, 0.47), 0.4)
_FRONT: Final = 2.0


def add_head(sketch: Sketch, person: Person, skeleton: Skeleton) -> None:
    """Neck, head, face and hair."""
    frame, radius = skeleton.frame, skeleton.head_radius
    x, y, _ = skeleton.head
    turn = frame.pose.facing
    skin, hair = sketch.plain(person.skin), sketch.plain(person.hair_tone)
    neck = frame.project(0.0, skeleton.shoulder_up, 0.0)
    sketch.capsule(0.05, skin, neck, (x, y, 0.0), (0.03, 0.03), shade=0.85)
    sketch.ellipse(0.5, skin, (x, y), (0.86 * radius, 1.1 * radius))
    if person.hair != "bald":
        sketch.ellipse(0.51, hair, (x - 0.12 * radius * sin(turn), y - 0.18 * radius), (1.0 * radius, 1.05 * radius))
        _loose_hair(sketch, person, skeleton, hair)
    toward = cos(turn)
    if toward > -0.35:
        face_x = x + 0.42 * radius * sin(turn)
        wide = radius * (0.42 + 0.32 * max(toward, 0.0))
        face_y = y + 0.22 * radius
        sketch.ellipse(0.53, skin, (face_x, face_y), (wide, 0.85 * radius), 1.05)
        if toward > 0.2:
            eyes = sketch.plain(_EYES)
            for side in (-1.0, 1.0):
                eye_x = face_x + side * 0.3 * radius * toward
                sketch.ellipse(0.54, eyes, (eye_x, face_y - 0.1 * radius), (0.12 * radius, 0.1 * radius))


def add_hat(sketch: Sketch, person: Person, skeleton: Skeleton) -> None:
    """Cap, beanie or brimmed hat on the head."""
    if person.hat == "none":
        return
    frame, radius = skeleton.frame, skeleton.head_radius
    turn = frame.pose.facing
    x, y, near = skeleton.head
    scale = frame.height_pixels
    dome, trim = sketch.plain(person.hat_tone), sketch.plain(person.hat_tone, 0.6)
    if person.hat == "cap":
        sketch.ellipse(0.6, dome, (x, y - 0.62 * radius), (1.08 * radius, 0.68 * radius))
        if cos(turn) > -0.5:
            tip = x + 1.25 * radius * sin(turn)
            brim_y = y - 0.28 * radius
            wide = 1.0 - 0.25 * abs(sin(turn))
            sketch.ellipse(0.61, trim, (tip, brim_y), (wide * radius, 0.24 * radius))
    if person.hat == "beanie":
        sketch.ellipse(0.6, dome, (x, y - 0.68 * radius), (1.1 * radius, 0.98 * radius))
        sketch.ellipse(0.61, dome, (x, y - 1.66 * radius), (0.3 * radius, 0.28 * radius), 1.2)
        band = (1.12 * radius / scale,) * 2
        sketch.slab(0.62, trim, (x, y - 0.52 * radius, near), (x, y - 0.1 * radius, near), band)
    if person.hat == "brimmed hat":
        crown = (0.95 * radius / scale, 1.05 * radius / scale)
        sketch.slab(0.6, dome, (x, y - 1.6 * radius, near), (x, y - 0.55 * radius, near), crown)
        sketch.ellipse(0.61, trim, (x, y - 0.5 * radius), (2.0 * radius, 0.36 * radius))


def add_bag(sketch: Sketch, person: Person, skeleton: Skeleton) -> None:
    """Backpack, shoulder bag or handbag, with its straps."""
    if person.bag == "none":
        return
    frame, side = skeleton.frame, person.bag_side
    paint, strap = sketch.plain(person.bag_tone), sketch.plain(person.bag_tone, 0.55)
    top, hip = skeleton.shoulder_up, skeleton.hip_up
    toward = cos(frame.pose.facing)
    if person.bag == "backpack":
        wide = frame.half_width(0.09, 0.055) / frame.height_pixels
        high, low = frame.project(0.0, top - 0.01, -0.11), frame.project(0.0, hip + 0.07, -0.11)
        layer = 0.46 if toward < 0.3 else -0.2
        sketch.slab(layer, paint, high, low, (wide * 0.9, wide))
        sketch.capsule(layer + 0.001, paint, high, high, (wide * 0.9, wide * 0.9))
        middle = frame.project(0.0, hip + 0.15, -0.12)
        sketch.slab(layer + 0.002, strap, middle, low, (wide * 0.7, wide * 0.7))
        if toward > 0.1:
            for shoulder in (-0.065, 0.065):
                start, end = frame.project(shoulder, top + 0.015, 0.05), frame.project(shoulder * 1.1, hip + 0.13, 0.06)
                sketch.capsule(0.2, strap, start, end, (0.014, 0.014))
        return
    hand = skeleton.arms[0 if side > 0 else 1]
    if person.bag == "shoulder bag":
        front = 0.07 if toward > 0 else -0.07
        start, end = frame.project(-0.07 * side, top + 0.02, front), frame.project(0.13 * side, hip - 0.01, front * 0.5)
        sketch.capsule(0.25, strap, start, end, (0.011, 0.011))
        anchor = frame.project(0.14 * side, hip + 0.01, 0.0)
        low = frame.project(0.15 * side, hip - 0.115, 0.0)
        sketch.slab(0.4 if anchor[2] > -0.06 else -0.4, paint, anchor, low, (0.062, 0.07))
        return
    x, y, near = hand.end
    scale = frame.height_pixels
    layer = 0.29 if near > -0.06 else -0.4
    sketch.slab(layer, strap, (x, y, near), (x, y + 0.05 * scale, near), (0.02, 0.045))
    sketch.slab(layer + 0.001, paint, (x, y + 0.045 * scale, near), (x, y + 0.15 * scale, near), (0.06, 0.072))


def add_occluder(sketch: Sketch, rng: np.random.Generator, height: int, width: int) -> None:
    """A pole, a plant or another body in front of the person, mostly at one edge."""
    kind = int(rng.integers(3))
    edge = width * float(rng.uniform(0.0, 0.3) if rng.random() < 0.5 else rng.uniform(0.7, 1.0))
    if kind == 0:
        wide = float(rng.uniform(0.02, 0.045))
        sketch.slab(_FRONT, sketch.plain(_POLE), (edge, -2.0, 0.0), (edge, height + 2.0, 0.0), (wide, wide))
    elif kind == 1:
        leaf = sketch.plain(_LEAF, float(rng.uniform(0.7, 1.1)))
        for x, y, r in rng.uniform((-0.2, 0.62, 0.04), (0.2, 1.0, 0.1), (9, 3)):
            shade = float(rng.uniform(0.7, 1.1))
            sketch.ellipse(_FRONT, leaf, (edge + x * width, y * height), (r * height, 0.8 * r * height), shade)
    else:
        value, rho = rng.uniform(0.1, 0.8, 2)
        cloth = sketch.plain(Tone((float(value), float(value), float(value)), float(rho)))
        far = -0.12 * width if edge < width / 2 else 1.12 * width
        sketch.slab(_FRONT, cloth, (far, 0.2 * height, 0.0), (far, 1.05 * height, 0.0), (0.13, 0.11))
        skin = sketch.plain(Tone((0.7, 0.52, 0.4), 0.6))
        sketch.ellipse(_FRONT, skin, (far, 0.11 * height), (0.06 * height, 0.075 * height))


def _loose_hair(sketch: Sketch, person: Person, skeleton: Skeleton, hair: int) -> None:
    """What hangs or is tied behind the head."""
    frame, radius = skeleton.frame, skeleton.head_radius
    x, y, near = skeleton.head
    scale = frame.height_pixels
    toward, aside = cos(frame.pose.facing), sin(frame.pose.facing)
    behind = 0.47 if toward < 0.25 else -0.05
    if person.hair in ("medium hair", "long hair"):
        length = 1.25 if person.hair == "medium hair" else 3.4
        wide = 1.08 if person.hair == "medium hair" else 1.3
        root = (x - 0.25 * radius * aside, y - 0.1 * radius, near)
        end = (x - 0.55 * radius * aside, y + length * radius, near)
        layer = 0.48 if person.hair == "medium hair" else behind
        sketch.slab(layer, hair, root, end, (radius / scale, wide * radius / scale))
    if person.hair == "a ponytail":
        root = (x - 1.0 * radius * aside, y - 0.5 * radius, near)
        end = (x - 1.7 * radius * aside + 0.25 * radius, y + 2.3 * radius, near)
        layer = 0.57 if toward < 0.25 else 0.4
        sketch.capsule(layer, hair, root, end, (0.38 * radius / scale, 0.24 * radius / scale), shade=0.85)
    if person.hair == "a bun":
        centre = (x - 0.85 * radius * aside, y - 1.1 * radius)
        sketch.ellipse(0.57 if toward < 0.25 else 0.49, hair, centre, (0.55 * radius, 0.52 * radius), 0.85)
