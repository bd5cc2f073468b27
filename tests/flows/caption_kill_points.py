"""Captioning that is killed again and again: started by `test_caption_command.py` in a process of its own.

For each kill point a fork of this process gives the command and sends itself SIGKILL there; the last one runs to the
end. Forking happens before torch has started a thread.
"""

import os
import signal
import sys
from io import FileIO
from typing import Any

from flows.cli import app as cli
from models.torchvision_operators import define_missing_operators
from pipeline.captioning import caption_writer, captioning
from tests.flows.kill_points import die, die_at_call


def import_for_all_forks() -> list[object]:
    """What a start imports late, and takes seconds."""
    define_missing_operators()
    from transformers import CLIPImageProcessor, LlamaForCausalLM, LlavaForConditionalGeneration, LlavaProcessor

    return [captioning, CLIPImageProcessor, LlamaForCausalLM, LlavaForConditionalGeneration, LlavaProcessor]


def die_within_a_line(number: int) -> None:
    """Let the process die when the `number`-th batch is written but for its last four bytes."""
    calls = 0
    real = caption_writer._append

    def half(file: FileIO, rows: Any) -> None:
        nonlocal calls
        calls += 1
        real(file, rows)
        if calls == number:
            file.truncate(file.tell() - 4)
            die()

    caption_writer._append = half


def main(points: list[str], arguments: list[str]) -> None:
    """Kill at each point in turn, then finish."""
    import_for_all_forks()
    sys.argv = ["vireid", *arguments]
    for point in points:
        pid = os.fork()
        if pid == 0:
            module, name, number = point.split(":")
            if name == "half":
                die_within_a_line(int(number))
            else:
                die_at_call(module, name, int(number))
            cli.main()
            os._exit(3)  # the point was never reached
        status = os.waitpid(pid, 0)[1]
        if not (os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL):
            sys.exit(f"{point} was not reached: status {status}")
    cli.main()


if __name__ == "__main__":
    main(sys.argv[1].split(), sys.argv[2:])
