"""How fast is clustering, and how much memory does it need? Against the bare search, against published code, by size.

Features are drawn, as in the tests: people under cameras, 36 images each where nothing else is said. Figures are added
to `clustering.json` as they are found; a job that is in it already is not run again. Draws `clustering.png` and prints
the tables of docs/clustering.md. Run it from the top of the repository, on a machine that does nothing else.

It is not called clustering.py, because the scripts beside it would then find it where they look for the package.

    python -m benchmarks.clustering_engine --rows total,dense,growth
    python -m benchmarks.clustering_engine --rows mapped     # days on a CPU, and 10 GB in --scratch
    python -m benchmarks.clustering_engine --table
"""

import json
import sys
import tempfile
from pathlib import Path
from typing import Annotated, Any

import typer

from benchmarks.clustering_jobs import IMAGES_A_PERSON, Job
from benchmarks.clustering_measurements import measure
from benchmarks.clustering_report import draw_plot, tables

SCRATCH = Path(tempfile.gettempdir(), "vireid-clustering")
GROWTH = (2_000, 5_000, 11_909, 22_258, 50_000, 100_000)


def sized(images: int) -> tuple[int, int, int]:
    """The drawn set by which growth is measured: as many images a person at every size."""
    return images, 1024, images // IMAGES_A_PERSON


# 22,258 and 11,909 are the numbers of visible and infrared training images of SYSU-MM01.
ROWS: dict[str, tuple[Job, ...]] = {
    "check": (
        *(Job(kind, 2_000, 256, 42) for kind in ("whole", "parts", "dense", "mapped")),
        Job("mapped", 2_000, 256, 42, search="buckets"),
    ),
    "total": (Job("whole", 22_258, 2048, 616),),
    "dense": (Job("dense", 11_909, 2048, 500),),
    "growth": tuple(Job("parts", *sized(images)) for images in GROWTH),
    "dense-growth": tuple(Job("dense", *sized(images)) for images in GROWTH[:4]),
    "approximate": tuple(Job("approximate", *sized(22_258), search=search) for search in ("ivf", "hnsw")),
    "million": (Job("parts", 1_000_000, 512, 1_000_000 // IMAGES_A_PERSON, search="buckets"),),
    "mapped": (Job("mapped", 5_000_000, 512, 5_000_000 // IMAGES_A_PERSON),),
    "mapped-parts": (Job("mapped", 5_000_000, 512, 5_000_000 // IMAGES_A_PERSON, search="buckets"),),
    "gpu": (Job("whole", 22_258, 2048, 616, device="cuda"),),
    "gpu-million": (Job("whole", 1_000_000, 512, 1_000_000 // IMAGES_A_PERSON, device="cuda"),),
    "gpu-mapped": (Job("mapped", 5_000_000, 512, 5_000_000 // IMAGES_A_PERSON, device="cuda"),),
}


def main(
    rows: Annotated[str, typer.Option(help=f"Comma-separated, of {', '.join(ROWS)}.")] = "total,dense,growth",
    images: Annotated[
        str, typer.Option(help="Only jobs of these sizes, comma-separated; all where none is given.")
    ] = "",
    repeats: Annotated[int, typer.Option(help="The fastest of so many counts.")] = 3,
    again: Annotated[bool, typer.Option(help="Measure what is recorded already, too.")] = False,
    table: Annotated[bool, typer.Option(help="Measure nothing: tables and plot from what is recorded.")] = False,
    scratch: Annotated[Path, typer.Option(help="Keeps features and lists, up to some gigabytes.")] = SCRATCH,
    out: Annotated[Path, typer.Option(help="The folder for clustering.json and clustering.png.")] = Path(
        "benchmarks/results"
    ),
) -> None:
    """Measure and print."""
    record = out / "clustering.json"
    figures: dict[str, Any] = json.loads(record.read_text()) if record.exists() else {}
    for job in [] if table else chosen(rows, images):
        if job.name in figures and not again:
            continue
        if job.device != "cpu" and not gpu_is_there():
            sys.stderr.write(f"{job.name}: not measured, because there is no GPU\n")
            continue
        sys.stderr.write(f"{job.name}\n")
        figures[job.name] = measure(job, scratch, repeats, again=again)
        write(record, figures)
    sys.stdout.write(tables(figures, ROWS))
    draw_plot(figures, ROWS, out / "clustering.png")


def chosen(rows: str, images: str) -> list[Job]:
    """The jobs of some rows, of all sizes or of some."""
    names = rows.split(",")
    if unknown := sorted(set(names) - set(ROWS)):
        raise typer.BadParameter(f"no row is called {', '.join(unknown)}: there are {', '.join(ROWS)}")
    sizes = {int(size) for size in images.split(",") if size}
    return [job for name in names for job in ROWS[name] if not sizes or job.images in sizes]


def gpu_is_there() -> bool:
    """Whether torch can use one."""
    import torch  # here, because every measuring process imports this module

    return torch.cuda.is_available()


def write(record: Path, figures: dict[str, Any]) -> None:
    """Replace the record, whole."""
    record.parent.mkdir(parents=True, exist_ok=True)
    unfinished = record.with_suffix(".tmp")
    unfinished.write_text(json.dumps(figures, indent=1) + "\n")
    unfinished.replace(record)


if __name__ == "__main__":
    typer.run(main)
