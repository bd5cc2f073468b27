"""The published counts and galleries of SYSU-MM01, from the authors' split files; no image is needed.

The files are not ours to hand on: set VIREID_SYSU_SPLITS to a folder with `rand_perm_cam.mat` and `test_id.mat`.
"""

import hashlib
import os
from pathlib import Path

import numpy as np
import pytest
import scipy.io

from pipeline.evaluation.evaluate import evaluate_features
from pipeline.evaluation.protocol import Sightings
from tests.pipeline.evaluation.layout import gallery_paths, random_features, sysu_layout, trials_of


@pytest.fixture(scope="module")
def tables():
    folder = os.environ.get("VIREID_SYSU_SPLITS")
    if not folder or not (Path(folder) / "rand_perm_cam.mat").is_file():
        pytest.skip("VIREID_SYSU_SPLITS names no folder with rand_perm_cam.mat and test_id.mat")
    people = scipy.io.loadmat(Path(folder) / "test_id.mat")["id"].ravel().tolist()
    permutations = scipy.io.loadmat(Path(folder) / "rand_perm_cam.mat")["rand_perm_cam"]
    # A cell is a permutation of 1..n in each of ten rows: the folder of this person and camera holds n images.
    counts = {
        (person, camera): permutations[camera - 1, 0][person - 1, 0].shape[1]
        for camera in range(1, 7)
        for person in people
        if permutations[camera - 1, 0][person - 1, 0].size
    }
    return sysu_layout(counts)


def digest(paths):
    return hashlib.sha256("".join(f"{path}\n" for path in sorted(paths)).encode()).hexdigest()[:16]


def test_the_test_split_has_the_published_counts(tables):
    assert len(tables.images.visible) == 6775
    assert len(tables.images.infrared) == 1883 + 1920
    assert len(np.unique(tables.people.visible.ids)) == 96


def test_queries_are_the_published_ones(tables):
    for search in ("sysu/all", "sysu/indoor"):
        query = trials_of(tables, search, trials=1)[0].query
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
    trials = trials_of(tables, search)
    assert len(trials) == 10
    for trial in trials:
        assert len(set(trial.gallery.tolist())) == rows
        assert len(np.unique(tables.people.visible.ids[trial.gallery])) == people
    assert digest(gallery_paths(tables, trials[0])) == first
    assert digest(gallery_paths(tables, trials[9])) == last


def test_the_first_gallery_shows_the_published_images_of_person_six(tables):
    paths = gallery_paths(tables, trials_of(tables, "sysu/all", trials=1)[0])
    assert paths[:3] == [
        "cam1/0006/0025.jpg",
        "cam2/0006/0025.jpg",
        "cam4/0006/0014.jpg",
    ]


@pytest.mark.parametrize(("search", "seen"), [("sysu/all", (245, 301)), ("sysu/indoor", (56, 112))])
def test_camera_three_sees_less_of_the_gallery_than_camera_six(tables, search, seen):
    sightings = tables.people.map_with(lambda truth, images: Sightings(truth.ids, images.cameras), tables.images)
    for trial in trials_of(tables, search):
        shown = (~trial.hidden(sightings)).sum(axis=1)
        cameras = tables.images.infrared.cameras[trial.query]
        assert set(shown[cameras == 3]) == {seen[0]}
        assert set(shown[cameras == 6]) == {seen[1]}


def test_random_features_score_as_chance_does(tables):
    reports = evaluate_features(random_features(tables, width=64, seed=0), tables)
    # Chance values computed from a random ranking, as fractions: Rank-1, 10, 20, mAP, mINP.
    chance = {
        "sysu/all/1-shot/agw": (3803, (0.0104, 0.102, 0.207, 0.0293, 0.0168)),
        "sysu/indoor/1-shot/agw": (2208, (0.0179, 0.173, 0.342, 0.0653, 0.0553)),
    }
    for report in reports:
        valid, expected = chance[report.name]
        assert (report.queries, report.valid_queries) == (3803, valid)
        mean = report.mean
        for found, value in zip((mean.r1, mean.r10, mean.r20, mean.map, mean.minp), expected, strict=True):
            # A share p of n queries has a standard error of at most sqrt(p (1 - p) / n); so has a mean in [0, 1].
            assert found == pytest.approx(value, abs=4 * (value * (1 - value) / valid) ** 0.5)
