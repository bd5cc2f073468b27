"""Groups of images that are searched as one."""

import numpy as np
import pytest

from pipeline.data.image_list import ListedImage
from pipeline.errors import ConfigError, DataError
from pipeline.inference.groups import Entry, group_entries

FILES = (
    ListedImage("cam1/a_1.png", "1", "anna", "7", "2026-11-28T10:00:01"),
    ListedImage("cam2/b_1.png", "2", "bert", "7"),
    ListedImage("cam1/a_2.png", "1", "anna", "7", "2026-11-28T10:00:00"),
    ListedImage("cam1/c.png", "1"),
)
VECTORS = np.array([[1, 0, 0], [0, 0, 1], [0.6, 0.8, 0], [0, 1, 0]], np.float32)


@pytest.mark.parametrize(
    ("rule", "names", "sizes"),
    [
        ("", (), [1, 1, 1, 1]),
        ("track", ("1/7", "2/7", "cam1/c.png"), [2, 1, 1]),  # tracks of two cameras are two
        ("folder", ("cam1", "cam2"), [3, 1]),
        ("{camera}/{track}_{}.png", ("cam1/a", "cam2/b", "cam1/c.png"), [2, 1, 1]),
    ],
)
def test_each_rule(rule: str, names: tuple[str, ...], sizes: list[int]) -> None:
    found = group_entries(FILES, VECTORS, rule, "mean")
    assert (found.names, [found.entry(group).images for group in range(len(found))]) == (names, sizes)


def test_the_vector_of_a_group_is_the_mean_of_unit_vectors_or_the_most_central_one() -> None:
    mean = group_entries(FILES, VECTORS, "folder", "mean")
    expected = np.array([1.6, 1.8, 0]) / np.hypot(1.6, 1.8)
    np.testing.assert_allclose(mean.vectors, [expected, [0, 0, 1]], atol=1e-6)
    medoid = group_entries(FILES, VECTORS, "folder", "medoid")
    np.testing.assert_array_equal(medoid.vectors, VECTORS[[2, 1]])
    assert mean.central.tolist() == medoid.central.tolist() == [2, 1]


def test_a_group_has_what_all_its_images_share() -> None:
    found = group_entries(FILES, VECTORS, "folder", "mean")
    assert found.entry(0) == Entry("cam1/a_2.png", "1", "", "", "2026-11-28T10:00:00", "cam1", 3)
    assert group_entries(FILES, VECTORS, "", "mean").entry(3) == Entry("cam1/c.png", "1", "", "", "", "", 1)


@pytest.mark.parametrize(
    ("rule", "error", "message"),
    [
        ("tracks", ConfigError, "has no named part in braces"),
        ("{}/{}.png", ConfigError, "has no named part in braces"),
        ("{camera}/{name}.jpg", DataError, r"none of 4 images is named like .* first: cam1/a_1.png"),
    ],
)
def test_a_rule_that_fits_nothing(rule: str, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        group_entries(FILES, VECTORS, rule, "mean")


def test_tracks_need_a_column() -> None:
    with pytest.raises(DataError, match="none of 1 images has a track"):
        group_entries(FILES[3:], VECTORS[3:], "track", "mean")
