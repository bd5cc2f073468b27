"""What the settings accept depends on the data set; what a data set does not read is refused with the one that does."""

import pytest

from pipeline.config.datasets import OPTIONS
from pipeline.config.experiment import digest_of, record_of, with_split
from pipeline.config.presets import load_config, validate_config
from pipeline.errors import ConfigError

CHANGED = {
    "data.images_root": "elsewhere",
    "data.allow_overlap": "true",
    "data.allow_partial": "true",
    "evaluation.draws": '["official"]',
    "evaluation.shots": "[1, 10]",
    "evaluation.trials": "3",
    "evaluation.rules": '{gallery = "one_per_person_camera"}',
}


def load(name: str, *changes: str):
    return load_config("cclnet-sysu", [f"data.name={name}", *changes])


@pytest.mark.parametrize("setting", CHANGED)
@pytest.mark.parametrize("options", OPTIONS, ids=lambda options: options.name)
def test_a_setting_that_a_data_set_does_not_read_is_refused(options, setting):
    change = f"{setting}={CHANGED[setting]}"
    if setting in options.settings:
        drawn = ["evaluation.rules.gallery=one_per_person_camera"] if setting == "evaluation.trials" else []
        load(options.name, change, *(drawn if "evaluation.rules" in options.settings else []))
        return
    with pytest.raises(ConfigError, match=rf"{setting} does not apply to data\.name = '{options.name}'") as caught:
        load(options.name, change)
    readers = [one.name for one in OPTIONS if setting in one.settings]
    assert f"but to {', '.join(readers)}" in caught.value.message


def test_every_setting_that_only_some_data_sets_read_is_tried_here():
    assert set(CHANGED) == {setting for options in OPTIONS for setting in options.settings}


def test_trials_of_a_full_gallery_are_refused():
    with pytest.raises(ConfigError, match="sampled galleries"):
        load("manifest", "evaluation.trials=3")


def test_a_value_that_is_the_usual_one_is_no_setting_of_the_user():
    config = load("regdb", "evaluation.trials=10", "evaluation.rules.gallery=full", "data.split=4")
    assert validate_config(record_of(config)) == config


@pytest.mark.parametrize(("search", "name"), [("sysu/val", "sysu"), ("sysu/outdoor", "sysu"), ("llcm/all", "llcm")])
def test_a_search_that_a_data_set_does_not_have_is_refused_when_the_settings_are_read(search, name):
    with pytest.raises(ConfigError, match=f"{search} is no search of"):
        load(name, f'evaluation.searches=["{search}"]')


def test_heads_that_cclnet_does_not_learn_are_refused():
    with pytest.raises(ConfigError, match="learns no 'projection_neck'"):
        load_config("cclnet-sysu", ['evaluation.heads=["neck", "projection_neck"]'])
    load_config("csdn-sysu", ['evaluation.heads=["neck", "projection_neck"]'])


@pytest.mark.parametrize(
    ("name", "given", "split"),
    [
        *(("sysu", None, "train_val"), ("sysu", "train", "train"), ("regdb", None, None), ("regdb", "7", 7)),
        *(("regdb", '"7"', 7), ("llcm", None, None), ("manifest", None, None)),
    ],
)
def test_a_data_set_has_a_usual_split_or_none(name, given, split):
    changes = [] if given is None else [f"data.split={given}"]
    assert load(name, *changes).data.split == split


@pytest.mark.parametrize(
    ("name", "split", "problem"),
    [
        ("sysu", "3", "sysu has no split 3; one of train_val, train"),
        ("regdb", "11", "regdb has no split 11; one of 1, 2"),
        ("regdb", "train", "regdb has no split 'train'"),
        ("llcm", "train_val", "it has one split only"),
        ("manifest", "1", "it has one split only"),
    ],
)
def test_a_split_of_another_data_set_is_refused(name, split, problem):
    with pytest.raises(ConfigError, match=problem):
        load(name, f"data.split={split}")


def test_the_old_name_of_regdbs_split_is_refused_with_the_new_one():
    with pytest.raises(ConfigError, match=r"data\.trial.*is called data\.split now"):
        load_config("cclnet-regdb", ["data.trial=1"])


def test_an_unknown_data_set_is_refused_with_the_known_ones():
    with pytest.raises(ConfigError, match="no data set 'market'; one of sysu, regdb, llcm, manifest"):
        load("market")


def test_every_split_has_a_digest_of_its_own():
    config = load("regdb")
    assert len({digest_of(with_split(config, split)) for split in (None, 1, 2)}) == 3


def test_the_place_of_captions_does_not_decide_which_run_it_is():
    base = digest_of(load_config("eees-sysu"))
    assert digest_of(load_config("eees-sysu", ["captions.path=elsewhere/captions.jsonl"])) == base
    assert digest_of(load_config("eees-sysu", ["captions.control=constant"])) != base
