"""Tables that other programs read back."""

import csv
import sqlite3
from pathlib import Path

import numpy as np
import pyarrow.parquet  # type: ignore[import-untyped]
import pytest

from pipeline.errors import ConfigError
from pipeline.runtime.table_files import TableFiles

VECTORS = np.array([[0.25, -1], [3, 4e-9]], np.float32)
COLUMNS = {"encoder": ["e", "e"], "path": ["a,\n.png", "\udcff.png"], "rank": [1, None], "vector": VECTORS}
PATHS = ["a,\n.png", "\\udcff.png"]


def test_each_form_gives_the_same_rows(tmp_path: Path) -> None:
    files = TableFiles(tmp_path / "t.csv", tmp_path / "t.parquet", tmp_path / "t.sqlite")
    for _ in range(2):  # our own tables are replaced
        assert files.write("vectors", COLUMNS) == [tmp_path / "t.csv", tmp_path / "t.parquet", tmp_path / "t.sqlite"]
    with (tmp_path / "t.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["path"] for row in rows] == PATHS and [row["rank"] for row in rows] == ["1", ""]
    np.testing.assert_array_equal([np.array(row["vector"].split(), np.float32) for row in rows], VECTORS)
    table = pyarrow.parquet.read_table(tmp_path / "t.parquet")
    assert table["path"].to_pylist() == PATHS and table["rank"].to_pylist() == [1, None]
    np.testing.assert_array_equal(np.array(table["vector"].to_pylist(), np.float32), VECTORS)
    with sqlite3.connect(tmp_path / "t.sqlite") as database:
        found = database.execute("SELECT path, rank, vector FROM vectors").fetchall()
    assert [row[:2] for row in found] == list(zip(PATHS, [1, None], strict=True))
    np.testing.assert_array_equal([np.frombuffer(row[2], "<f4") for row in found], VECTORS)


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
    with pytest.raises(ConfigError, match="exists and does not contain a table of this program"):
        TableFiles(**{form: path}).write("hits", COLUMNS)
    assert path.read_bytes() == before
