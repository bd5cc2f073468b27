"""How long does `vireid serve` take for an answer? 100,000 drawn vectors, over HTTP, beside the search alone.

The server is a process of its own and does what `vireid serve` does for a request: guard, body, decoding of a JPEG of
288 x 144 pixels, search, filters, answer of 20 hits. Only the network is replaced, by a projection of the pixels that
takes a few milliseconds: a network's time is that of its own and comes on top. Prints median and 99th percentile of
one client and of four, without and with a filter, and of `Gallery.search` alone; writes `serve.json`.

    OMP_NUM_THREADS=2 python -m benchmarks.serve
"""

import io
import json
import multiprocessing
import os
import signal
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import httpx
import numpy as np
import typer
from jaxtyping import Float32, UInt8
from PIL import Image

from benchmarks.clustering_machine import describe_machine
from benchmarks.search import draw
from models.modality import Modality
from pipeline.data.image_files import FROM_ANYWHERE
from pipeline.inference.index import Gallery, IndexedFile

K, CAMERAS, CLIENTS = 20, 8, 4
HEIGHT, WIDTH = 288, 144
HOST = "127.0.0.1"


class Projection:
    """An encoder of no network: a fixed projection of the pixels at an eighth of their size."""

    name, digest = "projection", "projection"
    height, width = HEIGHT, WIDTH
    reading, synthetic = FROM_ANYWHERE, True

    def __init__(self, dim: int) -> None:
        cells = HEIGHT // 8 * (WIDTH // 8) * 3
        self._matrix = np.random.default_rng(3).standard_normal((cells, dim), dtype=np.float32)

    def encode(self, pixels: UInt8[np.ndarray, "n height width 3"], _: Modality) -> Float32[np.ndarray, "n dim"]:
        """One vector an image; both modalities alike."""
        small = pixels[:, ::8, ::8].reshape(len(pixels), -1).astype(np.float32) - 127
        return small @ self._matrix


def main(
    images: Annotated[int, typer.Option(help="Images of the gallery.")] = 100_000,
    dim: Annotated[int, typer.Option(help="Numbers in a vector: 2,048 are those of RN50.")] = 2_048,
    requests: Annotated[int, typer.Option(help="Requests of each measurement.")] = 400,
    seed: Annotated[int, typer.Option(help="Of the vectors and the queries.")] = 1,
    out: Annotated[Path, typer.Option(help="The file that is written.")] = Path("benchmarks/results/serve.json"),
) -> None:
    """Measure and print."""
    with tempfile.TemporaryDirectory() as folder, socket.create_server((HOST, 0)) as listener:
        asked = draw(Path(folder) / "vectors.npy", images, dim, min(requests, images // 20), seed)
        server = multiprocessing.get_context("fork").Process(target=serve, args=(Path(folder), dim, listener))
        server.start()
        address = f"http://{HOST}:{listener.getsockname()[1]}"
        listener.close()
        record: dict[str, Any] = {
            "machine": describe_machine(), "load_before": os.getloadavg()[0], "images": images, "dim": dim,
            "requests": requests, "seed": seed,
        }  # fmt: skip
        queries = [photograph(number) for number in range(16)]
        with httpx.Client(base_url=address, timeout=600, trust_env=False) as client:
            while not is_ready(client):
                time.sleep(0.2)
        filtered = {"camera": ["1", "2"], "since": "2026-01-01T00:00:00"}
        record["one_client_ms"] = measure(address, queries, requests, {})
        record["one_client_filtered_ms"] = measure(address, queries, requests, filtered)
        record["four_clients_ms"] = measure(address, queries, requests, {}, CLIENTS)
        assert server.pid is not None
        os.kill(server.pid, signal.SIGTERM)
        server.join()
        record["server_exit_code"] = server.exitcode
        gallery = gallery_of(Path(folder))
        record["search_alone_ms"] = quantiles(
            [timed(lambda row=row: gallery.search(asked[row : row + 1], K)) for row in range(len(asked))]  # type: ignore[misc]
        )
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(record, indent=1) + "\n")
    for name, value in record.items():
        sys.stdout.write(f"{name:24} {value}\n")


def gallery_of(folder: Path) -> Gallery:
    """The vectors, with files that do not exist, of eight cameras and a minute each."""
    vectors = np.load(folder / "vectors.npy", mmap_mode="r")
    start = np.datetime64("2026-01-01T00:00:00")
    times = np.datetime_as_string(start + np.arange(len(vectors)) * np.timedelta64(60, "s"))
    files = tuple(
        IndexedFile(f"cam{row % CAMERAS}/{row:06d}.jpg", 1, 1, str(row % CAMERAS), time=str(times[row]))
        for row in range(len(vectors))
    )
    return Gallery(folder, files, vectors, Modality.VISIBLE, "projection", None, FROM_ANYWHERE)


def serve(folder: Path, dim: int, listener: socket.socket) -> None:
    """The server's process."""
    from flows.server.search_app import Desk
    from flows.server.search_guard import Bounds
    from flows.server.search_server import serve_search
    from pipeline.inference.served_gallery import ServedGallery

    served = ServedGallery(gallery_of(folder), folder)
    desk = Desk(Projection(dim), {Modality.INFRARED: served}, folder / "feedback.csv")
    serve_search(desk, listener, HOST, None, Bounds())


def photograph(number: int) -> bytes:
    """A JPEG of blurred noise."""
    noise = np.random.default_rng(number).integers(0, 256, (36, 18, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(noise).resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC).save(buffer, "JPEG", quality=90)
    return buffer.getvalue()


def is_ready(client: httpx.Client) -> bool:
    """Whether the server answers."""
    try:
        return client.get("/health").is_success
    except httpx.TransportError:
        return False


def measure(
    address: str, queries: list[bytes], requests: int, values: dict[str, Any], clients: int = 1
) -> dict[str, float]:
    """Latencies of requests that several clients send, each one after the other; the first of each is not counted."""
    spent: list[float] = []

    def work() -> None:
        with httpx.Client(base_url=address, timeout=600, trust_env=False) as client:

            def ask(number: int) -> None:
                query = queries[number % len(queries)]
                client.post("/api/search", params={"k": K, **values}, content=query).raise_for_status()

            ask(0)
            spent.extend(timed(lambda number=number: ask(number)) for number in range(requests // clients))  # type: ignore[misc]

    threads = [threading.Thread(target=work) for _ in range(clients)]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    assert len(spent) == requests // clients * clients
    return quantiles(spent)


def timed(call: Callable[[], Any]) -> float:
    """Milliseconds."""
    start = time.perf_counter()
    call()
    return 1e3 * (time.perf_counter() - start)


def quantiles(spent: list[float]) -> dict[str, float]:
    """Median and 99th percentile."""
    return {"median": float(np.median(spent)), "p99": float(np.quantile(spent, 0.99))}


if __name__ == "__main__":
    typer.run(main)
