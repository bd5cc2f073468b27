"""Everything that has to be known about a GPU, in one run: that it computes what the CPU does, and how fast it is.

Each part has a process and a time box of its own. One that fails, crashes or runs out of time is recorded with its
reason, and the next one begins. The record (JSON) and its table (Markdown, beside it) are written after every row, so
that a run that is cut short counts. What a part leaves of its time is shared by the following ones.

Needs torch, torchvision, open_clip, faiss, numba, scipy, scikit-learn and pydantic, jaxtyping and rich; no
Prefect, no MLflow, no Typer. Rows that need more (pytest, matplotlib) are left out where it is missing.

    python -m benchmarks.gpu_check --minutes 8 --out gpu-check.json
    python -m benchmarks.gpu_check --device cpu --dry-run
"""

import argparse
import json
import signal
import sys
import tempfile
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from time import monotonic
from typing import Any

from benchmarks.gpu_check_parts import Check, run_part, write_json
from benchmarks.gpu_check_report import KIND, report

PARTS = {
    # Where the rows come from, and the share of the time.
    "machine": ("benchmarks.gpu_check_machine:machine", 2),
    "tests": ("benchmarks.gpu_check_machine:tests", 4),
    "rounds": ("benchmarks.gpu_check_rounds:rounds", 3),
    "precision": ("benchmarks.gpu_check_rounds:precision", 3),
    "speed": ("benchmarks.gpu_check_speed:speed", 14),
    "labelling": ("benchmarks.gpu_check_speed:labelling", 7),
    "schedule": ("benchmarks.gpu_check_speed:schedule", 5),
}


class Refused(Exception):
    """What cannot be done, and a hint."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, keep and print; 1 if nothing can be measured."""
    try:
        chosen = read_arguments(arguments)
        device = device_here(chosen.device)
        out = output_file(chosen.out, chosen.dry_run)
        signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
        with tempfile.TemporaryDirectory(prefix="vireid-gpu-check-") as scratch:
            record = run_check(Check(device, chosen.dry_run, Path(scratch)), chosen.minutes, out, chosen.parts)
    except Refused as refused:
        sys.stderr.write("error: {}\nhint: {}\n".format(*refused.args))
        return 1
    except KeyboardInterrupt:
        return 130
    sys.stdout.write(report(record))
    sys.stderr.write(f"written: {out} and {out.with_suffix('.md')}\n")
    return 0


def read_arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The command line; mistakes in it end the program with exit code 2."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu_check", description="Check and measure a GPU.")
    parser.add_argument("--minutes", type=minutes, default=8.0, help="of all parts together (default: 8)")
    parser.add_argument("--out", type=Path, help="the record; its table is beside it (default: gpu-check.json)")
    parser.add_argument("--device", default="cuda", help="cuda, cuda:N or cpu (default: cuda)")
    parser.add_argument(
        "--dry-run", action="store_true", help="toy sizes: shows that everything runs, measures nothing"
    )
    parser.add_argument(
        "--parts", type=part_names, default=list(PARTS), help=f"comma-separated, of {', '.join(PARTS)}; all by default"
    )
    return parser.parse_args(arguments)


def minutes(text: str) -> float:
    """A positive number."""
    value = float(text)
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"must be a positive number, not {text}")
    return value


def part_names(text: str) -> list[str]:
    """Parts in their order."""
    names = text.split(",")
    if unknown := sorted(set(names) - set(PARTS)):
        raise argparse.ArgumentTypeError(f"no part is called {', '.join(unknown)}")
    return [name for name in PARTS if name in names]


def device_here(name: str) -> str:
    """The device, as torch spells it.

    Raises:
        Refused: There is none of this name, or no torch.
    """
    try:
        from pipeline.errors import ConfigError
        from pipeline.runtime.device import resolve_device
    except ImportError as error:
        raise Refused(f"torch or pydantic cannot be imported: {error}", "use the Python that has them") from error
    try:
        device = resolve_device(name)
    except ConfigError as error:
        hint = "use --device cpu to measure what a CPU can, with --dry-run to see that everything runs"
        raise Refused(str(error), hint) from error
    return "cuda:0" if str(device) == "cuda" else str(device)


def output_file(given: Path | None, dry_run: bool) -> Path:
    """Where the record goes; a file of another kind is not replaced.

    Raises:
        Refused: Something else is there, or the folder is not.
    """
    out = given or Path("gpu-check-dry-run.json" if dry_run else "gpu-check.json")
    if out.suffix != ".json":
        raise Refused(f"{out} does not end in .json", "give the file another name, such as gpu-check.json")
    if not out.parent.is_dir():
        raise Refused(f"the folder {out.parent} does not exist", "make it, or choose another one with --out")
    if out.exists() and not is_record(out):
        raise Refused(f"{out} is not a record of this check", "choose another file with --out")
    return out


def is_record(file: Path) -> bool:
    """Whether this program has written a file."""
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(content, dict) and content.get("kind") == KIND


def run_check(check: Check, minutes: float, out: Path, parts: Sequence[str]) -> dict[str, Any]:
    """All parts one after the other; the record is on the disk whatever happens to the rest."""
    started = datetime.now(UTC).isoformat(timespec="seconds")
    found: dict[str, Any] = {}
    record = {
        "kind": KIND, "started": started, "device": check.device, "dry_run": check.dry_run, "minutes": minutes,
        "parts": found,
    }  # fmt: skip
    ends = monotonic() + 60 * minutes

    def keep(name: str) -> Callable[[dict[str, Any]], None]:
        def kept(part: dict[str, Any]) -> None:
            found[name] = part
            write_json(out, record)
            out.with_suffix(".md").write_text(report(record), encoding="utf-8")

        return kept

    shares = [PARTS[name][1] for name in parts]
    for number, name in enumerate(parts):
        box = max(0.0, ends - monotonic()) * shares[number] / sum(shares[number:])
        sys.stderr.write(f"{name}: at most {box:.0f} s\n")
        run_part(PARTS[name][0], check, box, keep(name))
    return record


if __name__ == "__main__":
    sys.exit(main())
