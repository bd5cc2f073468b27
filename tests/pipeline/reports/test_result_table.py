"""Tables of results: rows are groups of runs, and runs of other conditions are refused."""

import csv
import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from models.modality import Modality
from pipeline.errors import CheckpointError, ConfigError, VireidError
from pipeline.evaluation.protocol import RetrievalTrial, Search
from pipeline.evaluation.ranking import TrialMetrics
from pipeline.evaluation.report import DataRecord, EvaluationReport, FeatureRecord, ModelRecord, report_search
from pipeline.reports.groups import Spread, group_runs
from pipeline.reports.result_table import ResultTable, formatted, result_table
from pipeline.runtime.atomic_files import write_json
from pipeline.storage.run_reader import RecordedRun, read_run
from tests.pipeline.reports.recorded_runs import make_run, row

SMOKE = "smoke, stages.clip_rounds=0, stages.prepare_rounds=2"
"""The label of `make_run`, which shortens preset `smoke`."""

TWO = [row(1, 0.5, 0.25), row(2, 0.375, 0.75)]


def report(names: tuple[str, ...], r1: float, data: DataRecord, selection: Any) -> EvaluationReport:
    """Rank-1 to Rank-20 are `r1`, mAP is half of it, mINP a quarter."""

    def search(name: str) -> Any:
        trial = RetrievalTrial(
            Search(name, Modality.INFRARED, None, None, "image", "none"), 1, np.arange(10), np.arange(20)
        )
        return report_search([trial], [TrialMetrics(np.full(20, r1), r1 / 2, r1 / 4, 10, 10, 0, 0.1)])

    model = ModelRecord("run", 2, selection, "openai", "sha256:11", 1)
    return EvaluationReport(data, model, FeatureRecord("neck", 8, "none", 288, 144), tuple(map(search, names)))


def finished(
    path: Path,
    r1: float,
    *changes: str,
    kind: Any = "licensed",
    selection: Any = "last",
    files: str = "sha256:00",
    rows: Any = TWO,
) -> RecordedRun:
    """A run of preset `smoke` with an evaluation report."""
    run = read_run(make_run(path, rows, *changes))
    split = run.config.data.split if run.config.data.name == "regdb" else None
    prefix = run.config.data.name if split is None else f"regdb/split-{split}"
    name = "sysu-mm01" if run.config.data.name == "sysu" else run.config.data.name  # as reports name it
    data = DataRecord(name, kind, "train", split, False, False, files, 20, 10)  # type: ignore[arg-type]
    write_json(path / "evaluation.json", report((f"{prefix}/a", f"{prefix}/b"), r1, data, selection).to_dict())
    return run


def _with(change: str) -> str:
    """The label with a change whose name is the first of all."""
    return SMOKE.replace(",", f", {change},", 1)


def cells(table: ResultTable) -> list[list[str]]:
    return [[row.label, row.varied, *(value.text() for value in row.values)] for row in table.rows]


def test_runs_that_differ_in_seed_only_are_one_row_with_mean_and_deviation(tmp_path: Path) -> None:
    runs = [
        finished(tmp_path / "b1", 0.5, "swap.mode=off"),
        finished(tmp_path / "a2", 0.2, "seed=2", "execution.device=cpu"),
        finished(tmp_path / "a1", 0.4, "data.root=elsewhere"),
        finished(tmp_path / "a3", 0.9, "seed=3"),
    ]
    table = result_table(runs)
    assert cells(table) == [
        [f"{SMOKE}, swap.mode=off", "seeds 1", "50.00", "50.00", "50.00", "25.00", "12.50"],
        # (.2 + .4 + .9) / 3 = .5. Distances -.3 -.1 .4: squares .09 .01 .16 sum to .26, over 2: .13; its root is .3606.
        [
            SMOKE,
            "seeds 1-3",
            *["50.00 ± 36.06"] * 3,
            "25.00 ± 18.03",
            "12.50 ± 9.01",
        ],
    ]
    assert [path.name for path in table.rows[1].runs] == ["a1", "a2", "a3"]


def test_splits_of_regdb_are_one_row_under_the_published_name(tmp_path: Path) -> None:
    runs = [
        finished(tmp_path / str(split), split / 10, "data.name=regdb", f"data.split={split}", files=f"sha256:0{split}")
        for split in (1, 2, 3, 7)
    ]
    table = result_table(runs)
    assert (table.search, table.data) == ("regdb/a", "RegDB")
    assert [(row.label, row.varied) for row in table.rows] == [(_with("data.name=regdb"), "seeds 1, splits 1-3, 7")]
    assert table.rows[0].values[0].mean == pytest.approx(0.325)


def test_runs_of_other_people_of_sysu_are_rows_of_their_own(tmp_path: Path) -> None:
    runs = [finished(tmp_path / "a", 0.5), finished(tmp_path / "b", 0.5, "data.split=train")]
    assert [row.label for row in result_table(runs).rows] == [SMOKE, _with("data.split=train")]


def test_runs_of_no_preset_are_named_by_what_differs_between_them(tmp_path: Path) -> None:
    runs = [
        finished(tmp_path / f"{mode}{seed}", 0.5, "name=own", f"swap.mode={mode}", f"seed={seed}")
        for seed, mode in ((1, "off"), (2, "off"), (1, "exchange"))
    ]
    assert [row.label for row in result_table(runs).rows] == ["own, swap.mode=off", "own, swap.mode=exchange"]


def test_the_caption_names_data_search_and_selection_and_synthetic_images(tmp_path: Path) -> None:
    runs = [finished(tmp_path / str(seed), 0.5, f"seed={seed}", kind="drawn", selection="test_best") for seed in (1, 2)]
    assert result_table(runs, "sysu/b").caption == (
        "SYSU-MM01 (synthetic images), search sysu/b, the best round on the test set, which is optimistic; percent, "
        "mean ± standard deviation over the runs of a row."
    )
    assert "±" not in result_table(runs[:1]).caption


def refused(runs: list[RecordedRun], search: str | None = None) -> VireidError:
    with pytest.raises((ConfigError, CheckpointError)) as caught:
        result_table(runs, search)
    return caught.value


def test_runs_of_different_data_are_refused_by_name(tmp_path: Path) -> None:
    sysu = finished(tmp_path / "sysu", 0.5)
    llcm = finished(tmp_path / "llcm", 0.5, "data.name=llcm")
    assert f"{sysu.path} is of sysu-mm01, {llcm.path} of llcm" in refused([sysu, llcm]).message
    drawn = finished(tmp_path / "drawn", 0.5, "seed=2", kind="drawn")
    assert (
        f"{sysu.path} is of sysu-mm01, {drawn.path} of sysu-mm01 (synthetic images)" in refused([sysu, drawn]).message
    )
    fewer = finished(tmp_path / "fewer", 0.5, "seed=2", files="sha256:01")
    assert "other images of sysu-mm01" in refused([sysu, fewer]).message


def test_what_is_no_result_is_refused(tmp_path: Path) -> None:
    assert "no run" in refused([]).message
    one = finished(tmp_path / "one", 0.5)
    assert "1 of 2 rounds" in refused([finished(tmp_path / "open", 0.5, rows=TWO[:1])]).message
    assert "not evaluated" in refused([read_run(make_run(tmp_path / "bare", TWO))]).message
    assert "the same run" in refused([one, finished(tmp_path / "copy", 0.5)]).message
    assert "the best round" in refused([one, finished(tmp_path / "best", 0.5, "seed=2", selection="val")]).message
    unknown = refused([one], "sysu/c")
    assert "sysu/c" in unknown.message and "sysu/a, sysu/b" in unknown.hint


def test_three_formats_have_the_same_numbers(tmp_path: Path) -> None:
    table = result_table([finished(tmp_path / str(seed), seed / 4, f"seed={seed}") for seed in (1, 2)])
    assert formatted(table, "md").splitlines()[2:] == [
        "| method | runs | Rank-1 | Rank-10 | Rank-20 | mAP | mINP |",
        "|---|---|---:|---:|---:|---:|---:|",
        f"| {SMOKE} | seeds 1-2 | 37.50 ± 17.68 | 37.50 ± 17.68 | 37.50 ± 17.68 | 18.75 ± 8.84 | 9.38 ± 4.42 |",
    ]
    (line,) = csv.DictReader(io.StringIO(formatted(table, "csv")))
    assert (line["Rank-1 mean"], line["Rank-1 deviation"], line["number of runs"]) == ("37.5000", "17.6777", "2")
    assert (line["data"], line["search"], line["selection"]) == ("SYSU-MM01", "sysu/a", "last")
    latex = formatted(table, "latex").splitlines()
    assert r"prepare\_rounds=2 & seeds 1-2 & 37.50 $\pm$ 17.68 & 37.50 $\pm$ 17.68" in latex[7]
    assert latex[2].startswith(r"\caption{SYSU-MM01, search sysu/a") and "±" not in "".join(latex)


def test_signs_of_latex_are_escaped(tmp_path: Path) -> None:
    runs = [finished(tmp_path / "a", 0.5), finished(tmp_path / "b", 0.5, "model.weights=a_b%{c}\\d")]
    assert r"model.weights=a\_b\%\{c\}\textbackslash{}d" in formatted(result_table(runs), "latex")


def test_a_group_is_compared_after_the_last_round_that_all_of_its_runs_measured(tmp_path: Path) -> None:
    make_run(tmp_path / "a", TWO)
    make_run(tmp_path / "b", [row(1, 0.25, 0.5), row(2)], "seed=2")
    (group,) = group_runs([read_run(tmp_path / name) for name in ("a", "b")])
    assert group.scores() == (1, Spread.of([0.5, 0.25]), Spread.of([0.25, 0.5]))
    make_run(tmp_path / "c", [row(1)], "seed=3")
    (group,) = group_runs([read_run(tmp_path / name) for name in ("a", "b", "c")])
    assert group.scores() is None


def test_runs_with_a_mark_have_a_table_of_their_own(tmp_path: Path) -> None:
    plain = finished(tmp_path / "a", 0.5)
    marked = finished(tmp_path / "b", 0.5, "seed=2", "memory.cameras=proxies")
    assert f"{plain.path} has no mark, {marked.path} has cameras used" in refused([plain, marked]).message
    assert result_table([marked]).data == "SYSU-MM01 (cameras used)"
