"""Tables as spreadsheets and pandas save them, and values as people write them."""

from pathlib import Path

import pytest

from models.modality import Modality
from pipeline.data.datasets.manifest.adapter import check_manifest, read_manifest
from pipeline.data.datasets.manifest.rows import read_rows
from pipeline.data.image_list import list_images
from pipeline.data.values import modality_named, name_or_number
from pipeline.errors import DataError

HEADER = ["path", "modality", "camera", "person", "split"]
ROWS = [
    ["a/1.jpg", "visible", "1", "7", "train"],
    ["a/2.jpg", "infrared", "3", "7", "train"],
    ["b/1.jpg", "visible", "1", "12", "test"],
    ["b/2.jpg", "infrared", "3", "12", "test"],
]


@pytest.fixture
def site(tmp_path: Path) -> Path:
    for path, *_ in ROWS:
        (tmp_path / path).parent.mkdir(exist_ok=True)
        (tmp_path / path).write_bytes(b"x")
    return tmp_path


def table(sign: str, header: list[str] = HEADER, rows: list[list[str]] = ROWS, *, before: str = "") -> str:
    return before + "".join(sign.join(row) + "\r\n" for row in [header, *rows])


PADDED = [[*row, "", ""] for row in ROWS]
FLOATS = [[path, modality, f"{camera}.0", f"{person}.0", split] for path, modality, camera, person, split in ROWS]
DECIMAL = [[path, modality, f"{camera},0", f"{person},0", split] for path, modality, camera, person, split in ROWS]
WORDS = [
    [path, {"visible": "RGB ", "infrared": "Thermal"}[kind], *rest[:-1], rest[-1].title()] for path, kind, *rest in ROWS
]
FORMS = {
    "semicolons": table(";"),
    "tabs": table("\t"),
    "bars": table("|"),
    "sep": table(";", before="sep=;\r\n"),
    "quoted sep": table(";", before='"sep=;"\r\n'),
    "quoted": table(",", [f'"{one}"' for one in HEADER], [[f'"{cell}"' for cell in row] for row in ROWS]),
    "titles": table(",", [" Path", "MODALITY", "Camera ", "Person\u00a0", "Split\u200b"]),
    "blank columns": table(";", [*HEADER, "", ""], PADDED),
    "blank rows": table(";", rows=[[""] * 5, *PADDED, [""] * 7, [""] * 7]),
    "short rows": table(",", [*HEADER, "caption", "note"]),
    "index column": table(",", ["", *HEADER], [[str(row), *cells] for row, cells in enumerate(ROWS)]),
    "floats": table(",", rows=FLOATS),
    "decimal commas": table(";", rows=DECIMAL),
    "zeros": table(",", rows=[[*row[:2], f"0{row[2]}", f"000{row[3]}", row[4]] for row in ROWS]),
    "words": table(",", rows=WORDS),
    "semicolons in a cell": table(",", [*HEADER, "note"], [[*row, "a;b;c;d;e;f"] for row in ROWS]),
}


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
@pytest.mark.parametrize("form", FORMS)
def test_a_table_is_read_in_every_form(site: Path, form: str, encoding: str) -> None:
    path = site / "site.csv"
    path.write_bytes(FORMS[form].encode(encoding))
    rows, mistakes = read_rows(path)
    assert mistakes == []
    assert [[row.path, str(row.modality), row.camera, row.person, row.split] for row in rows] == ROWS
    assert check_manifest(path).passed


def test_a_table_with_tabs_may_be_called_so(site: Path) -> None:
    (site / "Site.TSV").write_text(FORMS["tabs"])
    assert read_manifest(site / "Site.TSV").images.visible.paths == ("a/1.jpg", "b/1.jpg")
    assert len(list_images(site / "Site.TSV", None)) == 4


def test_a_line_that_is_one_quoted_cell_is_named(site: Path) -> None:
    lines = [f'"{line}"' for line in table(",").splitlines()]
    (site / "site.csv").write_text("\n".join(lines))
    with pytest.raises(DataError, match=r"site\.csv:1: the whole line is one cell in quotation marks"):
        read_manifest(site / "site.csv")


def test_names_that_look_alike_are_one_person(site: Path) -> None:
    names = ["Jose\u0301", "Jos\u00e9\u200b", " Anna\u00a0B", "Anna B"]
    (site / "site.csv").write_text(
        table(";", rows=[[*row[:3], name, row[4]] for row, name in zip(ROWS, names, strict=True)]), encoding="utf-8"
    )
    rows, _ = read_rows(site / "site.csv")
    assert [row.person for row in rows] == ["Jos\u00e9", "Jos\u00e9", "Anna B", "Anna B"]


def test_names_that_differ_in_case_are_named(site: Path) -> None:
    names = ["eva", "Eva", "bob", "bob"]
    rows = [[*row[:3], name, row[4]] for row, name in zip(ROWS, names, strict=True)]
    (site / "site.csv").write_text(table(",", rows=rows))
    notes = check_manifest(site / "site.csv").notes
    assert "person names that differ in upper and lower case only are different persons: 'Eva', 'eva'" in notes


def test_paths_are_found_by_another_spelling_with_one_note(site: Path) -> None:
    rows = [[row[0].upper(), *row[1:]] for row in ROWS]
    (site / "site.csv").write_text(table(",", rows=rows))
    check = check_manifest(site / "site.csv")
    assert check.passed
    assert check.notes[0] == "4 paths are found in upper or lower case, first 'A/1.JPG' as 'a/1.jpg'"
    assert list_images(site / "site.csv", None).paths == ("a/1.jpg", "a/2.jpg", "b/1.jpg", "b/2.jpg")


def test_two_spellings_of_one_path_are_a_repetition(site: Path) -> None:
    (site / "site.csv").write_text(table(",", rows=[*ROWS, ["A/1.jpg", *ROWS[0][1:]]]))
    assert check_manifest(site / "site.csv").offenders == ("site.csv:6: a/1.jpg appears again (first at line 2)",)


def test_files_that_look_alike_are_named(site: Path) -> None:
    (site / "a/1.JPG").write_bytes(b"x")
    (site / "site.csv").write_text(table(",", rows=[*ROWS, ["A/1.Jpg", *ROWS[0][1:]]]))
    (offender,) = check_manifest(site / "site.csv").offenders
    assert offender.endswith("several names look like it: '1.JPG', '1.jpg')")


def test_missing_images_are_one_number_with_the_option_that_helps(tmp_path: Path) -> None:
    rows = [[f"{number}.jpg", "visible", "1", "7", "train"] for number in range(20)]
    (tmp_path / "site.csv").write_text(table(",", rows=rows))
    check = check_manifest(tmp_path / "site.csv")
    missing = [one for one in check.offenders if "image not found" in one]
    assert len(missing) == 3 and missing[-1].endswith("[and 17 more like it, the last in line 21]")
    assert "--root" in check.rows[0].advice


@pytest.mark.parametrize("text", ["visible", "Visible ", "VIS", "rgb"])
def test_names_of_visible(text: str) -> None:
    assert modality_named(text) is Modality.VISIBLE


@pytest.mark.parametrize("text", ["infrared", "IR", "NIR", "Thermal", "thermal\u200b"])
def test_names_of_infrared(text: str) -> None:
    assert modality_named(text) is Modality.INFRARED


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("0012", "12"),
        ("12.0", "12"),
        ("12,00", "12"),
        ("12.5", "12.5"),
        ("nan", ""),
        ("None", ""),
        ("0", "0"),
        ("Nan", "Nan"),
    ],
)
def test_numbers_are_spelled_in_one_way(text: str, value: str) -> None:
    assert name_or_number(text) == value
