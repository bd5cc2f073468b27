"""Small desks of the search application: painted images, an encoder without a network, requests in process."""

import io
from pathlib import Path

from fastapi.testclient import TestClient
from PIL import Image

from flows.server.search_app import Desk, search_application
from flows.server.search_guard import Access, Bounds, guarded
from flows.server.search_stop import Stop
from models.modality import Modality
from pipeline.inference.index import GallerySource
from pipeline.inference.index_refresh import open_or_refresh
from pipeline.inference.served_gallery import ServedGallery
from tests.pipeline.inference.mean_encoder import MeanEncoder, paint

PORT = 8123
OWN = f"http://127.0.0.1:{PORT}"
COLOURS = {"red": (250, 20, 20), "green": (20, 250, 20), "blue": (20, 20, 250), "grey": (90, 90, 90)}
TIMES = {"red": "2026-11-28T08:00:00", "green": "2026-11-28T09:00:00", "blue": "2026-11-28T12:00:00+02:00", "grey": ""}


def write_site(folder: Path) -> Path:
    """A manifest: four visible images of cameras 1, 2, 10 and 10, the last without time, and an infrared one."""
    rows = ["path,modality,camera,split,time"]
    for (name, colour), camera in zip(COLOURS.items(), ("1", "2", "10", "10"), strict=True):
        paint(folder / "day" / f"{name}.png", colour)
        rows.append(f"day/{name}.png,visible,{camera},train,{TIMES[name]}")
    paint(folder / "night" / "dark.png", (60, 60, 60))
    rows.append("night/dark.png,infrared,3,train,")
    (folder / "site.csv").write_text("\n".join(rows) + "\n")
    return folder / "site.csv"


def desk_of(folder: Path, encoder: MeanEncoder | None = None, *, both: bool = False) -> Desk:
    """A desk whose gallery is a new site below a folder."""
    site, encoder = write_site(folder / "site"), encoder or MeanEncoder()
    galleries = {}
    for queries in [Modality.INFRARED, *[Modality.VISIBLE] * both]:
        source = GallerySource(site, queries.other)
        galleries[queries] = ServedGallery(*open_or_refresh(source, None, folder / "indexes", encoder, batch_size=4))
    return Desk(encoder, galleries, folder / "feedback.csv")


def client_of(
    desk: Desk,
    *,
    token: str | None = None,
    host: str = "127.0.0.1",
    bounds: Bounds | None = None,
    stop: Stop | None = None,
) -> TestClient:
    """Requests to the guarded application, as if it listened on port 8123."""
    access, bounds, stop = Access(host, PORT, token), bounds or Bounds(), stop or Stop()
    application = guarded(search_application(desk, access, bounds, stop), access, bounds, stop)
    return TestClient(application, base_url=OWN)  # type: ignore[arg-type]


def png(colour: tuple[int, int, int], size: tuple[int, int] = (8, 16)) -> bytes:
    """The bytes of an image of one colour."""
    buffer = io.BytesIO()
    Image.new("RGB", size, colour).save(buffer, "PNG")
    return buffer.getvalue()
