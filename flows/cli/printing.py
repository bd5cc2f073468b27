"""Results on stdout: tables, or one JSON value."""

import json
import shlex
import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import typer
from rich.console import Console
from rich.table import Table

from pipeline.console import plain_console

if TYPE_CHECKING:
    from pipeline.config.experiment import AnyConfig
    from pipeline.data.check import DatasetCheck
    from pipeline.evaluation.report import AverageReport, EvaluationReport, FeatureRecord, SearchReport


def stdout() -> Console:
    """The console of results; rows are not wrapped in a file or a pipe."""
    return plain_console(width=None if sys.stdout.isatty() else 180)


def printable(text: str) -> str:
    """A name with control characters and undecodable bytes escaped."""
    return "".join(sign if sign.isprintable() else sign.encode("unicode_escape").decode("ascii") for sign in text)


def print_line(text: str) -> None:
    """Print a line without wrapping or colours."""
    stdout().print(text, soft_wrap=True, highlight=False)


def print_note(text: str) -> None:
    """Print a line to stderr."""
    plain_console(stderr=True).print(text, soft_wrap=True, highlight=False)


def print_json(record: Mapping[str, Any]) -> None:
    """Print one JSON value on one line."""
    typer.echo(json.dumps(record))


def print_report(report: "EvaluationReport | None", as_json: bool) -> None:
    """Print the results of a run with their conditions and warnings."""
    if as_json:
        print_json({} if report is None else report.to_dict())
        return
    if report is None or not (report.searches or report.validation):
        stdout().print("not evaluated: the data set has no test images")
        return
    data, model = report.data, report.model
    marks = [word for word, true in (("partial", data.partial), ("overlap", data.overlap)) if true]
    notes = _notes(data.kind, model.weights, model.selection, report.features, model.seed)
    print_searches(f"retrieval ({', '.join([*notes, f'round {model.round}', *marks])})", report.searches)
    if report.validation:
        print_searches("validation, on held-out images", report.validation)
    if report.last is not None:
        print_searches(f"for comparison, the last round, {report.last.round}", report.last.searches)
    for warning in report.warnings:
        stdout().print(f"warning: {warning}")


def print_result(config: "AnyConfig", report: "EvaluationReport | None", as_json: bool) -> None:
    """The table of rounds and the result; without test images, the numbers that need no identities."""
    from pipeline.reports.quality import MEANING, quality_of
    from pipeline.reports.round_table import table
    from pipeline.runs.open import run_path
    from pipeline.storage.run_folder import RunFolder

    path = run_path(config)
    with RunFolder.reopen(path) as folder:
        rows, timings = folder.read_metrics(), folder.read_timings()
    quality = quality_of(rows[-1]) if rows else {}
    if not as_json:
        headline = report.searches[0].name if report is not None and report.searches else None
        seconds = [timing["seconds/total"] for timing in timings]
        stdout().print(table(rows, seconds, headline, f"{config.name}, seed {config.seed}"))
    if not quality or (report is not None and report.searches):
        print_report(report, as_json)
    elif as_json:
        print_json(({} if report is None else report.to_dict()) | {"quality": quality})
    else:
        stdout().print(quality_table(quality, f"no test images; quality without identities, round {rows[-1]['round']}"))
        print_line(MEANING)
        if report is not None:
            print_report(report, as_json)  # of validation images
    if quality:
        print_note(f"look at pairs and clusters: vireid look {shlex.quote(str(path))}")


def quality_table(quality: "Mapping[str, float]", title: str) -> Table:
    """The numbers of a round that need no identities, with their meaning."""
    from pipeline.reports.quality import SIGNS

    result = Table(title=title, title_justify="left", show_header=False)
    result.add_column(no_wrap=True)
    result.add_column(justify="right", no_wrap=True)
    result.add_column(overflow="fold")
    for sign in SIGNS:
        if text := sign.text(quality):
            result.add_row(sign.title, text, sign.meaning)
    return result


def print_average(average: "AverageReport") -> None:
    """Print the mean over one model of each split."""
    notes = _notes(average.kind, average.weights, average.selection, average.features, average.seed)
    splits = f"mean over one model of each of the splits {', '.join(map(str, average.splits))}"
    print_searches(f"retrieval ({', '.join([splits, *notes, *['partial'] * average.partial])})", average.searches)
    for warning in average.warnings:
        stdout().print(f"warning: {warning}")


def print_searches(title: str, searches: "Sequence[SearchReport]") -> None:
    """Print a row per search, in percent; re-ranked results are in separate columns."""
    reranked = {search.name: search for search in searches if search.rerank is not None}
    result = Table(title=title, title_justify="left")
    for column in ("search", "direction"):
        result.add_column(column, overflow="fold")
    numbers = ["Rank-1", "Rank-5", "Rank-10", "Rank-20", "mAP", "mINP"]
    if reranked:
        numbers += ["re-ranked Rank-1", "mAP"]
    for column in (*numbers, "queries", "gallery", "excluded", "trials"):
        result.add_column(column, justify="right")
    for search in searches:
        if search.rerank is None:
            result.add_row(*_cells(search, reranked))
    stdout().print(result)


def print_check(check: "DatasetCheck") -> None:
    """Print expected and found counts, the first offenders, and advice."""
    result = Table(title="complete" if check.passed else "not complete", title_justify="left")
    result.add_column("quantity", overflow="fold")
    for column in ("expected", "found", ""):
        result.add_column(column, justify="right")
    for row in check.rows:
        mark = "" if row.passed else f"{row.found - row.expected:+,}"
        result.add_row(row.name, f"{row.expected:,}", f"{row.found:,}", mark, style=None if row.passed else "bold red")
    console = stdout()
    console.print(result)
    for label, lines in (("first", check.offenders), ("note", check.notes)):
        for line in lines:
            console.print(f"{label}: {line}", highlight=False)
    for advice in dict.fromkeys(row.advice for row in check.failures if row.advice):
        console.print(f"to do: {advice}", highlight=False)


def _notes(kind: str, weights: str, selection: str, features: "FeatureRecord", seed: int) -> list[str]:
    return [
        f"{'synthetic' if kind == 'drawn' else kind} data",
        f"weights: {weights}",
        f"selection: {selection}",
        f"feature: {features.name}, flip {features.flip}",
        f"1 seed: {seed}",
    ]


def _cells(search: "SearchReport", reranked: "Mapping[str, SearchReport]") -> list[str]:
    mean = search.mean
    shares = [mean.r1, mean.r5, mean.r10, mean.r20, mean.map, mean.minp]
    again = reranked.get(f"{search.name}/k_reciprocal")
    if again is not None:
        shares += [again.mean.r1, again.mean.map]
    numbers = [f"{100 * share:.2f}" for share in shares]
    if reranked and again is None:
        numbers += ["", ""]
    counts = (f"{search.valid_queries:,} of {search.queries:,}", f"{search.gallery:,}", f"{search.hidden_pairs:,}")
    return [search.name, search.direction.replace("_", " "), *numbers, *counts, str(len(search.trials))]
