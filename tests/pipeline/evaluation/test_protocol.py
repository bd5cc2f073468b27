"""Who may be shown to whom: galleries drawn as published code draws them, and what a query never sees."""

import random
from dataclasses import replace

import numpy as np
import pytest

from models.modality import Modality, PerModality
from pipeline.errors import ConfigError, DataError
from pipeline.evaluation.protocol import RetrievalTrial, Samples, Search, excluded_pairs
from pipeline.evaluation.searches import plan_search, samples_of
from tests.fresh_process import run_fresh
from tests.pipeline.evaluation.layout import gallery_paths, small_layout, sysu_layout, trials_of

SEARCHES = ("sysu/all", "sysu/indoor")


@pytest.mark.parametrize("search", SEARCHES)
def test_the_draw_is_that_of_the_seeded_global_generator(search):
    tables = small_layout()
    cameras = (1, 2, 4, 5) if search == "sysu/all" else (1, 2)
    folders = {}
    for path in tables.images.visible.paths:
        folder, name = path.rsplit("/", 1)
        folders.setdefault(folder, []).append(name)
    state = random.getstate()
    try:
        for trial in trials_of(tables, search)[0]:
            # The documented procedure: seed, then for each person and camera one choice from the sorted names.
            random.seed(trial.number)
            expected = [
                f"cam{camera}/{person:04d}/{random.choice(sorted(folders[f'cam{camera}/{person:04d}']))}"
                for person in range(1, 13)
                for camera in cameras
                if f"cam{camera}/{person:04d}" in folders
            ]
            assert gallery_paths(tables, trial) == expected
    finally:
        random.setstate(state)


def test_drawing_leaves_the_global_generator_untouched():
    # In a process of its own: the type checker of this one draws from the global generator itself.
    program = (
        "import random\n"
        "from tests.pipeline.evaluation.layout import small_layout, trials_of\n"
        "state = random.getstate()\n"
        "trials_of(small_layout(), 'sysu/all')\n"
        "assert random.getstate() == state\n"
    )
    run_fresh(program)


def test_the_draw_does_not_depend_on_the_order_of_the_table():
    tables = small_layout()
    order = np.random.default_rng(0).permutation(len(tables.images.visible))
    visible = tables.images.visible
    moved = replace(
        tables,
        images=PerModality(
            replace(visible, paths=tuple(visible.paths[row] for row in order), cameras=visible.cameras[order]),
            tables.images.infrared,
        ),
        people=PerModality(
            replace(tables.people.visible, ids=tables.people.visible.ids[order]), tables.people.infrared
        ),
    )
    for trial, same in zip(trials_of(tables, "sysu/all")[0], trials_of(moved, "sysu/all")[0], strict=True):
        assert gallery_paths(tables, trial) == gallery_paths(moved, same)


def test_the_indoor_gallery_is_drawn_anew_and_is_no_part_of_the_other():
    # Everybody is in cameras 1 and 2, so both searches draw from the same folders of the first person first.
    tables = sysu_layout({(person, camera): 20 for person in range(1, 13) for camera in range(1, 7)})
    for all_cameras, indoor in zip(trials_of(tables, "sysu/all")[0], trials_of(tables, "sysu/indoor")[0], strict=True):
        everything, rooms = gallery_paths(tables, all_cameras), gallery_paths(tables, indoor)
        assert everything[:2] == rooms[:2]
        assert not set(rooms) <= set(everything)


@pytest.mark.parametrize("search", SEARCHES)
def test_all_infrared_images_are_queries_in_both_searches(search):
    tables = small_layout()
    for trial in trials_of(tables, search)[0]:
        assert trial.query.tolist() == list(range(len(tables.images.infrared)))


def test_a_gallery_holds_one_image_of_each_person_and_camera_in_order():
    tables = small_layout()
    cameras, people = tables.images.visible.cameras, tables.people.visible.ids
    for search, folders in (("sysu/all", 12 * 4 - 3 * 2), ("sysu/indoor", 9 * 2)):
        for trial in trials_of(tables, search)[0]:
            held = list(zip(people[trial.gallery].tolist(), cameras[trial.gallery].tolist(), strict=True))
            assert held == sorted(set(held))
            assert len(held) == folders


def test_camera_two_is_hidden_from_camera_three_whoever_it_shows():
    query = Samples(np.array([1, 1, 2]), np.array([3, 6, 3]))
    gallery = Samples(np.array([1, 2, 1, 2, 1]), np.array([1, 2, 2, 4, 5]))
    assert excluded_pairs("same_room", query, gallery).tolist() == [
        [False, True, True, False, False],
        [False, False, False, False, False],
        [False, True, True, False, False],
    ]


def test_a_trial_takes_its_queries_from_the_table_of_its_query_modality():
    samples = PerModality(
        Samples(np.array([1, 1, 2]), np.array([1, 2, 6])), Samples(np.array([1, 2]), np.array([1, 6]))
    )

    search = Search("pairs", Modality.VISIBLE, None, None, "person", "same_person_same_camera")
    trial = RetrievalTrial(search, 0, np.array([2, 0]), np.array([0, 1]))
    # Visible rows 2 and 0 are person 2 in camera 6 and person 1 in camera 1, as infrared rows 1 and 0 are.
    assert trial.excluded(samples).tolist() == [[False, True], [True, False]]
    assert search.direction == "visible_to_infrared"


def test_trials_are_named_after_search_shots_draw_and_number():
    names = [trial.name for trial in trials_of(small_layout(), "sysu/indoor", trials=2)[0]]
    assert names == ["sysu/indoor/1-shot/agw/trial-0", "sysu/indoor/1-shot/agw/trial-1"]
    assert trials_of(small_layout(), "sysu/all", trials=1)[0][0].search.direction == "infrared_to_visible"


def test_the_mask_of_a_trial_follows_the_cameras_of_its_rows():
    tables = small_layout()
    trial = trials_of(tables, "sysu/all", trials=1)[0][0]
    excluded = trial.excluded(samples_of(tables))
    from_three = tables.images.infrared.cameras == 3
    # 12 people, of whom 9 have a camera-2 folder: a camera-3 query sees 9 rows less, a camera-6 query sees all.
    assert set(excluded[from_three].sum(axis=1)) == {9}
    assert not excluded[~from_three].any()


def test_an_unknown_search_is_refused_with_the_known_ones():
    with pytest.raises(ConfigError, match="no search 'sysu/outdoor'") as caught:
        trials_of(small_layout(), "sysu/outdoor")
    assert "sysu/all, sysu/indoor" in caught.value.hint


def test_no_trial_at_all_is_refused():
    with pytest.raises(ConfigError, match="0 trials"):
        trials_of(small_layout(), "sysu/all", trials=0)


@pytest.mark.parametrize(
    ("images", "problem"),
    [
        ({(1, 4): 3, (1, 3): 2}, "sysu/indoor: no gallery image, of cameras 1, 2, among 3 visible and 2 infrared"),
        ({(1, 1): 3}, "sysu/indoor: no query image, of cameras 3, 6, among 3 visible and 0 infrared"),
    ],
)
def test_a_search_without_queries_or_gallery_says_which_cameras_are_missing(images, problem):
    with pytest.raises(DataError, match=problem):
        trials_of(sysu_layout(images), "sysu/indoor")


def test_images_of_one_folder_are_sorted_by_name_whatever_the_rows():
    paths = ("cam1/0001/c.jpg", "cam1/0001/a.jpg", "cam1/0001/b.jpg")
    samples = PerModality(
        Samples(np.array([1, 1, 1]), np.array([1, 1, 1]), paths), Samples(np.array([1]), np.array([3]))
    )
    for trial in plan_search("sysu/all", samples)[0]:
        drawn = random.Random(trial.number).choice(["a", "b", "c"])
        assert paths[trial.gallery[0]] == f"cam1/0001/{drawn}.jpg"
