"""What is written about settings: sentences, ranges, origins, and the page made of them."""

import tomllib

import pytest

from pipeline.config.experiment import CONFIGS, flat, record_of
from pipeline.config.explain import comments, explain, origins, settings_below, settings_of, summaries
from pipeline.config.presets import load_config, preset_names, preset_text
from pipeline.config.settings_page import FILE, settings_page
from pipeline.errors import ConfigError


def test_the_page_is_what_settings_and_presets_make() -> None:
    """After a change of either: `python -m pipeline.config.settings_page`."""
    assert FILE.read_text(encoding="utf-8") == settings_page()


@pytest.mark.parametrize("config", CONFIGS, ids=lambda config: config.title)
def test_every_setting_has_a_sentence_a_default_and_a_range(config: type) -> None:
    settings = settings_of(config)
    of_method = next(load_config(name) for name in preset_names() if isinstance(load_config(name), config))
    assert set(settings) == {name for name, _ in flat(record_of(of_method))}
    assert [one.key for one in settings.values() if not (one.meaning.endswith(".") and one.accepted)] == []
    assert [one.key for one in settings.values() if one.default == "required"] == ["name"]


@pytest.mark.parametrize("name", preset_names())
def test_every_value_of_a_presets_file_has_a_comment(name: str) -> None:
    written = {key for key, _ in flat(tomllib.loads(preset_text(name)))} - {"extends"}
    found = comments(preset_text(name))
    assert set(found) == written
    assert [key for key, comment in found.items() if not comment] == []


def test_the_comment_beside_a_value_is_its_origin_and_the_head_of_the_file_that_of_the_others() -> None:
    text = '# Ours.\n# For tests.\nextends = "x"\n[a.b]\none = "#1"  # from a paper\ntwo = [1, 2]\nthree = 4  #five\n'
    assert comments(text) == {"a.b.one": "from a paper", "a.b.two": "Ours. For tests.", "a.b.three": "five"}


def test_a_value_has_the_origin_of_the_last_preset_that_sets_it() -> None:
    of_demo = origins("plus-demo")
    assert of_demo["labelling.visible.k1"] == ("demo", "a person has about 20 visible images")
    assert of_demo["labelling.visible.k2"] == ("cclnet-sysu", "released code")
    assert of_demo["loss.start"][0] == "plus-demo"


def test_a_setting_is_explained_with_its_value_in_every_preset_of_its_methods() -> None:
    found = explain("labelling.visible.eps")
    (setting,) = found.settings.values()
    assert (setting.default, setting.accepted) == ("0.6", "a number, above 0, below 1")
    values = {one.preset: (one.value, one.source) for one in found.presets}
    assert values["cclnet-regdb"] == ("0.6", "cclnet-sysu") and values["demo"] == ("0.5", "demo")
    assert "csdn-sysu" not in values
    assert len(explain("data.root").presets) == len(preset_names())


def test_methods_may_differ_in_a_setting_of_one_name() -> None:
    found = explain("prompts.batch_size").settings
    assert found["cclnet"].default == "128" != found["csdn"].default


def test_a_section_has_its_settings_and_an_unknown_key_the_most_similar_ones() -> None:
    assert list(settings_below("swap")) == ["swap.mode", "swap.trigger", "swap.start", "swap.scale", "swap.every"]
    assert settings_below("swap.mode") == {}
    for wrong, right in (("labelling.visble.eps", "labelling.visible.eps?"), ("floor", "matching.floor?")):
        with pytest.raises(ConfigError) as refused:
            explain(wrong)
        assert f"did you mean {right}" in refused.value.hint


def test_presets_are_listed_with_the_first_sentence_of_their_files() -> None:
    found = {one.preset: one for one in summaries()}
    assert list(found) == preset_names()
    assert (found["cclnet-regdb"].data, found["cclnet-regdb"].extends) == ("regdb", "cclnet-sysu")
    assert found["cclnet-llcm"].purpose == "CCLNet on LLCM."
