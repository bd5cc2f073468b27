"""A manifest that is named with `--data` takes the place of a preset's published data set."""

from pathlib import Path

import pytest

from pipeline.config.presets import load_config, preset_names, values_for_data


@pytest.fixture
def table(tmp_path: Path) -> Path:
    path = tmp_path / "Gate [Süd] 2.csv"
    path.touch()
    return path


def test_every_preset_takes_a_manifest_and_the_run_has_the_name_of_its_site(table: Path) -> None:
    for preset in preset_names():
        config = load_config(preset, (), values_for_data(preset, table))
        assert (config.data.name, config.data.split, config.data.root) == ("manifest", None, table)
        method = preset.removesuffix("-sysu").removesuffix("-regdb").removesuffix("-llcm")
        assert config.name == f"{method}-gate--s-d--2"


def test_a_split_of_the_published_data_set_is_dropped(table: Path, tmp_path: Path) -> None:
    preset = tmp_path / "mine.toml"
    preset.write_text('extends = "plus-sysu"\nname = "mine"\n[data]\nsplit = "train"\n')
    config = load_config(str(preset), (), values_for_data(str(preset), table))
    assert (config.data.name, config.data.split, config.name) == ("manifest", None, "mine-gate--s-d--2")


def test_folders_and_explicit_data_sets_stay_as_they_are(table: Path, tmp_path: Path) -> None:
    assert values_for_data("smoke", None) == {}
    assert values_for_data("smoke", tmp_path) == {"data": {"root": tmp_path}}
    assert values_for_data("smoke", tmp_path / "absent.csv") == {"data": {"root": tmp_path / "absent.csv"}}
    assert values_for_data("smoke", table, ["data.name=manifest"]) == {"data": {"root": table}}


def test_a_name_of_the_user_and_long_names(table: Path) -> None:
    config = load_config("plus-sysu", ["name=mine"], values_for_data("plus-sysu", table))
    assert config.name == "mine"
    long = table.with_name(f"{'a' * 90}.tsv")
    long.touch()
    assert len(load_config("smoke", (), values_for_data("smoke", long)).name) == 64
