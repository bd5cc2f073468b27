"""The table of `benchmarks/gpu_check.py`, from its record alone."""

from collections.abc import Callable, Mapping
from typing import Any

from benchmarks.clustering_report import NOT_MEASURED, markdown, megabytes
from benchmarks.training_report import FULLEST, fastest, figure

KIND = "vireid gpu-check"
DRY = "A dry run: toy sizes stand in place of those in the table, and no figure is a measurement."

Row = Mapping[str, Any]


def report(record: Row) -> str:
    """Markdown: the machine, the targets, the stages of a round, and what was not measured."""
    parts = [machine_line(record), *([DRY] if record.get("dry_run") else []), target_table(record)]
    if stages := row_of(record, "schedule", "round").get("stages"):
        parts.append(stage_table(stages))
    return "\n\n".join([*(part.rstrip("\n") for part in parts), *missing(record)]) + "\n"


def row_of(record: Row, part: str, row: str) -> Row:
    """What is known about a row; nothing where the check did not get to it."""
    found: Row = record.get("parts", {}).get(part, {}).get("rows", {}).get(row, {})
    return found


def machine_line(record: Row) -> str:
    """On what, with what and when."""
    found = row_of(record, "machine", "machine")
    if "versions" not in found:
        return f"{record['device']}; {record['started']}"
    versions = ", ".join(f"{name} {number}" for name, number in found["versions"].items() if number)
    gpu = f"{found['gpu']}, driver {found['driver']}, CUDA {found['cuda']}; " if "gpu" in found else ""
    return (
        f"{gpu}{found['processor']}, {found['cores']} cores; Python {found['python']}, {versions}; "
        f"commit {found['commit'] or 'unknown'}; {record['started']}"
    )


def target_table(record: Row) -> str:
    """What was aimed at, and what was reached."""
    lines = [(what, target, cell(record, part, row, say)) for what, target, part, row, say in LINES]
    return markdown(("what", "target", "measured"), lines)


def cell(record: Row, part: str, row: str, say: Callable[[Row], str]) -> str:
    """A figure, or why there is none."""
    found = row_of(record, part, row)
    if reason := found.get("skipped"):
        return f"{NOT_MEASURED}: {reason}"
    if reason := found.get("failed"):
        return f"failed: {reason}"
    return say(found) if found else NOT_MEASURED


def stage_table(stages: Mapping[str, Row]) -> str:
    """Seconds of each stage."""
    lines = []
    for name, stage in stages.items():
        amount = f"{stage['whole']:,} {stage['unit']}"
        part = "" if stage["measured"] == stage["whole"] else f", from {stage['measured']:,}"
        lines.append((name, f"{stage['seconds']:,.2f}", amount + part))
    return markdown(("stage of a round", "seconds", "of"), lines)


def missing(record: Row) -> list[str]:
    """Parts that did not get to their end."""
    parts = record.get("parts", {})
    return [f"{name}: {part['ended']}." for name, part in parts.items() if "ended" in part] + [
        f"{name}: {why}: {part['rows']['all'][why]}."
        for name, part in parts.items()
        for why in ("skipped", "failed")
        if why in part["rows"].get("all", {})
    ]


def tests(found: Row) -> str:
    """Counts, and the names of those that failed."""
    counts = ", ".join(f"{number} {name}" for name, number in found["counts"].items())
    names = "".join(f"; {name}" for name in found["not_passed"])
    return (counts or "no tests") + names + (f"; {found['ended']}" if "ended" in found else "")


def compared(found: Row) -> str:
    """The round whose losses differ most."""
    worst = max(found["rounds"], key=lambda one: one["difference"])
    same = sum(one["same_clusters"] for one in found["rounds"])
    return (
        f"at most {worst['difference']:.2g} (round {worst['round']}, {worst['loss']}); "
        f"as many clusters in {same} of {len(found['rounds'])} rounds"
    )


def rate(case: str) -> Callable[[Row], str]:
    """Images a second, by where the pixels are."""
    return lambda found: ", ".join(
        f"{figure(found[case]['images_per_second'][side])} images/s {side} ({share:.0%} of the peak)"
        for side, share in found[case]["share_of_peak"].items()
    )


def ratio(found: Row) -> str:
    """Training over the plain side."""
    case = found[f"train, {FULLEST}"]
    return f"{case['ratio'][fastest(case)]:.1f} times"


def memory(found: Row) -> str:
    """Of the process, and of the GPU where there is one."""
    sizes = {"memory/device_peak_bytes": "on the GPU", "memory/process_peak_bytes": "in the process"}
    return ", ".join(f"{megabytes(found[name])} {where}" for name, where in sizes.items() if name in found)


def labelled(found: Row) -> str:
    """Seconds, memory, and who searched."""
    there = found["device_peak_bytes"]
    where = "" if there is None else f", {megabytes(there)} on the GPU"
    return f"{found['whole_seconds']:.2f} s, {found['search']}{where}, {megabytes(found['peak_bytes'])} in the process"


def whole_round(found: Row) -> str:
    """The round with every loss and update."""
    seconds = found["round_seconds"][FULLEST]
    return f"{seconds:.1f} s, {seconds + found['evaluation_seconds']:.1f} s with evaluation"


def hours(preset: str) -> Callable[[Row], str]:
    """Of a whole schedule."""
    return lambda found: f"{found['schedules'][preset]['total'] / 3600:.2f} h, projected"


TRAIN, EXTRACT = f"train, {FULLEST}", "extract"
SMALL, LARGE, COMPILED, LARGE_COMPILED = "64 + 64", "128 + 128", "64 + 64, compiled", "128 + 128, compiled"
LINES: list[tuple[str, str, str, str, Callable[[Row], str]]] = [
    ("tests marked `gpu`", "all pass", "tests", "pytest -m gpu", tests),
    *(
        (f"first rounds of {name} at smoke size, losses against the CPU's", "within 1 %", "rounds", name, compared)
        for name in ("cclnet", "csdn", "eees")
    ),
    (
        "an epoch in bfloat16, losses against float32", "within 2 %", "precision", "RN50 at 288 x 144",
        lambda found: f"{found['difference']:.2g}",
    ),
    *(
        (f"features in bfloat16 against float32, {name}", "cosine > 0.999", "precision", name,
         lambda found: f"at least {found['smallest_cosine']:.5f}")
        for name in ("RN50 at 288 x 144", "demo CLIP on synthetic people")
    ),
    *(
        (f"product of matrices, {name}", "", "machine", f"product in {name}",
         lambda found: f"{found['peak_flops'] / 1e12:.3g} TFLOP/s")
        for name in ("float32", "bfloat16")
    ),
    ("training, RN50 at 288 x 144, 64 + 64", "≥ 3,000 images/s", "speed", SMALL, rate(TRAIN)),
    ("the same, compiled", "≥ 3,000 images/s", "speed", COMPILED, rate(TRAIN)),
    ("training, 128 + 128", "", "speed", LARGE, rate(TRAIN)),
    ("the same, compiled", "", "speed", LARGE_COMPILED, rate(TRAIN)),
    ("training against the plain side, 64 + 64", "≥ 5 times", "speed", SMALL, ratio),
    ("training against the plain side, 128 + 128", "", "speed", LARGE, ratio),
    ("extraction", "≥ 8,000 images/s", "speed", SMALL, rate(EXTRACT)),
    ("extraction, compiled", "≥ 8,000 images/s", "speed", COMPILED, rate(EXTRACT)),
    ("memory of training and extraction, 64 + 64", "", "speed", SMALL, memory),
    ("memory of training and extraction, 128 + 128", "", "speed", LARGE, memory),
    ("labelling, 22,258 x 2,048", "≤ 0.5 s", "labelling", "22,258 x 2,048", labelled),
    ("joint labelling, 34,167 x 2,048", "", "labelling", "34,167 x 2,048, joint", labelled),
    ("labelling, 1,000,000 x 512", "≤ 120 s", "labelling", "1,000,000 x 512", labelled),
    ("a round of SYSU-MM01's size", "≤ 30 s", "schedule", "round", whole_round),
    ("the whole schedule of `cclnet-sysu`", "≤ 2.5 h", "schedule", "round", hours("cclnet-sysu")),
    ("the whole schedule of `plus-sysu`", "", "schedule", "round", hours("plus-sysu")),
    ("memory of a round", "", "schedule", "round", memory),
]  # fmt: skip
"""What, target, part, row, and how its figure is written."""
