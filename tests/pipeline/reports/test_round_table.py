"""The table of rounds, of a method with clusters and of one without."""

import io

import pytest
from rich.console import Console
from rich.table import Table

from pipeline.reports.round_table import header, line, table

CLUSTERED = {
    "round": 240, "stage": "prepare", "train/loss/total": 12.5,
    "labels/matched_share": 0.996, "labels/mutual_share": 0.99,
    "labels/visible/clusters": 616.0, "labels/infrared/clusters": 500.0,
    "labels/visible/outlier_share": 0.95, "labels/infrared/outlier_share": 1.0,
    "quality/pair_similarity": 0.62, "quality/pair_margin": -0.05,
    "quality/visible/same_as_before": 0.5, "quality/infrared/same_as_before": 0.75,
    "quality/visible/one_camera_share": 0.0, "quality/infrared/one_camera_share": 0.125,
    "quality/visible/silhouette": -0.25, "quality/infrared/silhouette": 0.0,
    "test/sysu/all/r1": 0.5, "test/sysu/all/map": 0.4,
}  # fmt: skip
SUPERVISED = {"round": 1, "stage": "image", "train/loss/total": 2.5, "test/sysu/all/r1": 0.5, "test/sysu/all/map": 0.4}
EVERYTHING = CLUSTERED | {"labels/agreement_with_text": 0.875, "labels/two_modality_share": 0.3}
CLOCK = "23:59:59 "


def cells(shown: Table) -> dict[object, list[object]]:
    return {column.header: list(column.cells) for column in shown.columns}


def test_a_round_with_clusters_shows_those_of_both_modalities_and_signs_of_their_quality():
    assert cells(table([CLUSTERED], [3.0], "sysu/all", "run")) == {
        "round": ["240"], "stage": ["prepare"], "clusters": ["616/500"], "outliers": ["95/100%"],
        "matched": ["100/99%"], "pairs": [".62-.05"], "same": [".62"], "1cam": ["6%"], "silh": ["-.12"],
        "loss": ["12.50"], "Rank-1": ["50.00"], "mAP": ["40.00"], "sec": ["3.0"],
    }  # fmt: skip


def test_a_joint_clustering_shows_the_share_of_clusters_with_both_modalities_in_place_of_matched_ones():
    shown = cells(table([EVERYTHING], [3.0], "sysu/all", "run"))
    assert (shown["both"], shown["text"]) == (["30/99%"], [".88"])
    assert "matched" not in shown


@pytest.mark.parametrize("row", [CLUSTERED, EVERYTHING, SUPERVISED])
def test_a_line_lies_below_its_heading_and_fits_a_terminal_of_100_columns(row):
    heading, text = header(row, "sysu/all"), line(row, 3.0, "sysu/all")
    assert len(heading) <= 100 - len(CLOCK)
    assert heading.split()[-2:] == ["mAP", "sec"] and text.split()[-2:] == ["40.00", "3.0"]
    assert len(text) == len(heading)


def test_the_table_of_all_rounds_fits_as_well():
    console = Console(width=100, record=True, file=io.StringIO())
    console.print(table([EVERYTHING, SUPERVISED | {"round": 2}], [3.0, 1234.5], "sysu/all", "run"))
    shown = console.export_text().splitlines()
    assert max(map(len, shown)) <= 100
    assert [text.split()[-1] for text in shown if "40.00" in text] == ["3.0", "1234"]


def test_a_search_of_validation_images_or_none_leaves_the_scores_out():
    assert header(CLUSTERED, None).split()[-2:] == ["loss", "sec"]


def test_columns_that_no_round_fills_are_left_out():
    shown = cells(table([SUPERVISED], [3.0], "sysu/all", "run"))
    assert list(shown) == ["round", "stage", "loss", "Rank-1", "mAP", "sec"]


def test_a_round_that_was_not_measured_is_blank_beside_one_that_was():
    earlier = {name: value for name, value in SUPERVISED.items() if not name.startswith("test/")}
    assert cells(table([earlier, SUPERVISED], [1.0, 2.0], "sysu/all", "run"))["mAP"] == ["", "40.00"]
