"""What does a gallery in Milvus cost beside the index folder? Drawn vectors of `benchmarks.search`, in one run.

Both take the vectors from a feature file, as `vireid search --gallery FEATURES` does. Prints the seconds of making and
of refreshing each without a change, bytes on disk, the median time of one query, the share of the ten images of an
exact scan that is found, the share of queries whose ten are those of the index folder, and the largest difference of
scores; writes `vector_database.json`. Without --address, Milvus is milvus-lite in a folder of its own.

    OMP_NUM_THREADS=2 python -m benchmarks.vector_database
    OMP_NUM_THREADS=2 python -m benchmarks.vector_database --images 1000000 --out vector_database_million.json
"""

import json
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, cast

import numpy as np
import typer

from benchmarks.clustering_machine import describe_machine
from benchmarks.search import K, agreement, draw, each, scan
from models.modality import Modality
from pipeline.data.image_files import FROM_ANYWHERE
from pipeline.inference.encoder import TrainedEncoder
from pipeline.inference.gallery_images import Kind
from pipeline.inference.index import Gallery, GallerySource
from pipeline.inference.index_refresh import open_or_refresh
from pipeline.inference.milvus_gallery import MilvusGallery


class Given:
    """An encoder that encodes nothing: all vectors are given."""

    name = digest = "given"
    height = width = 0
    reading, synthetic = FROM_ANYWHERE, True

    def encode(self, *_: Any) -> Any:
        """It is not called."""
        raise AssertionError


def main(
    images: Annotated[int, typer.Option(help="Images of the gallery.")] = 20_000,
    dim: Annotated[int, typer.Option(help="Numbers in a vector.")] = 512,
    queries: Annotated[int, typer.Option(help="Queries, asked one at a time.")] = 100,
    method: Annotated[str, typer.Option(help="auto, exact or ivf.")] = "auto",
    address: Annotated[str, typer.Option(help="A milvus:// address, to measure a server.")] = "",
    seed: Annotated[int, typer.Option(help="Of the vectors.")] = 1,
    out: Annotated[Path, typer.Option(help="The file.")] = Path("benchmarks/results/vector_database.json"),
) -> None:
    """Measure and print."""
    record: dict[str, Any] = {
        "machine": describe_machine(), "images": images, "dim": dim, "queries": queries, "method": method, "seed": seed,
    }  # fmt: skip
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        asked = draw(folder / "vectors.npy", images, dim, queries, seed)
        vectors = np.load(folder / "vectors.npy", mmap_mode="r")
        write_features(folder / "gallery.npz", vectors)
        expected, record["scan_ms"] = each(asked, lambda query: scan(query, vectors))
        found = {}
        for what, place in (("folder", folder / "index"), ("milvus", Path(address or f"milvus:{folder}/lite/g.db"))):
            gallery = make(folder, place, cast(Kind, method), what, record)
            stored = folder / ("index" if what == "folder" else "lite")
            record[f"{what}_bytes"] = sum(file.stat().st_size for file in stored.rglob("*") if file.is_file())
            found[what], record[f"{what}_ms"] = each(asked, searcher(gallery))
            record[f"{what}_recall_at_10"] = agreement(found[what], expected)
        both = [(one.tolist(), other.tolist()) for one, other in zip(found["folder"], found["milvus"], strict=True)]
        record["same_ten"] = sum(one == other for one, other in both) / queries
        assert isinstance(gallery, MilvusGallery)
        hits, images = gallery.search(asked, K)
        rows = np.array([[int(images[row].file.path) for row in line] for line in hits.rows.tolist()])
        exact = np.einsum("qd,qkd->qk", asked, vectors[rows])
        record["largest_score_difference"] = float(np.abs(hits.similarities - exact).max())
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(record, indent=1) + "\n")
    for key, value in record.items():
        sys.stdout.write(f"{key:26} {value:.4g}\n" if isinstance(value, float) else f"{key:26} {value}\n")


def write_features(path: Path, vectors: np.ndarray) -> None:
    """A feature file of visible images that are called by their numbers."""
    names = np.array([f"{row:08d}" for row in range(len(vectors))])
    record = json.dumps({"encoder": "given", "root": "/images"})
    np.savez(path, features=vectors, paths=names, modalities=np.full(len(vectors), "visible"), record=np.array(record))


def make(folder: Path, place: Path, kind: Kind, what: str, record: dict[str, Any]) -> Gallery | MilvusGallery:
    """Make a gallery, and refresh it once."""
    source = GallerySource(folder / "gallery.npz", Modality.VISIBLE)
    for part in ("build", "refresh"):
        start = time.perf_counter()
        encoder = cast(TrainedEncoder, Given())
        gallery, _ = open_or_refresh(source, place, folder, encoder, batch_size=64, kind=kind)
        record[f"{what}_{part}_s"] = time.perf_counter() - start
    return gallery


def searcher(gallery: Gallery | MilvusGallery) -> Callable[[np.ndarray], np.ndarray]:
    """The numbers of the images that a query finds."""

    def search(query: np.ndarray) -> np.ndarray:
        if isinstance(gallery, Gallery):
            return gallery.search(query, K).rows[0]
        hits, images = gallery.search(query, K)
        return np.array([int(images[row].file.path) for row in hits.rows[0].tolist()])

    return search


if __name__ == "__main__":
    typer.run(main)
