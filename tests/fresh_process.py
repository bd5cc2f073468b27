"""Programs in a fresh interpreter, without the seconds that a start takes: forks of one that has imported little."""

import atexit
import json
import os
import subprocess
import sys
import tempfile
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
# What nearly all modules import. Not torch, faiss, Prefect, MLflow, Typer, matplotlib: tests show who imports these.
_PRELOADED = "import numba, numpy, pydantic, scipy.sparse.csgraph, sklearn.cluster, sklearn.metrics"


def run_fresh(program: str, *arguments: str, exit_code: int = 0) -> str:
    """Run the text of a Python program in the repository's root; gives what it printed.

    Args:
        program: Its text.
        arguments: What it finds in `sys.argv[1:]`.
        exit_code: Expected; negative for the signal that kills it.

    Raises:
        AssertionError: Its exit code is another one; with what it wrote to stderr.
    """
    server = _server()
    assert server.stdin is not None and server.stdout is not None
    with tempfile.TemporaryDirectory() as folder:
        server.stdin.write(json.dumps({"program": program, "arguments": arguments, "folder": folder}) + "\n")
        server.stdin.flush()
        code = int(server.stdout.readline())
        assert code == exit_code, (code, (Path(folder) / "stderr").read_text())
        return (Path(folder) / "stdout").read_text()


@cache
def _server() -> subprocess.Popen[str]:
    """The interpreter that forks; it ends with this process, or when its input does."""
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "NUMBA_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "tests.fresh_process"]
    server = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment, text=True, cwd=ROOT
    )
    atexit.register(server.kill)
    return server


def _serve() -> None:
    """Fork for every line of input; answer with the exit code."""
    exec(_PRELOADED, {})
    for line in sys.stdin:
        request = json.loads(line)
        child = os.fork()
        if child == 0:
            _become(request["program"], request["arguments"], Path(request["folder"]))
        sys.stdout.write(f"{os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])}\n")
        sys.stdout.flush()


def _become(program: str, arguments: list[str], folder: Path) -> None:
    """Be an interpreter that runs the program, as far as it can tell."""
    for descriptor, name in ((1, "stdout"), (2, "stderr")):
        os.dup2(os.open(folder / name, os.O_WRONLY | os.O_CREAT), descriptor)
    sys.argv = ["-c", *arguments]
    code = 0
    try:
        exec(compile(program, "<program>", "exec"), {"__name__": "__main__"})
    except SystemExit as leaving:
        code = leaving.code if isinstance(leaving.code, int) else int(leaving.code is not None)
        if code and not isinstance(leaving.code, int):
            sys.stderr.write(f"{leaving.code}\n")
    except BaseException:  # noqa: BLE001  # shown as an interpreter shows it
        sys.excepthook(*sys.exc_info())
        code = 1
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


if __name__ == "__main__":
    _serve()
