"""RegDB from its folders and lists: ten splits, people by folder, counts, contradictions."""

import json
import logging
from pathlib import Path

import numpy as np
import pytest

from models.modality import Modality, PerModality
from pipeline.data.datasets.regdb import (
    IMAGE_FOLDERS,
    PARTS,
    PUBLISHED_COUNTS,
    SPLITS,
    ListedImage,
    RegdbArchive,
    SplitLists,
    check_archive,
    check_regdb,
    list_name,
    read_regdb,
)
from pipeline.data.listing import read_labelled_list
from pipeline.errors import ConfigError, DataError

# Six people of two images a modality; split t trains on three of them. Labels start at 0 in every list.
PEOPLE = (3, 17, 98, 193, 205, 412)
COUNTS = {part: {"people": 3, "visible": 6, "infrared": 6} for part in ("train", "test")}


def members(split: int, part: str) -> list[int]:
    """Split 1 trains on the first three people, split 2 on the second to the fourth, and so on round the circle."""
    trained = [PEOPLE[(split - 1 + step) % 6] for step in range(3)]
    return trained if part == "train" else [person for person in PEOPLE if person not in trained]


def image_name(modality: Modality, person: int, number: int) -> str:
    return f"male_back_{'v' if modality is Modality.VISIBLE else 't'}_{number:05d}_{person}.bmp"


def write_tree(root: Path, *, drawn: bool = True) -> Path:
    """A data set of empty files: adapters open none. Lists name people and images backwards."""
    for modality, folder in IMAGE_FOLDERS.items():
        for person in PEOPLE:
            (root / folder / str(person)).mkdir(parents=True)
            for number in (1, 2):
                (root / folder / str(person) / image_name(modality, person, number)).touch()
    (root / "idx").mkdir()
    for split in SPLITS:
        for part in PARTS:
            for modality, folder in IMAGE_FOLDERS.items():
                lines = [
                    f"{folder}/{person}/{image_name(modality, person, number)} {label}"
                    for label, person in enumerate(members(split, part))
                    for number in (1, 2)
                ]
                (root / list_name(split, part, modality)).write_text("\n".join(reversed(lines)) + "\n")
    if drawn:
        (root / "drawn.json").write_text(json.dumps({"layout": "regdb", "seed": 1, "counts": COUNTS}))
    return root


def edit(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def failures(check) -> list[tuple[str, int, int]]:
    return [(row.name, row.expected, row.found) for row in check.failures]


def tables_of(dataset) -> list[object]:
    parts = (dataset.training, dataset.test)
    return [
        *(table.paths for part in parts for table in part.images),
        *(people.ids.tolist() for part in parts for people in part.people),
        *(table.paths for table in dataset.images),
        dataset.file_list,
    ]


def snapshot(root: Path) -> list[tuple[str, int, int]]:
    entries = [*root.rglob("*"), root]
    return sorted((str(path), path.stat().st_mtime_ns, path.stat().st_size) for path in entries)


class TestTables:
    def test_rows_are_sorted_by_person_then_name_whatever_the_order_of_the_list(self, tmp_path):
        dataset = read_regdb(write_tree(tmp_path / "regdb"), split=1)
        assert dataset.training.images.visible.paths == (
            "Visible/3/male_back_v_00001_3.bmp",
            "Visible/3/male_back_v_00002_3.bmp",
            "Visible/17/male_back_v_00001_17.bmp",
            "Visible/17/male_back_v_00002_17.bmp",
            "Visible/98/male_back_v_00001_98.bmp",
            "Visible/98/male_back_v_00002_98.bmp",
        )
        assert dataset.training.people.visible.ids.tolist() == [3, 3, 17, 17, 98, 98]
        assert dataset.test.images.infrared.paths[0] == "Thermal/193/male_back_t_00001_193.bmp"
        assert dataset.test.people.infrared.ids.tolist() == [193, 193, 205, 205, 412, 412]
        assert dataset.validation is None

    def test_visible_rows_have_camera_1_and_infrared_rows_camera_2(self, tmp_path):
        dataset = read_regdb(write_tree(tmp_path / "regdb"), split=1)
        for tables in (dataset.training, dataset.test):
            assert set(tables.images.visible.cameras.tolist()) == {1}
            assert set(tables.images.infrared.cameras.tolist()) == {2}
            assert tables.images.infrared.modality is Modality.INFRARED

    def test_a_split_is_its_people(self, tmp_path):
        root = write_tree(tmp_path / "regdb")
        for split in SPLITS:
            dataset = read_regdb(root, split=split)
            assert dataset.split == split
            for tables, part in ((dataset.training, "train"), (dataset.test, "test")):
                assert {int(person) for ids in tables.people for person in ids.ids} == set(members(split, part))

    def test_every_split_has_the_same_images_to_decode(self, tmp_path):
        root = write_tree(tmp_path / "regdb")
        images = [read_regdb(root, split=split).images for split in SPLITS]
        assert len(images[0].visible) == len(images[0].infrared) == 12
        assert {tables.map(lambda table: table.paths) for tables in images} == {images[0].map(lambda t: t.paths)}
        digests = {read_regdb(root, split=split).file_list for split in (1, 2)}
        assert len(digests) == 1  # training and test together are everybody, in every split

    def test_drawn_data_are_told_from_licensed_data(self, tmp_path):
        drawn = read_regdb(write_tree(tmp_path / "drawn"), split=1)
        assert (drawn.name, drawn.kind, drawn.partial) == ("regdb", "drawn", False)
        licensed = read_regdb(write_tree(tmp_path / "licensed", drawn=False), split=1, allow_partial=True)
        assert (licensed.kind, licensed.partial) == ("licensed", True)

    def test_a_parent_folder_that_looks_like_a_camera_changes_nothing(self, tmp_path):
        plain = read_regdb(write_tree(tmp_path / "data"), split=4)
        odd = read_regdb(write_tree(tmp_path / "my_cam3_0001" / "Visible" / "17"), split=4)
        assert tables_of(odd) == tables_of(plain)

    def test_backslashes_blanks_and_windows_line_ends_are_read_alike(self, tmp_path):
        root = write_tree(tmp_path / "regdb")
        expected = read_regdb(root, split=1)
        path = root / "idx" / "train_visible_1.txt"
        path.write_bytes(("\ufeff" + path.read_text().replace("/", "\\").replace("\n", " \r\n\r\n")).encode())
        assert tables_of(read_regdb(root, split=1)) == tables_of(expected)

    def test_a_line_is_split_at_its_last_blank(self, tmp_path):
        (tmp_path / "list.txt").write_text("Visible/193/female back 1.bmp 17\n  Visible/5/a.bmp\t0\n")
        entries = read_labelled_list(tmp_path / "list.txt")
        assert [(str(entry.path), entry.label) for entry in entries] == [
            ("Visible/193/female back 1.bmp", 17),
            ("Visible/5/a.bmp", 0),
        ]
        assert entries[1].where == f"{tmp_path / 'list.txt'}:2"

    def test_shuffled_directory_listings_change_no_table(self, tmp_path, monkeypatch):
        root = write_tree(tmp_path / "regdb")
        expected = read_regdb(root, split=3)
        listing = Path.iterdir
        generator = np.random.default_rng(0)
        shuffled: list[Path] = []

        def iterdir(path: Path):
            shuffled.append(path)
            entries = list(listing(path))
            return iter([entries[index] for index in generator.permutation(len(entries))])

        monkeypatch.setattr(Path, "iterdir", iterdir)
        assert tables_of(read_regdb(root, split=3)) == tables_of(expected)
        assert len(shuffled) == 2 + 12  # two folders and six people in each: the adapter lists in no other way

    def test_reading_and_checking_change_nothing_below_the_root(self, tmp_path):
        root = write_tree(tmp_path / "regdb")
        before = snapshot(root)
        read_regdb(root, split=1)
        check_regdb(root)
        assert snapshot(root) == before

    def test_strange_files_are_reported_once_and_system_files_not_at_all(self, tmp_path, caplog):
        root = write_tree(tmp_path / "regdb")
        (root / "Visible" / "17" / "Thumbs.db").touch()
        (root / "Visible" / ".DS_Store").touch()
        (root / "Visible" / "17" / "notes.txt").touch()
        (root / "Thermal" / "extra").mkdir()
        with caplog.at_level(logging.INFO, "pipeline"):
            read_regdb(root, split=1)
        reports = [record.getMessage() for record in caplog.records if "no images" in record.getMessage()]
        assert len(reports) == 1
        assert "2 entries" in reports[0]
        assert "Visible/17/notes.txt" in reports[0]


class TestSplits:
    @pytest.mark.parametrize("split", [None, 0, 11, -1])
    def test_a_split_must_be_named(self, tmp_path, split):
        with pytest.raises(ConfigError) as caught:
            read_regdb(write_tree(tmp_path / "regdb"), split=split)
        assert "data.split" in caught.value.message if split is None else f"no split {split}" in caught.value.message
        assert "--splits 1-10" in caught.value.hint
        assert "vireid train cclnet-regdb" in caught.value.hint
        assert "--set data.split=1" in caught.value.hint

    def test_the_split_is_asked_for_before_the_folder_is_looked_at(self, tmp_path):
        with pytest.raises(ConfigError):
            read_regdb(tmp_path / "nowhere", split=None)


class TestLayout:
    def test_everything_missing_is_named_at_once(self, tmp_path):
        root = write_tree(tmp_path / "regdb")
        (root / "Thermal").rename(root / "infrared")
        (root / "idx").rename(root / "lists")
        with pytest.raises(DataError) as caught:
            check_regdb(root)
        assert "no Thermal/, idx/" in caught.value.message
        assert caught.value.hint == "make the synthetic data set again"

    def test_a_root_that_does_not_exist_is_named(self, tmp_path):
        with pytest.raises(DataError, match=r"there is no folder .*nowhere"):
            read_regdb(tmp_path / "nowhere", split=1)

    def test_an_empty_modality_is_refused_even_when_partial_data_are_allowed(self, tmp_path):
        root = write_tree(tmp_path / "regdb")
        for person in members(1, "train"):
            for path in (root / "Thermal" / str(person)).iterdir():
                path.unlink()
        with pytest.raises(DataError, match="training needs visible and infrared images; infrared: 0"):
            read_regdb(root, split=1, allow_partial=True)

    @pytest.mark.parametrize("content", ["{", "[]", "{}", '{"counts": {"train": 3}}'])
    def test_a_damaged_drawn_json_is_one_clear_error(self, tmp_path, content):
        root = write_tree(tmp_path / "regdb")
        (root / "drawn.json").write_text(content)
        with pytest.raises(DataError, match=r"drawn\.json"):
            check_regdb(root)


class TestLists:
    @pytest.mark.parametrize(
        ("line", "message"),
        [
            ("Visible/3/a.bmp", "is not a path and a label"),
            ("Visible/3/a.bmp one", "is not a path and a label"),
            ("7", "is not a path and a label"),
            ("/Visible/3/a.bmp 7", "leaves the data root"),
            ("C:\\Visible\\3\\a.bmp 7", "leaves the data root"),
            ("Visible/../3/a.bmp 7", "leaves the data root"),
            ("..\\3\\a.bmp 7", "leaves the data root"),
            ("Thermal/3/a.bmp 7", "is not Visible/PERSON/IMAGE"),
            ("Visible/a.bmp 7", "is not Visible/PERSON/IMAGE"),
            ("Visible/three/a.bmp 7", "is not Visible/PERSON/IMAGE"),
            ("Visible/3/4/a.bmp 7", "is not Visible/PERSON/IMAGE"),
            (". 7", "is not Visible/PERSON/IMAGE"),
        ],
    )
    def test_a_line_that_is_something_else_is_named_with_its_number(self, tmp_path, line, message):
        root = write_tree(tmp_path / "regdb")
        path = root / "idx" / "test_visible_7.txt"
        path.write_text(path.read_text() + f"\n{line}\n")  # six lines, an empty one, this one
        with pytest.raises(DataError, match=rf"test_visible_7\.txt:8: .*{message}"):
            check_regdb(root)

    def test_a_split_without_one_of_its_lists_is_refused_even_when_partial_data_are_allowed(self, tmp_path):
        root = write_tree(tmp_path / "regdb")
        (root / "idx" / "test_thermal_2.txt").unlink()
        with pytest.raises(DataError, match=r"split 2 lacks idx/test_thermal_2\.txt"):
            read_regdb(root, split=2, allow_partial=True)
        with pytest.raises(DataError, match=r"idx/test_thermal_2\.txt is missing"):
            read_regdb(root, split=1)
        dataset = read_regdb(root, split=1, allow_partial=True)
        assert dataset.partial
        assert len(dataset.test.images.infrared) == 6

    def test_people_in_train_and_in_test_are_refused_even_when_partial_data_are_allowed(self, tmp_path):
        root = write_tree(tmp_path / "regdb")
        # Split 1 tests 193, 205, 412: its test lists now name training person 17 instead of 412.
        for word, letter in (("visible", "v"), ("thermal", "t")):
            path = root / "idx" / f"test_{word}_1.txt"
            for number in (1, 2):
                edit(path, f"412/male_back_{letter}_{number:05d}_412", f"17/male_back_{letter}_{number:05d}_17")
        for allow_partial in (False, True):
            with pytest.raises(DataError, match="split 1: person 17 is in train and in test"):
                read_regdb(root, split=1, allow_partial=allow_partial)
        check = check_regdb(root)
        assert ("people in train and in test of a split", 0, 1) in failures(check)
        assert check.offenders[:2] == (
            "split 1: person 17 is in train and in test",
            "person 412 is in no visible list of split 1",
        )

    def test_a_label_that_stands_for_two_folders_is_refused_even_when_partial_data_are_allowed(self, tmp_path):
        root = write_tree(tmp_path / "regdb")
        edit(root / "idx" / "train_thermal_1.txt", "_00002_98.bmp 2", "_00002_98.bmp 1")
        for allow_partial in (False, True):
            with pytest.raises(
                DataError,
                match=r"idx/train_thermal_1\.txt: label 1 stands for people 17, 98; .*person 98 has labels 1, 2",
            ):
                read_regdb(root, split=1, allow_partial=allow_partial)
        assert failures(check_regdb(root)) == [("labels and folders that do not match", 0, 2)]

    def test_contradictions_of_another_split_make_the_data_partial(self, tmp_path, caplog):
        root = write_tree(tmp_path / "regdb")
        edit(root / "idx" / "train_thermal_1.txt", "_00002_98.bmp 2", "_00002_98.bmp 1")
        with pytest.raises(DataError, match="labels and folders that do not match: found 2, expected 0"):
            read_regdb(root, split=2)
        assert read_regdb(root, split=2, allow_partial=True).partial
        assert "label 1 stands for people 17, 98" in caplog.text

    def test_a_person_in_the_list_of_one_modality_only_is_named(self, tmp_path):
        root = write_tree(tmp_path / "regdb")
        path = root / "idx" / "test_thermal_1.txt"
        path.write_text("".join(line for line in path.open() if "Thermal/205/" not in line))
        check = check_regdb(root)
        assert failures(check) == [
            ("split 1, test, infrared lines", 6, 4),
            ("people in the list of one modality only", 0, 1),
        ]
        assert check.offenders == (
            "split 1, test: person 205 is in the visible list only",
            "person 205 is in no infrared list of split 1",
        )

    def test_an_image_named_twice_in_place_of_another_is_found(self, tmp_path):
        root = write_tree(tmp_path / "regdb")
        edit(root / "idx" / "test_visible_5.txt", "v_00002_17.bmp", "v_00001_17.bmp")
        check = check_regdb(root)
        assert failures(check) == [("images that a list names again", 0, 1)]
        assert check.offenders == (
            "idx/test_visible_5.txt names Visible/17/male_back_v_00001_17.bmp again",
            "Visible/17/male_back_v_00002_17.bmp is in no list of split 5",
        )


class TestCounts:
    def test_a_complete_data_set_passes(self, tmp_path):
        check = check_regdb(write_tree(tmp_path / "regdb"))
        assert check.passed
        assert check.offenders == ()
        # People, visible, infrared; six of each of ten splits; missing files and four contradictions.
        assert len(check.rows) == 3 + 10 * 6 + 5
        assert [row.name for row in check.rows if not row.advice] == []

    def test_one_missing_image_is_counted_and_named(self, tmp_path):
        root = write_tree(tmp_path / "regdb")
        (root / "Thermal" / "98" / image_name(Modality.INFRARED, 98, 2)).unlink()
        check = check_regdb(root)
        assert failures(check) == [("infrared images", 12, 11), ("listed images that do not exist", 0, 1)]
        assert check.offenders == ("Thermal/98/male_back_t_00002_98.bmp is missing",)
        dataset = read_regdb(root, split=1, allow_partial=True)
        assert dataset.partial
        assert dataset.training.people.infrared.ids.tolist() == [3, 3, 17, 17, 98]

    def test_one_missing_folder_is_counted_and_named(self, tmp_path):
        root = write_tree(tmp_path / "regdb")
        (root / "Visible" / "17").rename(tmp_path / "elsewhere")
        check = check_regdb(root)
        assert failures(check) == [
            ("people with images of both modalities", 6, 5),
            ("visible images", 12, 10),
            ("listed images that do not exist", 0, 2),
        ]
        assert check.offenders == (
            "person 17 has no visible images: 2 are missing, first Visible/17/male_back_v_00001_17.bmp",
        )

    def test_one_person_missing_from_the_lists_is_counted_and_named(self, tmp_path):
        root = write_tree(tmp_path / "regdb")
        for word in ("visible", "thermal"):
            path = root / "idx" / f"train_{word}_10.txt"  # split 10 trains on 193, 205, 412
            path.write_text("".join(line for line in path.open() if "/205/" not in line))
        check = check_regdb(root)
        assert failures(check) == [
            ("split 10, train, people", 3, 2),
            ("split 10, train, visible lines", 6, 4),
            ("split 10, train, infrared lines", 6, 4),
        ]
        assert check.offenders == (
            "person 205 is in no visible list of split 10",
            "person 205 is in no infrared list of split 10",
        )

    def test_one_missing_line_is_counted_and_its_image_named(self, tmp_path):
        root = write_tree(tmp_path / "regdb")
        path = root / "idx" / "test_visible_9.txt"  # split 9 trains on 98, 193, 205
        path.write_text("".join(line for line in path.open() if "_00001_412" not in line))
        check = check_regdb(root)
        assert failures(check) == [("split 9, test, visible lines", 6, 5)]
        assert check.offenders == ("Visible/412/male_back_v_00001_412.bmp is in no list of split 9",)

    def test_a_missing_list_is_counted_and_named(self, tmp_path):
        root = write_tree(tmp_path / "regdb")
        (root / "idx" / "train_visible_6.txt").unlink()
        check = check_regdb(root)
        assert failures(check) == [("split 6, train, visible lines", 6, 0)]
        assert check.offenders == ("idx/train_visible_6.txt is missing",)


def published_archive(root: Path) -> RegdbArchive:
    """412 people of ten images a modality; every split trains on another half of them. No files."""
    images = PerModality.build(
        lambda modality: {
            f"{IMAGE_FOLDERS[modality]}/{person}/{image_name(modality, person, number)}": person
            for person in range(1, 413)
            for number in range(10)
        }
    )

    def lists(split: int) -> SplitLists:
        trained = {(split * 31 + step) % 412 + 1 for step in range(206)}
        return SplitLists(
            split,
            {
                (part, modality): tuple(
                    ListedImage(path, person, 1000 - person)
                    for path, person in images[modality].items()
                    if (person in trained) == (part == "train")
                )
                for part in PARTS
                for modality in Modality
            },
        )

    return RegdbArchive(root=root, images=images, splits=tuple(lists(split) for split in SPLITS), drawn=None)


class TestPublishedCounts:
    def test_the_sums_are_the_published_ones(self):
        assert sum(counts.people for counts in PUBLISHED_COUNTS.values()) == 412
        assert sum(sum(counts.images) for counts in PUBLISHED_COUNTS.values()) == 8_240

    def test_an_archive_with_every_published_count_passes(self, tmp_path):
        check = check_archive(published_archive(tmp_path))
        assert check.passed
        expected = {row.name: row.expected for row in check.rows}
        assert expected["people with images of both modalities"] == 412
        assert expected["visible images"] == expected["infrared images"] == 4_120
        assert {count for name, count in expected.items() if name.endswith(" lines")} == {2_060}
        assert sum(name.endswith(" lines") for name in expected) == 40
        assert expected["split 10, test, people"] == 206

    def test_a_list_of_2059_lines_is_an_error(self, tmp_path):
        archive = published_archive(tmp_path)
        listed = archive.splits[3].lists
        listed["test", Modality.VISIBLE] = listed["test", Modality.VISIBLE][1:]
        assert failures(check_archive(archive)) == [("split 4, test, visible lines", 2060, 2059)]

    def test_folders_that_trade_an_image_are_found(self, tmp_path):
        archive = published_archive(tmp_path)
        visible = archive.images.visible
        visible[f"Visible/2/{image_name(Modality.VISIBLE, 1, 9)}"] = 2
        del visible[f"Visible/1/{image_name(Modality.VISIBLE, 1, 9)}"]
        check = check_archive(archive)
        assert failures(check) == [
            ("people and modalities without 10 images", 0, 2),
            ("listed images that do not exist", 0, 1),
        ]
        assert check.offenders[0] == "Visible/1/male_back_v_00009_1.bmp is missing"

    def test_a_mismatch_is_an_error_with_numbers_and_what_to_do(self, tmp_path):
        with pytest.raises(DataError) as caught:
            read_regdb(write_tree(tmp_path / "regdb", drawn=False), split=1)
        assert "people with images of both modalities: found 6, expected 412" in caught.value.message
        assert "visible images: found 12, expected 4,120" in caught.value.message
        assert "data.allow_partial=true" in caught.value.hint
