"""SYSU-MM01 from its folders and lists: tables, splits, counts, permutations."""

import json
import logging
import os
from pathlib import Path

import numpy as np
import pytest
import scipy.io

from models.modality import Modality
from pipeline.data.dataset import read_dataset
from pipeline.data.datasets.sysu import (
    CAMERA_COUNTS,
    MODALITY_OF_CAMERA,
    PUBLISHED_PEOPLE,
    SysuArchive,
    check_sysu_mm01,
    image_number,
    open_archive,
    permutation_of,
    read_permutations,
    read_sysu_mm01,
)
from pipeline.data.listing import read_person_list
from pipeline.errors import ConfigError, DataError

# Two training people, one for validation, two for test; every one is seen by a visible and an infrared camera.
PLAN = {(1, 1): 2, (4, 1): 1, (3, 1): 2, (5, 2): 3, (6, 2): 1, (4, 3): 2, (3, 3): 2, (2, 4): 1, (6, 4): 2, (1, 5): 2}
PLAN |= {(3, 5): 1}
LISTS = {"train": (1, 2), "val": (3,), "test": (4, 5)}
# Images of the plan: train visible 2 + 1 + 3, infrared 2 + 1; val 2, 2; test visible 1 + 2, infrared 2 + 1.
COUNTS = {
    "train": {"visible": 6, "infrared": 3},
    "val": {"visible": 2, "infrared": 2},
    "test": {"visible": 3, "infrared": 3},
}


def write_tree(root: Path, *, plan=PLAN, lists=LISTS, extension: str = "jpg", drawn: bool = True) -> Path:
    """A data set of empty files: adapters open none."""
    for camera in range(1, 7):
        (root / f"cam{camera}").mkdir(parents=True)
    for (camera, person), num_images in plan.items():
        folder = root / f"cam{camera}" / f"{person:04d}"
        folder.mkdir()
        for number in range(1, num_images + 1):
            (folder / f"{number:04d}.{extension}").touch()
    (root / "exp").mkdir()
    for split, people in lists.items():
        (root / "exp" / f"{split}_id.txt").write_text(",".join(str(person) for person in people) + "\n")
    if drawn:
        (root / "drawn.json").write_text(json.dumps({"layout": "sysu", "seed": 1, "counts": COUNTS}))
    return root


def write_permutations(root: Path, plan=PLAN, *, last_person: int = 5) -> None:
    """Cells by camera and person; those of cameras 1, 2 and 6 end early, as in the authors' file."""
    cameras = np.empty((6, 1), dtype=object)
    for camera in range(1, 7):
        num_people = last_person if camera in (3, 4, 5) else max([p for c, p in plan if c == camera], default=1)
        people = np.empty((num_people, 1), dtype=object)
        for person in range(1, num_people + 1):
            num_images = plan.get((camera, person), 0)
            orders = [np.random.default_rng(trial).permutation(num_images) + 1 for trial in range(10)]
            people[person - 1, 0] = np.array(orders, dtype=np.uint8).reshape(10, num_images)
        cameras[camera - 1, 0] = people
    scipy.io.savemat(root / "exp" / "rand_perm_cam.mat", {"rand_perm_cam": cameras})


def paths_of(dataset, part: str = "training") -> dict[str, tuple[str, ...]]:
    return {modality.value: table.paths for modality, table in getattr(dataset, part).images.items()}


def snapshot(root: Path) -> list[tuple[str, int, int]]:
    entries = [*root.rglob("*"), root]
    return sorted((str(path), path.stat().st_mtime_ns, path.stat().st_size) for path in entries)


class TestTables:
    def test_rows_are_sorted_by_person_then_camera_then_name(self, tmp_path):
        dataset = read_sysu_mm01(write_tree(tmp_path / "sysu"), split="train")
        assert dataset.training.images.visible.paths == (
            "cam1/0001/0001.jpg",
            "cam1/0001/0002.jpg",
            "cam4/0001/0001.jpg",
            "cam5/0002/0001.jpg",
            "cam5/0002/0002.jpg",
            "cam5/0002/0003.jpg",
        )
        assert dataset.training.images.visible.cameras.tolist() == [1, 1, 4, 5, 5, 5]
        assert dataset.training.people.visible.ids.tolist() == [1, 1, 1, 2, 2, 2]
        assert dataset.training.images.infrared.paths == (
            "cam3/0001/0001.jpg",
            "cam3/0001/0002.jpg",
            "cam6/0002/0001.jpg",
        )
        assert dataset.training.images.infrared.modality is Modality.INFRARED

    def test_names_are_sorted_by_code_point_not_by_number(self, tmp_path):
        root = write_tree(tmp_path / "sysu")
        for name in ("10.jpg", "9.jpg", "0002.PNG"):
            (root / "cam1" / "0001" / name).touch()
        dataset = read_sysu_mm01(root, allow_partial=True)
        names = [path.split("/")[2] for path in dataset.training.images.visible.paths if path.startswith("cam1/0001")]
        assert names == ["0001.jpg", "0002.PNG", "0002.jpg", "10.jpg", "9.jpg"]

    def test_test_people_are_queried_through_cameras_3_and_6_and_searched_in_the_others(self, tmp_path):
        dataset = read_sysu_mm01(write_tree(tmp_path / "sysu"))
        assert paths_of(dataset, "test") == {
            "visible": ("cam2/0004/0001.jpg", "cam1/0005/0001.jpg", "cam1/0005/0002.jpg"),
            "infrared": ("cam6/0004/0001.jpg", "cam6/0004/0002.jpg", "cam3/0005/0001.jpg"),
        }
        assert dataset.test.people.visible.ids.tolist() == [4, 5, 5]

    @pytest.mark.parametrize(("split", "people"), [("train", {1, 2}), ("val", {3}), ("train_val", {1, 2, 3})])
    def test_a_split_is_its_people(self, tmp_path, split, people):
        dataset = read_dataset("sysu", write_tree(tmp_path / "sysu"), split=split)
        assert {int(person) for ids in dataset.training.people for person in ids.ids} == people

    def test_a_parent_folder_that_looks_like_a_camera_changes_nothing(self, tmp_path):
        plain = read_sysu_mm01(write_tree(tmp_path / "data"))
        odd = read_sysu_mm01(write_tree(tmp_path / "my_cam3_0001" / "cam6" / "0002"))
        assert paths_of(odd) == paths_of(plain)
        assert odd.file_list == plain.file_list
        assert np.array_equal(odd.training.people.infrared.ids, plain.training.people.infrared.ids)

    @pytest.mark.parametrize("extension", ["png", "JPG", "jpeg", "bmp"])
    def test_other_extensions_are_read_alike(self, tmp_path, extension):
        dataset = read_sysu_mm01(write_tree(tmp_path / "sysu", extension=extension))
        assert dataset.training.images.infrared.paths[0] == f"cam3/0001/0001.{extension}"
        assert dataset.training.people.infrared.ids.tolist() == [1, 1, 2, 3, 3]

    def test_shuffled_directory_listings_change_no_table(self, tmp_path, monkeypatch):
        root = write_tree(tmp_path / "sysu")
        expected = read_sysu_mm01(root)
        listing = Path.iterdir
        generator = np.random.default_rng(0)
        monkeypatch.setattr(Path, "iterdir", lambda path: iter(generator.permutation(np.array(list(listing(path))))))
        shuffled = read_sysu_mm01(root)
        assert paths_of(shuffled) == paths_of(expected)
        assert paths_of(shuffled, "test") == paths_of(expected, "test")
        assert shuffled.file_list == expected.file_list

    def test_reading_changes_nothing_below_the_root(self, tmp_path):
        root = write_tree(tmp_path / "sysu")
        write_permutations(root)
        before = snapshot(root)
        read_sysu_mm01(root)
        assert snapshot(root) == before

    def test_strange_files_are_reported_once_and_system_files_not_at_all(self, tmp_path, caplog):
        root = write_tree(tmp_path / "sysu")
        (root / "cam1" / "0001" / "Thumbs.db").touch()
        (root / "cam1" / ".DS_Store").touch()
        (root / "cam1" / "0001" / "notes.txt").touch()
        (root / "cam2" / "extra").mkdir()
        with caplog.at_level(logging.INFO, "pipeline"):
            dataset = read_sysu_mm01(root)
        reports = [record.getMessage() for record in caplog.records if "no images" in record.getMessage()]
        assert len(reports) == 1
        assert "2 entries" in reports[0]
        assert "cam1/0001/notes.txt" in reports[0]
        assert len(dataset.training.images.visible) == 8


class TestNames:
    @pytest.mark.parametrize("name", ["0007.jpg", "7.JPG", "00007.jpeg", "007.Png", "7.bmp"])
    def test_an_image_is_known_by_its_number_whatever_the_extension(self, name):
        assert image_number(name) == 7

    @pytest.mark.parametrize("name", ["0007", "a7.jpg", "0007.jpg.txt", "0007.gif", "cam3.jpg", "-7.jpg", ".jpg"])
    def test_a_name_is_matched_whole(self, name):
        assert image_number(name) is None

    @pytest.mark.parametrize("folder", ["cam3/12", "cam3/00012", "cam3/0012b", "cam33/0012", "xcam3/0012", "0012"])
    def test_folders_are_matched_whole(self, tmp_path, folder):
        root = write_tree(tmp_path / "sysu")
        expected = open_archive(root).folders
        (root / folder).mkdir(parents=True)
        (root / folder / "0001.jpg").touch()
        assert open_archive(root).folders == expected


class TestLayout:
    def test_everything_missing_is_named_at_once(self, tmp_path):
        root = write_tree(tmp_path / "sysu")
        (root / "cam2").rename(root / "camera2")
        (root / "exp" / "test_id.txt").unlink()
        with pytest.raises(DataError) as caught:
            read_sysu_mm01(root)
        assert "cam2/" in caught.value.message
        assert "exp/test_id.txt (or .mat)" in caught.value.message
        assert "cam1/" not in caught.value.message
        assert caught.value.hint == "make the synthetic data set again"

    def test_a_root_that_does_not_exist_is_named(self, tmp_path):
        with pytest.raises(DataError, match=r"there is no folder .*nowhere"):
            read_sysu_mm01(tmp_path / "nowhere")

    def test_an_empty_modality_is_refused_even_when_partial_data_is_allowed(self, tmp_path):
        plan = {key: count for key, count in PLAN.items() if not (key[1] in (1, 2, 3) and key[0] in (3, 6))}
        with pytest.raises(DataError, match="training needs visible and infrared images; infrared: 0"):
            read_sysu_mm01(write_tree(tmp_path / "sysu", plan=plan), allow_partial=True)

    def test_an_unknown_split_or_data_set_is_refused(self, tmp_path):
        with pytest.raises(ConfigError, match="'test'"):
            read_dataset("sysu", tmp_path, split="test")
        with pytest.raises(ConfigError, match="'market'"):
            read_dataset("market", tmp_path)

    def test_drawn_data_are_told_from_licensed_data(self, tmp_path):
        assert read_sysu_mm01(write_tree(tmp_path / "drawn")).kind == "drawn"
        licensed = read_sysu_mm01(write_tree(tmp_path / "licensed", drawn=False), allow_partial=True)
        assert licensed.kind == "licensed"
        assert licensed.name == "sysu-mm01"

    @pytest.mark.parametrize("content", ["{", "[]", "{}", '{"counts": {"train": 3}}'])
    def test_a_damaged_drawn_json_is_one_clear_error(self, tmp_path, content):
        root = write_tree(tmp_path / "sysu")
        (root / "drawn.json").write_text(content)
        with pytest.raises(DataError, match=r"drawn\.json"):
            read_sysu_mm01(root)


class TestLists:
    @pytest.mark.parametrize("text", ["3,1,2", "1, 2,3,\n", " 1,2,,3 \n", "1\n2\n3\n", "1 2 3,3"])
    def test_blanks_final_commas_and_lines_are_accepted(self, tmp_path, text):
        (tmp_path / "train_id.txt").write_text(text)
        assert read_person_list(tmp_path, "train") == (1, 2, 3)

    def test_text_and_matlab_lists_read_alike(self, tmp_path):
        (tmp_path / "train_id.txt").write_text("1,2,300")
        scipy.io.savemat(tmp_path / "test_id.mat", {"id": np.array([[1, 2, 300]], dtype=np.uint16)})
        assert read_person_list(tmp_path, "train") == read_person_list(tmp_path, "test") == (1, 2, 300)

    def test_lists_that_agree_may_both_be_there(self, tmp_path):
        (tmp_path / "train_id.txt").write_text("2,1")
        scipy.io.savemat(tmp_path / "train_id.mat", {"id": np.array([[1, 2]], dtype=np.uint16)})
        assert read_person_list(tmp_path, "train") == (1, 2)

    def test_lists_that_contradict_each_other_are_refused(self, tmp_path):
        (tmp_path / "train_id.txt").write_text("1,2,5")
        scipy.io.savemat(tmp_path / "train_id.mat", {"id": np.array([[1, 2, 7]], dtype=np.uint16)})
        with pytest.raises(DataError, match=r"names 3 people and train_id\.mat 3; first in one alone: 5, 7"):
            read_person_list(tmp_path, "train")

    def test_no_list_is_none(self, tmp_path):
        assert read_person_list(tmp_path, "val") is None

    @pytest.mark.parametrize("text", ["1:2", "one", "1" * 5000, "-3", "1.5"])
    def test_what_is_no_number_is_named(self, tmp_path, text):
        (tmp_path / "train_id.txt").write_text(text)
        with pytest.raises(DataError, match="is not a person number"):
            read_person_list(tmp_path, "train")

    def test_an_empty_list_is_refused(self, tmp_path):
        (tmp_path / "train_id.txt").write_text("\n")
        with pytest.raises(DataError, match="names no person"):
            read_person_list(tmp_path, "train")

    @pytest.mark.parametrize("content", [b"", b"no matlab file at all" * 20])
    def test_a_damaged_matlab_file_is_named(self, tmp_path, content):
        (tmp_path / "train_id.mat").write_bytes(content)
        with pytest.raises(DataError, match=r"train_id\.mat"):
            read_person_list(tmp_path, "train")

    def test_another_variable_is_not_taken_for_the_list(self, tmp_path):
        scipy.io.savemat(tmp_path / "train_id.mat", {"ids": np.array([[1, 2]])})
        with pytest.raises(DataError, match="no variable `id`"):
            read_person_list(tmp_path, "train")

    def test_a_missing_validation_list_is_everybody_else_with_both_modalities(self, tmp_path, caplog):
        root = write_tree(tmp_path / "sysu", plan=PLAN | {(1, 9): 4, (4, 9): 1})  # person 9 is never seen in infrared
        (root / "exp" / "val_id.txt").unlink()
        with caplog.at_level(logging.INFO, "pipeline"):
            archive = open_archive(root)
        assert archive.people["val"] == (3,)
        assert "1 others" in caplog.text
        (note,) = check_sysu_mm01(archive).notes
        assert note.startswith("exp/val_id.txt (or .mat) is missing: the 1 others with images of both modalities")

    def test_nothing_is_said_of_a_validation_list_that_is_there(self, tmp_path):
        assert check_sysu_mm01(open_archive(write_tree(tmp_path / "sysu"))).notes == ()

    def test_a_person_in_two_splits_is_refused(self, tmp_path):
        root = write_tree(tmp_path / "sysu", lists=LISTS | {"test": (2, 4, 5)})
        with pytest.raises(DataError, match="person 2 is in train and in test"):
            read_sysu_mm01(root)


class TestPermutations:
    def test_cells_shorter_than_a_person_number_are_no_error(self, tmp_path):
        root = write_tree(tmp_path / "sysu")
        write_permutations(root)
        permutations = read_permutations(root / "exp" / "rand_perm_cam.mat")
        assert set(permutations) == set(PLAN)  # camera 2 ends at person 4, camera 6 too
        assert permutations[5, 2].shape == (10, 3)
        assert sorted(permutations[5, 2][7].tolist()) == [1, 2, 3]

    def test_a_folder_with_other_images_than_the_permutation_is_an_error_when_used(self, tmp_path):
        root = write_tree(tmp_path / "sysu")
        write_permutations(root)
        permutations = read_permutations(root / "exp" / "rand_perm_cam.mat")
        assert permutation_of(permutations, 5, 2, 3).shape == (10, 3)
        with pytest.raises(DataError, match=r"cam5/0002 holds 2 images, rand_perm_cam\.mat has 3"):
            permutation_of(permutations, 5, 2, 2)
        with pytest.raises(DataError, match=r"cam2/0533 holds 2 images, rand_perm_cam\.mat has 0"):
            permutation_of(permutations, 2, 533, 2)

    def test_a_missing_file_is_explained(self, tmp_path):
        with pytest.raises(DataError) as caught:
            read_permutations(write_tree(tmp_path / "sysu") / "exp" / "rand_perm_cam.mat")
        assert "rand_perm_cam.mat" in caught.value.message
        assert "wuancong/SYSU-MM01" in caught.value.hint
        assert "90402382dd587e05" in caught.value.hint

    def test_rows_that_are_no_permutation_are_refused(self, tmp_path):
        (tmp_path / "exp").mkdir()
        cameras, people = np.empty((1, 1), dtype=object), np.empty((1, 1), dtype=object)
        people[0, 0] = np.array([[1, 1]] * 10, dtype=np.uint8)
        cameras[0, 0] = people
        scipy.io.savemat(tmp_path / "exp" / "rand_perm_cam.mat", {"rand_perm_cam": cameras})
        with pytest.raises(DataError, match=r"camera 1, person 1 is no permutation of 1\.\.2"):
            read_permutations(tmp_path / "exp" / "rand_perm_cam.mat")


def published_archive(root: Path) -> SysuArchive:
    """People and images spread so that every cell of the published table is met; no files."""
    people: dict[str, tuple[int, ...]] = {}
    folders: dict[tuple[int, int], tuple[str, ...]] = {}
    first = 1
    for split, cameras in CAMERA_COUNTS.items():
        people[split] = tuple(range(first, first + PUBLISHED_PEOPLE[split]))
        first += PUBLISHED_PEOPLE[split]
        for camera, (num_images, num_people) in cameras.items():
            # The last people for cameras 5 and 6: everybody is then seen in both modalities.
            members = people[split][-num_people:] if camera in (5, 6) else people[split][:num_people]
            for index, person in enumerate(members[:num_people]):
                share = num_images // num_people + (index < num_images % num_people)
                folders[camera, person] = tuple(f"{number:04d}.jpg" for number in range(1, share + 1))
    return SysuArchive(root=root, folders=folders, people=people, drawn=None)


class TestCounts:
    def test_the_published_table_has_the_published_sums(self):
        def total(split: str, modality: Modality) -> int:
            return sum(n for c, (n, _) in CAMERA_COUNTS[split].items() if MODALITY_OF_CAMERA[c] is modality)

        assert {s: tuple(total(s, m) for m in Modality) for s in CAMERA_COUNTS} == {
            "train": (20_284, 9_929),
            "val": (1_974, 1_980),
            "test": (6_775, 3_803),
        }
        assert sum(PUBLISHED_PEOPLE.values()) == 491

    def test_an_archive_with_every_published_count_passes(self, tmp_path):
        check = check_sysu_mm01(published_archive(tmp_path))
        assert check.passed
        # Train + val together; people of each split; images and people of each split and camera.
        assert len(check.rows) == 3 + 3 + 3 * 6 * 2
        assert check.offenders == check.notes == ()

    def test_the_people_that_papers_train_on_come_first(self, tmp_path):
        # 296 + 99 people; 4,721 + 5,753 + 5,811 + 5,973 visible and 7,909 + 4,000 infrared images.
        rows = check_sysu_mm01(published_archive(tmp_path)).rows[:3]
        assert [(row.name, row.expected, row.found) for row in rows] == [
            ("train + val, people", 395, 395),
            ("train + val, visible images", 22_258, 22_258),
            ("train + val, infrared images", 11_909, 11_909),
        ]

    def test_a_copy_of_367_people_and_11333_infrared_images_is_recognised(self, tmp_path):
        archive = published_archive(tmp_path)
        # Camera 3 takes 1,980 images of 99 validation people, 20 each: without it, 28 people lack 560 images. Sixteen
        # more go from camera 6, whose last person keeps 20 - 16 = 4 of them.
        gone = {(3, person) for person in archive.people["val"][:28]}
        folders = {key: names for key, names in archive.folders.items() if key not in gone}
        folders[6, 296] = folders[6, 296][:4]
        check = check_sysu_mm01(SysuArchive(tmp_path, folders, archive.people, None))
        failures = {row.name: row for row in check.failures}
        assert failures["train + val, people"].found == 367
        assert failures["train + val, infrared images"].found == 11_333
        assert "train + val, visible images" not in failures
        assert "367 people and 11,333 infrared images" in failures["train + val, people"].advice
        assert "unpack cam1 to cam6 again" in failures["train + val, people"].advice
        assert check.offenders[0] == "person 297 (val) has no infrared images"

    def test_every_row_says_what_to_do(self, tmp_path):
        root = write_tree(tmp_path / "sysu")
        write_permutations(root)
        for archive in (published_archive(tmp_path / "none"), open_archive(root)):
            assert [row.name for row in check_sysu_mm01(archive).rows if not row.advice] == []

    def test_one_missing_image_is_counted_and_named(self, tmp_path):
        archive = published_archive(tmp_path)
        names = archive.folders[3, 7]
        archive.folders[3, 7] = names[:4] + names[5:]
        check = check_sysu_mm01(archive)
        assert [(row.name, row.expected, row.found) for row in check.failures] == [
            ("train + val, infrared images", 11_909, 11_908),
            ("train, camera 3, images", 5929, 5928),
        ]
        assert check.failures[1].advice == "unpack cam3/ again"
        assert check.offenders == ("cam3/0007/0005 is missing",)

    def test_one_id_missing_from_a_list_is_counted_and_named(self, tmp_path):
        archive = published_archive(tmp_path)
        people = archive.people | {"test": archive.people["test"][1:]}
        removed = archive.people["test"][0]
        check = check_sysu_mm01(SysuArchive(tmp_path, archive.folders, people, None))
        assert ("test, people", 96, 95) in [(row.name, row.expected, row.found) for row in check.failures]
        assert check.offenders == (f"person {removed} has images of both modalities and is in no list",)

    def test_a_person_without_any_folder_is_named(self, tmp_path):
        archive = published_archive(tmp_path)
        folders = {key: names for key, names in archive.folders.items() if key[1] != 12}
        check = check_sysu_mm01(SysuArchive(tmp_path, folders, archive.people, None))
        assert not check.passed
        assert check.offenders[0] == "person 12 (train) has no images"

    def test_a_missing_folder_is_named_where_the_permutations_are_present(self, tmp_path):
        root = write_tree(tmp_path / "sysu")
        write_permutations(root)
        for image in (root / "cam5" / "0002").iterdir():
            image.unlink()
        check = check_sysu_mm01(open_archive(root))
        assert ("train, visible images", 6, 3) in [(row.name, row.expected, row.found) for row in check.failures]
        assert "cam5/0002 holds 0 images, rand_perm_cam.mat has 3" in check.offenders

    def test_folders_that_trade_images_are_found_by_the_permutations_alone(self, tmp_path):
        root = write_tree(tmp_path / "sysu", plan=PLAN | {(1, 1): 1, (4, 1): 2})  # the sums stay the same
        write_permutations(root)
        with pytest.raises(DataError, match=r"folders that differ from rand_perm_cam\.mat: found 2, expected 0"):
            read_sysu_mm01(root)

    def test_a_mismatch_is_an_error_with_numbers_and_what_to_do(self, tmp_path):
        with pytest.raises(DataError) as caught:
            read_sysu_mm01(write_tree(tmp_path / "sysu", drawn=False))
        assert "train, people: found 2, expected 296" in caught.value.message
        assert "and 31 more" in caught.value.message  # 3 + 3 + 36 rows; 6 of val expect and find 0; 5 are shown
        assert "data.allow_partial=true" in caught.value.hint

    def test_partial_data_can_be_allowed_and_are_marked(self, tmp_path, caplog):
        dataset = read_sysu_mm01(write_tree(tmp_path / "sysu", drawn=False), allow_partial=True)
        assert dataset.partial
        assert "found 2, expected 296" in caplog.text

    def test_complete_data_are_not_marked_partial_when_partial_data_are_allowed(self, tmp_path):
        assert not read_sysu_mm01(write_tree(tmp_path / "sysu"), allow_partial=True).partial

    def test_drawn_counts_of_train_and_val_are_added(self, tmp_path):
        check = check_sysu_mm01(open_archive(write_tree(tmp_path / "sysu")))
        # 6 + 2 visible and 3 + 2 infrared images; this drawn.json counts no people.
        assert [(row.name, row.expected, row.found) for row in check.rows[:2]] == [
            ("train + val, visible images", 8, 8),
            ("train + val, infrared images", 5, 5),
        ]

    def test_drawn_data_are_held_to_the_counts_they_were_drawn_with(self, tmp_path):
        root = write_tree(tmp_path / "sysu")
        (root / "cam6" / "0002" / "0001.jpg").unlink()
        with pytest.raises(DataError, match="train, infrared images: found 2, expected 3"):
            read_sysu_mm01(root)


@pytest.mark.skipif(
    "VIREID_SYSU_EXP" not in os.environ, reason="VIREID_SYSU_EXP names no folder with the authors' lists"
)
def test_the_authors_files_give_the_published_table(tmp_path):
    (tmp_path / "exp").symlink_to(os.environ["VIREID_SYSU_EXP"])
    permutations = read_permutations(tmp_path / "exp" / "rand_perm_cam.mat")
    folders = {
        key: tuple(f"{number:04d}.jpg" for number in range(1, orders.shape[1] + 1))
        for key, orders in sorted(permutations.items())
    }
    assert sum(len(names) for (camera, _), names in folders.items() if camera in (3, 6)) == 15_792
    train, test = read_person_list(tmp_path / "exp", "train"), read_person_list(tmp_path / "exp", "test")
    seen = {m: {p for c, p in folders if MODALITY_OF_CAMERA[c] is m} for m in Modality}
    val = tuple(sorted((seen[Modality.VISIBLE] & seen[Modality.INFRARED]) - {*train, *test}))
    archive = SysuArchive(tmp_path, folders, {"train": train, "val": val, "test": test}, None)
    check = check_sysu_mm01(archive)
    assert check.passed, check
    assert len(val) == 99
