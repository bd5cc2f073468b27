"""The benchmark of the search server, small: it measures every row."""

import json
from pathlib import Path

import pytest

from benchmarks.serve import main


@pytest.mark.slow
def test_every_row_is_measured(tmp_path: Path) -> None:
    main(images=400, dim=64, requests=8, commands=1, seed=1, out=tmp_path / "serve.json")
    record = json.loads((tmp_path / "serve.json").read_text())
    rows = ("one_client_ms", "one_client_filtered_ms", "four_clients_ms", "gallery_search_ms", "search_command_ms")
    assert all(0 < record[row]["median"] <= record[row]["p99"] for row in rows)
    # The command starts an interpreter, the server does not.
    assert record["search_command_ms"]["median"] > record["one_client_ms"]["median"]
    assert record["server_exit_code"] == 0
