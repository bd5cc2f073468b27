"""The table of rounds: a line after each round on stderr, the whole table at the end of a run."""

from collections.abc import Mapping, Sequence
from typing import Any

from rich.table import Table

_COLUMNS = ("round", "stage", "clusters v/i", "outliers v/i", "matched", "loss", "Rank-1", "mAP", "seconds")
_WIDTHS = (5, 8, 12, 12, 7, 7, 6, 6, 7)


def header() -> str:
    """Column names, aligned with `line`."""
    return "  ".join(name.rjust(width) for name, width in zip(_COLUMNS, _WIDTHS, strict=True))


def line(row: Mapping[str, Any], seconds: float, search: str | None) -> str:
    """One round as a line of aligned text."""
    return "  ".join(cell.rjust(width) for cell, width in zip(_cells(row, seconds, search), _WIDTHS, strict=True))


def table(rows: Sequence[Mapping[str, Any]], seconds: Sequence[float], search: str | None, title: str) -> Table:
    """All rounds as a table, without empty columns."""
    lines = [_cells(row, spent, search) for row, spent in zip(rows, seconds, strict=True)]
    used = _used(lines)
    result = Table(title=title, title_justify="left")
    for column in used:
        result.add_column(_COLUMNS[column], justify="right")
    for cells in lines:
        result.add_row(*(cells[column] for column in used))
    return result


def markdown(rows: Sequence[Mapping[str, Any]], seconds: Sequence[float], search: str | None) -> str:
    """The same table as Markdown."""
    lines = [_cells(row, spent, search) for row, spent in zip(rows, seconds, strict=True)]
    used = _used(lines)
    head = ["| " + " | ".join(_COLUMNS[column] for column in used) + " |", "|" + "---:|" * len(used)]
    return "\n".join(head + ["| " + " | ".join(cells[column] for column in used) + " |" for cells in lines])


def _used(lines: Sequence[tuple[str, ...]]) -> list[int]:
    return [column for column in range(len(_COLUMNS)) if any(cells[column] for cells in lines)]


def _cells(row: Mapping[str, Any], seconds: float, search: str | None) -> tuple[str, ...]:
    def pair(name: str, form: str) -> str:
        values = [row.get(f"labels/{modality}/{name}") for modality in ("visible", "infrared")]
        return "/".join(format(value, form) for value in values if value is not None)

    def percent(name: str) -> str:
        value = row.get(f"test/{search}/{name}")
        return "" if value is None else f"{100 * value:.2f}"

    return (
        str(row["round"]),
        row["stage"],
        pair("clusters", ".0f"),
        pair("outlier_share", ".0%"),
        format(row["labels/matched_share"], ".0%") if "labels/matched_share" in row else "",
        format(row["train/loss/total"], ".3f"),
        percent("r1"),
        percent("map"),
        format(seconds, ".1f"),
    )
