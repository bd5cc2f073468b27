"""How fast does a query find its images? Galleries of drawn vectors against a plain NumPy scan, in one run.

Vectors are those of people: a direction for each, and noise around it for each image. Queries are further images of the
same people. Prints the median time of one query by the scan, by the exact search and by lists, their ratios, what an
index takes to build and on disk, and the recall of lists at ten images on these queries; writes `search.json`.

    OMP_NUM_THREADS=2 python -m benchmarks.search
    OMP_NUM_THREADS=2 python -m benchmarks.search --images 1000000 --dim 512 --out search_million.json
"""

import json
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Annotated, Any

import numpy as np
import typer
from jaxtyping import Float32, Int64

from benchmarks.clustering_machine import describe_machine
from clustering.gallery_search import GalleryLists, most_similar

K = 10
IMAGES_A_PERSON = 20
"""As many people have in a gallery; the ten most similar images of a query are then those of one person."""
NOISE = 0.7
"""Length of an image's noise beside its person's direction. Images of a person then have a cosine of 0.67, as infrared
queries of the demonstration have with the visible images that they find."""
BLOCK = 50_000


def main(
    images: Annotated[int, typer.Option(help="Images of the gallery.")] = 100_000,
    dim: Annotated[int, typer.Option(help="Numbers in a vector: 2,048 are those of RN50.")] = 2_048,
    queries: Annotated[int, typer.Option(help="Queries, asked one at a time.")] = 100,
    lists: Annotated[bool, typer.Option(help="Also build lists.")] = True,
    seed: Annotated[int, typer.Option(help="Of the vectors.")] = 1,
    out: Annotated[Path, typer.Option(help="The file that is written.")] = Path("benchmarks/results/search.json"),
) -> None:
    """Measure and print."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "vectors.npy"
        asked = draw(path, images, dim, queries, seed)
        gallery = np.load(path, mmap_mode="r")
        record: dict[str, Any] = {
            "machine": describe_machine(), "images": images, "dim": dim, "queries": queries, "seed": seed,
            "vectors_bytes": path.stat().st_size,
        }  # fmt: skip
        expected, record["scan_ms"] = each(asked, lambda query: scan(query, gallery))
        found, record["exact_ms"] = each(asked, lambda query: most_similar(query, gallery, K).rows[0])
        record["exact_agreement"] = agreement(found, expected)
        record["exact_ratio"] = record["scan_ms"] / record["exact_ms"]
        if lists:
            start = time.perf_counter()
            built = GalleryLists.build(gallery)
            record["lists_build_s"] = time.perf_counter() - start
            record["lists_bytes"] = len(built.to_bytes())
            record["lists_effort"] = built.effort
            record["lists_recall_on_gallery"] = built.recall
            found, record["lists_ms"] = each(asked, lambda query: built.search(query, gallery, K).rows[0])
            record["lists_recall_at_10"] = agreement(found, expected)
            record["lists_ratio"] = record["scan_ms"] / record["lists_ms"]
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(record, indent=1) + "\n")
    for name, value in record.items():
        sys.stdout.write(f"{name:24} {value:.4g}\n" if isinstance(value, float) else f"{name:24} {value}\n")


def draw(path: Path, images: int, dim: int, queries: int, seed: int) -> Float32[np.ndarray, "q dim"]:
    """Write a gallery of unit rows in random order; gives queries of some of its people."""
    generator = np.random.default_rng(seed)
    people = generator.standard_normal((images // IMAGES_A_PERSON, dim), dtype=np.float32) / np.float32(dim**0.5)
    shown = generator.permutation(np.arange(images) % len(people))
    gallery = np.lib.format.open_memmap(path, mode="w+", dtype=np.float32, shape=(images, dim))
    for start in range(0, images, BLOCK):
        gallery[start : start + BLOCK] = photographs(people[shown[start : start + BLOCK]], generator)
    gallery.flush()
    return photographs(people[generator.permutation(len(people))[:queries]], generator)


def photographs(
    directions: Float32[np.ndarray, "n dim"], generator: np.random.Generator
) -> Float32[np.ndarray, "n dim"]:
    """One unit row a direction, with noise of its own."""
    dim = directions.shape[1]
    rows = directions + generator.standard_normal(directions.shape, dtype=np.float32) * np.float32(NOISE / dim**0.5)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    return rows


def scan(query: Float32[np.ndarray, "1 dim"], gallery: Float32[np.ndarray, "n dim"]) -> Int64[np.ndarray, " k"]:
    """What anybody would write: one product, the largest ten, sorted."""
    similarities = gallery @ query[0]
    best = np.argpartition(-similarities, K)[:K]
    order: Int64[np.ndarray, " k"] = best[np.argsort(-similarities[best])]
    return order


def each(
    queries: Float32[np.ndarray, "q dim"], search: Callable[[Float32[np.ndarray, "1 dim"]], Int64[np.ndarray, " k"]]
) -> tuple[list[Int64[np.ndarray, " k"]], float]:
    """What every query finds, and the median time of one in milliseconds; the first is asked twice, to warm up."""
    search(queries[:1])
    found, spent = [], []
    for row in range(len(queries)):
        start = time.perf_counter()
        found.append(search(queries[row : row + 1]))
        spent.append(time.perf_counter() - start)
    return found, 1e3 * median(spent)


def agreement(found: list[Int64[np.ndarray, " k"]], expected: list[Int64[np.ndarray, " k"]]) -> float:
    """Share of the expected images that are found."""
    return float(
        np.mean([len({*one.tolist()} & {*other.tolist()}) / K for one, other in zip(found, expected, strict=True)])
    )


if __name__ == "__main__":
    typer.run(main)
