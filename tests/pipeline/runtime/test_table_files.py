"""Tables that other programs read back."""

import csv
import sqlite3
from pathlib import Path

import numpy as np
import pyarrow.parquet  # type: ignore[import-untyped]
import pytest

from pipeline.errors import ConfigError
from pipeline.runtime.outputs import HITS, VECTORS
from pipeline.runtime.table_files import TableFiles

ROWS = np.array([[0.25, -1], [3, 4e-9]], np.float32)
COLUMNS = {"encoder": ["e", "e"], "path": ["a,\n.png", "\udcff.png"], "rank": [1, None], "vector": ROWS}
HIT_COLUMNS = {"encoder": ["e"] * 3, "query": ["a", "b", "c"], "rank": [None, 1, 1], "vector": [None, *ROWS]}
PATHS = ["a,\n.png", "\\udcff.png"]


def test_each_form_gives_the_same_rows(tmp_path: Path) -> None:
    files = TableFiles(tmp_path / "t.csv", tmp_path / "t.parquet", tmp_path / "t.sqlite")
    for _ in range(2):  # our own tables are replaced
        assert files.write(VECTORS, COLUMNS) == [tmp_path / "t.csv", tmp_path / "t.parquet", tmp_path / "t.sqlite"]
    with (tmp_path / "t.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["path"] for row in rows] == PATHS and [row["rank"] for row in rows] == ["1", ""]
    np.testing.assert_array_equal([np.array(row["vector"].split(), np.float32) for row in rows], ROWS)
    table = pyarrow.parquet.read_table(tmp_path / "t.parquet")
    assert table["path"].to_pylist() == PATHS and table["rank"].to_pylist() == [1, None]
    np.testing.assert_array_equal(np.array(table["vector"].to_pylist(), np.float32), ROWS)
    with sqlite3.connect(tmp_path / "t.sqlite") as database:
        found = database.execute("SELECT path, rank, vector FROM vectors").fetchall()
    assert [row[:2] for row in found] == list(zip(PATHS, [1, None], strict=True))
    np.testing.assert_array_equal([np.frombuffer(row[2], "<f4") for row in found], ROWS)


@pytest.mark.parametrize("form", ["csv", "parquet", "sqlite"])
def test_a_table_of_another_program_stays(form: str, tmp_path: Path) -> None:
    path = tmp_path / f"theirs.{form}"
    match form:
        case "csv":
            path.write_text("path,modality,camera\n")
        case "parquet":
            pyarrow.parquet.write_table(pyarrow.table({"encoder": ["x"]}), path)
        case _:
            with sqlite3.connect(path) as database:
                database.execute("CREATE TABLE hits (encoder)")
    before = path.read_bytes()
    with pytest.raises(ConfigError, match=rf"exists and does not contain vectors of `vireid embed` \(\.{form}\)"):
        TableFiles(**{form: path}).write(VECTORS, COLUMNS)
    assert path.read_bytes() == before


@pytest.mark.parametrize("form", ["csv", "parquet", "sqlite"])
def test_a_table_of_another_command_stays(form: str, tmp_path: Path) -> None:
    for first, columns, second, others in (
        (HITS, HIT_COLUMNS, VECTORS, COLUMNS),
        (VECTORS, COLUMNS, HITS, HIT_COLUMNS),
    ):
        path = tmp_path / f"{first.name}.{form}"
        file = TableFiles(**{form: path})
        for _ in range(2):  # the same command replaces it
            file.write(first, columns)
        before = path.read_bytes()
        with pytest.raises(ConfigError, match=rf"exists and does not contain {second.name} of `vireid"):
            file.write(second, others)
        assert path.read_bytes() == before


def test_a_row_without_a_vector_is_empty_there(tmp_path: Path) -> None:
    TableFiles(tmp_path / "t.csv", tmp_path / "t.parquet", tmp_path / "t.sqlite").write(HITS, HIT_COLUMNS)
    with (tmp_path / "t.csv").open(newline="") as file:
        assert [row["vector"] for row in csv.DictReader(file)] == ["", "0.25 -1", "3 3.99999989e-09"]
    column = pyarrow.parquet.read_table(tmp_path / "t.parquet")["vector"]
    assert column.type == pyarrow.list_(pyarrow.float32())
    assert column.to_pylist() == [None, *ROWS.tolist()]
    with sqlite3.connect(tmp_path / "t.sqlite") as database:
        found = [row[0] for row in database.execute("SELECT vector FROM hits")]
    assert found == [None, *(row.astype("<f4").tobytes() for row in ROWS)]


def test_a_damaged_table_stays(tmp_path: Path) -> None:
    path = tmp_path / "t.parquet"
    TableFiles(parquet=path).write(HITS, HIT_COLUMNS)
    content = bytearray(path.read_bytes())
    start = len(content) - 8 - int.from_bytes(content[-8:-4], "little")
    content[start : start + 20] = bytes(20)  # the schema; the mark is at the end
    path.write_bytes(content)
    with pytest.raises(ConfigError, match="exists and does not contain hits"):
        TableFiles(parquet=path).write(HITS, HIT_COLUMNS)
