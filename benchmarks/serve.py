"""How long does `vireid serve` take for an answer? 100,000 drawn vectors, over HTTP, beside the command and a call.

The server is a process of its own and does what `vireid serve` does for a request: guard, body, decoding of a JPEG of
288 x 144 pixels, search, filters, answer of 20 hits. Only the network is replaced, by a projection of the pixels that
takes a few milliseconds: a network's time is that of its own and comes on top. Prints median and 99th percentile of
one client and of four, without and with a filter, and of the call `Gallery.search` in Python, which does nothing else.
Beside them is the command `vireid search` from its start to its end, with one query, the same projection and an index
of the same vectors: interpreter, imports (torch too), a `stat` of each image of the gallery, decoding, search, table.
The images of the gallery are files of one byte, which nobody decodes. Takes 2 GB of disk; writes `serve.json`.

    OMP_NUM_THREADS=2 python -m benchmarks.serve
"""

import io
import json
import multiprocessing
import os
import signal
import socket
import subprocess
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
from PIL import Image

from benchmarks.clustering_machine import describe_machine
from benchmarks.projection import HEIGHT, WIDTH, Projection
from benchmarks.search import draw
from models.modality import Modality
from pipeline.data.image_files import FROM_ANYWHERE
from pipeline.inference.gallery_images import gallery_images, origin_of
from pipeline.inference.index import Gallery, GallerySource, IndexedFile
from pipeline.inference.index_files import BLOCK, write_generation

K, CAMERAS, CLIENTS = 20, 8, 4
HOST = "127.0.0.1"


def main(
    images: Annotated[int, typer.Option(help="Images of the gallery.")] = 100_000,
    dim: Annotated[int, typer.Option(help="Numbers in a vector: 2,048 are those of RN50.")] = 2_048,
    requests: Annotated[int, typer.Option(help="Requests of each measurement.")] = 400,
    commands: Annotated[int, typer.Option(min=1, help="Calls of `vireid search`.")] = 10,
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
            "requests": requests, "commands": commands, "seed": seed,
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
        record["gallery_search_ms"] = quantiles(
            [timed(lambda row=row: gallery.search(asked[row : row + 1], K)) for row in range(len(asked))]
        )
        record["search_command_ms"] = measure_command(Path(folder), gallery, queries[0], commands)
        record["load_after"] = os.getloadavg()[0]
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


def measure_command(folder: Path, gallery: Gallery, query: bytes, commands: int) -> dict[str, float]:
    """Milliseconds of `vireid search` with one query; the first call, which fills the disk's cache, is not counted."""
    write_index(folder, gallery)
    (folder / "query.jpg").write_bytes(query)
    program = f"from benchmarks.projection import command_line; command_line({gallery.vectors.shape[1]})"
    command = [sys.executable, "-c", program, "search", "run", "--query", "query.jpg", "--gallery", "images"]
    command += ["--index", "index", "--direction", "infrared_to_visible", "--top", str(K), "--device", "cpu"]
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[1])}

    def call() -> None:
        done = subprocess.run(command, cwd=folder, env=environment, check=False, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        assert f"index: {len(gallery.files):,} as before" in done.stderr, done.stderr

    call()
    return quantiles([timed(call) for _ in range(commands)])


def write_index(folder: Path, gallery: Gallery) -> None:
    """Files of one byte in `images`, and an index of them with the vectors in `index`."""
    for file in gallery.files:
        path = folder / "images" / file.path
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")
    source, encoder = GallerySource(folder / "images", Modality.VISIBLE), Projection(gallery.vectors.shape[1])
    listed = gallery_images(source, encoder)
    blocks = (gallery.vectors[start : start + BLOCK] for start in range(0, len(gallery.vectors), BLOCK))
    (folder / "index").mkdir()
    write_generation(
        folder / "index", origin_of(source, encoder, listed.root), listed.files, blocks,
        dim=gallery.vectors.shape[1], last=None, has_lists=False,
    )  # fmt: skip


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
            spent.extend(timed(lambda number=number: ask(number)) for number in range(requests // clients))

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
