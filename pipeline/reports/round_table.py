"""The table of rounds: a line after each round on stderr, the whole table at the end of a run.

A line with the time before it has at most 100 columns.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rich import box
from rich.table import Table

Row = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class _Column:
    """`sign` is the metric without which a round has no such column; rounds that were not measured have blanks."""

    title: str
    width: int
    sign: str | None = None


_SCORES = "test/"
_COLUMNS = (
    _Column("round", 5),
    _Column("stage", 7),
    _Column("clusters", 8, "labels/visible/clusters"),
    _Column("outliers", 8, "labels/visible/outlier_share"),
    _Column("matched", 7, "labels/matched_share"),
    _Column("both", 7, "labels/two_modality_share"),
    _Column("pairs", 7, "labels/matched_share"),
    _Column("same", 4, "labels/matched_share"),
    _Column("1cam", 4, "labels/matched_share"),
    _Column("silh", 4, "labels/matched_share"),
    _Column("text", 4, "labels/agreement_with_text"),
    _Column("loss", 5),
    _Column("Rank-1", 6, _SCORES),
    _Column("mAP", 5, _SCORES),
    _Column("sec", 4),
)


def header(row: Row, search: str | None) -> str:
    """Column names of a round, aligned with `line`."""
    return " ".join(column.title.rjust(column.width) for column in _columns_of(row, search))


def line(row: Row, seconds: float, search: str | None) -> str:
    """One round as a line of aligned text."""
    cells = _cells(row, seconds, search)
    return " ".join(cells[column.title].rjust(column.width) for column in _columns_of(row, search))


def table(rows: Sequence[Row], seconds: Sequence[float], search: str | None, title: str) -> Table:
    """All rounds as a table, without empty columns."""
    lines = [_cells(row, spent, search) for row, spent in zip(rows, seconds, strict=True)]
    used = _used(lines)
    result = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, padding=0, pad_edge=False)
    for name in used:
        result.add_column(name, justify="right")
    for cells in lines:
        result.add_row(*(cells[name] for name in used))
    return result


def markdown(rows: Sequence[Row], seconds: Sequence[float], search: str | None) -> str:
    """The same table as Markdown."""
    lines = [_cells(row, spent, search) for row, spent in zip(rows, seconds, strict=True)]
    used = _used(lines)
    head = ["| " + " | ".join(used) + " |", "|" + "---:|" * len(used)]
    return "\n".join(head + ["| " + " | ".join(cells[name] for name in used) + " |" for cells in lines])


def _used(lines: Sequence[Mapping[str, str]]) -> list[str]:
    return [column.title for column in _COLUMNS if any(cells[column.title] for cells in lines)]


def _columns_of(row: Row, search: str | None) -> list[_Column]:
    def has(column: _Column) -> bool:
        if column.sign == _SCORES:
            return search is not None
        replaced = column.title == "matched" and "labels/two_modality_share" in row
        return column.sign is None or (column.sign in row and not replaced)

    return [column for column in _COLUMNS if has(column)]


def _cells(row: Row, seconds: float, search: str | None) -> dict[str, str]:
    def both(name: str, scale: float = 1.0) -> str:
        values = [row.get(f"labels/{modality}/{name}") for modality in ("visible", "infrared")]
        return "/".join(f"{scale * value:.0f}" for value in values if value is not None)

    def shares(name: str) -> str:
        known = [row[one] for one in (f"labels/{name}", "labels/mutual_share") if one in row]
        return "/".join(f"{100 * value:.0f}" for value in known) + "%" if f"labels/{name}" in row else ""

    def mean(name: str) -> float | None:
        values = [row.get(f"quality/{modality}/{name}") for modality in ("visible", "infrared")]
        known = [value for value in values if value is not None]
        return sum(known) / len(known) if known else None

    def percent(name: str) -> str:
        value = row.get(f"test/{search}/{name}")
        return "" if value is None else f"{100 * value:.2f}"

    outliers, one_camera = both("outlier_share", 100.0), mean("one_camera_share")
    joint, loss = "labels/two_modality_share" in row, row["train/loss/total"]
    return {
        "round": str(row["round"]),
        "stage": row["stage"],
        "clusters": both("clusters"),
        "outliers": f"{outliers}%" if outliers else "",
        "matched": "" if joint else shares("matched_share"),
        "both": shares("two_modality_share"),
        "pairs": _short(row.get("quality/pair_similarity")) + _short(row.get("quality/pair_margin"), "+"),
        "same": _short(mean("same_as_before")),
        "1cam": "" if one_camera is None else f"{one_camera:.0%}",
        "silh": _short(mean("silhouette")),
        "text": _short(row.get("labels/agreement_with_text")),
        "loss": format(loss, ".3f" if loss < 10 else ".2f"),
        "Rank-1": percent("r1"),
        "mAP": percent("map"),
        "sec": format(seconds, ".1f" if seconds < 100 else ".0f"),
    }


def _short(value: float | None, sign: str = "") -> str:
    """Two digits without the zero before the point.

    >>> _short(0.5), _short(-0.12), _short(0.08, "+"), _short(1.0)
    ('.50', '-.12', '+.08', '1.00')
    """
    return "" if value is None else format(value, f"{sign}.2f").replace("0.", ".", 1)
