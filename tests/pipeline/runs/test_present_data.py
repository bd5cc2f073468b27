"""A run is measured on its images, wherever they are now."""

from pathlib import Path

import pytest

from pipeline.config.presets import load_config
from pipeline.config.shared import DataConfig
from pipeline.errors import DataError
from pipeline.runs.inputs import evaluation_on, present_data


def test_recorded_folders_that_moved_are_named_with_their_options(tmp_path: Path) -> None:
    gone, table = tmp_path / "gone", tmp_path / "site.csv"
    table.touch()
    with pytest.raises(DataError, match=f"R was trained on {gone}, which is not there: there is no") as caught:
        present_data(Path("R"), DataConfig(root=gone), None, None)
    assert caught.value.hint == "name the data set with --data"
    recorded = DataConfig(name="manifest", root=table, images_root=gone)
    with pytest.raises(DataError, match=f"R was trained on {gone}, which is not there") as caught:
        present_data(Path("R"), recorded, None, None)
    assert "with --root" in caught.value.hint
    assert present_data(Path("R"), recorded, None, tmp_path).images_root == tmp_path
    assert present_data(Path("R"), DataConfig(root=gone), tmp_path, None).root == tmp_path


def test_a_given_folder_that_is_not_there_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "People").mkdir()
    with pytest.raises(DataError, match="there is no file or folder people; 'People' is there"):
        present_data(Path("R"), DataConfig(root=tmp_path), Path("people"), None)


def test_a_manifest_takes_the_place_of_a_published_data_set(tmp_path: Path) -> None:
    table = tmp_path / "site.csv"
    table.touch()
    recorded = DataConfig(root=tmp_path, split="train", allow_partial=True, deep_range=(1.0, 2.0), unreadable="skip")
    now = present_data(Path("R"), recorded, table, None)
    assert now == DataConfig(name="manifest", root=table, deep_range=(1.0, 2.0), unreadable="skip")
    config = load_config("cclnet-sysu", ["evaluation.searches=['sysu/indoor']", "evaluation.shots=[10]"])
    assert evaluation_on(config.data, config) == config.evaluation
    assert evaluation_on(now, config) == load_config("cclnet-sysu").evaluation
