"""Legs, trunk and arms of a figure, dressed: which primitives each kind of garment is made of."""

from math import cos
from typing import Final

from pipeline.data.synthetic.people import Person, Tone
from pipeline.data.synthetic.pose import Limb, Skeleton
from pipeline.data.synthetic.sketch import Sketch, between

_LONG_SLEEVES: Final = ("long-sleeved top", "shirt", "jacket", "hoodie", "long coat")
_BULK: Final = {"jacket": 1.25, "hoodie": 1.22, "long coat": 1.22, "long-sleeved top": 0.98, "shirt": 1.08}
_LEG_FIT: Final = {"trousers": 1.3, "jeans": 1.05, "leggings": 0.84}
# How far a garment reaches below the hips, in body heights.
_HEM: Final = {"T-shirt": 0.02, "long-sleeved top": 0.02, "shirt": 0.05, "jacket": 0.045, "hoodie": 0.03}
_LINEN = Tone((0.95, 0.95, 0.93), 0.8)
_DARK = Tone((0.12, 0.12, 0.12), 0.15)


def add_legs(sketch: Sketch, person: Person, skeleton: Skeleton) -> None:
    """Both legs with shoes and the lower garment; bare below a dress."""
    skin = sketch.plain(person.skin)
    shoe = sketch.plain(person.shoe_tone)
    garment = sketch.garment(person.lower, 0.45)
    for limb in skeleton.legs:
        layer = -1.0 + limb.middle[2] + 0.5 * limb.end[2]
        _bare_leg(sketch, person, limb, layer, skin)
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
    """Trunk with the upper garment, down to its hem, and what distinguishes its kind."""
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
    """Both arms, bare, half or wholly covered."""
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


def _bare_leg(sketch: Sketch, person: Person, limb: Limb, layer: float, skin: int) -> None:
    thick = person.body.limb
    sketch.capsule(layer, skin, limb.root, limb.middle, (0.052 * thick, 0.036 * thick))
    sketch.capsule(layer, skin, limb.middle, limb.end, (0.036 * thick, 0.024 * thick))


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
    """Collar, buttons, open front, hood and pocket; the ones that this view shows."""
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
