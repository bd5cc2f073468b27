"""Tables and plot of `benchmarks/clustering_engine.py`, from the recorded figures alone."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.clustering_jobs import Job

Figures = Mapping[str, dict[str, Any]]
Rows = Mapping[str, tuple[Job, ...]]

NOT_MEASURED = "not measured"
FIT_FROM = 5_000  # below, fixed costs hide the growth
# From Okabe and Ito's palette: told apart by those who see colours differently, and in grey with the markers.
BLACK, ORANGE, BLUE, RED = "#000000", "#E69F00", "#0072B2", "#D55E00"


def tables(figures: Figures, rows: Rows) -> str:
    """Markdown: the targets, the sizes, the approximate searches, the machines."""
    parts = [target_table(figures, rows), size_table(figures, rows), approximate_table(figures, rows)]
    return "\n".join([*parts, *machines(figures)]) + "\n"


def target_table(figures: Figures, rows: Rows) -> str:
    """What was aimed at, and what was reached."""

    def of(row: str, say: Callable[[dict[str, Any]], str]) -> str:
        found = [figures[job.name] for job in rows[row] if job.name in figures]
        return say(found[0]) if found else NOT_MEASURED

    def total(row: dict[str, Any]) -> str:
        ratio = row["whole_seconds"] / row["search_seconds"]
        return f"{ratio:.2f} ({row['whole_seconds']:.1f} s over {row['search_seconds']:.1f} s)"

    def dense(row: dict[str, Any]) -> str:
        ratio = row["dense_seconds"] / row["after_seconds"]
        return f"{ratio:.0f} times ({row['dense_seconds']:.1f} s over {row['after_seconds']:.2f} s), same labels"

    def after(row: dict[str, Any]) -> str:
        return f"{row['after_seconds']:.1f} s, {megabytes(row['peak_bytes'])}"

    def million(row: dict[str, Any]) -> str:
        return f"{after(row)}; lists from buckets, recall {row['recall']:.2f}"

    def gpu(row: dict[str, Any]) -> str:
        return f"{row['whole_seconds']:.2f} s on {row['machine']['gpu']}, {megabytes(row['device_peak_bytes'])} there"

    def mapped(row: dict[str, Any]) -> str:
        beside = megabytes(row["features_bytes"])
        return f"{row['whole_seconds']:,.0f} s, {megabytes(row['owned_peak_bytes'])} beside a file of {beside}"

    def mapped_parts(row: dict[str, Any]) -> str:
        memory = f"{megabytes(row['owned_peak_bytes'])} beside a file of {megabytes(row['features_bytes'])}"
        return f"{row['after_seconds']:,.0f} s, {memory}; lists from buckets, recall {row['recall']:.2f}"

    hundred_thousand = {**rows, "largest": (rows["growth"][-1],)}
    largest = [figures[job.name] for job in hundred_thousand["largest"] if job.name in figures]
    exponent = growth_exponent(figures, rows)
    lines = [
        ("whole labelling over the bare search, 22,258 x 2048", "≤ 1.10", of("total", total)),
        ("memory beyond the features, 22,258 x 2048", "≤ 64 MB", of("total", lambda row: megabytes(row["peak_bytes"]))),
        ("after the search, published code's way over ours, 11,909 x 2048", "≥ 40 times", of("dense", dense)),
        ("after the search, 100,000 x 1024", "≤ 6 s, ≤ 300 MB", after(largest[0]) if largest else NOT_MEASURED),
        (
            "growth of what comes after the search, 5,000 to 100,000",
            "exponent ≤ 1.3",
            NOT_MEASURED if exponent is None else f"{exponent:.2f}",
        ),
        ("after the search, 1,000,000 x 512", "≤ 120 s, ≤ 2 GB", of("million", million)),
        ("whole labelling, 22,258 x 2048, on a GPU", "≤ 0.5 s", of("gpu", gpu)),
        ("whole labelling, 1,000,000 x 512, on a GPU", "≤ 120 s", of("gpu-million", gpu)),
        ("after the search, 5,000,000 x 512, mapped", "no copy", of("mapped-parts", mapped_parts)),
        ("whole labelling, 5,000,000 x 512, mapped", "no copy", of("mapped", mapped)),
        ("whole labelling, 5,000,000 x 512, mapped, on a GPU", "no copy", of("gpu-mapped", mapped)),
    ]
    return markdown(("what", "target", "measured"), lines)


def size_table(figures: Figures, rows: Rows) -> str:
    """Seconds and memory at each size, features 1,024 wide."""
    lines = []
    for parts, dense in aligned(figures, rows):
        after, search = parts["after_seconds"], parts["search_seconds"]
        lines.append(
            (
                f"{parts['images']:,}",
                f"{search:.2f}",
                f"{parts['neighbours_seconds'] + after:.2f}",
                f"{after:.3f}",
                f"{dense['dense_seconds']:.1f}" if dense else "",
                megabytes(parts["peak_bytes"]),
                megabytes(dense["dense_peak_bytes"]) if dense else "",
                f"{parts['clusters']:,}",
                f"{parts['outlier_share']:.1%}",
            )
        )
    heads = ("bare search, s", "whole, s", "after the search, s", "dense, s", "memory", "dense memory")
    return markdown(("images", *heads, "clusters", "outliers"), lines)


def approximate_table(figures: Figures, rows: Rows) -> str:
    """What approximate neighbours cost in labels."""
    lines = [
        (
            job.search,
            f"{found['neighbours_seconds']:.1f}",
            f"{found['exact_seconds']:.1f}",
            f"{found['recall']:.3f}",
            f"{found['agreement']:.3f}",
            f"{found['clusters']:,} ({found['exact_clusters']:,})",
            f"{found['outlier_share']:.1%} ({found['exact_outlier_share']:.1%})",
        )
        for job in rows["approximate"]
        if (found := figures.get(job.name))
    ]
    heads = ("search", "seconds", "exact, s", "recall", "agreement (ARI)", "clusters (exact)", "outliers (exact)")
    return markdown(heads, lines or [(f"{job.search}: {NOT_MEASURED}", *[""] * 6) for job in rows["approximate"]])


def machines(figures: Figures) -> list[str]:
    """On what, with what, and when; each once."""
    described: dict[str, None] = {}
    for found in figures.values():
        machine = found["machine"]
        libraries = ", ".join(f"{name} {number}" for name, number in machine["versions"].items())
        text = (
            f"{machine['processor']}, {machine['cores']} cores, {machine['memory_bytes'] / 2**30:.0f} GiB, "
            f"{machine['threads']} threads; {libraries}; {machine['day']}"
        )
        described[text] = None
    return list(described)


def growth_exponent(figures: Figures, rows: Rows) -> float | None:
    """Slope of log seconds over log images, from 5,000 images on; None where a size is missing."""
    jobs = [job for job in rows["growth"] if job.images >= FIT_FROM]
    if not all(job.name in figures for job in jobs):
        return None
    seconds = [figures[job.name]["after_seconds"] for job in jobs]
    return float(np.polyfit(np.log([job.images for job in jobs]), np.log(seconds), 1)[0])


def aligned(figures: Figures, rows: Rows) -> list[tuple[dict[str, Any], dict[str, Any] | None]]:
    """The figures of each size, and those of published code's way where it was measured."""
    dense = {job.images: figures.get(job.name) for job in rows["dense-growth"]}
    return [
        ({"images": job.images, **figures[job.name]}, dense.get(job.images))
        for job in rows["growth"]
        if job.name in figures
    ]


def draw_plot(figures: Figures, rows: Rows, path: Path) -> None:
    """Seconds and memory against the number of images; nothing where no size has been measured."""
    from matplotlib.figure import Figure  # here, because tables need no plots
    from matplotlib.ticker import FuncFormatter

    sizes = [(parts["images"], parts, dense) for parts, dense in aligned(figures, rows)]
    if not sizes:
        return
    dense = [(images, other) for images, _, other in sizes if other]
    figure = Figure(figsize=(11, 4.8), dpi=120, layout="constrained")
    seconds, memory = figure.subplots(1, 2)
    for panel, key, scale in ((seconds, "dense_seconds", 1.0), (memory, "dense_peak_bytes", 1e-6)):
        points = [(images, other[key] * scale) for images, other in dense]
        if not points:
            continue
        panel.plot(*columns(points), "s-", color=RED, label="full matrices, after the search")
    threads = "/".join(sorted({str(parts["machine"]["threads"]) for _, parts, _ in sizes}))
    whole = [(images, parts["neighbours_seconds"] + parts["after_seconds"]) for images, parts, _ in sizes]
    seconds.plot(*columns(whole), "o-", color=BLUE, label="vireid, whole labelling")
    bare = [(images, parts["search_seconds"]) for images, parts, _ in sizes]
    seconds.plot(*columns(bare), "--", color=BLACK, label="exact search alone (faiss)")
    for panel, key, scale in ((seconds, "after_seconds", 1.0), (memory, "peak_bytes", 1e-6)):
        points = [(images, parts[key] * scale) for images, parts, _ in sizes]
        panel.plot(*columns(points), "^-", color=ORANGE, label="vireid, after the search")
    seconds.set(ylabel="seconds", title=f"Time, {threads} threads, features 1,024 wide")
    memory.set(ylabel="MB", title="Memory beyond features and lists of neighbours")
    for panel in (seconds, memory):
        panel.set(xscale="log", yscale="log", xlabel="images")
        panel.grid(which="major", alpha=0.3)
        panel.spines[["top", "right"]].set_visible(False)
        panel.minorticks_off()
        panel.set_xticks([images for images, _, _ in sizes], [f"{images:,}" for images, _, _ in sizes])
        panel.tick_params(axis="x", rotation=30)
        panel.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,g}"))
        panel.legend(frameon=False, fontsize="small", loc="upper left")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)


def columns(points: Sequence[tuple[float, float]]) -> tuple[list[float], list[float]]:
    """Points as two lists."""
    return [across for across, _ in points], [up for _, up in points]


def megabytes(size: float) -> str:
    """A size, readable."""
    return f"{size / 1e9:.1f} GB" if size >= 1e9 else f"{size / 1e6:.0f} MB"


def markdown(heads: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    """A table."""
    rows = [heads, ["---"] * len(heads), *lines]
    return "".join("| " + " | ".join(row) + " |\n" for row in rows)
