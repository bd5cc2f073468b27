"""Which images of a person and camera a gallery shows: both draws, one image or several, by file name or by row."""

import random
from dataclasses import replace

import numpy as np
import pytest
import scipy.io

from models.modality import PerModality
from pipeline.data.datasets.sysu import read_permutations
from pipeline.errors import ConfigError, DataError
from pipeline.evaluation.evaluate import evaluate_features
from pipeline.evaluation.protocol import Samples
from pipeline.evaluation.protocols.spec import GalleryDraws, draw_agw, draw_official, group_images
from pipeline.evaluation.searches import plan_search, samples_of
from tests.fresh_process import run_fresh
from tests.pipeline.evaluation.layout import gallery_paths, random_features, small_layout, sysu_layout, trials_of


def samples(*names):
    """Visible images from `camera/person/file`, in the order given."""
    parts = [name.split("/") for name in names]
    people = np.array([int(person) for _, person, _ in parts])
    return Samples(people, np.array([int(camera) for camera, _, _ in parts]), names)


def names_of(images, rows):
    return [images.paths[row] for row in rows]


def orders(*trials):
    return np.array(trials, dtype=np.int64)


# Person 1 has three images under camera 1 and two under camera 4, person 2 has two under camera 1.
IMAGES = samples("4/1/1.jpg", "4/1/2.jpg", "1/2/1.jpg", "1/2/2.jpg", "1/1/1.jpg", "1/1/2.jpg", "1/1/3.jpg")
ORDERS = {(1, 1): orders([3, 1, 2], [2, 3, 1]), (1, 2): orders([2, 1], [1, 2]), (4, 1): orders([1, 2], [2, 1])}


def test_folders_are_people_ascending_and_inside_cameras_ascending():
    assert group_images(IMAGES) == {(1, 1): [4, 5, 6], (1, 4): [0, 1], (2, 1): [2, 3]}
    assert list(group_images(IMAGES)) == [(1, 1), (1, 4), (2, 1)]
    assert list(group_images(IMAGES, (4, 5))) == [(1, 4)]


def test_folders_hold_gallery_images_only():
    some = replace(IMAGES, gallery=np.array([True, False, False, False, True, False, True]))
    assert group_images(some) == {(1, 1): [4, 6], (1, 4): [0]}


def test_without_paths_the_order_of_rows_stands_for_that_of_files():
    assert group_images(replace(IMAGES, paths=None)) == group_images(IMAGES)
    backwards = samples("1/1/3.jpg", "1/1/2.jpg", "1/1/1.jpg")
    assert group_images(backwards) == {(1, 1): [2, 1, 0]}
    assert group_images(replace(backwards, paths=None)) == {(1, 1): [0, 1, 2]}


@pytest.mark.parametrize("shots", [2, 4, 6, 10])
def test_several_shots_are_one_sample_a_folder_from_the_generator_of_the_trial(shots):
    # Folders of three people and two cameras with five, six and seven images.
    names = [
        f"{camera}/{person}/{number:04d}.jpg"
        for person in (1, 2, 3)
        for camera in (1, 2)
        for number in range(1, 5 + person)
    ]
    images = samples(*names)
    for trial in range(10):
        generator = random.Random(trial)
        expected = []
        for person in (1, 2, 3):
            for camera in (1, 2):
                files = sorted(name for name in names if name.startswith(f"{camera}/{person}/"))
                expected += generator.sample(files, min(shots, len(files)))
        drawn = names_of(images, draw_agw(group_images(images), trial, shots))
        assert drawn == expected
        assert len(set(drawn)) == len(drawn) == 2 * sum(min(shots, images) for images in (5, 6, 7))


@pytest.mark.parametrize(
    ("trial", "shots", "expected"),
    [
        # Camera 1 before camera 4, whoever it shows; inside person 1 before 2; inside as published.
        (0, 1, ["1/1/3.jpg", "1/2/2.jpg", "4/1/1.jpg"]),
        (0, 2, ["1/1/3.jpg", "1/1/1.jpg", "1/2/2.jpg", "1/2/1.jpg", "4/1/1.jpg", "4/1/2.jpg"]),
        (1, 1, ["1/1/2.jpg", "1/2/1.jpg", "4/1/2.jpg"]),
        # Three shots: two folders hold two images.
        (1, 3, ["1/1/2.jpg", "1/1/3.jpg", "1/1/1.jpg", "1/2/1.jpg", "1/2/2.jpg", "4/1/2.jpg", "4/1/1.jpg"]),
    ],
)
def test_the_official_draw_takes_the_first_images_of_each_published_order(trial, shots, expected):
    assert names_of(IMAGES, draw_official(group_images(IMAGES), IMAGES.paths, ORDERS, trial, shots)) == expected


def test_more_shots_go_on_where_fewer_ended():
    folders = group_images(IMAGES)
    few = draw_official(folders, IMAGES.paths, ORDERS, 1, 1)
    many = draw_official(folders, IMAGES.paths, ORDERS, 1, 2)
    assert set(few) < set(many)


def test_image_numbers_are_numbers_and_not_places_among_sorted_names():
    # Sorted by name: 1 10 2 3 ... 9. Number 2 is the file 2.jpg, not the second name.
    images = samples(*(f"1/1/{number}.jpg" for number in range(1, 11)))
    published = {(1, 1): orders([2, 10, 1, 3, 4, 5, 6, 7, 8, 9])}
    drawn = draw_official(group_images(images), images.paths, published, 0, 3)
    assert names_of(images, drawn) == ["1/1/2.jpg", "1/1/10.jpg", "1/1/1.jpg"]


@pytest.mark.parametrize("names", [("0001.jpg", "0002.JPG", "003.png"), ("1.bmp", "02.jpeg", "3.jpg")])
def test_image_numbers_may_be_padded_or_not_and_have_any_suffix(names):
    images = samples(*(f"1/1/{name}" for name in names))
    drawn = draw_official(group_images(images), images.paths, {(1, 1): orders([3, 1, 2])}, 0, 2)
    assert names_of(images, drawn) == [f"1/1/{names[2]}", f"1/1/{names[0]}"]


def test_without_paths_the_rows_of_a_folder_are_numbered_from_one():
    # The rows of person 1 and camera 1 are 4 5 6: the published 3 1 is row 6, row 4.
    assert draw_official(group_images(IMAGES), None, ORDERS, 0, 2).tolist() == [6, 4, 3, 2, 0, 1]


def test_a_trial_that_was_not_published_is_a_setting_out_of_range():
    with pytest.raises(ConfigError, match=r"trial 2 .*rand_perm_cam\.mat holds 2 trials") as caught:
        draw_official(group_images(IMAGES), IMAGES.paths, ORDERS, 2)
    assert "at most 2" in caught.value.hint


@pytest.mark.parametrize(
    ("published", "problem"),
    [
        (ORDERS | {(1, 1): orders([2, 1], [1, 2])}, r"cam1/0001 holds 3 images, rand_perm_cam\.mat has 2"),
        ({key: value for key, value in ORDERS.items() if key != (4, 1)}, r"cam4/0001 holds 2 images.* has 0"),
    ],
)
def test_published_orders_of_other_images_are_refused(published, problem):
    with pytest.raises(DataError, match=problem):
        draw_official(group_images(IMAGES), IMAGES.paths, published, 0)


@pytest.mark.parametrize("names", [("0.jpg", "1.jpg"), ("1.jpg", "3.jpg"), ("1.jpg", "0001.jpg"), ("a.jpg", "1.jpg")])
def test_images_that_are_not_numbered_from_one_are_refused(names):
    images = samples(*(f"5/17/{name}" for name in names))
    with pytest.raises(DataError, match="camera 5, person 17: the 2 images are not numbered 1 to 2"):
        draw_official(group_images(images), images.paths, {(5, 17): orders([1, 2])}, 0)


def test_the_file_of_another_data_set_is_refused(tmp_path):
    cells = np.empty((6, 1), dtype=object)
    for camera in range(6):
        cells[camera, 0] = np.empty((2, 1), dtype=object)
        for person in range(2):
            cells[camera, 0][person, 0] = np.array([[1, 2, 3, 4]] * 10)
    scipy.io.savemat(tmp_path / "rand_perm_cam.mat", {"rand_perm_cam": cells})
    permutations = read_permutations(tmp_path / "rand_perm_cam.mat")
    fitting = sysu_layout({(person, camera): 4 for person in (1, 2) for camera in (1, 6)})
    (plan,) = trials_of(fitting, "sysu/all", draws=("official",), permutations=permutations)
    assert [gallery_paths(fitting, trial) for trial in plan] == [["cam1/0001/0001.jpg", "cam1/0002/0001.jpg"]] * 10
    other = sysu_layout({(person, camera): 5 for person in (1, 2) for camera in (1, 6)})
    with pytest.raises(DataError, match=r"cam1/0001 holds 5 images, rand_perm_cam\.mat has 4"):
        trials_of(other, "sysu/all", draws=("official",), permutations=permutations)


def test_no_draw_touches_the_global_generators():
    # In a process of its own: the type checker of this one draws from the global generator itself.
    program = (
        "import random\n"
        "import numpy as np\n"
        "from pipeline.evaluation.protocols.spec import draw_agw, draw_official\n"
        "folders = {(1, 1): list(range(20)), (2, 1): list(range(20, 25))}\n"
        "orders = {(1, 1): np.arange(1, 21)[None], (1, 2): np.arange(1, 6)[None]}\n"
        "before = random.getstate(), np.random.get_state()[1].tolist()\n"
        "for shots in (1, 10):\n"
        "    draw_agw(folders, 0, shots)\n"
        "    draw_official(folders, None, orders, 0, shots)\n"
        "assert (random.getstate(), np.random.get_state()[1].tolist()) == before\n"
        "random.seed(1)\n"
        "first = draw_agw(folders, 0).tolist()\n"
        "random.seed(2)\n"
        "assert draw_agw(folders, 0).tolist() == first\n"
    )
    run_fresh(program)


@pytest.mark.parametrize("seed", range(3))
def test_showing_a_gallery_image_twice_changes_no_curve(seed):
    tables = small_layout(people=8, images=3)
    features, images = random_features(tables, width=8, seed=seed), samples_of(tables)
    generator = np.random.default_rng(seed)
    (plan,) = trials_of(tables, "sysu/all", trials=3, shots=(2,))
    twice = [
        replace(trial, gallery=np.sort(np.concatenate([trial.gallery, generator.choice(trial.gallery, 9)])))
        for trial in plan
    ]
    # The curve goes by people, so the order of equal images is all that a second copy could change.
    first, second = (evaluate_features(features, images, [[*trials]])[0].report for trials in (plan, twice))
    assert [trial.cmc for trial in first.trials] == [trial.cmc for trial in second.trials]
    assert [trial.map for trial in first.trials] != [trial.map for trial in second.trials]


def test_a_search_draws_from_the_gallery_of_the_other_modality_only():
    both = PerModality(samples("1/1/1.jpg", "2/1/1.jpg"), samples("3/1/1.jpg", "6/1/1.jpg"))
    for draw in ("agw", "official"):
        permutations = {(camera, 1): orders([1]) for camera in range(1, 7)}
        (plan,) = plan_search("sysu/all", both, draws=GalleryDraws((draw,), trials=1, permutations=permutations))
        assert names_of(both.visible, plan[0].gallery) == ["1/1/1.jpg", "2/1/1.jpg"]
