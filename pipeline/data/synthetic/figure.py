"""The primitives of a figure (legs, trunk, arms, head, hair, hat, bag) and of occluders in front of it."""

from math import cos, sin
from typing import Final

import numpy as np

from pipeline.data.synthetic.people import Person, Tone
from pipeline.data.synthetic.pose import Limb, Skeleton
from pipeline.data.synthetic.raster import Sketch, between

_LONG_SLEEVES: Final = ("long-sleeved top", "shirt", "jacket", "hoodie", "long coat")
_BULK: Final = {"jacket": 1.25, "hoodie": 1.22, "long coat": 1.22, "long-sleeved top": 0.98, "shirt": 1.08}
_LEG_FIT: Final = {"trousers": 1.3, "jeans": 1.05, "leggings": 0.84}
# How far a garment reaches below the hips, in body heights.
_HEM: Final = {"T-shirt": 0.02, "long-sleeved top": 0.02, "shirt": 0.05, "jacket": 0.045, "hoodie": 0.03}
_LINEN = Tone((0.95, 0.95, 0.93), 0.8)
_DARK = Tone((0.12, 0.12, 0.12), 0.15)
_EYES = Tone((0.05, 0.05, 0.05), 0.08)
_LEAF = Tone((0.2, 0.42, 0.16), 0.8)
_POLE = Tone((0.45, 0.45, 0.47), 0.4)
_FRONT: Final = 2.0


def add_legs(sketch: Sketch, person: Person, skeleton: Skeleton) -> None:
    """Both legs with shoes and the lower garment; bare below a dress."""
    skin = sketch.plain(person.skin)
    shoe = sketch.plain(person.shoe_tone)
    garment = sketch.garment(person.lower, 0.45)
    for limb in skeleton.legs:
        layer = -1.0 + limb.middle[2] + 0.5 * limb.end[2]
        thick = person.body.limb
        sketch.capsule(layer, skin, limb.root, limb.middle, (0.052 * thick, 0.036 * thick))
        sketch.capsule(layer, skin, limb.middle, limb.end, (0.036 * thick, 0.024 * thick))
        _shoe(sketch, person, limb, layer, shoe)
        if person.upper.kind != "dress":
            _covered_leg(sketch, person, limb, layer, garment)
    if person.upper.kind == "dress":
        return
    body, frame = person.body, skeleton.frame
    wide = frame.half_width(0.5 * body.hip, 0.075) / frame.height_pixels
    up = skeleton.hip_up
    waist, seat = frame.project(0.0, up + 0.06, 0.0), frame.project(0.0, up - 0.05, 0.0)
    sketch.slab(-0.3, garment, waist, seat, (wide * 0.95, wide), (-0.06, 0.05))
    if person.lower.kind == "short skirt":
        hem = frame.project(0.0, up - 0.17, 0.0)
        sketch.slab(-0.29, garment, seat, hem, (wide, wide * 1.4), (0.05, 0.17))
    if person.lower.kind == "long skirt":
        hem = frame.project(0.0, 0.1, 0.0)
        sketch.slab(-0.29, garment, seat, hem, (wide, wide * 1.5), (0.05, up - 0.1))


def add_trunk(sketch: Sketch, person: Person, skeleton: Skeleton) -> None:
    """Trunk with the upper garment, down to its hem, and the details of its kind."""
    body, frame = person.body, skeleton.frame
    scale = frame.height_pixels
    kind = person.upper.kind
    extent = {"long coat": 0.58, "dress": 0.52}.get(kind, 0.34)
    paint = sketch.garment(person.upper, extent)
    bulk = 1.0 if kind not in _BULK else 0.5 + 0.5 * _BULK[kind]
    shoulders = frame.half_width(0.5 * body.shoulder, 0.07) / scale * bulk
    waist = frame.half_width(0.47 * body.hip + 0.015, 0.068) / scale * bulk
    hips = frame.half_width(0.5 * body.hip + 0.008, 0.078) / scale * bulk
    top, middle = skeleton.shoulder_up, skeleton.hip_up + 0.12
    hem = skeleton.hip_up - _HEM.get(kind, 0.0)
    at_top, at_middle, at_hem = (frame.project(0.0, up, 0.0) for up in (top, middle, hem))
    sketch.slab(0.0, paint, at_top, at_middle, (shoulders, waist), (0.0, top - middle))
    sketch.slab(0.0, paint, at_middle, at_hem, (waist, hips), (top - middle, top - hem))
    left, right = skeleton.arms[0].root, skeleton.arms[1].root
    sketch.capsule(0.01, paint, left, right, (0.032 * bulk, 0.032 * bulk))
    if kind in ("long coat", "dress"):
        low = 0.25 if kind == "long coat" else 0.27
        flare = 1.25 if kind == "long coat" else 1.75
        sketch.slab(0.0, paint, at_hem, frame.project(0.0, low, 0.0), (hips, hips * flare), (top - hem, top - low))
    _add_front(sketch, person, skeleton)


def add_arms(sketch: Sketch, person: Person, skeleton: Skeleton) -> None:
    """Both arms, bare, half or fully covered."""
    skin = sketch.plain(person.skin)
    garment = sketch.garment(person.upper, 0.34)
    kind, limb = person.upper.kind, person.body.limb
    for arm in skeleton.arms:
        layer = 0.3 if arm.middle[2] + 0.5 * arm.root[2] > -0.04 else -0.1
        upper, lower, wrist = 0.031 * limb, 0.026 * limb, 0.02 * limb
        sketch.capsule(layer, skin, arm.root, arm.middle, (upper, lower))
        sketch.capsule(layer, skin, arm.middle, arm.end, (lower, wrist))
        sketch.ellipse(layer, skin, arm.end[:2], (0.024 * skeleton.frame.height_pixels,) * 2)
        if kind in _LONG_SLEEVES:
            bulk = _BULK[kind]
            sketch.capsule(layer, garment, arm.root, arm.middle, (upper * bulk, lower * bulk), (0.0, 0.17), 0.93)
            cuff = between(arm.middle, arm.end, 0.9)
            sketch.capsule(layer, garment, arm.middle, cuff, (lower * bulk, wrist * bulk * 1.1), (0.17, 0.34), 0.93)
        elif kind == "T-shirt":
            sleeve = between(arm.root, arm.middle, 0.72)
            sketch.slab(layer, garment, arm.root, sleeve, (upper * 1.15, upper * 1.35), (0.0, 0.12), 0.93)


def _shoe(sketch: Sketch, person: Person, limb: Limb, layer: float, shoe: int) -> None:
    frame = sketch.frame
    toe = frame.project(0.0, 0.0, 0.06)
    heel = frame.project(0.0, 0.0, -0.02)
    x, y, near = limb.end
    forward = (x + toe[0] - heel[0], y + 0.03 * frame.height_pixels, near)
    back = (x, y + 0.024 * frame.height_pixels, near)
    radius = 0.022 if person.shoes == "sandals" else 0.03
    if person.shoes == "sandals":
        sketch.capsule(layer, sketch.plain(person.skin), back, forward, (radius, radius))
        forward, back = (forward[0], forward[1] + 2, near), (back[0], back[1] + 2, near)
        radius = 0.012
    sketch.capsule(layer, shoe, back, forward, (radius, radius * 0.85))
    if person.shoes == "boots":
        sketch.capsule(layer + 0.02, shoe, between(limb.middle, limb.end, 0.45), limb.end, (0.04, 0.034))


def _covered_leg(sketch: Sketch, person: Person, limb: Limb, layer: float, garment: int) -> None:
    kind, thick = person.lower.kind, person.body.limb
    if kind in ("short skirt", "long skirt"):
        return
    if kind == "shorts":
        hem = between(limb.root, limb.middle, 0.85)
        sketch.slab(layer, garment, limb.root, hem, (0.06 * thick, 0.066 * thick), (0.0, 0.22))
        return
    fit = _LEG_FIT[kind]
    end = between(limb.middle, limb.end, 0.8 if kind == "leggings" else 1.0)
    thigh, knee, ankle = 0.054 * thick * fit, 0.04 * thick * fit, (0.024 if kind == "leggings" else 0.034) * fit
    sketch.capsule(layer + 0.01, garment, limb.root, limb.middle, (thigh, knee), (0.0, 0.23))
    sketch.capsule(layer + 0.01, garment, limb.middle, end, (knee, ankle * thick), (0.23, 0.45))
    if kind == "jeans":
        turn_up = between(limb.middle, limb.end, 0.8)
        wide = ankle * thick * 1.3
        sketch.slab(layer + 0.02, garment, turn_up, between(limb.middle, limb.end, 1.02), (wide, wide), shade=1.3)


def _add_front(sketch: Sketch, person: Person, skeleton: Skeleton) -> None:
    """Collar, buttons, open front, hood and pocket, if the view shows them."""
    frame, kind = skeleton.frame, person.upper.kind
    toward = cos(frame.pose.facing)
    top, hip = skeleton.shoulder_up, skeleton.hip_up
    neck = frame.project(0.0, top + 0.02, 0.0)
    if kind == "hoodie":
        scale = frame.height_pixels
        hood = sketch.garment(person.upper, 0.34)
        centre = frame.project(0.0, top + 0.015, -0.05)
        sketch.ellipse(0.45 if toward < 0.0 else 0.02, hood, centre[:2], (0.085 * scale, 0.05 * scale), 0.8)
    if kind == "shirt":
        collar = sketch.plain(_LINEN)
        sketch.slab(0.1, collar, neck, frame.project(0.0, top - 0.02, 0.0), (0.03, 0.055))
    if toward < 0.3:
        return
    chest, belly = frame.project(0.0, top + 0.02, 0.075), frame.project(0.0, hip - 0.03, 0.075)
    if kind in ("jacket", "long coat"):
        inner = sketch.garment(person.under, 0.34)
        wide = 0.052 * toward
        sketch.slab(0.1, inner, chest, belly, (wide, wide * 0.7), (0.0, 0.34))
    if kind == "shirt":
        sketch.slab(0.1, sketch.plain(_DARK), chest, belly, (0.006, 0.006))
    if kind == "hoodie":
        pocket = sketch.garment(person.upper, 0.34)
        high, low = frame.project(0.0, hip + 0.1, 0.075), frame.project(0.0, hip + 0.01, 0.075)
        sketch.slab(0.1, pocket, high, low, (0.05 * toward, 0.075 * toward), (0.24, 0.33), 0.7)


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
    """Cap, beanie or brimmed hat."""
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
    """Backpack, shoulder bag or handbag, with straps."""
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
    """Hair that hangs or is tied behind the head."""
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
