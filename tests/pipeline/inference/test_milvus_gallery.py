"""A gallery in Milvus: the same results as the index folder, refreshed and filtered by the database."""

import base64
import os
import socket
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from jaxtyping import Float32, UInt8
from PIL import Image

from models.modality import Modality
from pipeline.data.image_list import list_images
from pipeline.data.values import moment
from pipeline.errors import CheckpointError, ConfigError, DataError
from pipeline.inference.filters import Filters
from pipeline.inference.gallery_images import Kind, Refreshed
from pipeline.inference.groups import Grouping
from pipeline.inference.index import GallerySource
from pipeline.inference.index_refresh import open_or_refresh
from pipeline.inference.milvus_address import MilvusAddress, address_of
from pipeline.inference.milvus_gallery import MilvusGallery, open_milvus
from pipeline.inference.milvus_refresh import refresh_milvus
from pipeline.inference.searching import find_similar, search_gallery
from pipeline.inference.served_gallery import Query, ServedGallery, served_queries
from pipeline.inference.served_milvus import ServedMilvus, open_served
from tests.pipeline.inference.mean_encoder import MeanEncoder, needs_milvus, paint


class CentredEncoder(MeanEncoder):
    """Vectors around the origin, which differ in direction."""

    def encode(self, pixels: UInt8[np.ndarray, "n height width 3"], modality: Modality) -> Float32[np.ndarray, "n dim"]:
        """Those of `MeanEncoder`, less the middle grey."""
        return super().encode(pixels, modality) - np.float32(127.3)


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """A manifest of 300 noisy images of three cameras; every fifth has no time."""
    random = np.random.default_rng(1)
    rows = ["path,modality,camera,person,split,time"]
    (tmp_path / "site").mkdir()
    for number in range(300):
        pixels = random.integers(0, 256, (8, 4, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / "site" / f"{number:03d}.png")
        time = "" if number % 5 == 0 else f"2026-11-28T{number % 24:02d}:00:00"
        rows.append(f'{number:03d}.png,visible,"c""{number % 3}",p{number % 7},test,{time}')
    (tmp_path / "site" / "m.csv").write_text("\n".join(rows) + "\n")
    return tmp_path / "site" / "m.csv"


def source_of(site: Path) -> GallerySource:
    return GallerySource(site, Modality.VISIBLE)


def in_milvus(site: Path, address: str, encoder: MeanEncoder | None = None, kind: Kind = "auto") -> MilvusGallery:
    opened, _ = open_or_refresh(
        source_of(site), Path(address), site.parent, encoder or CentredEncoder(), batch_size=64, kind=kind
    )
    assert isinstance(opened, MilvusGallery)
    return opened


def restart(place: MilvusAddress) -> None:
    """End the milvus-lite of a file, as the end of a process does."""
    from milvus_lite.server_manager import server_manager_instance

    server_manager_instance.release_server(place.uri)


@needs_milvus
@pytest.mark.parametrize("kind", ["exact", "ivf"])
def test_results_are_those_of_the_index_folder(site: Path, tmp_path: Path, kind: Kind) -> None:
    expected, _ = open_or_refresh(source_of(site), tmp_path / "index", tmp_path, CentredEncoder(), batch_size=64)
    gallery = in_milvus(site, f"milvus://{tmp_path}/g.db?collection=day", kind=kind)
    random = np.random.default_rng(2)
    queries = random.normal(size=(100, 12)).astype(np.float32)
    queries /= np.linalg.norm(queries, axis=1, keepdims=True)
    listed = list_images(site, Modality.VISIBLE).listed()[:100]
    one, other = (find_similar(listed, queries, each, 10) for each in (expected, gallery))
    same = 0
    for query, a, b in zip(queries, one, other, strict=True):
        np.testing.assert_allclose(np.stack(b.vectors) @ query, [hit.score for hit in b.hits], atol=1e-6)
        same += [hit.path for hit in a.hits] == [hit.path for hit in b.hits]
        known = {hit.path: hit for hit in a.hits}
        for hit in b.hits:
            if hit.path in known:
                assert hit.score == pytest.approx(known[hit.path].score, abs=1e-6)
                assert (hit.camera, hit.person, hit.time) == (
                    known[hit.path].camera, known[hit.path].person, known[hit.path].time,
                )  # fmt: skip
    assert same >= 98
    result, theirs = (
        search_gallery(CentredEncoder(), list_images(site, Modality.VISIBLE), each, 3, batch_size=64)
        for each in (gallery, expected)
    )
    assert result.score == theirs.score is not None


@needs_milvus
def test_a_refresh_embeds_what_changed_and_deletes_what_is_gone(site: Path, tmp_path: Path) -> None:
    place = address_of(Path(f"milvus://{tmp_path}/new/g.db"))
    assert place is not None
    paint(site.parent / "broken.png", (1, 2, 3)).write_bytes(b"no image")
    site.write_text(site.read_text() + "broken.png,visible,3,p1,test,\n")
    counts = refresh_milvus(place, CentredEncoder(), source_of(site), batch_size=64)[1]
    assert counts == Refreshed(kept=0, embedded=300, gone=0, unreadable=1)
    (site.parent / "broken.png").unlink()
    (site.parent / "000.png").unlink()
    paint(site.parent / "001.png", (250, 20, 20))
    os.utime(site.parent / "002.png", ns=(1, 1))
    site.write_text(site.read_text().replace('003.png,visible,"c""0"', "003.png,visible,c9"))
    encoder = CentredEncoder()
    gallery, counts = refresh_milvus(place, encoder, source_of(site), batch_size=64)
    assert (counts.kept, counts.embedded, encoder.encoded) == (297, 2, 2)
    assert gallery.images == 299 and gallery.record.cameras["c9"] == 1
    query = encoder.encode(np.full((1, 8, 4, 3), (250, 20, 20), np.uint8), Modality.VISIBLE)
    hits, images = gallery.search(query / np.linalg.norm(query), 299)
    assert sorted(one.file.path for one in images.values()) == [f"{number:03d}.png" for number in range(1, 300)]
    assert images[int(hits.rows[0, 0])].file.path == "001.png" and hits.similarities[0, 0] == pytest.approx(1, abs=1e-6)
    restart(place)
    found, _ = open_milvus(place, "mean").search(query / np.linalg.norm(query), 3)
    assert found.similarities[0, 0] == pytest.approx(1, abs=1e-6)
    encoder = CentredEncoder()
    again, where = open_or_refresh(
        GallerySource(Path(str(place)), Modality.VISIBLE), None, tmp_path, encoder, batch_size=64
    )
    assert (again.images, encoder.encoded, where) == (299, 0, place)
    site.unlink()
    assert open_or_refresh(GallerySource(Path(str(place)), Modality.VISIBLE), None, tmp_path, encoder, batch_size=4)


@needs_milvus
def test_a_killed_refresh_goes_on(site: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.inference.milvus_refresh.BLOCK", 50)
    with pytest.raises(KeyboardInterrupt):
        in_milvus(site, f"milvus://{tmp_path}/g.db", CentredEncoder(lasts=130))
    encoder = CentredEncoder()
    gallery = in_milvus(site, f"milvus://{tmp_path}/g.db", encoder)
    assert (gallery.images, encoder.encoded) == (300, 200)
    gallery.store.client.release_collection("gallery")
    gallery.store.client.drop_index("gallery", "vector")
    restart(gallery.store.address)
    assert in_milvus(site, f"milvus://{tmp_path}/g.db", kind="ivf").store.method() == "IVF_FLAT"


@needs_milvus
def test_filters_are_those_of_a_served_index(site: Path, tmp_path: Path) -> None:
    index, _ = open_or_refresh(source_of(site), tmp_path / "index", tmp_path, CentredEncoder(), batch_size=64)
    expected = ServedGallery(index, tmp_path / "index")  # type: ignore[arg-type]
    address = Path(f"milvus://{tmp_path}/g.db")
    served = open_served(source_of(site), address, CentredEncoder(), batch_size=64)
    assert isinstance(served, ServedMilvus)
    assert (served.cameras, served.span) == (expected.cameras, expected.span)
    assert served_queries(address, None) == (Modality.INFRARED,)
    query = Query(np.eye(1, 12, dtype=np.float32), 1)
    for filters in (
        Filters(),
        Filters(('c"1',)),
        Filters(('c"0', 'c"2'), since=moment("2026-11-28T05:00:00+01:00")),
        Filters(until=moment("2026-11-28T03:00:00")),
    ):
        found, theirs = served.find(query, 300, filters), expected.find(query, 300, filters)
        assert [(one.path, one.camera, one.time) for one in found] == [(o.path, o.camera, o.time) for o in theirs]
    assert served.picture(found[0].row, 100)[:2] == b"\xff\xd8"
    with pytest.raises(DataError, match="no camera 'x'"):
        served.find(query, 3, Filters(("x",)))
    with pytest.raises(ConfigError, match="--false-match needs"):
        served.find(query, 3, Filters(), 0.1)
    with pytest.raises(DataError, match="no row 999"):
        served.picture(999, 100)


@needs_milvus
def test_other_encoders_folders_modalities_and_programs_are_refused(site: Path, tmp_path: Path) -> None:
    text = f"milvus://{tmp_path}/g.db"
    gallery = in_milvus(site, text)
    with pytest.raises(DataError, match=r"made by another encoder \(mean\) than that of the queries \(other\)"):
        in_milvus(site, text, CentredEncoder("other"))
    with pytest.raises(DataError, match="visible images, but infrared ones are needed"):
        open_or_refresh(GallerySource(Path(text), Modality.INFRARED), None, tmp_path, CentredEncoder(), batch_size=4)
    paint(tmp_path / "elsewhere" / "a.png", (1, 2, 3))
    with pytest.raises(DataError, match=r"holds the images of .*/site, not those of .*/elsewhere"):
        in_milvus(tmp_path / "elsewhere", text)
    with pytest.raises(DataError, match="holds no gallery"):
        open_milvus(address_of(Path(f"{text}?collection=night")), None)  # type: ignore[arg-type]
    gallery.store.client.create_collection("theirs", dimension=4)
    with pytest.raises(DataError, match="collection of another program"):
        in_milvus(site, f"{text}?collection=theirs")
    query, listed = np.eye(1, 12, dtype=np.float32), list_images(site, Modality.VISIBLE).listed()[:1]
    with pytest.raises(ConfigError, match="not by groups"):
        find_similar(listed, query, gallery, 3, Grouping(gallery="folder"))
    with pytest.raises(ConfigError, match="at most 16,352 images"):
        gallery.search(query, 20_000)
    assert gallery.images == 300


@needs_milvus
def test_databases_that_cannot_be_opened(site: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MILVUS_TOKEN", "root:hidden-word")
    monkeypatch.setattr("pipeline.inference.milvus_store._SECONDS", 1.0)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with pytest.raises(ConfigError, match=rf"milvus://127.0.0.1:{port}\?collection=gallery does not answer") as caught:
        in_milvus(site, f"milvus://127.0.0.1:{port}")
    assert "hidden-word" not in str(caught.value)
    (tmp_path / "notes.db").write_text("of mine")
    with pytest.raises(ConfigError, match=r"notes.db exists and is no database of milvus-lite"):
        in_milvus(site, f"milvus://{tmp_path}/notes.db")
    assert (tmp_path / "notes.db").read_text() == "of mine"
    with pytest.raises(DataError, match="holds no gallery"):
        open_milvus(address_of(Path(f"milvus://{tmp_path}/none.db")), None)  # type: ignore[arg-type]
    assert not (tmp_path / "none.db").exists()


@needs_milvus
def test_a_server_holds_it_too_and_its_loss_is_one_clear_error(
    site: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from milvus_lite.adapter.grpc.server import start_server_in_thread

    monkeypatch.setattr("pipeline.inference.milvus_store._SECONDS", 1.0)
    server, database, port = start_server_in_thread(str(tmp_path / "served"), "127.0.0.1", 0)
    try:
        gallery = in_milvus(site, f"milvus://127.0.0.1:{port}?collection=day")
        hits, images = gallery.search(np.eye(1, 12, dtype=np.float32), 5)
        assert len(images) == 5 and hits.similarities[0, 0] > hits.similarities[0, 4]
    finally:
        server.stop(grace=0)
        database.close()
    with pytest.raises(CheckpointError, match=rf"milvus://127.0.0.1:{port}"):
        gallery.search(np.eye(1, 12, dtype=np.float32), 5)


@needs_milvus
def test_a_refused_login_shows_no_token(site: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import grpc

    def refuse(request: bytes, context: "grpc.ServicerContext") -> None:
        seen.extend(value for key, value in context.invocation_metadata() if key == "authorization")
        context.abort(grpc.StatusCode.UNAUTHENTICATED, "auth check failure, please check username and password")

    class Handler(grpc.GenericRpcHandler):
        def service(self, handler_call_details: "grpc.HandlerCallDetails") -> "grpc.RpcMethodHandler":  # noqa: ARG002
            return grpc.unary_unary_rpc_method_handler(refuse)

    seen: list[str] = []
    monkeypatch.setenv("MILVUS_TOKEN", "root:hidden-word")
    monkeypatch.setattr("pipeline.inference.milvus_store._SECONDS", 2.0)
    server = grpc.server(ThreadPoolExecutor(2), handlers=[Handler()])
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        with pytest.raises(ConfigError, match="refuses the login") as caught:
            in_milvus(site, f"milvus://127.0.0.1:{port}")
    finally:
        server.stop(grace=0)
    assert base64.b64decode(seen[0]) == b"root:hidden-word"
    assert "hidden-word" not in f"{caught.value} {caught.value.hint}" and caught.value.__suppress_context__


def test_without_pymilvus_the_extra_is_named(site: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pymilvus", None)
    with pytest.raises(ConfigError, match="needs pymilvus, which is not installed") as caught:
        in_milvus(site, f"milvus://{tmp_path}/g.db")
    assert caught.value.hint == "pip install 'usl-vireid[milvus]'" and not (tmp_path / "g.db").exists()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("milvus://root:secret@host:19530", "no user and no password"),
        ("milvus://host:19530?token=secret", "no option 'token'"),
        ("milvus://host", "neither a server with its port nor a file"),
        ("milvus:///data/g.db?collection=a-b", "no name of a collection"),
        ("milvus://host:19530?tls=1", "yes or no"),
    ],
)
def test_wrong_addresses_are_refused(text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        address_of(Path(text))
    assert "secret" not in f"{caught.value} {caught.value.hint}"
