"""Presets: what they inherit, how they are changed, and what their digest covers."""

from pathlib import Path

import pytest

from pipeline.config.experiment import digest_of
from pipeline.config.presets import load_config, preset_names
from pipeline.errors import ConfigError


@pytest.mark.parametrize("name", preset_names())
def test_every_preset_is_valid_and_carries_its_file_name(name: str) -> None:
    assert load_config(name).name == name


def test_the_published_preset_holds_the_values_of_the_released_code() -> None:
    config = load_config("cclnet-sysu")
    assert (config.stages.prepare_rounds, config.stages.clip_rounds, config.stages.carry_over) == (120, 120, False)
    assert config.labelling.visible == config.labelling.infrared
    assert (config.labelling.visible.k1, config.labelling.visible.k2, config.labelling.visible.eps) == (30, 6, 0.6)
    assert (config.swap.mode, config.swap.start, config.swap.scale) == ("released", 61, 0.1)
    assert (config.memory.temperature, config.memory.momentum) == (0.05, 0.1)
    assert config.optimisation.milestones == (30, 50)
    assert config.prompts.refresh_every is None


def test_a_preset_takes_from_its_parent_what_it_does_not_say(tmp_path: Path) -> None:
    own = tmp_path / "mine.toml"
    own.write_text('extends = "cclnet-sysu"\nname = "mine"\n[labelling.visible]\nk1 = 12\n')
    config = load_config(str(own))
    assert config.labelling.visible.k1 == 12
    assert config.labelling.visible.k2 == 6
    assert config.labelling.infrared.k1 == 30


def test_changes_are_toml_values_or_bare_words() -> None:
    changes = [
        "swap.mode=exchange",
        "seed=5",
        "prompts.refresh_every=3",
        "optimisation.milestones=[2, 4]",
        "data.root=/a b",
    ]
    config = load_config("smoke", changes)
    assert config.swap.mode == "exchange"
    assert (config.seed, config.prompts.refresh_every, config.optimisation.milestones) == (5, 3, (2, 4))
    assert config.data.root == Path("/a b")
    assert load_config("smoke", ["prompts.refresh_every=none"]).prompts.refresh_every is None


def test_every_wrong_key_is_named_at_once() -> None:
    with pytest.raises(ConfigError) as caught:
        load_config("smoke", ["swap.modus=off", "memory.momentum=1.5"])
    assert "swap.modus does not exist" in caught.value.message
    assert "memory.momentum" in caught.value.message


def test_a_value_cannot_be_entered_as_a_section() -> None:
    with pytest.raises(ConfigError, match="a value, not a section"):
        load_config("smoke", ["images.height.of=1"])


def test_a_file_that_is_no_toml_is_refused_with_the_place(tmp_path: Path) -> None:
    broken = tmp_path / "broken.toml"
    broken.write_text("seed = \n")
    with pytest.raises(ConfigError, match="not valid TOML"):
        load_config(str(broken))


def test_settings_that_contradict_each_other_are_refused() -> None:
    with pytest.raises(ConfigError, match="feature_source"):
        load_config("demo", ["prompts.refresh_every=5"])  # the demo carries weights over, whose start is not kept


def test_the_digest_covers_what_decides_the_result_and_nothing_else() -> None:
    base = load_config("smoke")
    same = ["execution.device=cpu", "execution.runs_folder=elsewhere", "data.root=/moved", "execution.tracking=false"]
    assert digest_of(load_config("smoke", same)) == digest_of(base)
    for change in ("seed=2", "swap.scale=0.2", "data.split=train", "images.height=128"):
        assert digest_of(load_config("smoke", [change])) != digest_of(base), change


@pytest.mark.parametrize(
    ("change", "value"),
    [
        ("evaluation.flip=none", "none"),  # a choice of its own
        ("evaluation.rules.exclude=none", "none"),  # likewise, though it may also be left open
        ('evaluation.flip="none"', "none"),
        ("prompts.refresh_every=none", None),  # a number or nothing
    ],
)
def test_the_word_none_is_a_choice_where_there_is_one_and_nothing_elsewhere(change: str, value: str | None) -> None:
    *path, last = change.partition("=")[0].split(".")
    branch: object = load_config("smoke", ["data.name=manifest", change])
    for name in path:
        branch = getattr(branch, name)
    assert getattr(branch, last) == value
