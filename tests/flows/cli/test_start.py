"""Commands start fast: libraries that take seconds to import are imported by the commands that use them."""

import json
import subprocess
import sys
from pathlib import Path

from tests.pipeline.reports.recorded_runs import make_run, row

SLOW = ("torch", "mlflow", "prefect", "numba", "numpy", "pandas", "scipy", "sklearn", "matplotlib", "PIL", "networkx")

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


def test_help_and_the_list_of_runs_import_nothing_slow(tmp_path: Path) -> None:
    make_run(tmp_path / "done", [row(1, 0.5, 0.25), row(2, 0.375, 0.75)])
    verbs = ("train", "rank", "label", "compare", "embed", "search", "export", "caption", "runs", "data", "server")
    commands = [["--help"], *([verb, "--help"] for verb in verbs), ["runs", "--runs", str(tmp_path)]]
    commands.append(["config", "show", "cclnet-sysu"])
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, json.dumps(commands), json.dumps(SLOW)],
        check=True,
        capture_output=True,
        text=True,
    )
    assert set(map(tuple, json.loads(done.stdout).values())) == {()}, done.stdout
