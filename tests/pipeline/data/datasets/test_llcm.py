"""LLCM from its lists and folders: people and cameras by file name, counts, contradictions."""

import json
import logging
from pathlib import Path

import numpy as np
import pytest

from models.modality import Modality, PerModality
from pipeline.data.datasets.llcm import (
    PUBLISHED_COUNTS,
    LlcmArchive,
    TrainingLine,
    check_archive,
    check_llcm,
    open_archive,
    person_and_camera,
    read_llcm,
)
from pipeline.data.truth import ImageRow
from pipeline.errors import DataError

# Images by (person, camera). People 1, 2 and 40 are trained on, 3 and 21 tested; infrared test camera 3 sees nobody.
TRAINED = {
    "vis": {(1, 1): 2, (1, 4): 1, (2, 9): 1, (40, 3): 2},
    "nir": {(1, 1): 1, (2, 2): 2, (40, 3): 1},
}
TESTED = {
    "vis": {(3, 1): 2, (3, 3): 1, (21, 7): 2},
    "nir": {(3, 2): 1, (21, 1): 2, (21, 9): 1},
}
LABELS = {1: 0, 2: 1, 40: 2}
# Train: visible 2 + 1 + 1 + 2, infrared 1 + 2 + 1; test: visible 2 + 1 + 2, infrared 1 + 2 + 1.
COUNTS = {
    "train": {"people": 3, "visible": 6, "infrared": 4},
    "test": {"people": 2, "visible": 5, "infrared": 4},
}


def image_name(person: int, camera: int, number: int, word: str) -> str:
    return f"{person:04d}_c{camera:02d}_s185535_f{number:04d}_{word}.jpg"


def images(plan: dict[tuple[int, int], int], word: str) -> list[tuple[int, int, str]]:
    return [
        (person, camera, image_name(person, camera, number, word))
        for (person, camera), count in plan.items()
        for number in range(1, count + 1)
    ]


def put(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()


def write_tree(root: Path, *, drawn: bool = True, depth: str = "{person:04d}/", copies: bool = False) -> Path:
    """A data set of empty files: adapters open none. Lists run backwards.

    With `copies`, the test images also lie in the training folders, and the lists of test images name those copies, as
    in the published data set.
    """
    (root / "idx").mkdir(parents=True)
    for word in ("vis", "nir"):
        lines = []
        for person, _, name in images(TRAINED[word], word):
            path = f"{word}/{depth.format(person=person)}{name}"
            put(root / path)
            lines.append(f"{path} {LABELS[person]}\n")
        (root / "idx" / f"train_{word}.txt").write_text("".join(reversed(lines)))
        lines = []
        for person, camera, name in images(TESTED[word], word):
            place = f"test_{word}/cam{camera}/{person:04d}/{name}"
            put(root / place)
            if copies:
                place = f"{word}/{depth.format(person=person)}{name}"
                put(root / place)
            lines.append(f"{place} {person}\n")
        (root / "idx" / f"test_{word}.txt").write_text("".join(lines))
    (root / "idx" / "test_id.txt").write_text("21,3\n")
    if drawn:
        (root / "drawn.json").write_text(json.dumps({"layout": "llcm", "seed": 1, "counts": COUNTS}))
    return root


def drop_lines(path: Path, holding: str) -> None:
    text = path.read_text()
    assert holding in text
    path.write_text("".join(line for line in text.splitlines(keepends=True) if holding not in line))


def failures(check) -> list[tuple[str, int, int]]:
    return [(row.name, row.expected, row.found) for row in check.failures]


def tables_of(dataset) -> list[object]:
    parts = (dataset.training, dataset.test)
    return [
        *(table.paths for part in parts for table in part.images),
        *(table.cameras.tolist() for part in parts for table in part.images),
        *(people.ids.tolist() for part in parts for people in part.people),
        *(table.paths for table in dataset.images),
        dataset.file_list,
    ]


def snapshot(root: Path) -> list[tuple[str, int, int]]:
    entries = [*root.rglob("*"), root]
    return sorted((str(path), path.stat().st_mtime_ns, path.stat().st_size) for path in entries)


class TestTables:
    def test_training_rows_are_sorted_by_person_then_camera_then_name(self, tmp_path):
        dataset = read_llcm(write_tree(tmp_path / "llcm"))
        visible = dataset.training.images.visible
        assert visible.paths == (
            "vis/0001/0001_c01_s185535_f0001_vis.jpg",
            "vis/0001/0001_c01_s185535_f0002_vis.jpg",
            "vis/0001/0001_c04_s185535_f0001_vis.jpg",
            "vis/0002/0002_c09_s185535_f0001_vis.jpg",
            "vis/0040/0040_c03_s185535_f0001_vis.jpg",
            "vis/0040/0040_c03_s185535_f0002_vis.jpg",
        )
        assert visible.cameras.tolist() == [1, 1, 4, 9, 3, 3]
        assert dataset.training.people.visible.ids.tolist() == [1, 1, 1, 2, 40, 40]
        assert dataset.training.people.infrared.ids.tolist() == [1, 2, 2, 40]
        assert dataset.training.images.infrared.modality is Modality.INFRARED

    def test_test_rows_come_from_the_test_folders(self, tmp_path):
        dataset = read_llcm(write_tree(tmp_path / "llcm", copies=True))
        assert dataset.test.images.infrared.paths == (
            "test_nir/cam2/0003/0003_c02_s185535_f0001_nir.jpg",
            "test_nir/cam1/0021/0021_c01_s185535_f0001_nir.jpg",
            "test_nir/cam1/0021/0021_c01_s185535_f0002_nir.jpg",
            "test_nir/cam9/0021/0021_c09_s185535_f0001_nir.jpg",
        )
        assert dataset.test.images.infrared.cameras.tolist() == [2, 1, 1, 9]
        assert dataset.test.people.visible.ids.tolist() == [3, 3, 3, 21, 21]
        assert (dataset.name, dataset.kind, dataset.partial, dataset.split) == ("llcm", "drawn", False, None)
        assert dataset.validation is None

    def test_all_images_are_those_of_training_and_test_in_one_order(self, tmp_path):
        dataset = read_llcm(write_tree(tmp_path / "llcm"))
        people = [int(Path(path).name[:4]) for path in dataset.images.visible.paths]
        assert people == [1, 1, 1, 2, 3, 3, 3, 21, 21, 40, 40]
        both = (*dataset.training.images.visible.paths, *dataset.test.images.visible.paths)
        assert sorted(dataset.images.visible.paths) == sorted(both)

    def test_copies_of_test_images_in_the_training_folders_change_nothing(self, tmp_path):
        plain = read_llcm(write_tree(tmp_path / "plain"))
        copied = read_llcm(write_tree(tmp_path / "copied", copies=True))
        assert tables_of(copied) == tables_of(plain)

    @pytest.mark.parametrize("depth", ["", "{person:04d}/", "a/cam7/0099/b/"])
    def test_training_images_may_lie_at_any_depth(self, tmp_path, depth):
        dataset = read_llcm(write_tree(tmp_path / "llcm", depth=depth))
        assert dataset.training.people.visible.ids.tolist() == [1, 1, 1, 2, 40, 40]
        assert dataset.training.images.visible.cameras.tolist() == [1, 1, 4, 9, 3, 3]

    def test_a_parent_folder_that_looks_like_a_camera_changes_nothing(self, tmp_path):
        plain = read_llcm(write_tree(tmp_path / "data"))
        odd = read_llcm(write_tree(tmp_path / "my_cam3_0001" / "test_vis" / "cam2"))
        assert tables_of(odd) == tables_of(plain)

    def test_backslashes_in_the_lists_are_read_alike(self, tmp_path):
        root = write_tree(tmp_path / "llcm")
        expected = read_llcm(root)
        path = root / "idx" / "train_nir.txt"
        path.write_text(path.read_text().replace("/", "\\"))
        assert tables_of(read_llcm(root)) == tables_of(expected)

    def test_shuffled_directory_listings_change_no_table(self, tmp_path, monkeypatch):
        root = write_tree(tmp_path / "llcm")
        expected = read_llcm(root)
        listing = Path.iterdir
        generator = np.random.default_rng(0)
        shuffled: list[Path] = []

        def iterdir(path: Path):
            shuffled.append(path)
            entries = list(listing(path))
            return iter([entries[index] for index in generator.permutation(len(entries))])

        monkeypatch.setattr(Path, "iterdir", iterdir)
        assert tables_of(read_llcm(root)) == tables_of(expected)
        # vis and nir with three people each; test_vis with three pairs of person and camera under three cameras, two
        # people; test_nir likewise. The adapter lists in no other way.
        assert len(shuffled) == 2 * (1 + 3) + 2 * (1 + 3 + 3)

    def test_reading_and_checking_change_nothing_below_the_root(self, tmp_path):
        root = write_tree(tmp_path / "llcm")
        before = snapshot(root)
        read_llcm(root)
        check_llcm(root)
        assert snapshot(root) == before

    def test_strange_files_are_reported_once_and_system_files_not_at_all(self, tmp_path, caplog):
        root = write_tree(tmp_path / "llcm")
        (root / "test_vis" / "cam1" / "0003" / "Thumbs.db").touch()
        (root / "test_vis" / ".DS_Store").touch()
        (root / "test_vis" / "cam10").mkdir()
        (root / "test_nir" / "cam1" / "extra").mkdir()
        (root / "test_nir" / "cam1" / "0021" / "notes.txt").touch()
        with caplog.at_level(logging.INFO, "pipeline"):
            read_llcm(root)
        reports = [record.getMessage() for record in caplog.records if "no images" in record.getMessage()]
        assert len(reports) == 1
        assert "3 entries" in reports[0]
        assert "test_vis/cam10" in reports[0]


class TestNames:
    def test_person_and_camera_are_at_the_beginning_of_a_name(self):
        assert person_and_camera("0003_c01_s185734_f3195_nir.jpg") == (3, 1)
        assert person_and_camera("1064_c09_.PNG") == (1064, 9)

    @pytest.mark.parametrize(
        "name", ["3_c01_s1.jpg", "0003_c1_s1.jpg", "x0003_c01_s1.jpg", "00030_c01_s1.jpg", "a.jpg"]
    )
    def test_a_name_of_another_form_says_nothing(self, name):
        assert person_and_camera(name) is None

    def test_a_listed_name_of_another_form_is_refused_with_its_line(self, tmp_path):
        root = write_tree(tmp_path / "llcm")
        path = root / "idx" / "train_vis.txt"
        path.write_text(path.read_text() + "vis/0001/image.jpg 0\n")  # after six lines
        with pytest.raises(
            DataError, match=r"train_vis\.txt:7: 'image\.jpg' does not begin with a person and a camera"
        ):
            read_llcm(root)

    @pytest.mark.parametrize("path", ["nir/0001/0001_c01_s1.jpg", "test_vis/cam1/0003/0003_c01_s1.jpg", ". "])
    def test_a_list_of_one_modality_names_no_images_of_another_folder(self, tmp_path, path):
        root = write_tree(tmp_path / "llcm")
        (root / "idx" / "train_vis.txt").write_text(f"{path} 0\n")
        with pytest.raises(DataError, match=r"train_vis\.txt:1: .* is not below vis/"):
            check_llcm(root)

    @pytest.mark.parametrize("name", [image_name(4, 1, 1, "vis"), image_name(3, 2, 1, "vis"), "holiday.jpg"])
    def test_a_test_image_whose_name_and_folder_disagree_is_refused(self, tmp_path, name):
        root = write_tree(tmp_path / "llcm")
        (root / "test_vis" / "cam1" / "0003" / name).touch()
        message = rf"test_vis/cam1/0003/{name} is in the folder of person 0003, camera 1; .* begin with 0003_c01_"
        for read in (check_llcm, lambda root: read_llcm(root, allow_partial=True)):
            with pytest.raises(DataError, match=message):
                read(root)


class TestLayout:
    def test_everything_missing_is_named_at_once(self, tmp_path):
        root = write_tree(tmp_path / "llcm")
        (root / "nir").rename(root / "infrared")
        (root / "idx" / "test_id.txt").unlink()
        with pytest.raises(DataError) as caught:
            check_llcm(root)
        assert "no nir/, idx/test_id.txt" in caught.value.message
        assert caught.value.hint == "make the synthetic data set again"

    def test_a_root_that_does_not_exist_is_named(self, tmp_path):
        with pytest.raises(DataError, match=r"there is no folder .*nowhere"):
            read_llcm(tmp_path / "nowhere")

    def test_the_lists_of_test_images_are_not_needed(self, tmp_path):
        root = write_tree(tmp_path / "llcm")
        expected = read_llcm(root)
        for word in ("vis", "nir"):
            (root / "idx" / f"test_{word}.txt").unlink()
        assert tables_of(read_llcm(root)) == tables_of(expected)

    def test_an_empty_modality_is_refused_even_when_partial_data_are_allowed(self, tmp_path):
        root = write_tree(tmp_path / "llcm")
        for path in (root / "test_nir").rglob("*.jpg"):
            path.unlink()
        with pytest.raises(DataError, match="test needs visible and infrared images; infrared: 0"):
            read_llcm(root, allow_partial=True)

    def test_people_in_train_and_in_test_are_refused_even_when_partial_data_are_allowed(self, tmp_path):
        root = write_tree(tmp_path / "llcm")
        (root / "idx" / "test_id.txt").write_text("3,21,40,2\n")
        with pytest.raises(DataError, match="2 people are in train and in test, first: person 2"):
            read_llcm(root, allow_partial=True)

    @pytest.mark.parametrize("content", ["{", "[]", "{}", '{"counts": {"train": 3}}'])
    def test_a_damaged_drawn_json_is_one_clear_error(self, tmp_path, content):
        root = write_tree(tmp_path / "llcm")
        (root / "drawn.json").write_text(content)
        with pytest.raises(DataError, match=r"drawn\.json"):
            check_llcm(root)


class TestCounts:
    def test_a_complete_data_set_passes(self, tmp_path):
        check = check_llcm(write_tree(tmp_path / "llcm", copies=True))
        assert check.passed
        assert check.offenders == ()
        # People, visible, infrared and all images of train, test and both; three rows about the lists.
        assert len(check.rows) == 3 * 4 + 3
        assert [row.name for row in check.rows if not row.advice] == []

    def test_the_sizes_of_the_galleries_and_the_cameras_are_noted(self, tmp_path):
        # Pairs of person and camera in test: visible (3, 1), (3, 3), (21, 7); infrared (3, 2), (21, 1), (21, 9).
        assert check_llcm(write_tree(tmp_path / "llcm")).notes == (
            "gallery of visible images: 3, one a person and camera; test cameras: 1, 3, 7",
            "gallery of infrared images: 3, one a person and camera; test cameras: 1, 2, 9",
        )

    def test_an_infrared_test_camera_3_without_images_is_no_error(self, tmp_path):
        root = write_tree(tmp_path / "llcm")
        assert not (root / "test_nir" / "cam3").exists()
        (root / "test_nir" / "cam3").mkdir()
        assert check_llcm(root).passed

    def test_one_missing_training_image_is_counted_and_named(self, tmp_path):
        root = write_tree(tmp_path / "llcm")
        (root / "nir" / "0002" / image_name(2, 2, 1, "nir")).unlink()
        check = check_llcm(root)
        assert failures(check) == [
            ("train, infrared images", 4, 3),
            ("train, images", 10, 9),
            ("all, infrared images", 8, 7),
            ("all, images", 19, 18),
            ("listed images that do not exist", 0, 1),
        ]
        assert check.offenders == ("nir/0002/0002_c02_s185535_f0001_nir.jpg is missing",)
        with pytest.raises(DataError, match="train, infrared images: found 3, expected 4"):
            read_llcm(root)
        dataset = read_llcm(root, allow_partial=True)
        assert dataset.partial
        assert dataset.training.people.infrared.ids.tolist() == [1, 2, 40]

    @pytest.mark.parametrize("copies", [False, True])
    def test_one_missing_test_image_is_counted_and_named(self, tmp_path, copies):
        root = write_tree(tmp_path / "llcm", copies=copies)
        (root / "test_vis" / "cam7" / "0021" / image_name(21, 7, 2, "vis")).unlink()
        check = check_llcm(root)
        assert ("test, visible images", 5, 4) in failures(check)
        assert check.offenders == ("test_vis/cam7/0021/0021_c07_s185535_f0002_vis.jpg is missing",)

    def test_one_missing_training_folder_is_counted_and_named(self, tmp_path):
        root = write_tree(tmp_path / "llcm")
        (root / "vis" / "0040").rename(tmp_path / "elsewhere")
        check = check_llcm(root)
        assert ("train, visible images", 6, 4) in failures(check)
        assert check.offenders == (
            "person 40 has no visible images: 2 are missing, first vis/0040/0040_c03_s185535_f0001_vis.jpg",
        )

    def test_one_missing_test_folder_is_counted_and_named(self, tmp_path):
        root = write_tree(tmp_path / "llcm")
        (root / "test_vis" / "cam7" / "0021").rename(tmp_path / "elsewhere")
        check = check_llcm(root)
        assert ("test, visible images", 5, 3) in failures(check)
        assert check.offenders == ("person 21 (test) has no visible images in test_vis",)

    def test_one_test_person_missing_from_the_list_is_counted_and_named(self, tmp_path):
        root = write_tree(tmp_path / "llcm")
        (root / "idx" / "test_id.txt").write_text("3")
        check = check_llcm(root)
        assert ("test, people", 2, 1) in failures(check)
        assert ("test, infrared images", 4, 1) in failures(check)
        assert check.offenders == (
            "person 21 has images in test_vis and is not in idx/test_id.txt",
            "person 21 has images in test_nir and is not in idx/test_id.txt",
        )

    def test_one_training_person_missing_from_the_lists_is_counted_and_named(self, tmp_path):
        root = write_tree(tmp_path / "llcm", copies=True)
        for word in ("vis", "nir"):
            drop_lines(root / "idx" / f"train_{word}.txt", "/0001_c")
        check = check_llcm(root)
        assert ("train, people", 3, 2) in failures(check)
        assert check.offenders == (
            "person 1 has 3 images in vis and is in no list",
            "person 1 has 1 images in nir and is in no list",
        )

    def test_one_missing_line_is_counted_and_its_image_named(self, tmp_path):
        root = write_tree(tmp_path / "llcm", copies=True)
        drop_lines(root / "idx" / "train_vis.txt", image_name(1, 4, 1, "vis"))
        check = check_llcm(root)
        assert ("train, visible images", 6, 5) in failures(check)
        assert check.offenders == ("vis/0001/0001_c04_s185535_f0001_vis.jpg is in no list",)

    def test_an_image_named_again_is_found_and_trained_on_once(self, tmp_path):
        root = write_tree(tmp_path / "llcm")
        path = root / "idx" / "train_vis.txt"
        path.write_text(path.read_text() + path.read_text().splitlines()[0] + "\n")
        check = check_llcm(root)
        assert failures(check) == [("images that a list names again", 0, 1)]
        assert check.offenders == ("idx/train_vis.txt names vis/0040/0040_c03_s185535_f0002_vis.jpg again",)
        assert len(read_llcm(root, allow_partial=True).training.images.visible) == 6

    def test_a_label_that_stands_for_two_people_is_found(self, tmp_path):
        root = write_tree(tmp_path / "llcm")
        path = root / "idx" / "train_nir.txt"
        path.write_text(path.read_text().replace("nir.jpg 2", "nir.jpg 1"))
        check = check_llcm(root)
        assert failures(check) == [("labels and names that do not match", 0, 1)]
        assert check.offenders == ("idx/train_nir.txt: label 1 stands for people 2, 40",)


def published_archive(root: Path) -> LlcmArchive:
    """People and images spread so that every published count is met; no files."""

    def rows(split: str, modality: Modality, first: int) -> tuple[ImageRow, ...]:
        counts = PUBLISHED_COUNTS[split]
        return tuple(
            ImageRow(first + index % counts.people, 1, f"{modality}/{split}/{index}.jpg")
            for index in range(counts.images[modality])
        )

    trained = PerModality.build(lambda modality: rows("train", modality, 1))
    return LlcmArchive(
        root=root,
        lines=trained.map(lambda found: tuple(TrainingLine(row, row.person) for row in found)),
        found=trained.map(lambda found: frozenset(row.path for row in found)),
        test=PerModality.build(lambda modality: rows("test", modality, 714)),
        test_people=tuple(range(714, 714 + 351)),
        drawn=None,
    )


class TestPublishedCounts:
    def test_an_archive_with_every_published_count_passes(self, tmp_path):
        check = check_archive(published_archive(tmp_path))
        assert check.passed
        # The published table; 15,846 test images, where the paper's text has a misprint.
        assert [row.expected for row in check.rows[:12]] == [
            *(713, 16_946, 13_975, 30_921),
            *(351, 8_680, 7_166, 15_846),
            *(1_064, 25_626, 21_141, 46_767),
        ]

    def test_15845_test_images_are_an_error(self, tmp_path):
        archive = published_archive(tmp_path)
        test = PerModality(archive.test.visible, archive.test.infrared[1:])
        short = LlcmArchive(tmp_path, archive.lines, archive.found, test, archive.test_people, None)
        assert ("test, images", 15_846, 15_845) in failures(check_archive(short))

    def test_a_mismatch_is_an_error_with_numbers_and_what_to_do(self, tmp_path):
        root = write_tree(tmp_path / "llcm", drawn=False)
        assert open_archive(root).drawn is None
        with pytest.raises(DataError) as caught:
            read_llcm(root)
        assert "train, people: found 3, expected 713" in caught.value.message
        assert "data.allow_partial=true" in caught.value.hint
        assert read_llcm(root, allow_partial=True).kind == "licensed"
