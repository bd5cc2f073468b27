"""A user's own data set: every mistake with its line and all at once, and the tables that a right manifest gives."""

import csv
import io
import json
import logging
import random
import shutil
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.modality import Modality, PerModality
from pipeline.data.check import CheckRow
from pipeline.data.datasets.manifest.adapter import check_manifest, read_manifest
from pipeline.data.datasets.manifest.checks import numbers_of
from pipeline.data.datasets.manifest.writer import write_manifest
from pipeline.data.datasets.sysu import read_sysu_mm01
from pipeline.data.images import file_list_digest
from pipeline.data.synthetic.writer import generate_dataset
from pipeline.data.truth import UNKNOWN_PERSON, Dataset, SplitTables
from pipeline.data.values import name_or_number, value_problem
from pipeline.errors import DataError
from pipeline.runtime.names import plain

COLUMNS = ("path", "modality", "camera", "person", "split")
Row = tuple[object, ...]

# Nothing is wrong with these. In CSV they are lines 2 to 5, and line 6 is the next; in JSON lines they are 1 to 4.
GOOD: tuple[Row, ...] = (
    ("a/1.jpg", "visible", "1", "7", "train"),
    ("a/2.jpg", "infrared", "3", "7", "train"),
    ("b/1.jpg", "visible", "1", "12", "test"),
    ("b/2.jpg", "infrared", "3", "12", "test"),
)
NEXT_LINE = {".csv": 6, ".jsonl": 5}


def as_csv(rows: Iterable[Row], columns: Sequence[str] = COLUMNS) -> str:
    text = io.StringIO(newline="")
    csv.writer(text).writerows([columns, *rows])
    return text.getvalue()


def as_json_lines(rows: Iterable[Row], columns: Sequence[str] = COLUMNS) -> str:
    return "".join(json.dumps(dict(zip(columns, row, strict=True))) + "\n" for row in rows)


FORMS: dict[str, Callable[..., str]] = {".csv": as_csv, ".jsonl": as_json_lines}


def touch(root: Path, rows: Iterable[Row]) -> None:
    """A file for each row that stays inside the root: reading a manifest opens none."""
    for row in rows:
        image = root / str(row[0]).replace("\\", "/")
        image.parent.mkdir(parents=True, exist_ok=True)
        image.write_bytes(b"x")


def write(root: Path, rows: Sequence[Row], form: str = ".csv", columns: Sequence[str] = COLUMNS) -> Path:
    touch(root, rows)
    path = root / f"manifest{form}"
    path.write_text(FORMS[form](rows, columns), encoding="utf-8", newline="")
    return path


def with_line(root: Path, line: str, rows: Sequence[Row] = GOOD) -> Path:
    """A right manifest, and one more line as it stands."""
    path = write(root, rows)
    path.write_text(path.read_text(encoding="utf-8") + line, encoding="utf-8", newline="")
    return path


def mistakes_of(path: Path, **options: object) -> list[str]:
    """What the check names, after seeing that reading refuses with the very same words."""
    check = check_manifest(path, **options)
    assert not check.passed
    with pytest.raises(DataError) as caught:
        read_manifest(path, **options)
    assert "; ".join(check.offenders) in caught.value.message
    assert str(path) in caught.value.message
    return list(check.offenders)


def refusal(path: Path, **options: object) -> str:
    """The message for a file that is no manifest at all, the same from both functions."""
    with pytest.raises(DataError) as caught:
        check_manifest(path, **options)
    with pytest.raises(DataError) as again:
        read_manifest(path, **options)
    assert again.value.message == caught.value.message
    assert caught.value.hint
    return caught.value.message


def contents(tables: SplitTables | None) -> object:
    if tables is None:
        return None
    return [
        [
            (table.paths, table.cameras.tolist(), people.ids.tolist())
            for table, people in zip(tables.images, tables.people, strict=True)
        ],
        tables.roles and [(roles.query.tolist(), roles.gallery.tolist()) for roles in tables.roles],
    ]


def tables_of(dataset: Dataset) -> list[object]:
    return [
        *(contents(tables) for tables in (dataset.training, dataset.validation, dataset.test)),
        [(table.paths, table.cameras.tolist()) for table in dataset.images],
        dataset.file_list,
        dataset.overlap,
    ]


class TestTables:
    @pytest.mark.parametrize("form", FORMS)
    def test_rows_become_tables_of_training_and_test(self, tmp_path, form):
        dataset = read_manifest(write(tmp_path, GOOD, form))
        assert contents(dataset.training) == [[(("a/1.jpg",), [1], [7]), (("a/2.jpg",), [3], [7])], None]
        both = ([True], [True])
        assert contents(dataset.test) == [[(("b/1.jpg",), [1], [12]), (("b/2.jpg",), [3], [12])], [both, both]]
        assert dataset.validation is None
        assert dataset.images.visible.paths == ("a/1.jpg", "b/1.jpg")
        assert (dataset.root, dataset.kind, dataset.name) == (tmp_path, "custom", "manifest")
        assert (dataset.partial, dataset.overlap, dataset.split) == (False, False, None)
        assert dataset.file_list == file_list_digest((*dataset.training.images, *dataset.test.images))
        assert dataset.training.images.infrared.modality is Modality.INFRARED

    def test_rows_are_sorted_by_person_then_camera_then_file_name(self, tmp_path):
        # Numbers, not texts: person 9 before 10, camera 2 before 10. File names before folders: z/1 before x/2.
        wanted = [
            ("x/9.jpg", "visible", "10", "9", "train"),
            ("z/1.jpg", "visible", "2", "10", "train"),
            ("x/2.jpg", "visible", "2", "10", "train"),
            ("y/2.jpg", "visible", "2", "10", "train"),
            ("x/B.jpg", "visible", "2", "10", "train"),
            ("x/a.jpg", "visible", "2", "10", "train"),
            ("x/0.jpg", "visible", "10", "10", "train"),
        ]
        shuffled = [wanted[place] for place in (4, 0, 6, 2, 5, 1, 3)]
        dataset = read_manifest(write(tmp_path, [*GOOD[1:], *shuffled]))
        assert dataset.training.images.visible.paths == tuple(row[0] for row in wanted)

    def test_validation_rows_are_apart(self, tmp_path):
        held_out = [("v/1.jpg", "visible", "1", "9", "val"), ("v/2.jpg", "infrared", "3", "9", "val")]
        dataset = read_manifest(write(tmp_path, [*GOOD, *held_out]))
        assert contents(dataset.validation) == [[(("v/1.jpg",), [1], [9]), (("v/2.jpg",), [3], [9])], None]
        assert dataset.images.infrared.paths == ("a/2.jpg", "v/2.jpg", "b/2.jpg")
        assert len(dataset.training.images.visible) == 1

    def test_without_test_rows_there_is_nothing_to_measure(self, tmp_path):
        dataset = read_manifest(write(tmp_path, GOOD[:2]))
        assert dataset.test is None and dataset.validation is None
        assert dataset.file_list == file_list_digest(dataset.training.images)

    def test_splits_say_what_is_query_and_what_is_gallery(self, tmp_path):
        rows = [
            ("q.jpg", "infrared", "3", "20", "query"),
            ("both.jpg", "infrared", "3", "21", "query"),
            ("both.jpg", "infrared", "3", "21", "gallery"),
            ("t.jpg", "infrared", "3", "22", "test"),
            ("g.jpg", "visible", "1", "20", "gallery"),
            ("u.jpg", "visible", "1", "22", "query"),
        ]
        test = read_manifest(write(tmp_path, [*GOOD[:2], *rows])).test
        assert test.images.infrared.paths == ("q.jpg", "both.jpg", "t.jpg")
        assert test.roles.infrared.query.tolist() == [True, True, True]
        assert test.roles.infrared.gallery.tolist() == [False, True, True]
        assert test.images.visible.paths == ("g.jpg", "u.jpg")
        assert test.roles.visible.query.tolist() == [False, True]
        assert test.roles.visible.gallery.tolist() == [True, False]

    def test_training_needs_nobodys_name(self, tmp_path):
        rows = [(*row[:3], *row[4:]) for row in GOOD[:2]]
        columns = [name for name in COLUMNS if name != "person"]
        training = read_manifest(write(tmp_path, rows, columns=columns)).training
        assert training.people.visible.ids.tolist() == [UNKNOWN_PERSON]
        assert not training.people.visible.known and not training.people.infrared.known

    def test_one_unknown_person_makes_all_training_people_unknown(self, tmp_path):
        rows = [*GOOD, ("0.jpg", "visible", "1", "", "train")]
        dataset = read_manifest(path := write(tmp_path, rows))
        # Sorted by camera and name, then, for the people are equal.
        assert dataset.training.images.visible.paths == ("0.jpg", "a/1.jpg")
        assert {int(person) for people in dataset.training.people for person in people.ids} == {UNKNOWN_PERSON}
        assert dataset.test.people.visible.known
        (note,) = [note for note in check_manifest(path).notes if "name no person" in note]
        assert note.startswith("1 training rows")

    def test_people_and_cameras_that_are_texts_are_numbered_in_sorted_order(self, tmp_path, caplog):
        rows = [
            ("a/1.jpg", "visible", "yard", "zoë", "train"),
            ("a/2.jpg", "infrared", "night", "zoë", "train"),
            ("b/1.jpg", "visible", "gate", "anna", "test"),
            ("b/2.jpg", "infrared", "night", "anna", "test"),
        ]
        path = write(tmp_path, rows)
        with caplog.at_level(logging.INFO):
            dataset = read_manifest(path)
        # By code point: gate 1, night 2, yard 3; anna 1, zoë 2.
        assert dataset.training.images.visible.cameras.tolist() == [3]
        assert dataset.test.images.visible.cameras.tolist() == [1]
        assert dataset.test.images.infrared.cameras.tolist() == [2]
        assert dataset.training.people.visible.ids.tolist() == [2]
        assert dataset.test.people.visible.ids.tolist() == [1]
        notes = check_manifest(path).notes
        assert "cameras are numbered in sorted order: 1 = gate, 2 = night, 3 = yard" in notes
        assert "persons are numbered in sorted order: 1 = anna, 2 = zoë" in notes
        for note in notes:
            assert f"manifest.csv: {note}" in caplog.messages

    def test_whole_numbers_stand_for_themselves_however_they_are_written(self, tmp_path):
        rows = [
            ("a/1.jpg", "visible", 0, "0007", "train"),
            ("a/2.jpg", "infrared", "03", 7, "train"),
            ("b/1.jpg", "visible", "0", 12, "test"),
            ("b/2.jpg", "infrared", 3, "0012", "test"),
        ]
        for form in FORMS:
            root = tmp_path / form[1:]
            dataset = read_manifest(write(root, rows, form))
            assert dataset.training.people.map(lambda people: people.ids.tolist()).visible == [7]
            assert dataset.training.people.infrared.ids.tolist() == [7]
            assert [table.cameras.tolist() for table in dataset.images] == [[0, 0], [3, 3]]
            assert not any("numbered" in note for note in check_manifest(root / f"manifest{form}").notes)

    def test_cells_may_be_padded_and_line_ends_of_any_kind(self, tmp_path):
        expected = tables_of(read_manifest(write(tmp_path, GOOD)))
        lines = [" , ".join(map(str, (*row[1:], row[0]))).replace(", a/", ",a/").replace(", b/", ",b/") for row in GOOD]
        for end in ("\n", "\r\n", "\r"):
            header = " modality , camera , person , split , path "
            (tmp_path / "manifest.csv").write_text(end.join([header, *lines]), newline="")
            assert tables_of(read_manifest(tmp_path / "manifest.csv")) == expected
            (tmp_path / "lines.jsonl").write_text(as_json_lines(GOOD).replace("\n", end), newline="")
            assert tables_of(read_manifest(tmp_path / "lines.jsonl")) == expected

    @pytest.mark.parametrize("form", FORMS)
    def test_a_name_may_hold_line_ends(self, tmp_path, form):
        # A quoted cell keeps its line ends as they are, whatever those of the file.
        names = ("a\r.jpg", "b\n.jpg", "c\r\n.jpg")
        rows = [*GOOD, *((name, "visible", "1", "7", "train") for name in names)]
        dataset = read_manifest(write(tmp_path, rows, form))
        assert dataset.training.images.visible.paths == ("a/1.jpg", *names)

    @pytest.mark.parametrize("form", FORMS)
    def test_a_byte_order_mark_is_passed_over(self, tmp_path, form):
        path = write(tmp_path, GOOD, form)
        expected = tables_of(read_manifest(path))
        path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
        assert tables_of(read_manifest(path)) == expected

    @pytest.mark.parametrize("form", FORMS)
    def test_backslashes_and_idle_dots_are_the_same_path(self, tmp_path, form):
        expected = tables_of(read_manifest(write(tmp_path, GOOD)))
        paths = (r"a\1.jpg", "./a//2.jpg", r".\b\1.jpg", "b/./2.jpg")
        spelled = [(path, *row[1:]) for path, row in zip(paths, GOOD, strict=True)]
        path = tmp_path / f"manifest{form}"
        path.write_text(FORMS[form](spelled))
        assert tables_of(read_manifest(path)) == expected

    def test_paths_start_from_the_manifest_or_from_the_folder_that_is_named(self, tmp_path):
        images = tmp_path / "images"
        touch(images, GOOD)
        path = tmp_path / "elsewhere" / "Site A.v2.CSV"
        path.parent.mkdir()
        path.write_text(as_csv(GOOD))
        dataset = read_manifest(path, images_root=images)
        assert dataset.root == dataset.images.visible.root == images
        assert mistakes_of(path)[0] == f"Site A.v2.CSV:2: image not found: a/1.jpg (relative to {path.parent})"
        assert refusal(path, images_root=tmp_path / "absent") == f"there is no folder {tmp_path / 'absent'}"

    @pytest.mark.parametrize(
        ("file", "name"),
        [
            ("site-a.csv", "site-a"),
            ("Site A.v2.csv", "site-a.v2"),
            ("Straße/Hof_3.csv", "hof_3"),
            ("Süd.jsonl", "s-d"),
        ],
    )
    def test_results_are_filed_under_the_name_of_the_manifest(self, tmp_path, file, name):
        touch(tmp_path, GOOD)
        path = tmp_path / file
        path.parent.mkdir(exist_ok=True)
        path.write_text(FORMS[path.suffix](GOOD))
        assert read_manifest(path, images_root=tmp_path).name == name

    def test_a_folder_stands_for_the_manifest_in_it(self, tmp_path):
        expected = tables_of(read_manifest(write(tmp_path, GOOD, ".jsonl")))
        assert tables_of(read_manifest(tmp_path)) == expected
        write(tmp_path, GOOD)
        assert refusal(tmp_path) == f"{tmp_path} is a folder with 2 of manifest.csv, manifest.jsonl"
        empty = tmp_path / "empty"
        empty.mkdir()
        assert refusal(empty) == f"{empty} is a folder with 0 of manifest.csv, manifest.jsonl"

    def test_the_names_of_parent_folders_mean_nothing(self, tmp_path):
        expected = tables_of(read_manifest(write(tmp_path / "plain", GOOD)))
        assert tables_of(read_manifest(write(tmp_path / "my_cam3_0001", GOOD))) == expected
        assert tables_of(read_manifest(write(tmp_path / "a,b 'c'" / "my_cam3_0001", GOOD))) == expected

    def test_nothing_below_the_root_changes(self, tmp_path):
        path = write(tmp_path, GOOD)

        def snapshot() -> list[tuple[str, int, int]]:
            entries = [*tmp_path.rglob("*"), tmp_path]
            return sorted((str(one), one.stat().st_mtime_ns, one.stat().st_size) for one in entries)

        before = snapshot()
        read_manifest(path)
        check_manifest(path)
        assert snapshot() == before

    def test_the_images_of_an_overlapping_set_are_decoded_once(self, tmp_path):
        rows = [(*row[:3], "7", split) for row in GOOD[:2] for split in ("train", "test")]
        dataset = read_manifest(write(tmp_path, rows), allow_overlap=True)
        assert [table.paths for table in dataset.images] == [("a/1.jpg",), ("a/2.jpg",)]
        assert dataset.test.images.visible.paths == dataset.training.images.visible.paths
        assert dataset.overlap


# What is wrong with one more row, and what is said of it.
WRONG_ROWS: list[tuple[Row, str]] = [
    (("c.jpg", "grey", "1", "7", "train"), "modality 'grey' is not visible or infrared"),
    (("c.jpg", "Visibel", "1", "7", "train"), "modality 'Visibel' is not visible or infrared"),
    (("c.jpg", "", "1", "7", "train"), "modality '' is not visible or infrared"),
    (("c.jpg", "visible", "1", "7", "tets"), "split 'tets'; one of train, val, query, gallery, test"),
    (("c.jpg", "visible", "1", "7", ""), "split ''; one of train, val, query, gallery, test"),
    (("c.jpg", "visible", " ", "7", "train"), "no camera (one constant is fine where there is one camera)"),
    (("c.jpg", "visible", "-1", "7", "train"), "camera -1 is negative"),
    (("c.jpg", "visible", "1", "-1", "train"), "person -1 is negative"),
    (("c.jpg", "visible", "1", "1" * 19, "train"), f"person {'1' * 19} has more than 18 digits"),
    (("c.jpg", "visible", "1" * 19, "7", "train"), f"camera {'1' * 19} has more than 18 digits"),
    (("", "visible", "1", "7", "train"), "no path"),
    (("./", "visible", "1", "7", "train"), "no path"),
    (("absent/1.jpg", "visible", "1", "7", "train"), "image not found: absent/1.jpg (relative to {root})"),
    (("a/1.jpg/2.jpg", "visible", "1", "7", "train"), "image not found: a/1.jpg/2.jpg (relative to {root})"),
    (("a", "visible", "1", "7", "train"), "a is a folder, not an image"),
    (("a/1.jpg", "visible", "1", "7", "train"), "a/1.jpg appears again (first at line {first})"),
    (("./a/1.jpg", "visible", "01", "007", "train"), "a/1.jpg appears again (first at line {first})"),
    (
        ("a/1.jpg", "infrared", "1", "7", "train"),
        "a/1.jpg appears again (first at line {first}) with another modality",
    ),
    (("a/1.jpg", "visible", "2", "7", "train"), "a/1.jpg appears again (first at line {first}) with another camera"),
    (("a/1.jpg", "visible", "1", "8", "train"), "a/1.jpg appears again (first at line {first}) with another person"),
    (("c.jpg", "visible", "1", "anna", "train"), "person must be all integers or all text; 'anna' is text"),
    (("c.jpg", "visible", "gate", "7", "train"), "camera must be all integers or all text; 'gate' is text"),
    (("c.jpg", "visible", "1.5", "7", "train"), "camera must be all integers or all text; '1.5' is text"),
    (("c.jpg", "visible", "1", "1.23E+05", "train"), "person 1.23E+05 is a number that a spreadsheet rounded"),
    (("c.jpg", "visible", "1", "#REF!", "train"), "person #REF! is an error of the spreadsheet's formula"),
    (("c.jpg", "visible", "NaN", "7", "train"), "no camera (one constant is fine"),
    (("c.jpg", "visible", "1", "nan", "test"), "test rows need a person (remove such rows"),
    *(
        (("c.jpg", "visible", "1", "", split), f"{split} rows need a person (remove such rows")
        for split in ("val", "query", "gallery", "test")
    ),
    *(
        ((path, "visible", "1", "7", "train"), "path must stay inside the root: ")
        for path in (
            "/etc/c.jpg",
            "..",
            "../c.jpg",
            r"..\c.jpg",
            "a/../c.jpg",
            r"C:\c.jpg",
            "c:/c.jpg",
            r"\\host\c.jpg",
        )
    ),
    *(
        (("c.jpg", "visible", "1", "7", split), f"person 7 is in train and in {split} (--allow-overlap")
        for split in ("query", "gallery")
    ),
    (("c.jpg", "visible", "1", "7", "test"), "person 7 is in train and in query and gallery (--allow-overlap"),
    (("c.jpg", "visible", "1", "0007", "query"), "person 7 is in train and in query (--allow-overlap"),
]


class TestMistakes:
    @pytest.mark.parametrize("form", FORMS)
    @pytest.mark.parametrize(("row", "message"), WRONG_ROWS)
    def test_every_mistake_is_named_with_its_line(self, tmp_path, form, row, message):
        touch(tmp_path, [*GOOD, ("c.jpg",)])
        path = tmp_path / f"manifest{form}"
        path.write_text(FORMS[form]([*GOOD, row]))
        line = NEXT_LINE[form]
        (found,) = mistakes_of(path)
        assert found.startswith(f"manifest{form}:{line}: " + message.format(root=tmp_path, first=line - 4))

    def test_a_person_in_training_and_validation_is_named(self, tmp_path):
        rows = [("v/1.jpg", "visible", "1", "7", "val"), ("v/2.jpg", "infrared", "3", "7", "val")]
        (found,) = mistakes_of(write(tmp_path, [*GOOD, *rows]))
        assert found.startswith("manifest.csv:6: person 7 is in train and in val ")

    def test_lines_are_those_of_the_file_where_cells_and_gaps_span_lines(self, tmp_path):
        touch(tmp_path, GOOD)
        path = tmp_path / "manifest.csv"
        text = (
            "\n"  # 1
            'path,modality,camera,person,split,"a\nnote"\n'  # 2 and 3
            'a/1.jpg,visible,1,7,train,"one\n\n\nthree"\n'  # 4 to 7
            "\n"  # 8
            "  \n"  # 9
            "a/2.jpg,infrared,3,7,trial,\n"  # 10
            ",,,,,\n"  # 11
            '"a/2.jpg",infrared,x,7,train,"two\nlines"\n'  # 12 and 13
            "b/1.jpg,visible,1,12\n"  # 14
        )
        for end in ("\n", "\r\n"):
            path.write_text(text.replace("\n", end), newline="")
            assert mistakes_of(path) == [
                "manifest.csv:10: split 'trial'; one of train, val, query, gallery, test",
                "manifest.csv:12: camera must be all integers or all text; 'x' is text, others are integers",
                "manifest.csv:14: 4 cells for 6 columns",
            ]

    def test_everything_is_found_in_one_pass_and_shown_by_line(self, tmp_path):
        rows = [
            ("a/1.jpg", "grey", "-1", "x", "tets"),  # line 2: three things; what a row is for is not guessed from it
            ("a/2.jpg", "infrared", "3", "7", "train"),
            ("a/3.jpg", "infrared", "3", "7", "train"),
            ("a/3.jpg", "infrared", "3", "8", "query"),  # line 5
            ("b/1.jpg", "infrared", "3", "7", "query"),  # line 6
            ("b/2.jpg", "infrared", "3", "", "query"),  # line 7
            ("gone.jpg", "infrared", "night", "7", "train"),  # line 8: two things
        ]
        path = write(tmp_path, rows)
        (tmp_path / "gone.jpg").unlink()
        # Person 8 is looked for; so is image a/3.jpg, which is trained on. That nothing visible is left to train on,
        # and nothing to be found, is not said: the rows that were left out may be those.
        overlap = "(--allow-overlap, or data.allow_overlap=true, permits it)"
        assert mistakes_of(path) == [
            "manifest.csv:2: modality 'grey' is not visible or infrared",
            "manifest.csv:2: camera -1 is negative",
            "manifest.csv:2: split 'tets'; one of train, val, query, gallery, test",
            "manifest.csv:5: a/3.jpg appears again (first at line 4) with another person",
            f"manifest.csv:5: a/3.jpg is in train and in query {overlap}",
            f"manifest.csv:6: person 7 is in train and in query {overlap}",
            "manifest.csv:7: query rows need a person (remove such rows to train without evaluation)",
            f"manifest.csv:8: image not found: gone.jpg (relative to {tmp_path})",
            "manifest.csv:8: camera must be all integers or all text; 'night' is text, others are integers",
        ]
        assert check_manifest(path).rows[0].found == 9

    def test_of_many_mistakes_of_a_kind_three_are_shown_and_all_are_counted(self, tmp_path):
        rows = [*GOOD, *((f"{number}.jpg", f"grey{number}", "1", "7", "train") for number in range(30))]
        path = write(tmp_path, rows)
        found = mistakes_of(path)
        assert [one.partition(" is not")[0] for one in found] == [
            f"manifest.csv:{line}: modality 'grey{line - 6}'" for line in (6, 7, 8)
        ]
        assert found[-1].endswith("[and 27 more like it, the last in line 35]")
        with pytest.raises(DataError, match="30 mistakes in "):
            read_manifest(path)
        (row,) = check_manifest(path).rows
        assert (row.name, row.expected, row.found) == ("mistakes", 0, 30)
        assert "docs/data-sets.md" in row.advice

    def test_a_single_mistake_is_one(self, tmp_path):
        path = with_line(tmp_path, "b/1.jpg,visible,1,12\n")
        with pytest.raises(DataError) as caught:
            read_manifest(path)
        assert caught.value.message == f"1 mistake in {path}: manifest.csv:6: 4 cells for 5 columns"

    @pytest.mark.parametrize(("split", "count"), [("test", 1), ("query", 1), ("gallery", 1), ("train", 0)])
    def test_an_image_has_each_use_once(self, tmp_path, split, count):
        # Query and gallery are the two uses of `test`; other splits are another matter, permitted here.
        rows = [*GOOD, ("b/1.jpg", "visible", "1", "12", split), ("v.jpg", "infrared", "3", "30", "val")]
        path = write(tmp_path, [*rows, ("w.jpg", "visible", "1", "30", "val")])
        found = check_manifest(path, allow_overlap=True).offenders
        assert found == ("manifest.csv:6: b/1.jpg appears again (first at line 4)",) * count

    def test_an_image_to_choose_a_round_by_is_not_one_that_is_tested(self, tmp_path):
        rows = [*GOOD, ("b/1.jpg", "visible", "1", "12", "val"), ("v.jpg", "infrared", "3", "30", "val")]
        path = write(tmp_path, rows)
        assert check_manifest(path, allow_overlap=True).offenders == (
            "manifest.csv:6: b/1.jpg is in val and, at line 4, in the test",
        )

    def test_a_third_row_of_an_image_names_the_first_that_it_repeats(self, tmp_path):
        rows = [("c.jpg", "visible", "1", "12", split) for split in ("query", "gallery", "test")]
        assert mistakes_of(write(tmp_path, [*GOOD, *rows])) == ["manifest.csv:8: c.jpg appears again (first at line 6)"]

    def test_a_name_among_numbers_is_shown_where_it_first_stands(self, tmp_path):
        rows = [(f"{number}.jpg", "visible", "gate", "zoë", "train") for number in range(3)]
        assert [one.partition(";")[0] for one in mistakes_of(write(tmp_path, [*GOOD, *rows]))] == [
            f"manifest.csv:6: {column} must be all integers or all text" for column in ("person", "camera")
        ]

    def test_people_of_one_image_are_compared_past_rows_that_name_none(self, tmp_path):
        rows = [
            ("a/1.jpg", "visible", "1", "", "train"),
            ("a/2.jpg", "infrared", "3", "", "train"),
            ("a/1.jpg", "visible", "1", "5", "query"),
            ("a/1.jpg", "visible", "1", "6", "gallery"),
            ("b/1.jpg", "infrared", "3", "5", "test"),
        ]
        assert mistakes_of(write(tmp_path, rows), allow_overlap=True) == [
            "manifest.csv:5: a/1.jpg appears again (first at line 4) with another person"
        ]

    @pytest.mark.parametrize("cell", ["x" * 300 + ".jpg", "/".join(["y" * 200] * 30)])
    def test_a_path_that_no_file_system_takes_is_a_mistake(self, tmp_path, cell):
        (found,) = mistakes_of(with_line(tmp_path, f"{cell},visible,1,7,train\n"))
        assert found.startswith(f"manifest.csv:6: image not found: {cell} (relative to {tmp_path}; ")

    @pytest.mark.parametrize("cell", ["a\0b.jpg", "\udcff.jpg"])
    def test_a_path_that_is_no_text_is_a_mistake(self, tmp_path, cell):
        path = write(tmp_path, GOOD, ".jsonl")
        line = json.dumps(dict(zip(COLUMNS, (cell, "visible", 1, 7, "train"), strict=True)))
        path.write_text(path.read_text() + line)
        assert mistakes_of(path) == [f"manifest.jsonl:5: path {cell!r} contains a character that is not text"]

    def test_an_unreadable_folder_is_a_mistake(self, tmp_path, monkeypatch):
        path = write(tmp_path, GOOD)

        def refuse(self: Path, **options: bool) -> None:
            raise PermissionError(13, "Permission denied")

        real = Path.stat
        monkeypatch.setattr(Path, "stat", lambda self, **kw: (refuse if self.name == "2.jpg" else real)(self, **kw))
        assert [one.rpartition(": ")[2] for one in check_manifest(path).offenders] == [
            f"{name} (relative to {tmp_path}; Permission denied)" for name in ("a/2.jpg", "b/2.jpg")
        ]


class TestForms:
    def test_a_file_that_is_not_there_or_of_another_form_is_refused(self, tmp_path):
        assert refusal(tmp_path / "none" / "site.csv") == f"there is no manifest {tmp_path / 'none' / 'site.csv'}"
        assert "a manifest is a .csv or a .jsonl file" in refusal(tmp_path / "site.xlsx")

    @pytest.mark.parametrize("text", ["", "\n\n", " \n,,\n", "\ufeff", "path,modality,camera,person,split\n\n,,,,\n"])
    def test_a_file_without_rows_says_so(self, tmp_path, text):
        path = tmp_path / "site.csv"
        path.write_text(text, encoding="utf-8")
        assert refusal(path) == f"{path}: no rows"

    def test_lines_without_objects_say_so(self, tmp_path):
        path = tmp_path / "site.jsonl"
        path.write_text("\n \n")
        assert refusal(path) == f"{path}: no rows"
        path.write_text("[]\n\n7\n{\n")
        assert mistakes_of(path) == [
            "site.jsonl:1: not a JSON object",
            "site.jsonl:3: not a JSON object",
            "site.jsonl:4: not JSON: Expecting property name enclosed in double quotes at column 2",
        ]

    @pytest.mark.parametrize("form", FORMS)
    @pytest.mark.parametrize("missing", ["path", "modality", "camera", "split"])
    def test_a_missing_column_is_named_with_those_that_are_there(self, tmp_path, form, missing):
        columns = [name for name in COLUMNS if name != missing]
        place = COLUMNS.index(missing)
        path = tmp_path / f"site{form}"
        path.write_text(FORMS[form]([(*row[:place], *row[place + 1 :]) for row in GOOD], columns))
        assert refusal(path) == f"site{form}: no column '{missing}'; found: {', '.join(columns)}"

    def test_several_missing_columns_are_named_together(self, tmp_path):
        path = tmp_path / "site.csv"
        path.write_text("path name;modality;cam\u200b;\na.jpg;visible;1;train\n", encoding="utf-8")
        wanted = "no column 'path', 'camera', 'split'; found: path name, modality, cam"
        assert refusal(path) == f"site.csv: {wanted}"

    def test_a_column_that_is_there_twice_is_refused(self, tmp_path):
        path = tmp_path / "site.csv"
        path.write_text("path,modality,camera, camera,split\na.jpg,visible,1,2,train\n")
        assert refusal(path) == "site.csv: column 'camera' occurs twice"

    @pytest.mark.parametrize("form", FORMS)
    def test_unknown_columns_are_passed_over_with_one_notice(self, tmp_path, caplog, form):
        expected = tables_of(read_manifest(write(tmp_path, GOOD)))
        columns, extra = ("weather", *COLUMNS, "caption", "note"), ("rain", "somebody, walking", 'he said "no"')
        rows = [(extra[0], *row, *extra[1:]) for row in GOOD]
        (tmp_path / f"manifest{form}").write_text(FORMS[form](rows, columns))
        caplog.clear()
        with caplog.at_level(logging.INFO):
            assert tables_of(read_manifest(tmp_path / f"manifest{form}")) == expected
        notices = [message for message in caplog.messages if "weather" in message]
        assert notices == [f"manifest{form}: ignored columns: 'weather', 'note'"]

    def test_nameless_columns_of_a_spreadsheet_do_no_harm(self, tmp_path):
        expected = tables_of(read_manifest(write(tmp_path, GOOD)))
        rows = [(*row, "", "") for row in [*GOOD, ("",) * 5]]
        (tmp_path / "manifest.csv").write_text(as_csv(rows, (*COLUMNS, "", "")))
        assert tables_of(read_manifest(tmp_path / "manifest.csv")) == expected

    def test_captions_may_be_of_any_type_for_nobody_looks_at_them_here(self, tmp_path):
        path = write(tmp_path, [(*row, [0.5, None]) for row in GOOD], ".jsonl", (*COLUMNS, "caption"))
        assert check_manifest(path).passed

    @pytest.mark.parametrize("cells", ["c.jpg,visible,1", "c.jpg", "c.jpg,visible,1,7,train,more"])
    def test_too_few_and_too_many_cells_are_named(self, tmp_path, cells):
        number = cells.count(",") + 1
        assert mistakes_of(with_line(tmp_path, cells + "\n")) == [f"manifest.csv:6: {number} cells for 5 columns"]

    def test_quotes_that_do_not_fit_are_named_and_the_lines_after_them_read(self, tmp_path):
        lines = '"b"/1.jpg,visible,1,7,train\nc.jpg,grey,1,7,train\n"d.jpg,visible,1,7,train\ne.jpg,visible,1,7,train\n'
        found = mistakes_of(with_line(tmp_path, lines))
        # The last quotation mark is never closed: what follows it is no row of its own.
        assert found == [
            "manifest.csv:6: not a row of CSV: ',' expected after '\"'",
            "manifest.csv:7: modality 'grey' is not visible or infrared",
            "manifest.csv:8: not a row of CSV: unexpected end of data",
        ]

    def test_quotes_that_do_not_fit_in_the_first_line_are_refused(self, tmp_path):
        path = tmp_path / "site.csv"
        path.write_text('\n"path"s,modality,camera,split\na.jpg,visible,1,train\n')
        assert refusal(path) == "site.csv:2: not a row of CSV: ',' expected after '\"'"

    @pytest.mark.parametrize("form", FORMS)
    def test_bytes_that_are_no_text_are_refused_with_their_line(self, tmp_path, form):
        path = write(tmp_path, GOOD, form)
        path.write_bytes(path.read_bytes() + "zoë".encode("latin-1"))
        assert refusal(path).startswith(f"manifest{form}:{NEXT_LINE[form]}: not UTF-8: ")
        path.write_bytes(FORMS[form](GOOD).encode("utf-16-le"))
        assert refusal(path) == f"manifest{form}:1: not UTF-8: UTF-16 without a byte order mark, or no text"

    def test_a_manifest_that_cannot_be_opened_is_refused(self, tmp_path):
        folder = tmp_path / "odd.csv"
        folder.mkdir()
        assert "is a folder with 0 of" in refusal(folder)
        circle = tmp_path / "circle.csv"
        circle.symlink_to(circle)
        assert refusal(circle) == f"{circle} cannot be read: Too many levels of symbolic links"

    @pytest.mark.parametrize(
        ("column", "value"),
        [("camera", True), ("person", False), ("person", 7.5), ("person", [7]), ("path", {"a": 1})],
    )
    def test_values_that_are_neither_text_nor_whole_are_named(self, tmp_path, column, value):
        path = write(tmp_path, GOOD, ".jsonl")
        row = {"path": "a/1.jpg", "modality": "grey", "camera": 1, "person": 7, "split": "train"} | {column: value}
        path.write_text(path.read_text() + json.dumps(row))
        assert sorted(mistakes_of(path)) == sorted(
            [
                f"manifest.jsonl:5: {column} is {value!r}, not a text or a whole number",
                "manifest.jsonl:5: modality 'grey' is not visible or infrared",
            ]
        )

    def test_null_and_a_key_that_is_not_there_are_empty(self, tmp_path):
        rows = [
            {"path": "a/1.jpg", "modality": "visible", "camera": 1, "person": None, "split": "train"},
            {"path": "a/2.jpg", "modality": "infrared", "camera": 1, "split": "train"},
        ]
        touch(tmp_path, GOOD)
        path = tmp_path / "site.jsonl"
        path.write_text("\n".join(map(json.dumps, rows)))
        assert not read_manifest(path).training.people.visible.known
        path.write_text(path.read_text() + '\n{"path": "b/1.jpg", "camera": null, "split": "train"}')
        assert mistakes_of(path) == [
            "site.jsonl:3: modality '' is not visible or infrared",
            "site.jsonl:3: no camera (one constant is fine where there is one camera)",
        ]

    def test_broken_json_is_named_by_line_and_column(self, tmp_path):
        path = write(tmp_path, GOOD, ".jsonl")
        deep = "[" * 100_000
        path.write_text(f'{path.read_text()}\n{{"path": "a.jpg",}}\n{{"path" 3}}\n{deep}\n')
        found = mistakes_of(path)
        assert [one.split(": ")[:2] for one in found] == [[f"manifest.jsonl:{line}", "not JSON"] for line in (6, 7, 8)]
        assert found[1].endswith("Expecting ':' delimiter at column 9")


class TestPurposes:
    @pytest.mark.parametrize("modality", Modality)
    def test_training_needs_both_modalities(self, tmp_path, modality):
        rows = [row for row in GOOD if row[4] != "train" or row[1] == modality]
        assert mistakes_of(write(tmp_path, rows)) == [
            f"training needs visible and infrared images; {modality.other}: 0"
        ]

    def test_without_training_rows_it_is_for_evaluation(self, tmp_path):
        path = write(tmp_path, GOOD[2:])
        dataset = read_manifest(path)
        assert not dataset.has_training and dataset.fingerprint.keys() == {"test"}
        assert dataset.test is not None and dataset.test.images.map(len) == dataset.images.map(len) == PerModality(1, 1)
        notes = check_manifest(path).notes
        assert "no row is of split train: the manifest is for evaluation, not for training" in notes

    def test_empty_files_are_left_to_decoding_which_names_all_unreadable_ones_at_once(self, tmp_path):
        path = write(tmp_path, GOOD)
        (tmp_path / "a" / "1.jpg").write_bytes(b"")
        assert check_manifest(path).passed and len(read_manifest(path).images.visible) == 2

    def test_validation_needs_both_modalities(self, tmp_path):
        assert mistakes_of(write(tmp_path, [*GOOD, ("v.jpg", "visible", "1", "9", "val")])) == [
            "validation needs visible and infrared images; infrared: 0"
        ]

    @pytest.mark.parametrize(
        "tested",
        [
            [("b.jpg", "visible", "1", "12", "test"), ("c.jpg", "infrared", "3", "13", "test")],  # other people
            [("b.jpg", "visible", "1", "12", "query"), ("c.jpg", "infrared", "3", "12", "query")],  # no gallery
            [("b.jpg", "visible", "1", "12", "query"), ("c.jpg", "visible", "2", "12", "test")],  # one modality
        ],
    )
    def test_queries_none_of_which_has_a_match_are_refused(self, tmp_path, tested):
        assert mistakes_of(write(tmp_path, [*GOOD[:2], *tested])) == ["none of 2 queries has a match in the gallery"]

    def test_data_of_a_single_camera_hides_nothing(self, tmp_path):
        tested = [("b.jpg", "visible", "3", "12", "test"), ("c.jpg", "infrared", "03", "12", "test")]
        assert check_manifest(write(tmp_path, [*GOOD[:2], *tested])).passed

    def test_one_camera_of_both_modalities_hides_all_matches_and_is_named(self, tmp_path):
        # Of the two visible images, one was taken by the query's own camera and the other shows somebody else.
        tested = [
            ("b.jpg", "visible", "3", "12", "test"),
            ("c.jpg", "infrared", "03", "12", "query"),
            ("d.jpg", "visible", "1", "13", "gallery"),
        ]
        (found,) = mistakes_of(write(tmp_path, [*GOOD[:2], *tested]))
        assert found == (
            "none of 2 queries has a match in the gallery "
            "(camera 3 has both modalities, so that a query's own camera is excluded from it)"
        )

    def test_a_gallery_without_queries_is_refused(self, tmp_path):
        tested = [("b.jpg", "visible", "1", "12", "gallery"), ("c.jpg", "infrared", "3", "12", "gallery")]
        assert mistakes_of(write(tmp_path, [*GOOD[:2], *tested])) == [
            "2 gallery rows, but no row to look for: no query, no test"
        ]

    def test_queries_in_one_direction_are_enough(self, tmp_path):
        tested = [("b.jpg", "visible", "1", "12", "test"), ("c.jpg", "infrared", "3", "12", "query")]
        check = check_manifest(write(tmp_path, [*GOOD[:2], *tested]))
        assert check.passed
        # Visible images are queries too, but there is no infrared gallery: that direction does not exist.
        assert [note for note in check.notes if "queries in" in note] == [
            "infrared queries in visible images: 1 people, so ranks beyond that repeat the last value"
        ]

    def test_queries_without_a_match_are_counted_by_direction(self, tmp_path, caplog):
        tested = [
            ("q1.jpg", "infrared", "3", "12", "test"),
            ("q2.jpg", "infrared", "3", "13", "test"),
            ("g1.jpg", "visible", "1", "12", "test"),
            # Camera 3 has both modalities, so that it hides its own image of person 13.
            ("g2.jpg", "visible", "3", "13", "test"),
            ("g3.jpg", "visible", "1", "14", "test"),
        ]
        path = write(tmp_path, [*GOOD[:2], *tested])
        warnings = [
            "infrared queries in visible images: 1 of 2 have a permitted match",
            "infrared queries in visible images: 3 people, so ranks beyond that repeat the last value",
            "visible queries in infrared images: 1 of 3 have a permitted match",
            "visible queries in infrared images: 2 people, so ranks beyond that repeat the last value",
        ]
        assert list(check_manifest(path).notes[-4:]) == warnings
        with caplog.at_level(logging.WARNING):
            read_manifest(path)
        assert caplog.messages == [f"manifest.csv: {warning}" for warning in warnings]

    @pytest.mark.parametrize(("people", "warned"), [(19, True), (20, False)])
    def test_a_gallery_of_fewer_than_twenty_people_is_warned_of(self, tmp_path, caplog, people, warned):
        tested = [
            (f"{modality}{person}.jpg", modality, camera, person, "test")
            for person in range(100, 100 + people)
            for modality, camera in (("visible", 1), ("infrared", 3))
        ]
        with caplog.at_level(logging.WARNING):
            read_manifest(write(tmp_path, [*GOOD[:2], *tested]))
        assert len(caplog.messages) == (2 if warned else 0)

    def test_notes_count_each_split(self, tmp_path):
        rows = [*GOOD, ("c.jpg", "visible", "2", "", "train"), ("d.jpg", "visible", "2", "12", "gallery")]
        check = check_manifest(write(tmp_path, rows))
        assert check.passed and check.offenders == ()
        assert check.rows == (CheckRow("mistakes", 0, 0, check.rows[0].advice),)
        assert list(check.notes[:3]) == [
            "train: 2 visible and 1 infrared images, 1 people, 3 cameras",
            "gallery: 1 visible and 0 infrared images, 1 people, 1 cameras",
            "test: 1 visible and 1 infrared images, 1 people, 2 cameras",
        ]


class TestOverlap:
    ROWS = (*GOOD, ("c.jpg", "visible", "2", "7", "gallery"), ("d.jpg", "infrared", "3", "7", "query"))

    def test_each_person_is_named_once(self, tmp_path):
        (found,) = mistakes_of(write(tmp_path, self.ROWS))
        assert found.startswith("manifest.csv:6: person 7 is in train and in gallery ")

    def test_it_is_permitted_and_marked_where_the_user_wants_it(self, tmp_path):
        path = write(tmp_path, self.ROWS)
        dataset = read_manifest(path, allow_overlap=True)
        assert dataset.overlap
        assert dataset.test.people.visible.ids.tolist() == [7, 12]
        assert check_manifest(path, allow_overlap=True).passed

    def test_permission_without_need_marks_nothing(self, tmp_path):
        assert not read_manifest(write(tmp_path, GOOD), allow_overlap=True).overlap

    def test_an_image_of_an_unknown_person_is_not_tested_on_either(self, tmp_path):
        rows = [*((*row[:3], "", "train") for row in GOOD), *GOOD[2:]]
        path = write(tmp_path, rows)
        assert [one.partition(" (")[0] for one in mistakes_of(path)] == [
            "manifest.csv:6: b/1.jpg is in train and in query and gallery",
            "manifest.csv:7: b/2.jpg is in train and in query and gallery",
        ]
        dataset = read_manifest(path, allow_overlap=True)
        assert dataset.overlap
        assert dataset.images.visible.paths == ("a/1.jpg", "b/1.jpg")
        assert not dataset.training.people.visible.known and dataset.test.people.visible.known


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same drawn people in three layouts."""
    place = tmp_path_factory.mktemp("drawn")
    for layout in ("sysu", "manifest", "regdb"):
        generate_dataset(place / layout, size="smoke", layout=layout, height=32, width=16, workers=1)
    return place


class TestDrawn:
    def test_a_drawn_manifest_reproduces_the_tables_of_the_sysu_layout(self, drawn):
        sysu = read_sysu_mm01(drawn / "sysu", split="train")
        dataset = read_manifest(drawn / "manifest")
        for name in ("training", "validation", "test"):
            ours, theirs = getattr(dataset, name), getattr(sysu, name)
            for modality in Modality:
                assert ours.images[modality].paths == tuple(f"images/{one}" for one in theirs.images[modality].paths)
                assert ours.images[modality].cameras.tolist() == theirs.images[modality].cameras.tolist()
                assert ours.people[modality].ids.tolist() == theirs.people[modality].ids.tolist()
                assert len(ours.images[modality]) > 0
        for ours, theirs in zip(dataset.images, sysu.images, strict=True):
            assert ours.paths == tuple(f"images/{one}" for one in theirs.paths)
        assert all(roles.query.all() and roles.gallery.all() for roles in dataset.test.roles)

    def test_it_is_drawn_and_as_it_was_drawn(self, drawn):
        assert read_manifest(drawn / "manifest").kind == "drawn"
        check = check_manifest(drawn / "manifest")
        assert check.passed
        counts = json.loads((drawn / "manifest" / "drawn.json").read_text())["counts"]
        assert [(row.name, row.expected, row.found) for row in check.rows[1:]] == [
            (f"{split}, {modality} images", counts[split][modality], counts[split][modality])
            for split in ("train", "val", "test")
            for modality in Modality
        ]

    def test_rows_that_went_missing_are_counted(self, drawn, tmp_path):
        root = tmp_path / "copy"
        shutil.copytree(drawn / "manifest", root)
        path = root / "manifest.csv"
        path.write_text("".join(path.read_text().splitlines(keepends=True)[:-1]))
        (failure,) = check_manifest(path).failures
        assert failure.found == failure.expected - 1
        assert failure.advice == "make the synthetic data set again"

    @pytest.mark.parametrize(
        ("layout", "pattern", "cameras"),
        [("sysu", "cam{camera}/{person}/{name}", ("3", "6")), ("regdb", "{modality}/{person}/{name}", ())],
    )
    def test_a_manifest_of_ones_own_for_drawn_images_is_drawn_and_need_not_have_their_splits(
        self, drawn, tmp_path, layout, pattern, cameras
    ):
        path = tmp_path / "own.csv"
        names = {"Visible": "visible", "Thermal": "infrared"}
        write_manifest(
            drawn / layout, path, pattern=pattern, infrared_cameras=cameras, modality_names=names, test_share=0.5
        )
        assert check_manifest(path, images_root=drawn / layout).passed
        assert read_manifest(path, images_root=drawn / layout).kind == "drawn"

    def test_only_the_manifest_that_was_drawn_is_compared_with_what_was_drawn(self, drawn, tmp_path):
        elsewhere, root = tmp_path / "manifest.csv", tmp_path / "copy"
        shutil.copytree(drawn / "manifest", root)
        fewer = "".join((root / "manifest.csv").read_text().splitlines(keepends=True)[:-1])
        for path in (elsewhere, root / "own.csv"):
            path.write_text(fewer)
            assert check_manifest(path, images_root=root).passed
        shutil.copytree(drawn / "sysu", tmp_path / "sysu")
        own = tmp_path / "sysu" / "manifest.csv"
        write_manifest(own.parent, own, pattern="cam{camera}/{person}/{name}", infrared_cameras=["3", "6"])
        assert check_manifest(own).passed


# Whatever a file may be called, but for backslashes, which divide paths. Carriage returns and quotes are legal.
NAMES = st.text(
    st.one_of(st.sampled_from(" \"',;\r\n\t.é漢\ufeff#"), st.characters(exclude_characters="/\\\0", codec="utf-8")),
    min_size=1,
    max_size=12,
).filter(lambda name: name not in (".", ".."))
TEXTS = (
    NAMES.map(plain)
    .filter(lambda name: name and not name.isdecimal())
    .filter(lambda name: name_or_number(name) == name and value_problem(name) is None)
)
NUMBERS = st.integers(0, 10**17 - 1).map(str)


@st.composite
def manifests(draw: st.DrawFn) -> list[Row]:
    """Rows without a mistake: some train, some test, everybody whole, all cameras and all people of one kind."""
    cameras = draw(st.sampled_from([NUMBERS, TEXTS]).flatmap(lambda names: st.lists(names, min_size=1, max_size=3)))
    people = draw(
        st.sampled_from([NUMBERS, TEXTS]).flatmap(
            lambda names: st.lists(names, min_size=2, max_size=4, unique_by=lambda name: name.lstrip("0"))
        )
    )
    rows: list[Row] = []
    trained = people[: draw(st.integers(1, len(people) - 1))]
    for number, name in enumerate(draw(st.lists(NAMES, max_size=6))):
        person = draw(st.sampled_from(people))
        split = "train" if person in trained else draw(st.sampled_from(["test", "query", "gallery"]))
        modality = draw(st.sampled_from(list(Modality))).value
        rows.append((f"{number}/{name}", modality, draw(st.sampled_from(cameras)), person, split))
    # Somebody to train on and somebody to find, by cameras of their own.
    for person, split in ((people[0], "train"), (people[-1], "test")):
        rows += [
            (f"{split}/{modality}.jpg", modality, f"{first_digit}{cameras[0]}", person, split)
            for first_digit, modality in enumerate(Modality, start=1)
        ]
    return [tuple(map(str, row)) for row in rows]


def expected_tables(rows: Sequence[Row]) -> list[tuple[tuple[str, ...], list[int], list[int]]]:
    """Sort by the numbers of person and camera, then file name: training, then test, visible before infrared."""

    def number(name: object, column: int) -> int:
        names = {str(row[column]) for row in rows}
        return int(str(name)) if str(name).isdecimal() else sorted(names).index(str(name)) + 1

    tables = []
    for trained in (True, False):
        for modality in ("visible", "infrared"):
            found = sorted(
                (number(row[3], 3), number(row[2], 2), PurePosixPath(str(row[0])).name, str(row[0]))
                for row in rows
                if row[1] == modality and (row[4] == "train") is trained
            )
            tables.append(
                (tuple(path for *_, path in found), [camera for _, camera, *_ in found], [one for one, *_ in found])
            )
    return tables


@settings(max_examples=40, deadline=None)
@given(rows=manifests(), seed=st.integers(0, 2**32 - 1))
def test_awkward_names_are_read_back_whatever_the_order_of_the_rows(rows, seed):
    with TemporaryDirectory() as folder:
        root = Path(folder)
        dataset = read_manifest(write(root, rows))
        shuffled = random.Random(seed).sample(rows, len(rows))
        assert tables_of(read_manifest(write(root, shuffled))) == tables_of(dataset)
        (root / "manifest.csv").unlink()
        assert tables_of(read_manifest(write(root, shuffled, ".jsonl"))) == tables_of(dataset)
        assert [table for part in (dataset.training, dataset.test) for table in contents(part)[0]] == (
            expected_tables(rows)
        )


def test_numbers_are_given_to_texts_only():
    assert numbers_of(["12", "", "3", "12"]) == {"12": 12, "3": 3}
    assert numbers_of(["b", "a", "b"]) == {"a": 1, "b": 2}
    assert numbers_of([""]) == {}


def test_the_file_list_is_that_of_training_and_test(tmp_path):
    dataset = read_manifest(write(tmp_path, GOOD))
    elsewhere = read_manifest(write(tmp_path / "moved", GOOD))
    assert elsewhere.file_list == dataset.file_list
    assert replace(elsewhere, root=tmp_path).fingerprint == dataset.fingerprint
    other = read_manifest(write(tmp_path / "other", [*GOOD, ("c.jpg", "visible", "1", "7", "train")]))
    assert other.file_list != dataset.file_list
    assert other.fingerprint["test"] == dataset.fingerprint["test"]
