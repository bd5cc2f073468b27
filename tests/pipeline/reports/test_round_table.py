"""The table of rounds, of a method with clusters and of one without."""

from rich.table import Table

from pipeline.reports.round_table import line, table

CLUSTERED = {
    "round": 1, "stage": "clip", "train/loss/total": 2.5, "labels/matched_share": 0.9,
    "labels/visible/clusters": 10.0, "labels/infrared/clusters": 8.0,
    "labels/visible/outlier_share": 0.05, "labels/infrared/outlier_share": 0.2,
    "test/sysu/all/r1": 0.5, "test/sysu/all/map": 0.4,
}  # fmt: skip
SUPERVISED = {"round": 1, "stage": "image", "train/loss/total": 2.5, "test/sysu/all/r1": 0.5, "test/sysu/all/map": 0.4}


def cells(shown: Table) -> dict[object, list[object]]:
    return {column.header: list(column.cells) for column in shown.columns}


def test_a_round_with_clusters_shows_those_of_both_modalities():
    assert cells(table([CLUSTERED], [3.0], "sysu/all", "run")) == {
        "round": ["1"], "stage": ["clip"], "clusters v/i": ["10/8"], "outliers v/i": ["5%/20%"], "matched": ["90%"],
        "loss": ["2.500"], "Rank-1": ["50.00"], "mAP": ["40.00"], "seconds": ["3.0"],
    }  # fmt: skip


def test_columns_that_no_round_fills_are_left_out():
    shown = cells(table([SUPERVISED], [3.0], "sysu/all", "run"))
    assert list(shown) == ["round", "stage", "loss", "Rank-1", "mAP", "seconds"]


def test_a_round_that_was_not_measured_is_blank_beside_one_that_was():
    earlier = {name: value for name, value in SUPERVISED.items() if not name.startswith("test/")}
    assert cells(table([earlier, SUPERVISED], [1.0, 2.0], "sysu/all", "run"))["mAP"] == ["", "40.00"]


def test_lines_of_both_methods_are_equally_long():
    assert len(line(CLUSTERED, 3.0, "sysu/all")) == len(line(SUPERVISED, 3.0, "sysu/all"))
