"""Tables of `benchmarks/training.py`, from the recorded figures alone."""

from collections.abc import Callable, Mapping
from typing import Any

from benchmarks.clustering_report import NOT_MEASURED, markdown, megabytes

Row = Mapping[str, Any]
Figures = Mapping[str, Mapping[str, Row]]
"""Device, then row, such as "sysu, bfloat16"."""

FULLEST = "clip, swap"  # the case with every loss and update


def tables(figures: Figures) -> str:
    """Markdown: the targets, then every device's rows."""
    parts = [target_table(figures)]
    for device, rows in figures.items():
        for name, row in rows.items():
            if "speed" in row:
                parts.append(speed_table(f"{device}: {name}", row["speed"]))
            if "round" in row:
                parts += [round_table(f"{device}: a round of {name}", row["round"]), schedule_table(row["round"])]
    if not any(on_gpu(row) for rows in figures.values() for row in rows.values()):
        parts.append(f"GPU: {NOT_MEASURED}\n")
    return "\n".join(parts)


def target_table(figures: Figures) -> str:
    """What was aimed at, and what was reached."""

    def speed(row: str, say: Callable[[Row, str], str]) -> Callable[[Row], str]:
        return lambda found: say(found["speed"][row], fastest(found["speed"][row]))

    def rate(figure: Row, side: str) -> str:
        return f"{figure['images_per_second'][side]:,.0f} images/s, {side}"

    def ratio(figure: Row, side: str) -> str:
        return f"{figure['ratio'][side]:.1f} times, {side}"

    def longest(found: Row) -> str:
        whole = found["round"]["round_seconds"][FULLEST]
        return f"{whole:.1f} s, {whole + found['round']['evaluation_seconds']:.1f} s with evaluation"

    def schedule(found: Row) -> str:
        return f"{found['round']['projected']['total'] / 3600:.2f} h, projected"

    train = f"train, {FULLEST}"
    wanted = [
        (
            "training, RN50 at 288 x 144, 64 + 64, on a GPU",
            "≥ 3,000 images/s",
            "sysu",
            True,
            "speed",
            speed(train, rate),
        ),
        ("extraction, the same, on a GPU", "≥ 8,000 images/s", "sysu", True, "speed", speed("extract", rate)),
        ("training over the plain side, on a GPU", "≥ 5 times", "sysu", True, "speed", speed(train, ratio)),
        ("round of SYSU-MM01's size, on a GPU", "≤ 30 s", "sysu", True, "round", longest),
        ("whole schedule cclnet-sysu, on a GPU", "≤ 2.5 h", "sysu", True, "round", schedule),
        ("demo training over the plain side, on a CPU", "≥ 2 times", "demo", False, "speed", speed(train, ratio)),
    ]
    lines = []
    for what, target, size, gpu, part, say in wanted:
        found = [
            f"{say(row)} ({device}, {name.partition(', ')[2]})"
            for device, rows in figures.items()
            for name, row in rows.items()
            if part in row and name.partition(",")[0] == size and on_gpu(row) == gpu
        ]
        lines.append((what, target, "; ".join(found) or NOT_MEASURED))
    return markdown(("what", "target", "measured"), lines)


def speed_table(title: str, speed: Row) -> str:
    """Images per second, and ratios."""
    lines = []
    for name, found in speed.items():
        if not isinstance(found, dict) or "ratio" not in found:
            continue
        plain = found["images_per_second"]["plain"]
        lines += [
            (name, side, figure(found["images_per_second"][side]), figure(plain), f"{ratio:.2f}", share(found, side))
            for side, ratio in found["ratio"].items()
        ]
    heads = ("what", "pixels", "vireid, images/s", "plain, images/s", "ratio", "share of the peak")
    peak = f"peak: {speed['peak_flops'] / 1e12:.3g} TFLOP/s in {speed['settings']['precision']}"
    return f"{title}; {peak}; {describe(speed)}\n\n{markdown(heads, lines)}"


def round_table(title: str, found: Row) -> str:
    """Seconds of each stage."""
    lines = [
        (name, f"{stage['seconds']:,.2f}", measured(stage, found["settings"]["device"]))
        for name, stage in found["stages"].items()
    ]
    lines += [(f"round, {name}", f"{seconds:,.2f}", "sum") for name, seconds in found["round_seconds"].items()]
    return f"{title}; {describe(found)}\n\n{markdown(('stage', 'seconds', 'measured'), lines)}"


def schedule_table(found: Row) -> str:
    """What the whole schedule takes, if every round takes what one did."""
    extrapolated = any(stage["measured"] < stage["whole"] for stage in found["stages"].values())
    lines = [(name, f"{seconds / 3600:,.3f}") for name, seconds in found["projected"].items()]
    note = "projected, from parts of stages" if extrapolated else "projected, from whole stages"
    return markdown((f"schedule ({note})", "hours"), lines)


def measured(stage: Row, device: str) -> str:
    """Which part of a stage was measured, and where."""
    if stage["measured"] == stage["whole"]:
        return f"{stage['whole']:,} {stage['unit']}, {device}"
    return f"{stage['measured']:,} of {stage['whole']:,} {stage['unit']}, {device}; extrapolated"


def describe(part: Row) -> str:
    """On what, with what, and when."""
    machine, settings = part["machine"], part["settings"]
    libraries = ", ".join(f"{name} {number}" for name, number in machine["versions"].items())
    return (
        f"{machine['processor']}, {machine['cores']} cores, {settings['threads']} threads, "
        f"{settings['workers']} workers on the plain side; {libraries}; {machine['day']}; peak memory "
        + " and on the GPU ".join(megabytes(size) for name, size in part.items() if name.startswith("memory/"))
    )


def fastest(found: Row) -> str:
    """Which of our sides was fastest."""
    return max(found["ratio"], key=lambda side: found["ratio"][side])


def share(found: Row, side: str) -> str:
    """Of the peak."""
    return f"{found['share_of_peak'][side]:.0%}"


def figure(rate: float) -> str:
    """Images per second, readable."""
    return f"{rate:,.0f}" if rate >= 100 else f"{rate:.2f}"


def on_gpu(row: Row) -> bool:
    """Where a row was measured."""
    return any("gpu" in part["machine"] for part in row.values())
