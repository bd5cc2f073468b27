"""The losses of preset `smoke`, as they were when the method was first right; whoever changes them has to say why."""

import json
from pathlib import Path

import pytest

from pipeline.config.presets import load_config
from pipeline.runs.open import run_path
from tests.flows.plain_runs import run_plainly

GOLDEN = Path(__file__).resolve().parents[1] / "golden" / "smoke_losses.json"

AWAY_FROM_TIES = ("labelling.visible.eps=0.62", "labelling.infrared.eps=0.62")
"""With so few images many distances are equal: rounding decides on which side of 0.6 some lie, and so on clusters."""


@pytest.mark.slow
def test_the_losses_of_preset_smoke_are_what_they_were(tmp_path: Path) -> None:
    from pipeline.data.synthetic.writer import generate_dataset

    generate_dataset(tmp_path / "data", size="smoke", difficulty="easy", seed=2)
    execution = {"device": "cpu", "runs_folder": str(tmp_path / "runs"), "tracking": False}
    config = load_config("smoke", AWAY_FROM_TIES, {"data": {"root": str(tmp_path / "data")}, "execution": execution})
    run_plainly(config)
    rows = [json.loads(line) for line in (run_path(config) / "metrics.jsonl").read_text().splitlines()]
    expected = json.loads(GOLDEN.read_text())
    assert [row["stage"] for row in rows] == [row["stage"] for row in expected]
    for found, golden in zip(rows, expected, strict=True):
        for name, value in golden.items():
            # Equal to the last bit on one machine with one thread. The order of sums differs elsewhere: by 3e-4
            # after a round with two threads, 1e-3 after six. Another seed moves the losses of a round by 2 to 10 %.
            if name.startswith("train/loss"):
                assert found[name] == pytest.approx(value, rel=1e-2), (found["round"], name)
