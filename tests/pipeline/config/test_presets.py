"""Presets: what they inherit, how they are changed, and what their digest covers."""

from pathlib import Path

import pytest

from pipeline.config.cclnet import CclnetConfig
from pipeline.config.experiment import differences, digest_of, flat, record_of
from pipeline.config.presets import changes_from_preset, load_config, preset_names, validate_config
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


def test_presets_of_a_bundle_differ_from_their_methods_in_the_same_switches() -> None:
    def changes(data: str) -> dict[str, object]:
        base = dict(flat(record_of(load_config("demo" if data == "demo" else f"cclnet-{data}"))))
        return {
            name: value
            for name, value in flat(record_of(load_config(f"plus-{data}")))
            if value != base[name] and name not in ("name", "loss.start")
        }

    light_text = {"prompts.text_weight": 0.3}  # which `demo` has already
    assert load_config("plus-demo").prompts.text_weight == 0.3
    assert changes("demo") | light_text == changes("sysu") == changes("regdb") == changes("llcm") != light_text


@pytest.mark.parametrize("bundle", ["plus-demo", "plus-sysu", "plus-regdb", "plus-llcm"])
def test_contrast_across_modalities_begins_after_the_warm_up(bundle: str) -> None:
    plus = load_config(bundle)
    assert isinstance(plus, CclnetConfig)
    assert plus.loss.start == plus.optimisation.warmup_rounds + 1
    assert plus.swap.mode == "off"


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


def test_a_setting_that_was_renamed_is_refused_by_its_new_name():
    with pytest.raises(ConfigError, match=r"swap\.min_similarity is called matching\.floor now"):
        load_config("smoke", ["swap.min_similarity=0.2"])


def test_a_value_cannot_be_entered_as_a_section() -> None:
    with pytest.raises(ConfigError, match="a value, not a section"):
        load_config("smoke", ["images.height.of=1"])


@pytest.mark.parametrize(
    ("preset", "changes", "message"),
    [
        ("demo", ["prompts.refresh_every=5"], "feature_source"),  # the demo carries weights over: their start is gone
        ("smoke", ["labelling.visible.k2=40", "labelling.visible.k1=30"], "labelling.visible: k2 is 40, more than k1"),
        ("cclnet-sysu", ['evaluation.draws=["official"]', "evaluation.trials=11"], "evaluation.trials is 11"),
        ("smoke", ["method=cdsn"], "there is no method 'cdsn'"),
        ("smoke", ["method=[1]"], "there is no method"),
    ],
)
def test_settings_that_contradict_each_other_are_refused(preset: str, changes: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load_config(preset, changes)


def test_a_file_extends_one_beside_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "presets" / "more"
    folder.mkdir(parents=True)
    (folder.parent / "base.toml").write_text('extends = "smoke"\nseed = 3\n')
    (folder / "mine.toml").write_text('extends = "../base.toml"\nname = "mine"\n')
    monkeypatch.chdir(tmp_path)
    config = load_config("presets/more/mine.toml")
    assert (config.name, config.seed) == ("mine", 3)


def test_a_circle_of_presets_is_refused(tmp_path: Path) -> None:
    (tmp_path / "one.toml").write_text('extends = "one.toml"\n')
    (tmp_path / "two.toml").write_text('extends = "three.toml"\n')
    (tmp_path / "three.toml").write_text(f'extends = "{tmp_path}/../{tmp_path.name}/two.toml"\n')
    for name in ("one.toml", "two.toml"):
        with pytest.raises(ConfigError, match=f"{name} extends itself"):
            load_config(str(tmp_path / name))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"seed = \n", "not valid TOML"),
        (b"seed = 2\nname = '\xff'\n", "mine.toml:2: not UTF-8: byte 0xff"),
        (b"seed = " + b"9" * 5000, "not valid TOML: a number has more than 4,300 digits"),
        (b"a = " + b"[" * 5000, "not valid TOML: brackets are nested too deeply"),
        (b'extends = "smoke"\nseed = ' + b"9" * 30, "seed has more than 64 bits"),
        (b'extends = "smoke"\n[' + b".".join([b"a"] * 3000) + b"]\n", "not a section"),
        (b'extends = "smoke"\ndata = 3\n', "data is a section, not a value"),
        (b'extends = "smoke"\nmodel.weights.a = 3\n', "model.weights is a value, not a section"),
        (b"extends = 3\n", "extends is 3, not a string"),
        (b'extends = ["smoke"]\n', "not a string"),
        (b'extends = "smok"\n', "there is no preset 'smok'"),
        (b'extends = "../presets/smoke"\n', "there is no preset"),
        (b'extends = "gone.toml"\n', "there is no preset .*gone.toml"),
        (b'extends = "' + b"x" * 5000 + b'.toml"\n', "cannot be read"),
        (b'extends = "\\u0000.toml"\n', "cannot be read"),
        (b'extends = "smoke"\nstages.prepare_rounds = 1000000000000\n', "stages.prepare_rounds"),
        (b'extends = "smoke"\nname = 2024-01-01\n', "name: "),
        (b'extends = "smoke"\nexecution.runs_folder = "a\\u0000b"\n', "execution.runs_folder: a path contains no NUL"),
    ],
)
def test_any_content_of_a_file_gives_one_clear_error(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "mine.toml").write_bytes(content)
    with pytest.raises(ConfigError, match=message) as caught:
        load_config(str(tmp_path / "mine.toml"))
    assert caught.value.hint


def test_a_folder_is_no_preset(tmp_path: Path) -> None:
    (tmp_path / "mine.toml").mkdir()
    with pytest.raises(ConfigError, match="cannot be read"):
        load_config(str(tmp_path / "mine.toml"))


@pytest.mark.parametrize(
    "key", ["", ".", "seed", "data", "data.root", "seed.a", "a" + ".a" * 3000, "labelling.visible.k1"]
)
@pytest.mark.parametrize(
    "value", ["", "[", "[" * 5000, "9" * 5000, "9" * 30, "1\nname = 2", "{a = 1}", "\x00", "2024-01-01"]
)
def test_any_override_is_a_setting_or_one_clear_error(key: str, value: str) -> None:
    try:
        config = load_config("smoke", [f"{key}={value}"])
    except ConfigError:
        return
    assert key == "data.root" and str(config.data.root) == str(Path(value))


def test_the_digest_covers_what_decides_the_result_and_nothing_else() -> None:
    base = load_config("smoke")
    same = ["execution.device=cpu", "execution.runs_folder=elsewhere", "data.root=/moved", "execution.tracking=false"]
    assert digest_of(load_config("smoke", same)) == digest_of(base)
    for change in ("seed=2", "swap.scale=0.2", "data.split=train", "images.height=128"):
        assert digest_of(load_config("smoke", [change])) != digest_of(base), change


@pytest.mark.parametrize(("preset", "digest"), [("smoke", "9dec44a58f6b"), ("eees-demo", "885e334672a0")])
def test_a_setting_added_later_does_not_count_at_its_default(preset: str, digest: str) -> None:
    """Digests of the version before these settings: its runs can be resumed."""
    assert digest_of(load_config(preset)) == digest
    assert digest_of(load_config(preset, ["data.deep_range=image", "data.orientation=none"])) == digest
    for change in ("data.orientation=apply", "data.orientation=ignore", "data.deep_range=[0, 65535]"):
        assert digest_of(load_config(preset, [change])) != digest, change


def test_a_run_of_before_differs_in_no_setting_that_it_lacks() -> None:
    now = record_of(load_config("smoke"))
    data = {name: value for name, value in now["data"].items() if name not in ("deep_range", "orientation")}
    assert differences({**now, "data": data}, now) == ""
    assert validate_config({**now, "data": data}) == load_config("smoke")


def test_a_range_of_deep_images_ascends() -> None:
    assert load_config("smoke", ["data.deep_range=[28000, 31000.5]"]).data.deep_range == (28_000, 31_000.5)
    for wrong in ("[3, 3]", "[4, 3]", "[1]", "[0, inf]", "both"):
        with pytest.raises(ConfigError, match=r"data\.deep_range"):
            load_config("smoke", [f"data.deep_range={wrong}"])


@pytest.mark.parametrize("preset", ["smoke", "csdn-demo", "eees-demo"])
def test_the_number_of_ranks_decides_the_result_only_where_each_normalises_its_own_share(preset: str) -> None:
    def digest(batch_norm: str, processes: int) -> str:
        changes = [f"batches.batch_norm={batch_norm}", f"execution.processes={processes}"]
        return digest_of(load_config(preset, changes))

    assert digest("synchronised", 2) == digest("synchronised", 1)
    assert len({digest("local", processes) for processes in (1, 2, 4)}) == 3


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


def test_the_home_folder_is_replaced_in_every_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "base.toml").write_text('extends = "eees-demo"\ncaptions.path = "~/c.jsonl"\ndata.root = "~/people"\n')
    (tmp_path / "mine.TOML").write_bytes('extends = "~/base.toml"\n# réglages\n'.encode("utf-8-sig"))
    changes = ["execution.runs_folder=~/runs", "model.weights=~/RN50.pt"]
    config = load_config("~/mine.TOML", changes)
    assert config.captions.path == tmp_path / "c.jsonl"
    assert config.data.root == tmp_path / "people"
    manifest = load_config("smoke", ["data.name=manifest", "data.images_root=~/images"])
    assert manifest.data.images_root == tmp_path / "images"
    assert config.execution.runs_folder == tmp_path / "runs"
    assert config.model.weights == f"{tmp_path}/RN50.pt"
    plain = load_config("~/base.toml", [f"model.weights={tmp_path}/RN50.pt"])
    assert digest_of(config) == digest_of(plain)
    assert load_config("smoke", ["data.root=a~b/~"]).data.root == Path("a~b/~")


def test_a_preset_saved_as_utf_16_is_read(tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_bytes('extends = "smoke"\n# é\nseed = 3\n'.encode("utf-16"))
    assert load_config(str(tmp_path / "mine.toml")).seed == 3


def test_a_long_name_is_cut_in_the_message() -> None:
    with pytest.raises(ConfigError) as caught:
        load_config("x" * 5000)
    assert len(caught.value.message) < 300


def test_a_file_without_its_ending_is_named(tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text('extends = "smoke"\n')
    with pytest.raises(ConfigError, match="there is no preset") as caught:
        load_config(str(tmp_path / "mine"))
    assert "mine.toml is a file: name it with its ending" in caught.value.hint


def test_settings_that_differ_from_the_preset_are_those_that_change_a_result() -> None:
    changes = ("swap.mode=off", "seed=2", "data.root=somewhere", "execution.device=cpu")
    assert changes_from_preset(load_config("demo")) == {}
    assert changes_from_preset(load_config("demo", changes)) == {"swap.mode": "off"}
    assert changes_from_preset(load_config("demo", ("name=mine",))) is None
