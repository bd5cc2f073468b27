"""The published counts and galleries of SYSU-MM01, from the authors' split files; no image is needed.

The files are not ours to hand on: set VIREID_SYSU_SPLITS to a folder with `rand_perm_cam.mat`, `train_id.mat` and
`test_id.mat`.
"""

import hashlib
import os
from pathlib import Path

import numpy as np
import pytest

from pipeline.data.datasets.sysu import PERMUTATION_FILE, read_permutations
from pipeline.data.listing import read_person_list
from pipeline.evaluation.evaluate import evaluate_features
from pipeline.evaluation.searches import samples_of
from tests.pipeline.evaluation.layout import gallery_paths, random_features, sysu_layout, trials_of


@pytest.fixture(scope="module")
def splits():
    folder = os.environ.get("VIREID_SYSU_SPLITS")
    if not folder or not (Path(folder) / PERMUTATION_FILE).is_file():
        pytest.skip("VIREID_SYSU_SPLITS names no folder with rand_perm_cam.mat, train_id.mat and test_id.mat")
    return Path(folder)


@pytest.fixture(scope="module")
def permutations(splits):
    return read_permutations(splits / PERMUTATION_FILE)


def layout_of(people, permutations):
    """An order of n numbers says that the folder of this person and camera holds n images."""
    return sysu_layout(
        {(person, camera): orders.shape[1] for (camera, person), orders in permutations.items() if person in people}
    )


@pytest.fixture(scope="module")
def tables(splits, permutations):
    return layout_of(read_person_list(splits, "test"), permutations)


@pytest.fixture(scope="module")
def validation(splits, permutations):
    """The authors' repository lacks the list: all others with images of both modalities."""
    listed = {*read_person_list(splits, "train"), *read_person_list(splits, "test")}
    infrared = {person for camera, person in permutations if camera in (3, 6)}
    visible = {person for camera, person in permutations if camera not in (3, 6)}
    return layout_of((visible & infrared) - listed, permutations)


def digest(paths):
    return hashlib.sha256("".join(f"{path}\n" for path in sorted(paths)).encode()).hexdigest()[:16]


def test_the_test_split_has_the_published_counts(tables):
    assert len(tables.images.visible) == 6775
    assert len(tables.images.infrared) == 1883 + 1920
    assert len(np.unique(tables.people.visible.ids)) == 96


def test_queries_are_the_published_ones(tables):
    for search in ("sysu/all", "sysu/indoor"):
        query = trials_of(tables, search, trials=1)[0][0].query
        assert len(query) == 3803
        assert digest(tables.images.infrared.paths[row] for row in query) == "85348f154c89198a"


@pytest.mark.parametrize(
    ("search", "rows", "people", "first", "last"),
    [
        ("sysu/all", 301, 96, "55c8490b0f4f0b55", "5c8170526613a24c"),
        ("sysu/indoor", 112, 56, "010ef90f654cdc06", "97bc3cd45258fbb7"),
    ],
)
def test_galleries_are_the_published_ones(tables, search, rows, people, first, last):
    trials = trials_of(tables, search)[0]
    assert len(trials) == 10
    for trial in trials:
        assert len(set(trial.gallery.tolist())) == rows
        assert len(np.unique(tables.people.visible.ids[trial.gallery])) == people
    assert digest(gallery_paths(tables, trials[0])) == first
    assert digest(gallery_paths(tables, trials[9])) == last


def test_the_first_gallery_shows_the_published_images_of_person_six(tables):
    paths = gallery_paths(tables, trials_of(tables, "sysu/all", trials=1)[0][0])
    assert paths[:3] == [
        "cam1/0006/0025.jpg",
        "cam2/0006/0025.jpg",
        "cam4/0006/0014.jpg",
    ]


@pytest.mark.parametrize(
    ("search", "shots", "rows", "people", "first", "last"),
    [
        ("sysu/all", 1, 301, 96, "ac7a7a744f639778", "8f28603239c0d3d6"),
        ("sysu/indoor", 1, 112, 56, "50a53c04d6d1348f", "ffc2577f1e5f99a5"),
        ("sysu/all", 10, 3010, 96, "2cbb71b0bed90510", "612bf2b48089b0f2"),
        ("sysu/indoor", 10, 1120, 56, "81b0d1b439b0cc42", "73575bd18c81d04b"),
    ],
)
def test_official_galleries_are_the_published_ones(tables, permutations, search, shots, rows, people, first, last):
    (trials,) = trials_of(tables, search, draws=("official",), shots=(shots,), permutations=permutations)
    assert trials[0].search.name == f"{search}/{shots}-shot/official"
    assert len(trials) == 10
    for trial in trials:
        assert len(set(trial.gallery.tolist())) == rows
        assert len(np.unique(tables.people.visible.ids[trial.gallery])) == people
    assert digest(gallery_paths(tables, trials[0])) == first
    assert digest(gallery_paths(tables, trials[9])) == last


def test_the_first_official_gallery_shows_the_published_images_of_person_six(tables, permutations):
    (trials,) = trials_of(tables, "sysu/all", trials=1, draws=("official",), permutations=permutations)
    paths = gallery_paths(tables, trials[0])
    assert [path for path in paths if "/0006/" in path][:3] == [
        "cam1/0006/0005.jpg",
        "cam2/0006/0007.jpg",
        "cam4/0006/0010.jpg",
    ]
    # Cameras ascending, inside people ascending: person 6 is the first of each camera that saw it.
    assert paths[0] == "cam1/0006/0005.jpg"
    assert paths == sorted(paths)


def test_ten_official_shots_begin_with_the_one(tables, permutations):
    one, ten = trials_of(tables, "sysu/all", trials=1, draws=("official",), shots=(1, 10), permutations=permutations)
    assert gallery_paths(tables, ten[0])[::10] == gallery_paths(tables, one[0])


def test_ten_shots_of_the_other_draw_have_the_same_sizes(tables):
    for search, rows in (("sysu/all", 3010), ("sysu/indoor", 1120)):
        (trials,) = trials_of(tables, search, shots=(10,))
        assert {len(set(trial.gallery.tolist())) for trial in trials} == {rows}


@pytest.mark.parametrize(
    ("search", "shots", "seen"),
    [
        ("sysu/all", 1, (245, 301)),
        ("sysu/indoor", 1, (56, 112)),
        ("sysu/all", 10, (2450, 3010)),
        ("sysu/indoor", 10, (560, 1120)),
    ],
)
def test_camera_three_sees_less_of_the_gallery_than_camera_six(tables, permutations, search, shots, seen):
    samples = samples_of(tables)
    cameras = tables.images.infrared.cameras
    draws = ("agw", "official")
    for trials in trials_of(tables, search, trials=2, draws=draws, shots=(shots,), permutations=permutations):
        for trial in trials:
            shown = (~trial.excluded(samples)).sum(axis=1)
            assert set(shown[cameras[trial.query] == 3]) == {seen[0]}
            assert set(shown[cameras[trial.query] == 6]) == {seen[1]}


def test_validation_is_of_ninety_nine_people_in_three_cameras(validation):
    assert len(np.unique(validation.people.infrared.ids)) == 99
    (trials,) = trials_of(validation, "sysu/val")
    samples = samples_of(validation)
    for trial in trials:
        assert (len(trial.query), len(set(trial.gallery.tolist()))) == (1980, 195)
        assert not trial.excluded(samples).any()
    (result,) = evaluate_features(random_features(validation, width=16, seed=0), samples, [trials[:1]])
    assert result.report.queries == result.report.valid_queries == 1980


# Chance values computed from a random ranking, as fractions: Rank-1, 10, 20, mAP, mINP.
CHANCE = {
    ("sysu/all", 1): (3803, (0.0104, 0.102, 0.207, 0.0293, 0.0168)),
    ("sysu/indoor", 1): (2208, (0.0179, 0.173, 0.342, 0.0653, 0.0553)),
    ("sysu/all", 10): (3803, (0.0104, 0.106, 0.214, 0.0132, 0.0108)),
    ("sysu/indoor", 10): (2208, (0.0179, 0.188, 0.362, 0.0266, 0.0192)),
}


@pytest.mark.parametrize("draw", ["agw", "official"])
@pytest.mark.parametrize(("search", "shots"), list(CHANCE))
def test_random_features_score_as_chance_does(tables, permutations, search, shots, draw):
    plans = trials_of(tables, search, draws=(draw,), shots=(shots,), permutations=permutations)
    (result,) = evaluate_features(random_features(tables, width=64, seed=0), samples_of(tables), plans)
    report = result.report
    valid, expected = CHANCE[search, shots]
    assert (report.queries, report.valid_queries) == (3803, valid)
    mean = report.mean
    for found, value in zip((mean.r1, mean.r10, mean.r20, mean.map, mean.minp), expected, strict=True):
        # A share p of n queries has a standard error of at most sqrt(p (1 - p) / n); so has a mean in [0, 1].
        assert found == pytest.approx(value, abs=4 * (value * (1 - value) / valid) ** 0.5)
    assert report.near_chance
    # What the report calls chance is the share of matches among the images shown, over all valid queries.
    assert report.chance_r1 == pytest.approx(expected[0], abs=0.0005)
