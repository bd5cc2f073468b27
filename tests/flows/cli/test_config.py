"""`vireid config`: presets and settings in words."""

import json

import pytest

from pipeline.config.presets import preset_names
from tests.flows.command_line import Call


def test_every_preset_is_listed(vireid: Call) -> None:
    code, out, _ = vireid("config", "list")
    assert code == 0
    assert [name for name in preset_names() if f" {name} " not in out] == []
    found = json.loads(vireid("config", "list", "--json")[1])["presets"]
    assert [one["preset"] for one in found] == preset_names()


def test_a_setting_is_explained(vireid: Call) -> None:
    code, out, _ = vireid("config", "explain", "labelling.visible.k1")
    assert code == 0
    assert "Size of an image's k-reciprocal neighbourhood" in out and "a whole number, at least 2" in out
    assert "a person has about 20 visible images" in out and "csdn" not in out
    assert "all presets have the default" in vireid("config", "explain", "data.deep_range")[1]
    explained = json.loads(vireid("config", "explain", "labelling.visible.k1", "--json")[1])
    assert explained["settings"]["cclnet"]["default"] == "30"


def test_a_section_or_nothing_explains_all_settings_in_it(vireid: Call) -> None:
    assert vireid("config", "explain", "swap")[1].startswith("swap.mode = ")
    everything = json.loads(vireid("config", "explain", "--json")[1])["settings"]
    keys = {one["key"] for one in everything}
    assert {"swap.mode", "losses.gap_weight", "execution.device"} <= keys


@pytest.mark.parametrize(
    ("arguments", "hint"),
    [
        (("show", "cclnet-sysy"), "did you mean cclnet-sysu?"),
        (("show", "smoke", "--set", "labelling.visble.eps=0.5"), "did you mean labelling.visible?"),
        (("show", "smoke", "--set", "k1_counts_slef=true", "--set", "sed=1"), "did you mean seed?"),
        (("show", "smoke", "--set", "data.name=sisu"), "did you mean sysu?"),
        (("show", "smoke", "--set", "method=clcnet"), "did you mean cclnet?"),
        (("explain", "swop.mode"), "did you mean swap.mode?"),
    ],
)
def test_a_name_that_is_almost_right_gives_the_right_one(vireid: Call, arguments: tuple[str, ...], hint: str) -> None:
    code, out, err = vireid("config", *arguments)
    assert (code, out) == (1, "")
    assert hint in err
