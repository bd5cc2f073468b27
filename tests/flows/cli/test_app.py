"""The command line as a person meets it: results on stdout, one clear error with a hint, exit codes."""

import json
from pathlib import Path

import pytest

from flows.cli import app
from pipeline.config.presets import load_config
from tests.flows.command_line import Call, small


@pytest.mark.usefixtures("prefect_backend")
def test_train_then_evaluate_print_the_same_numbers(vireid: Call, smoke_data: Path, tmp_path: Path) -> None:
    code, out, _ = vireid("train", "smoke", *small(tmp_path, smoke_data), "--json")
    assert code == 0
    trained = json.loads(out)
    assert trained["data"]["kind"] == "drawn"
    (run,) = (path.parent for path in tmp_path.glob("*/checkpoint.pt"))
    code, out, _ = vireid("evaluate", str(run), "--device", "cpu", "--json")
    assert code == 0
    assert json.loads(out) == trained
    # Without --json: two tables on stdout, where the run lies on stderr.
    code, out, err = vireid("train", "smoke", *small(tmp_path, smoke_data))
    assert code == 0
    assert "clusters outliers" in " ".join(out.split()) and "sysu/indoor" in out
    assert f"run: {run}" in err


@pytest.mark.usefixtures("prefect_backend")
@pytest.mark.parametrize(
    ("change", "message", "hint"),
    [
        ("nothing.at=1", "nothing does not exist", "config show"),
        ("labelling.visible.eps=1.5", "labelling.visible.eps", "config show"),
        ("optimisation.at_swap=fixed", "fixed_swap_learning_rate", "config show"),
        ("swap.mode", "is not of the form section.key=value", "swap.mode=off"),
        ("execution.device=abacus", "'abacus' is not a device", "cpu"),
        ("model.weights=/nowhere/RN50.pt", "/nowhere/RN50.pt", "model.weights"),
        ("labelling.visible.min_samples=200", "no cluster among", "labelling.visible.eps"),
        ("optimisation.learning_rate=1e30", "not finite", "learning_rate"),
    ],
)
def test_a_wrong_setting_is_one_error_with_a_hint(
    vireid: Call, smoke_data: Path, tmp_path: Path, change: str, message: str, hint: str
) -> None:
    code, out, err = vireid("train", "smoke", *small(tmp_path, smoke_data), "--set", change)
    assert code == 1
    assert out == ""
    assert message in err.partition("hint:")[0]
    assert hint in err.partition("hint:")[2]
    assert "Traceback" not in err


def test_an_option_that_is_left_out_leaves_the_value_of_a_file(
    vireid: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = tmp_path / "mine.toml"
    own.write_text('extends = "smoke"\n[execution]\ndevice = "abacus"\nprocesses = 3\nruns_folder = "mine"\n')
    seen = []
    monkeypatch.setattr(app, "_run", lambda config, *_: seen.append(config.execution))
    assert vireid("train", str(own))[0] == 0
    monkeypatch.setenv("WORLD_SIZE", "8")  # of another launcher
    assert vireid("train", str(own))[0] == 0
    for name, value in {"TORCHELASTIC_RUN_ID": "none", "RANK": "0", "MASTER_PORT": "9"}.items():
        monkeypatch.setenv(name, value)  # torchrun has started eight ranks
    for name in ("LOCAL_RANK", "LOCAL_WORLD_SIZE"):
        monkeypatch.setenv(name, "0")
    assert vireid("train", str(own), "--device", "cpu", "--runs", "elsewhere")[0] == 0
    monkeypatch.setattr(app, "draw_demo_once", lambda: None)
    assert vireid("demo")[0] == 0
    left_out, other, given, demo = ((one.device, one.processes, str(one.runs_folder)) for one in seen)
    assert left_out == other == ("abacus", 3, "mine")
    assert given == ("cpu", 8, "elsewhere")
    assert demo == (load_config("demo").execution.device, 1, "runs")


@pytest.mark.usefixtures("prefect_backend")
def test_without_a_data_set_the_error_says_how_one_is_obtained(vireid: Call, tmp_path: Path) -> None:
    code, _, err = vireid("train", "cclnet-sysu", "--runs", str(tmp_path))
    assert code == 1
    assert "no data set is named" in err
    assert "DATA=" in err and "wuancong/SYSU-MM01" in err
    other = tmp_path / "other"
    other.mkdir()
    code, _, err = vireid("train", "cclnet-sysu", "--runs", str(tmp_path), "--data", str(other))
    assert code == 1 and "is empty" in err
    (other / "notes.txt").touch()
    code, _, err = vireid("train", "cclnet-sysu", "--runs", str(tmp_path), "--data", str(other))
    assert code == 1
    assert "cam1" in err and "wuancong/SYSU-MM01" in err
    assert list(tmp_path.iterdir()) == [other], "nothing is left behind"


@pytest.mark.parametrize(
    ("arguments", "message", "hint"),
    [
        (
            ("train", "csdn-sysu", "--method", "cclnet", "--dataset", "sysu"),
            "is of method csdn, not cclnet",
            "csdn-sysu",
        ),
        (
            ("train", "plus-llcm", "--method", "cclnet", "--dataset", "sysu"),
            "is of data set llcm, not sysu",
            "plus-llcm",
        ),
        (("demo", "--preset", "plus-regdb"), "is of data set regdb, not sysu", "plus-regdb"),
        (("demo", "--preset", "csdn-demo", "--method", "cclnet"), "is of method csdn, not cclnet", "csdn-demo"),
        (("demo", "--method", "plus"), "there is no method 'plus'", "cclnet"),
    ],
)
def test_a_preset_of_another_method_or_data_set_is_refused(
    vireid: Call, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...], message: str, hint: str
) -> None:
    monkeypatch.setattr(app, "_run", lambda *_: pytest.fail("it trains"))
    monkeypatch.setattr(app, "draw_demo_once", lambda: pytest.fail("it generates images"))
    code, out, err = vireid(*arguments)
    assert (code, out) == (1, "")
    assert message in err.partition("hint:")[0] and hint in err.partition("hint:")[2]


def test_a_preset_of_the_method_and_the_data_set_is_trained(vireid: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    monkeypatch.setattr(app, "_run", lambda config, *_: seen.append((config.name, str(config.data.root))))
    monkeypatch.setattr(app, "draw_demo_once", lambda: None)
    assert vireid("train", "plus-sysu", "--method", "cclnet", "--dataset", "sysu")[0] == 0
    assert vireid("demo", "--preset", "plus-demo")[0] == 0
    assert vireid("demo", "--preset", "eees-demo")[0] == 0
    assert seen == [("plus-sysu", "None"), ("plus-demo", "data/drawn-demo"), ("eees-demo", "data/drawn-demo")]


def test_an_unknown_preset_names_those_that_exist(vireid: Call) -> None:
    code, _, err = vireid("config", "show", "cclnet-mars")
    assert code == 1
    assert "cclnet-mars" in err and "cclnet-sysu" in err


def test_config_show_prints_every_value_and_the_digest(vireid: Call) -> None:
    code, out, _ = vireid("config", "show", "cclnet-sysu", "--set", "seed=7")
    assert code == 0
    shown = json.loads(out)
    assert shown["seed"] == 7
    assert shown["labelling"]["visible"]["k1"] == 30
    assert len(shown["digest"]) == 12


def test_evaluating_a_folder_without_a_run_says_so(vireid: Call, tmp_path: Path, prefect_backend: None) -> None:
    code, _, err = vireid("evaluate", str(tmp_path))
    assert code == 1
    assert "holds no run" in err
