"""Captioning that is killed again and again: `test_caption.py` starts it in a process of its own.

For each kill point a fork of this process gives the command and sends itself SIGKILL there; the last one runs to the
end. Forking happens before torch has started a thread.
"""

import sys
from io import FileIO
from typing import Any

from flows.cli import app as cli
from models.torchvision_operators import define_missing_operators
from pipeline.captioning import captioning, files
from tests.flows.kill_points import die, die_at_call, kill_at


def import_for_all_forks() -> list[object]:
    """What a start imports late, and takes seconds."""
    define_missing_operators()
    from transformers import CLIPImageProcessor, LlamaForCausalLM, LlavaForConditionalGeneration, LlavaProcessor

    return [captioning, CLIPImageProcessor, LlamaForCausalLM, LlavaForConditionalGeneration, LlavaProcessor]


def die_within_a_line(number: int) -> None:
    """Let the process die when the `number`-th batch is written but for its last four bytes."""
    calls = 0
    real = files._append

    def half(file: FileIO, rows: Any) -> None:
        nonlocal calls
        calls += 1
        real(file, rows)
        if calls == number:
            file.truncate(file.tell() - 4)
            die()

    files._append = half


def prepare(module: str, name: str, number: int) -> None:
    """Let the process die at a call, or within a line."""
    if name == "half":
        die_within_a_line(number)
    else:
        die_at_call(module, name, number)


def main(points: str, *arguments: str) -> None:
    """Kill at each point in turn, then finish."""
    import_for_all_forks()
    sys.argv = ["vireid", *arguments]
    kill_at(points.split(), cli.main, prepare)
    cli.main()
