"""How tests call the command line."""

from collections.abc import Callable
from pathlib import Path

Call = Callable[..., tuple[int, str, str]]
"""Arguments in; exit code, stdout, and stderr as one line out: the fixture `vireid`."""


def small(runs: Path, data: Path) -> list[str]:
    """Options that make preset `smoke` small."""
    changes = ["model.architecture=tiny", "model.weights=random", "stages.prepare_rounds=1", "stages.clip_rounds=0"]
    changes += ["execution.tracking=false", "execution.figures=false"]
    options = [part for change in changes for part in ("--set", change)]
    return ["--data", str(data), "--runs", str(runs), "--device", "cpu", *options]
