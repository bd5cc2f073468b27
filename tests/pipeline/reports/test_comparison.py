"""Runs side by side: exactly the settings that differ, and every number in its place."""

from pathlib import Path

import pytest

from pipeline.errors import CheckpointError, ConfigError
from pipeline.reports.comparison import Comparison, Difference, compare_runs
from pipeline.storage.run_reader import read_run
from tests.pipeline.reports.recorded_runs import HEADLINE, make_run, row


def compared(tmp_path: Path, *metrics: str) -> Comparison:
    """Two rounds of which one was measured, beside one round of another swap mode and eps."""
    make_run(tmp_path / "a", [row(1, loss=3.0), row(2, 0.5, 0.25, loss=2.0)])
    make_run(tmp_path / "b", [row(1, 0.125, 0.75)], "swap.mode=off", "labelling.visible.eps=0.5")
    return compare_runs([read_run(tmp_path / "a"), read_run(tmp_path / "b")], metrics)


def column(comparison: Comparison, title: str) -> list[list[float | None]]:
    (found,) = (one for one in comparison.columns if one.title == title)
    return [[comparison.value(found, place, number) for place in (0, 1)] for number in comparison.rounds]


def test_exactly_the_settings_that_differ_are_listed(tmp_path: Path) -> None:
    found = {one.setting: one.values for one in compared(tmp_path).differences}
    config = read_run(tmp_path / "a").config
    assert found == {
        "labelling.visible.eps": (config.labelling.visible.eps, 0.5),  # type: ignore[union-attr]
        "swap.mode": (config.swap.mode, "off"),  # type: ignore[union-attr]
    }


def test_a_setting_that_one_method_has_not_differs(tmp_path: Path) -> None:
    from pipeline.config.experiment import digest_of, record_of
    from pipeline.config.presets import load_config
    from pipeline.storage.run_folder import RunFolder

    config = load_config("csdn-demo")
    with RunFolder.open(tmp_path / "csdn", record_of(config), digest_of(config)) as folder:
        folder.write_metrics([row(1)])
    make_run(tmp_path / "cclnet", [row(1)])
    found = compare_runs([read_run(tmp_path / "csdn"), read_run(tmp_path / "cclnet")]).differences
    assert Difference("method", ("csdn", "cclnet")) in found
    assert next(one for one in found if one.setting == "swap.mode").values[0] is None


def test_one_run_differs_from_nothing(tmp_path: Path) -> None:
    one = compare_runs([read_run(make_run(tmp_path / "a", [row(1)]))])
    assert (one.differences, one.rounds) == ((), (1,))


def test_rounds_stand_side_by_side_and_what_is_not_there_is_left_open(tmp_path: Path) -> None:
    both = compared(tmp_path)
    assert both.rounds == (1, 2)
    assert column(both, "Rank-1") == [[None, 0.125], [0.5, None]]
    assert column(both, "mAP") == [[None, 0.75], [0.25, None]]
    assert column(both, "loss") == [[3.0, 1.0], [2.0, None]]
    assert column(both, "seconds") == [[2.5, 2.5], [2.5, None]]


def test_a_further_number_is_a_further_column(tmp_path: Path) -> None:
    both = compared(tmp_path, "test/sysu/indoor/1-shot/agw/r1", "test/sysu/indoor/1-shot/agw/r1")
    assert [one.title for one in both.columns][4:] == ["test/sysu/indoor/1-shot/agw/r1"]
    assert column(both, "test/sysu/indoor/1-shot/agw/r1") == [[None, 0.9], [0.9, None]]


def test_a_number_that_no_run_has_is_refused_with_one_that_there_is(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="train/loss/totl") as caught:
        compared(tmp_path, "train/loss/totl")
    assert "train/loss/total" in caught.value.hint
    with pytest.raises(ConfigError, match="'stage'"):  # it is no number
        compared(tmp_path, "stage")


def test_runs_of_different_data_are_each_shown_by_their_own_search(tmp_path: Path) -> None:
    make_run(tmp_path / "a", [row(1, 0.5, 0.25)])
    make_run(tmp_path / "b", [{"round": 1, "test/llcm/infrared_to_visible/1-shot/agw/r1": 0.75}])
    both = compare_runs([read_run(tmp_path / "a"), read_run(tmp_path / "b")])
    assert both.columns[0].names == (f"{HEADLINE}/r1", "test/llcm/infrared_to_visible/1-shot/agw/r1")
    assert column(both, "Rank-1") == [[0.5, 0.75]]


def test_nothing_and_a_run_without_a_round_cannot_be_compared(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no run to compare"):
        compare_runs([])
    with pytest.raises(CheckpointError, match="no finished round"):
        compare_runs([read_run(make_run(tmp_path / "a", []))])


def test_a_number_that_was_not_finite_is_left_open(tmp_path: Path) -> None:
    make_run(tmp_path / "a", [row(1, loss=float("nan"))])  # null on disk
    one = compare_runs([read_run(tmp_path / "a")])
    assert one.value(one.columns[2], 0, 1) is None
