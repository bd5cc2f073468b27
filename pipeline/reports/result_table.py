"""A table of finished runs for a document: groups with mean and deviation; Markdown, CSV or LaTeX."""

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pipeline.config.datasets import OPTIONS
from pipeline.config.experiment import marks_of
from pipeline.errors import CheckpointError, ConfigError, DataError
from pipeline.evaluation.report import EvaluationReport, SearchReport, without_split
from pipeline.reports.groups import Group, Spread, group_runs
from pipeline.runtime import atomic_files as files
from pipeline.storage import layout as run_files
from pipeline.storage.run_reader import RecordedRun

TableFormat = Literal["md", "csv", "latex"]

_MEASURES = {"Rank-1": "r1", "Rank-10": "r10", "Rank-20": "r20", "mAP": "map", "mINP": "minp"}
_KINDS = {"licensed": "", "drawn": "synthetic images", "custom": "own images"}
_SELECTIONS = {
    "last": "the last round",
    "val": "the best round on validation images",
    "test_best": "the best round on the test set, which is optimistic",
}
_LATEX = {sign: f"\\{sign}" for sign in "&%$#_{}"} | {"\\": r"\textbackslash{}", "~": r"\~{}", "^": r"\^{}"}


@dataclass(frozen=True, slots=True)
class ResultRow:
    """A group of runs, and the mean and deviation of each measure."""

    label: str
    varied: str
    runs: tuple[Path, ...]
    values: tuple[Spread, ...]


@dataclass(frozen=True, slots=True)
class ResultTable:
    """Results of one search on one data set.

    Attributes:
        data: The data set, and what its images are unless they are those of the authors.
        draw: How galleries were sampled; None for a fixed gallery.
        selection: How the reported round was selected.
    """

    data: str
    search: str
    draw: str | None
    selection: str
    rows: tuple[ResultRow, ...]

    @property
    def caption(self) -> str:
        """What all numbers have in common, as one sentence."""
        draw = "" if self.draw is None else f", draw {self.draw}"
        several = any(value.deviation is not None for row in self.rows for value in row.values)
        spread = ", mean ± standard deviation over the runs of a row" if several else ""
        return f"{self.data}, search {self.search}{draw}, {_SELECTIONS[self.selection]}; percent{spread}."

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON types; numbers are fractions of 1."""
        rows = [
            {"label": row.label, "varied": row.varied, "runs": [str(path) for path in row.runs]}
            | {name: value.to_dict() for name, value in zip(_MEASURES.values(), row.values, strict=True)}
            for row in self.rows
        ]
        return {
            "data": self.data,
            "search": self.search,
            "draw": self.draw,
            "selection": self.selection,
            "caption": self.caption,
            "rows": rows,
        }


def result_table(runs: Sequence[RecordedRun], search: str | None = None) -> ResultTable:
    """The results of finished runs, a row for each group.

    Args:
        runs: Of one data set.
        search: A search that every run has measured, such as `sysu/indoor/1-shot/agw`; default: the headline search.

    Raises:
        ConfigError: No run, a run twice, runs of different data sets or selections, or an unknown search.
        CheckpointError: A run is not finished, or was not evaluated.
    """
    if not runs:
        raise ConfigError("no run for a table", hint="name at least one run; `vireid runs` lists them")
    reports = {run.path: _report(run) for run in runs}
    first = reports[runs[0].path]
    for run in runs[1:]:
        _refuse_other_conditions(runs[0], first, run, reports[run.path])
    name = search or _names(first)[0]
    groups = group_runs(runs)
    chosen = {run.path: _search(run, reports[run.path], name) for run in runs}
    for group in groups:
        _refuse_repetition(group)
    return ResultTable(
        data=_data(first, list(reports.values()), marks_of(runs[0].recorded)),
        search=name,
        draw=chosen[runs[0].path].draw,
        selection=first.model.selection,
        rows=tuple(_row(group, [chosen[run.path] for run in group.runs]) for group in groups),
    )


def formatted(table: ResultTable, form: TableFormat) -> str:
    """The table as text, which ends with a newline."""
    match form:
        case "md":
            return f"{table.caption}\n\n{_markdown_rows(('method', 'runs'), table.rows)}"
        case "csv":
            return _csv(table)
        case "latex":
            return _latex(table)


def report_markdown(report: EvaluationReport) -> str:
    """The result of one run as Markdown, with what its numbers depend on."""
    parts = []
    for title, searches in (("Test", report.searches), ("Validation, on held-out images", report.validation)):
        if searches:
            rows = [ResultRow(one.name, one.direction.replace("_", " "), (), _values([one])) for one in searches]
            parts.append(f"{title}:\n\n{_markdown_rows(('search', 'direction'), rows)}")
    conditions = f"{_data(report, [report])}, {_SELECTIONS[report.model.selection]} (round {report.model.round}), "
    conditions += f"weights {report.model.weights}, seed {report.model.seed}; percent."
    return "\n".join([conditions, "", *parts, *(f"\nWarning: {warning}" for warning in report.warnings)])


def _report(run: RecordedRun) -> EvaluationReport:
    """The evaluation of a finished run."""
    if run.state != "finished":
        raise CheckpointError(
            f"{run.path} has finished {len(run.rounds)} of {run.planned} rounds",
            hint="a table holds results of finished runs: finish it with its command, or omit it",
        )
    record = files.read_json(run.path / run_files.EVALUATION)
    try:
        report = None if record is None else EvaluationReport.from_dict(record)
    except DataError as error:
        raise CheckpointError(f"{run.path / run_files.EVALUATION}: {error.message}", hint=error.hint) from error
    if report is None or not report.searches:
        raise CheckpointError(f"{run.path} was not evaluated: its data set has no test images", hint="omit it")
    return report


def _data(first: EvaluationReport, reports: Sequence[EvaluationReport], others: Sequence[str] = ()) -> str:
    """The data set, and what its images are unless they are those of the authors; with other marks of the runs."""
    kind = _KINDS[first.data.kind]
    title = next((one.title for one in OPTIONS if one.title.lower() == first.data.name), first.data.name)
    marks = [kind] * bool(kind) + ["partial"] * any(one.data.partial for one in reports) + [*others]
    return f"{title} ({', '.join(marks)})" if marks else title


def _refuse_other_conditions(
    first: RecordedRun, one: EvaluationReport, run: RecordedRun, two: EvaluationReport
) -> None:
    def data(report: EvaluationReport) -> str:
        kind = _KINDS[report.data.kind]
        return f"{report.data.name} ({kind})" if kind else report.data.name

    hint = "make one table for each"
    if data(one) != data(two):
        raise ConfigError(
            f"runs of different data sets are not in one table: {first.path} is of {data(one)}, "
            f"{run.path} of {data(two)}",
            hint=hint,
        )
    if one.data.trial == two.data.trial and one.data.file_list != two.data.file_list:
        raise ConfigError(
            f"runs of different data sets are not in one table: {first.path} and {run.path} have other images of "
            f"{data(one)}",
            hint=hint,
        )
    if marks_of(first.recorded) != marks_of(run.recorded):
        marks = [", ".join(marks_of(of.recorded)) or "no mark" for of in (first, run)]
        raise ConfigError(f"{first.path} has {marks[0]}, {run.path} has {marks[1]}", hint=hint)
    if one.model.selection != two.model.selection:
        raise ConfigError(
            f"{first.path} reports {_SELECTIONS[one.model.selection]}, {run.path} {_SELECTIONS[two.model.selection]}",
            hint=hint,
        )


def _refuse_repetition(group: Group) -> None:
    seen: dict[tuple[int, Any], RecordedRun] = {}
    for run in group.runs:
        other = seen.setdefault((run.config.seed, run.config.data.split), run)
        if other is not run:
            raise ConfigError(f"{other.path} and {run.path} are the same run", hint="omit one of them")


def _names(report: EvaluationReport) -> list[str]:
    """Names of the searches, without the split."""
    return [_name(report, search) for search in report.searches]


def _name(report: EvaluationReport, search: SearchReport) -> str:
    return search.name if report.data.trial is None else without_split(search.name)


def _search(run: RecordedRun, report: EvaluationReport, name: str) -> SearchReport:
    for search in report.searches:
        if _name(report, search) == name:
            return search
    raise ConfigError(f"{run.path} has no search {name!r}", hint=f"its searches: {', '.join(_names(report))}")


def _row(group: Group, searches: Sequence[SearchReport]) -> ResultRow:
    return ResultRow(group.label, group.varied, tuple(run.path for run in group.runs), _values(searches))


def _values(searches: Sequence[SearchReport]) -> tuple[Spread, ...]:
    return tuple(Spread.of([getattr(search.mean, name) for search in searches]) for name in _MEASURES.values())


def _markdown_rows(heads: Sequence[str], rows: Sequence[ResultRow]) -> str:
    def line(cells: Sequence[str]) -> str:
        return "| " + " | ".join(cell.replace("|", r"\|") for cell in cells) + " |\n"

    head = line([*heads, *_MEASURES]) + "|" + "---|" * len(heads) + "---:|" * len(_MEASURES) + "\n"
    return head + "".join(line([row.label, row.varied, *(value.text() for value in row.values)]) for row in rows)


def _csv(table: ResultTable) -> str:
    """Percent; conditions are columns, since CSV has no caption."""
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    measures = [f"{name} {part}" for name in _MEASURES for part in ("mean", "deviation")]
    writer.writerow(["method", "runs", "number of runs", *measures, "data", "search", "draw", "selection"])
    for row in table.rows:
        numbers = [
            "" if number is None else f"{100 * number:.4f}"
            for value in row.values
            for number in (value.mean, value.deviation)
        ]
        conditions = [table.data, table.search, table.draw or "", table.selection]
        writer.writerow([row.label, row.varied, len(row.runs), *numbers, *conditions])
    return file.getvalue()


def _latex(table: ResultTable) -> str:
    """A floating table with a caption; needs the package booktabs."""
    plus_minus = r"$\pm$"
    lines = [r"\begin{table}", r"\centering", rf"\caption{{{_escaped(table.caption).replace('±', plus_minus)}}}"]
    lines += [rf"\begin{{tabular}}{{ll{'r' * len(_MEASURES)}}}", r"\toprule"]
    lines += [rf"{' & '.join(['method', 'runs', *_MEASURES])} \\", r"\midrule"]
    for row in table.rows:
        cells = [_escaped(row.label), _escaped(row.varied), *(value.text(plus_minus) for value in row.values)]
        lines.append(rf"{' & '.join(cells)} \\")
    lines += [r"\bottomrule", r"\end{tabular}", r"\end{table}"]
    return "\n".join(lines) + "\n"


def _escaped(text: str) -> str:
    return "".join(_LATEX.get(sign, sign) for sign in text)
