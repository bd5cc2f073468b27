"""Figures of a round as pictures."""

import io
import tempfile
from collections.abc import Callable
from functools import partial
from typing import BinaryIO

import numpy as np
from PIL import Image

from clustering.dbscan import EpsPoint
from models.modality import PerModality
from pipeline.reports.cluster_figures import (
    UNPAIRED,
    MapSample,
    draw_cluster_sizes,
    draw_eps_curve,
    draw_feature_map,
    draw_similarity,
)
from tests.fresh_process import run_fresh

POINTS = tuple(EpsPoint(eps, clusters, 0.5 - eps / 2, 0.1) for eps, clusters in ((0.4, 10), (0.5, 14), (0.6, 12)))


def drawn(points: PerModality[tuple[EpsPoint, ...]], title: str = "round 3") -> bytes:
    return picture(partial(draw_eps_curve, points, PerModality(0.5, 0.6), title))[0]


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


def picture(draw: Callable[[BinaryIO], None]) -> tuple[bytes, np.ndarray]:
    """The file, and its pixels."""
    with tempfile.TemporaryFile() as file:
        draw(file)
        file.seek(0)
        content = file.read()
    return content, np.asarray(Image.open(io.BytesIO(content)).convert("RGB")).astype(int)


def shows(pixels: np.ndarray, colour: tuple[int, int, int]) -> bool:
    return bool(np.any(np.abs(pixels - colour).sum(axis=2) < 30))


def a_map(generator: np.random.Generator) -> tuple[np.ndarray, PerModality[MapSample]]:
    """Five images a modality: two of pair 0, one of pair 1, two of others."""
    sample = MapSample(np.arange(5), np.array([UNPAIRED, UNPAIRED, 0, 0, 1]))
    return generator.normal(size=(10, 2)), PerModality(sample, sample)


def test_sizes_similarities_and_maps_are_pictures_of_bounded_size_and_equal_for_equal_numbers() -> None:
    sizes = PerModality(np.array([3, 5, 90]), np.array([4]))
    places, sample = a_map(np.random.default_rng(1))
    similarity = np.random.default_rng(2).uniform(-1, 1, (3, 4))
    for draw in (
        partial(draw_cluster_sizes, sizes, "round 3"),
        partial(draw_feature_map, places, sample, 0.5, "round 3"),
        partial(draw_similarity, similarity, np.array([0, 3, 1]), "prototypes", "matched"),
    ):
        content, pixels = picture(draw)
        assert picture(draw)[0] == content
        assert max(pixels.shape) <= 600 and len(content) < 100_000


def test_both_modalities_have_their_bars() -> None:
    pixels = picture(partial(draw_cluster_sizes, PerModality(np.array([3, 3]), np.array([9, 9])), "round 3"))[1]
    # At an opacity of 0.55 on white: 255 - 0.55 x (255 - c), for 1f4e79 and d95f02.
    assert shows(pixels, (132, 158, 181)) and shows(pixels, (234, 167, 116))


def test_a_pair_has_one_colour_and_others_are_grey() -> None:
    places, sample = a_map(np.random.default_rng(1))
    pixels = picture(partial(draw_feature_map, places, sample, 0.5, "round 3"))[1]
    for colour in ((0x00, 0x72, 0xB2), (0xD5, 0x5E, 0x00), (0xB5, 0xB5, 0xB5)):
        assert shows(pixels, colour)
    assert not shows(pixels, (0x00, 0x9E, 0x73))  # of a third pair, which there is not


def test_what_is_matched_is_marked() -> None:
    similarity = np.zeros((2, 2))
    pixels = picture(partial(draw_similarity, similarity, np.array([1, 0]), "prototypes", "matched"))[1]
    assert shows(pixels, (0xD9, 0x5F, 0x02))


def test_nothing_to_show_is_drawn_all_the_same() -> None:
    nothing = np.array([], dtype=np.int64)
    assert picture(partial(draw_cluster_sizes, PerModality(nothing, nothing), "round 3"))[0]
    empty = MapSample(nothing, nothing)
    assert picture(partial(draw_feature_map, np.zeros((0, 2)), PerModality(empty, empty), 0.0, "round 3"))[0]


def test_drawing_leaves_no_global_state_behind() -> None:
    script = "import sys, pipeline.reports.cluster_figures, pipeline.reports.curves\n"
    script += "sys.exit(any(name.startswith('matplotlib') for name in sys.modules))"
    run_fresh(script)
    script = "import io, sys; from pipeline.reports.curves import draw_curves, Curve\n"
    script += "draw_curves([Curve('A', (1,), (1.0,))], 'x'); sys.exit('matplotlib.pyplot' in sys.modules)"
    run_fresh(script)
