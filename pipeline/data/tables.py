"""Tables as spreadsheets save them: separated by commas, semicolons or tabs, with blank rows and columns."""

import csv
import io
import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass

from pipeline.errors import DataError
from pipeline.runtime.names import plain

_SEPARATORS = (",", ";", "\t", "|")
_SEPARATOR_LINE = re.compile(r'\A\s*"?sep=(.)"?[,;\t ]*(?=\r|\n)')


@dataclass(frozen=True, slots=True)
class Table:
    """The columns of a table as `column_name` spells them, its rows with their lines, and its faulty rows."""

    columns: tuple[str, ...]
    rows: tuple[tuple[int, tuple[str, ...]], ...]
    faults: tuple[tuple[int, str], ...]


def column_name(name: str) -> str:
    """One spelling for a column: ` Path` is `path`."""
    return plain(name).casefold()


def read_table(name: str, text: str, needed: Collection[str], hint: str) -> Table | None:
    """Read a CSV table; None without a row that is not blank.

    A first line `sep=;` names the separator; otherwise it is the one by which the header has most of the `needed`
    columns. Blank cells behind the last column are dropped, and those of columns that are not needed may be absent at
    the end of a row, because spreadsheets omit them.

    Raises:
        DataError: The header is no row of CSV, or each line is one quoted cell.
    """
    marked = _SEPARATOR_LINE.match(text)
    separator = _separator(text, needed) if marked is None else marked[1]
    rows = _rows(text if marked is None else text[marked.end() :], separator)  # the line stays, without its text
    line, header = next(rows, (0, ()))
    if isinstance(header, str):
        raise DataError(f"{name}:{line}: not a row of CSV: {header}", hint=hint)
    if not header:
        return None
    columns = tuple(map(column_name, header))
    while columns and not columns[-1]:
        columns = columns[:-1]
    if len(columns) == 1 and _needed_in(next(csv.reader([header[0]])), needed) > 1:
        raise DataError(
            f"{name}:{line}: the whole line is one cell in quotation marks",
            hint="split the cells by their commas in the spreadsheet, and save it again",
        )
    fewest = max((place for place, one in enumerate(columns, start=1) if one in needed), default=len(columns))
    cells: list[tuple[int, tuple[str, ...]]] = []
    faults: list[tuple[int, str]] = []
    for line, row in rows:
        if isinstance(row, str):
            faults.append((line, f"not a row of CSV: {row}"))
            continue
        used = max((place for place, cell in enumerate(row, start=1) if cell.strip()), default=0)
        if used > len(columns) or len(row) < fewest:
            number = max(used, min(len(row), len(columns)))
            faults.append((line, f"{number} cells for {len(columns)} columns"))
        else:
            cells.append((line, (*row, *[""] * len(columns))[: len(columns)]))
    return Table(columns, tuple(cells), tuple(faults))


def _rows(text: str, separator: str) -> Iterator[tuple[int, tuple[str, ...] | str]]:
    """Line and cells of each row that is not blank, or the reason why it is no row."""
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True)
    while True:
        line = reader.line_num + 1  # a quoted cell may hold line ends: a row begins after the last one's end
        try:
            row = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            yield line, str(error)
            continue
        if any(cell.strip() for cell in row):
            yield line, tuple(row)


def _separator(text: str, needed: Collection[str]) -> str:
    def fit(separator: str) -> int:
        _, header = next(_rows(text, separator), (0, ()))
        return -1 if isinstance(header, str) else _needed_in(header, needed)

    return max(_SEPARATORS, key=fit)


def _needed_in(header: Collection[str], needed: Collection[str]) -> int:
    return len({column_name(name) for name in header} & set(needed))
