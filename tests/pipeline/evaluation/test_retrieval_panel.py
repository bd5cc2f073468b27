"""What some queries found is what the evaluation ranks first, and what is wrong is crossed out."""

import io
import tempfile

import numpy as np
import pytest
from PIL import Image

from models.modality import Modality, PerModality
from pipeline.data.images import TestImages
from pipeline.evaluation.evaluate import evaluate_features
from pipeline.evaluation.figures import RIGHT, WRONG, Found, draw_panel, look_up
from pipeline.evaluation.protocol import Samples
from pipeline.evaluation.searches import plan_search


class Vectors:
    """Unit rows."""

    def __init__(self, rows: np.ndarray) -> None:
        self.vectors = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def samples(people: np.ndarray, cameras: np.ndarray) -> Samples:
    return Samples(people, cameras, None, None, None)


@pytest.fixture
def seen() -> PerModality[Samples]:
    """Eight people, four images of each in each modality, each of another camera."""
    people = np.repeat(np.arange(8), 4)
    return PerModality(samples(people, np.tile([1, 2, 4, 5], 8)), samples(people, np.tile([3, 3, 6, 6], 8)))


@pytest.mark.parametrize("longest", [1.0, 5.0])
def test_the_panel_shows_what_the_evaluation_ranks_first(seen: PerModality[Samples], longest: float) -> None:
    generator = np.random.default_rng(1)
    features = PerModality(*(Vectors(generator.normal(size=(32, 6))) for _ in range(2)))
    for one in features:  # a projection alone is no unit row
        one.vectors *= generator.uniform(1.0, longest, size=(32, 1)).astype(np.float32)
    (plan,) = plan_search("sysu/all", seen)
    (result,) = evaluate_features(features, seen, [plan], keep_queries=True)
    queries = np.array([0, 9, 30])
    found = look_up(plan[0], queries, features, seen)
    assert found.best.tolist() == result.queries[0].best[queries].tolist()
    people = seen.visible.people
    expected = [
        [people[row] == seen.infrared.people[query] for row in found.best[at]] for at, query in enumerate(queries)
    ]
    assert found.right.tolist() == expected


def test_where_fewer_images_are_shown_nothing_stands_and_nothing_is_right(seen: PerModality[Samples]) -> None:
    features = PerModality(*(Vectors(np.ones((32, 2))) for _ in range(2)))
    (plan,) = plan_search("sysu/all", seen)
    found = look_up(plan[0], np.array([0]), features, seen, count=40)
    # The gallery holds one image of each of 8 people and 4 cameras. Camera 2 shares a room with the query's camera 3:
    # its 8 images are excluded.
    assert np.count_nonzero(found.best >= 0) == 24
    assert not found.right[found.best < 0].any()
    assert np.count_nonzero(found.right) == 3


def test_right_ones_are_framed_wrong_ones_crossed_and_missing_ones_left_out() -> None:
    grey = np.full((3, 8, 4, 3), 128, dtype=np.uint8)
    images = PerModality.build(lambda modality: TestImages(grey, np.arange(3), np.zeros(3, dtype=np.int64), modality))
    found = Found(Modality.INFRARED, np.array([2]), np.array([[0, 1, -1]]), np.array([[True, False, False]]))
    pixels = np.asarray(Image.open(io.BytesIO(drawn(found, images)))).astype(int)
    # Pictures are 112 x 56, framed by 3 and 4 apart, after the query by 4 + 8: they begin at columns 4, 78 and 144.
    assert pixels.shape == (4 + 122, 4 * 66 + 12, 3)
    for column, colour in ((4, (0x40, 0x40, 0x40)), (78, RIGHT), (144, WRONG)):
        assert is_near(pixels[40:80, column + 1], colour)  # the middle of the frame; a JPEG is not exact
    assert is_near(pixels[:, 216:], (255, 255, 255))
    # The picture itself lies inside the frame; the wrong one has a cross in its corner, the right one has none.
    assert is_near(pixels[16:110, 90:128], (128, 128, 128))
    assert is_near(pixels[32:110, 156:194], (128, 128, 128))
    corner = pixels[7:23, 187:203]
    assert is_near(corner[7:9, 7:9].mean(axis=(0, 1)), WRONG, within=60) and corner.max() > 240


def drawn(found: Found, images: PerModality[TestImages]) -> bytes:
    with tempfile.TemporaryFile() as file:
        draw_panel(found, images, file)
        file.seek(0)
        return file.read()


def is_near(pixels: np.ndarray, colour: tuple[int, int, int], within: int = 12) -> bool:
    return bool(np.all(np.abs(pixels - np.array(colour)) <= within))


def test_equal_finds_give_equal_bytes() -> None:
    noise = np.random.default_rng(1).integers(0, 256, (3, 8, 4, 3)).astype(np.uint8)
    images = PerModality.build(lambda modality: TestImages(noise, np.arange(3), np.zeros(3, dtype=np.int64), modality))
    found = Found(Modality.VISIBLE, np.array([0]), np.array([[1]]), np.array([[True]]))
    assert drawn(found, images) == drawn(found, images)
