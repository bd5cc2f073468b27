"""Commands start fast: libraries that take seconds to import are imported by the commands that use them."""

import json
import subprocess
import sys
from pathlib import Path

from tests.pipeline.reports.recorded_runs import make_run, row

SLOW = ("torch", "mlflow", "prefect", "numba", "numpy", "pandas", "scipy", "sklearn", "matplotlib", "PIL", "networkx")


def run_alone(program: str, *arguments: str) -> str:
    command = [sys.executable, "-c", program, *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


SCRIPT = """
import contextlib, io, json, sys
from flows.cli.app import app
loaded = {}
for command in json.loads(sys.argv[1]):
    with contextlib.redirect_stdout(io.StringIO()) as out:
        app(command, standalone_mode=False)
    assert out.getvalue(), command
    loaded[" ".join(command)] = sorted(sys.modules.keys() & set(json.loads(sys.argv[2])))
print(json.dumps(loaded))
"""


def test_the_package_for_python_imports_nothing_slow() -> None:
    program = f"import sys, vireid; print(sorted(sys.modules.keys() & set({SLOW!r})))"
    assert run_alone(program) == "[]"


def test_help_and_the_list_of_runs_import_nothing_slow(tmp_path: Path) -> None:
    make_run(tmp_path / "done", [row(1, 0.5, 0.25), row(2, 0.375, 0.75)])
    verbs = ("train", "rank", "label", "compare", "embed", "search", "export", "caption", "runs", "data", "server")
    commands = [["--help"], *([verb, "--help"] for verb in verbs), ["runs", "--runs", str(tmp_path)]]
    commands += [["config", "show", "cclnet-sysu"], ["config", "list"], ["config", "explain", "swap.mode"]]
    loaded = run_alone(SCRIPT, json.dumps(commands), json.dumps(SLOW))
    assert set(map(tuple, json.loads(loaded).values())) == {()}, loaded


REFUSED = """
import json, sys
from flows.cli.app import app
from pipeline.errors import VireidError
for command in json.loads(sys.argv[1]):
    try:
        app(command, standalone_mode=False)
    except VireidError as error:
        print(json.dumps([error.message, sorted(sys.modules.keys() & {"torch", "mlflow", "prefect"})]))
"""


def test_wrong_inputs_are_named_before_torch_mlflow_and_prefect_are_imported(tmp_path: Path) -> None:
    done = make_run(tmp_path / "done", [row(1, 0.5, 0.25)], f"data.root={tmp_path / 'moved'}")
    text = tmp_path / "weights.txt"
    text.write_text("not weights")
    runs = ["--runs", str(tmp_path / "runs")]
    commands = {
        "there is no folder": ["train", "smoke", "--data", str(tmp_path / "nowhere"), *runs],
        "no data set is named": ["train", "smoke", *runs],
        "no weights at": ["train", "smoke", "--set", "model.weights=nowhere.pt", *runs],
        "cannot be read as weights": ["train", "smoke", "--set", f"model.weights={text}", *runs],
        "there is no preset": ["train", "smok", *runs],
        "holds no run": ["evaluate", str(tmp_path)],
        "was trained on": ["evaluate", str(done)],
    }
    lines = run_alone(REFUSED, json.dumps([*commands.values()])).splitlines()
    for expected, (message, loaded) in zip(commands, map(json.loads, lines), strict=True):
        assert expected in message and loaded == []
    assert not (tmp_path / "runs").exists()
