"""How tests call the command line."""

import os
import sys
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


def vireid_command(*arguments: str) -> list[str]:
    """The command line in a process of its own."""
    return [sys.executable, "-c", "from flows.cli.app import main; main()", *arguments]


def processes_with(mark: str) -> dict[int, str]:
    """Processes whose environment holds a text, and their command lines."""
    found = {}
    for folder in Path("/proc").iterdir():
        if folder.name.isdecimal() and int(folder.name) != os.getpid():
            try:
                if mark.encode() in (folder / "environ").read_bytes():
                    found[int(folder.name)] = (folder / "cmdline").read_text().replace("\0", " ")
            except OSError:
                continue  # it has ended meanwhile
    return {pid: command for pid, command in found.items() if command}
