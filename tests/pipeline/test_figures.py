"""The eps curve of a round as a picture."""

import io

import numpy as np
from PIL import Image

from clustering.dbscan import EpsPoint
from models.modality import PerModality
from pipeline.figures import draw_eps_curve

POINTS = tuple(EpsPoint(eps, clusters, 0.5 - eps / 2, 0.1) for eps, clusters in ((0.4, 10), (0.5, 14), (0.6, 12)))


def drawn(points: PerModality[tuple[EpsPoint, ...]], title: str = "round 3") -> bytes:
    file = io.BytesIO()
    draw_eps_curve(points, PerModality(0.5, 0.6), title, file)
    return file.getvalue()


def test_the_curve_is_a_picture_with_both_modalities() -> None:
    pixels = np.asarray(Image.open(io.BytesIO(drawn(PerModality(POINTS, POINTS[:2])))).convert("RGB")).astype(int)
    for colour in ((0x1F, 0x4E, 0x79), (0xD9, 0x5F, 0x02)):
        assert np.any(np.abs(pixels - colour).sum(axis=2) < 30)


def test_equal_numbers_give_equal_bytes_and_others_do_not() -> None:
    both = PerModality(POINTS, POINTS)
    assert drawn(both) == drawn(both)
    assert drawn(both) != drawn(PerModality(POINTS, POINTS[:2]))


def test_a_round_without_a_curve_is_drawn_all_the_same() -> None:
    assert drawn(PerModality((), ()))
