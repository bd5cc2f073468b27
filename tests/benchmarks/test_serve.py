"""The benchmark of the search server, small: it measures every row."""

import json
from pathlib import Path

import pytest

from tests.fresh_process import run_fresh


@pytest.mark.slow
def test_every_row_is_measured(tmp_path: Path) -> None:
    # In a process of its own: the server is a fork, which must not have the threads of other tests.
    options = {"images": "400", "dim": "64", "requests": "8", "commands": "1", "out": str(tmp_path / "serve.json")}
    arguments = [part for name, value in options.items() for part in (f"--{name}", value)]
    run_fresh("import typer; from benchmarks.serve import main; typer.run(main)", *arguments)
    record = json.loads((tmp_path / "serve.json").read_text())
    rows = ("one_client_ms", "one_client_filtered_ms", "four_clients_ms", "gallery_search_ms", "search_command_ms")
    assert all(0 < record[row]["median"] <= record[row]["p99"] for row in rows)
    # The command starts an interpreter, the server does not.
    assert record["search_command_ms"]["median"] > record["one_client_ms"]["median"]
    assert record["server_exit_code"] == 0
