"""Searching over HTTP: the answers of `vireid search`, filters, images by row, and one sentence for every bad input."""

import hashlib
import io
import os
import re
import struct
import tracemalloc
import zlib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fastapi.testclient import TestClient
from PIL import Image

from flows.server.search_app import Desk
from flows.server.search_guard import Bounds
from models.modality import Modality
from pipeline.data.image_files import Adjustment
from pipeline.data.image_list import list_images
from pipeline.inference.calibration import calibrate_gallery
from pipeline.inference.feedback import COLUMNS, read_marks
from pipeline.inference.groups import SINGLE, Grouping
from pipeline.inference.index import GallerySource
from pipeline.inference.index_refresh import open_or_refresh
from pipeline.inference.searching import search_gallery
from pipeline.inference.served_gallery import ServedGallery
from tests.flows.server.search_desks import COLOURS, client_of, desk_of, png, write_site
from tests.pipeline.inference.mean_encoder import MeanEncoder, paint

RED = png((240, 30, 30))


@pytest.fixture
def client(tmp_path: Path) -> TestClient:
    return client_of(desk_of(tmp_path))


def search(client: TestClient, body: bytes = RED, **values: Any) -> dict[str, Any]:
    answer = client.post("/api/search", params=values, content=body)
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


def names(answer: dict[str, Any]) -> list[str]:
    return [hit["path"].removeprefix("day/").removesuffix(".png") for hit in answer["hits"]]


def refused(client: TestClient, status: int, body: bytes = RED, **values: Any) -> str:
    """The sentence of a refusal, which is one."""
    answer = client.post("/api/search", params=values, content=body)
    assert answer.status_code == status, answer.text
    sentence = answer.json()["detail"]
    assert isinstance(sentence, str) and "\n" not in sentence and "Traceback" not in sentence
    return sentence


class TestSearch:
    def test_hits_and_scores_are_those_of_the_command(self, tmp_path: Path) -> None:
        desk = desk_of(tmp_path)
        query = tmp_path / "queries" / "red.png"
        query.parent.mkdir()
        query.write_bytes(RED)
        served = desk.galleries[Modality.INFRARED]
        images = list_images(query, Modality.INFRARED)
        expected = search_gallery(desk.encoder, images, served.gallery, 3, batch_size=4).queries[0].hits
        answer = search(client_of(desk), k=3, name="red.png")
        assert [(hit["path"], hit["score"], hit["camera"]) for hit in answer["hits"]] == [
            (hit.path, hit.score, hit.camera) for hit in expected
        ]
        assert [hit["rank"] for hit in answer["hits"]] == [1, 2, 3]
        digest = hashlib.sha256(RED).hexdigest()
        assert answer["query"] == [{"name": "red.png", "sha256": digest, "conversions": []}]
        assert (answer["modality"], answer["gallery"]) == ("infrared", "visible")

    def test_several_images_are_one_query_in_the_direction_of_the_mean_of_their_unit_vectors(
        self, tmp_path: Path
    ) -> None:
        desk = desk_of(tmp_path)
        bright, dark = png((250, 0, 0)), png((0, 25, 0))
        files = [("image", (name, content, "image/png")) for name, content in (("a ü.png", bright), ("b.png", dark))]
        answer = client_of(desk).post("/api/search", files=files).json()
        assert [one["name"] for one in answer["query"]] == ["a ü.png", "b.png"]
        # Twelve numbers: red, green, blue of four quarters. Units are (1, 0, 0) / 2 and (0, 1, 0) / 2 a quarter, so the
        # direction of the mean is (1, 1, 0) / sqrt(8), however bright an image is.
        gallery = desk.galleries[Modality.INFRARED].gallery
        query = np.tile([1, 1, 0], 4) / np.sqrt(8)
        expected = {file.path: float(row @ query) for file, row in zip(gallery.files, gallery.vectors, strict=True)}
        assert {hit["path"]: hit["score"] for hit in answer["hits"]} == pytest.approx(expected, abs=1e-6)

    def test_filters_by_camera_and_time_leave_the_scores_of_what_remains(self, client: TestClient) -> None:
        everything = {hit["path"]: hit["score"] for hit in search(client)["hits"]}
        assert len(everything) == 4
        for values, expected in (
            ({"camera": ["10"]}, {"blue", "grey"}),
            ({"camera": ["1", "2"]}, {"red", "green"}),
            ({"since": "2026-11-28T09:00:00"}, {"green", "blue"}),  # blue is at 10:00 UTC; both ends count
            ({"until": "2026-11-28T09:00:00"}, {"red", "green"}),  # an unknown time is outside
            ({"since": "2026-11-28T11:30:00+02:00", "camera": "2"}, set()),
        ):
            answer = search(client, **values)
            assert set(names(answer)) == expected
            assert all(hit["score"] == everything[hit["path"]] for hit in answer["hits"])
            scores = [hit["score"] for hit in answer["hits"]]
            assert scores == sorted(scores, reverse=True)

    def test_a_manifest_of_both_modalities_is_searched_in_both_directions(self, tmp_path: Path) -> None:
        client = client_of(desk_of(tmp_path, both=True))
        assert search(client, modality="infrared")["gallery"] == "visible"
        answer = search(client, modality="visible")
        assert [hit["path"] for hit in answer["hits"]] == ["night/dark.png"]
        assert client.get("/api/images/0", params={"gallery": "infrared"}).status_code == 200
        assert client.get("/api/images/1", params={"gallery": "infrared"}).status_code == 404
        assert "give the modality" in refused(client, 422)

    def test_the_other_modality_than_that_of_queries_is_refused(self, client: TestClient) -> None:
        assert "queries of this gallery are infrared" in refused(client, 422, modality="visible")


class TestGroups:
    """Groups as hits, and scores with a meaning: what `vireid search --group --false-match` finds."""

    GROUPING = Grouping("folder", "folder")

    @pytest.fixture
    def folder(self, tmp_path: Path) -> Path:
        """Visible images in four folders of two, a query of two infrared images, strangers in 30 folders of two."""
        for name, (red, green, blue) in COLOURS.items():
            for shot in range(2):
                paint(tmp_path / "day" / name / f"{shot}.png", (red, green + 5 * shot, blue))
        for shot in range(2):
            paint(tmp_path / "night" / f"{shot}.png", (240, 30 + 9 * shot, 25))
        for number in range(60):
            paint(
                tmp_path / "strangers" / str(number // 2) / f"{number}.png",
                (number + 1, 2 * number, (37 * number) % 120),
            )
        return tmp_path

    def test_hits_and_chances_are_those_of_the_command(self, folder: Path) -> None:
        encoder, source = MeanEncoder(), GallerySource(folder / "day", Modality.VISIBLE)
        gallery, index = open_or_refresh(source, None, folder / "indexes", encoder, batch_size=4)
        strangers = list_images(folder / "strangers", Modality.INFRARED)
        calibrations = calibrate_gallery(index, encoder, strangers, [self.GROUPING], batch_size=4)
        images = sorted((folder / "night").iterdir())
        contents = [("image", (file.name, file.read_bytes())) for file in images]
        single = list_images(images[0], Modality.INFRARED), contents[:1]
        for grouping, (queries, files) in (
            (SINGLE, single),
            (self.GROUPING, single),
            (self.GROUPING, (list_images(folder / "night", Modality.INFRARED), contents)),
        ):
            served = ServedGallery(gallery, index, grouping, calibrations)
            client = client_of(Desk(encoder, {Modality.INFRARED: served}, folder / "feedback.csv"))
            for false_match in (None, 0.4):
                result = search_gallery(
                    encoder, queries, gallery, 3, batch_size=4, grouping=grouping, calibrations=calibrations,
                    false_match=false_match,
                )  # fmt: skip
                expected = [asdict(hit) for hit in result.queries[0].hits]
                values = {"k": 3} | ({} if false_match is None else {"false_match": false_match})
                answer = client.post("/api/search", files=files, params=values).json()
                found = [{name: hit.get(name) for name in asdict(result.queries[0].hits[0])} for hit in answer["hits"]]
                assert found == expected  # `right` is unknown in both
                assert len(expected) == 3 if false_match is None else 0 < len(expected) < 3
            assert client.get("/api/gallery").json()["galleries"][0]["strangers"] == (30 if grouping.gallery else 60)
            assert all(hit["one_in"] > 1 and hit["images"] == (2 if grouping.gallery else 1) for hit in answer["hits"])

    def test_chances_that_are_not_known_are_refused(self, folder: Path) -> None:
        encoder, source = MeanEncoder(), GallerySource(folder / "day", Modality.VISIBLE)
        gallery, index = open_or_refresh(source, None, folder / "indexes", encoder, batch_size=4)
        client = client_of(Desk(encoder, {Modality.INFRARED: ServedGallery(gallery, index)}, folder / "feedback.csv"))
        assert "no calibration" in refused(client, 422, false_match=0.1)
        calibrations = calibrate_gallery(
            index, encoder, list_images(folder / "strangers", Modality.INFRARED), batch_size=4
        )
        served = ServedGallery(gallery, index, SINGLE, calibrations)
        client = client_of(Desk(encoder, {Modality.INFRARED: served}, folder / "feedback.csv"))
        assert "too few" in refused(client, 422, false_match=0.001)
        files = [("image", ("a.png", RED)), ("image", ("b.png", RED))]  # no calibration for groups
        assert client.post("/api/search", files=files, params={"false_match": 0.4}).status_code == 422
        assert all(hit["one_in"] is None for hit in client.post("/api/search", files=files).json()["hits"])

    def test_a_filter_finds_groups_with_an_image_that_fulfils_it(self, tmp_path: Path) -> None:
        site = write_site(tmp_path / "site")
        source = GallerySource(site, Modality.VISIBLE)
        gallery, index = open_or_refresh(source, None, tmp_path / "indexes", MeanEncoder(), batch_size=4)
        served = ServedGallery(gallery, index, Grouping("folder", "folder"))
        client = client_of(Desk(MeanEncoder(), {Modality.INFRARED: served}, tmp_path / "feedback.csv"))
        for camera, images in (("1", [4]), ("10", [4])):  # all four are in the folder `day`
            assert [hit["images"] for hit in search(client, camera=camera)["hits"]] == images
        assert search(client, since="2027-01-01")["hits"] == []


class TestConversions:
    def test_each_image_has_what_reading_changed_and_the_log_has_the_counts(
        self, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        desk = desk_of(tmp_path)
        files = [("image", (name, conversion)) for name, conversion in (("plain.png", RED), *converted().items())]
        with caplog.at_level("INFO", "pipeline"):
            caplog.clear()  # the index was made before
            answer = client_of(desk).post("/api/search", files=files)
            assert answer.status_code == 200, answer.text
            first = [*caplog.messages]
            caplog.clear()
            search(client_of(desk), converted()["deep.png"])
            again = [*caplog.messages]
            caplog.clear()
            desk.conversions.log()
        found = {one["name"]: one["conversions"] for one in answer.json()["query"]}
        assert found == {
            "plain.png": [], "deep.png": [str(Adjustment.SCALED)], "clear.png": [str(Adjustment.COMPOSITED)],
            "turned.jpg": [str(Adjustment.TURNED)],
        }  # fmt: skip
        assert len(first) == 3 and f"1 of 4 images have {Adjustment.SCALED}" in first
        assert again == []  # a kind that was seen is counted, not logged again
        assert f"2 of 5 images have {Adjustment.SCALED}" in caplog.messages
        assert f"1 of 5 images have {Adjustment.TURNED}" in caplog.messages

    def test_a_refused_query_is_not_counted(self, tmp_path: Path) -> None:
        desk = desk_of(tmp_path)
        files = [("image", ("deep.png", converted()["deep.png"])), ("image", ("bad.png", b"no image"))]
        assert client_of(desk).post("/api/search", files=files).status_code == 422
        assert (desk.conversions.images, desk.conversions.seen) == (0, {})


def converted() -> dict[str, bytes]:
    """Images that reading converts: one of 16 bits, one with transparent pixels, one with an orientation tag."""
    exif = Image.Exif()
    exif[0x0112] = 6
    contents = {}
    for name, image, options in (
        ("deep.png", Image.fromarray(np.arange(0, 60_000, 500, dtype=np.uint16).reshape(12, 10)), {}),
        ("clear.png", Image.new("RGBA", (8, 16), (200, 20, 20, 90)), {}),
        ("turned.jpg", Image.new("RGB", (16, 8), (200, 20, 20)), {"exif": exif}),
    ):
        buffer = io.BytesIO()
        image.save(buffer, "JPEG" if name.endswith("jpg") else "PNG", **options)
        contents[name] = buffer.getvalue()
    return contents


class TestGallery:
    def test_cameras_in_the_order_of_numbers_and_the_span_of_known_times(self, client: TestClient) -> None:
        info = client.get("/api/gallery").json()
        (gallery,) = info["galleries"]
        cameras = [(one["name"], one["images"]) for one in gallery["cameras"]]
        assert cameras == [("1", 1), ("2", 1), ("10", 2)]
        assert gallery["span"] == ["2026-11-28T08:00:00", "2026-11-28T10:00:00"]
        assert (gallery["modality"], gallery["queries"], gallery["images"]) == ("visible", "infrared", 4)

    def test_an_image_is_upright_small_and_without_metadata(self, tmp_path: Path) -> None:
        desk = desk_of(tmp_path)
        exif = Image.Exif()
        exif[0x0112], exif[0x010F] = 6, "maker"
        photo = tmp_path / "photos" / "turned.jpg"
        photo.parent.mkdir()
        Image.new("RGB", (900, 450), (9, 9, 200)).save(photo, exif=exif)
        source = GallerySource(photo.parent, Modality.VISIBLE)
        opened = open_or_refresh(source, None, tmp_path / "indexes", desk.encoder, batch_size=4)
        client = client_of(type(desk)(desk.encoder, {Modality.INFRARED: ServedGallery(*opened)}, desk.feedback))
        for size, expected in (("thumbnail", (160, 320)), ("full", (450, 900))):
            answer = client.get("/api/images/0", params={"size": size})
            assert answer.headers["content-type"] == "image/jpeg" and b"maker" not in answer.content
            assert Image.open(io.BytesIO(answer.content)).size == expected

    def test_only_rows_of_the_index_are_images(self, client: TestClient) -> None:
        for row in ("4", "-1", "99999999999999999999"):
            assert client.get(f"/api/images/{row}").status_code == 404
        for row in ("../site.csv", "..%2Fsite.csv", "day/red.png"):
            assert client.get(f"/api/images/{row}").status_code in (404, 422)

    def test_a_file_that_has_changed_since_is_not_shown(self, tmp_path: Path) -> None:
        client = client_of(desk_of(tmp_path))
        red = tmp_path / "site" / "day" / "red.png"
        paint(red, (1, 2, 3), (30, 30))
        os.utime(red, ns=(1, 1))
        rows = {hit["path"]: hit["row"] for hit in search(client)["hits"]}
        answer = client.get(f"/api/images/{rows['day/red.png']}")
        assert answer.status_code == 422 and "has changed" in answer.json()["detail"]
        red.unlink()
        assert client.get(f"/api/images/{rows['day/red.png']}?size=full").status_code == 422


def bomb(width: int, height: int) -> bytes:
    """A PNG whose header claims a huge image."""

    def part(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + part(b"IHDR", header) + part(b"IDAT", zlib.compress(b"\0" * 99)) + part(b"IEND", b"")


class TestBadInput:
    @pytest.mark.parametrize(
        ("body", "reason"),
        [
            (b"", "empty"),
            (b"hello, world", "no image"),
            (b"%PDF-1.7 \x00\x01", "no image"),
            (RED[:40], "damaged"),
            (bomb(100_000, 100_000), "pixels"),
            (bomb(9_000, 9_000), "pixels"),
            (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", ""),
        ],
    )
    def test_what_is_no_image_is_refused_by_name_and_reason(self, body: bytes, reason: str, client: TestClient) -> None:
        sentence = refused(client, 422, body, name="upload.png")
        assert sentence.startswith("upload.png: ") and reason in sentence

    def test_one_bad_file_of_several_is_named(self, client: TestClient) -> None:
        files = [("image", ("good.png", RED)), ("image", ("bad.png", b"no image"))]
        answer = client.post("/api/search", files=files)
        assert answer.status_code == 422 and answer.json()["detail"].startswith("bad.png: ")

    @pytest.mark.parametrize(
        ("kind", "body"),
        [
            ("multipart/form-data", b"--x\r\n\r\n--x--"),
            ("multipart/form-data; boundary=x", b"--x\r\ncontent-disposition: form-data; filename=a\r\n\r\ncut"),
            ("multipart/form-data; boundary=x", b"--x--\r\n"),
            ("multipart/form-data; boundary=x", b"--x\r\ncontent-disposition: form-data; name=a\r\n\r\n1\r\n--x--"),
            ("multipart/form-data; boundary=x", b""),
        ],
    )
    def test_forms_without_a_file_or_an_end_are_refused(self, kind: str, body: bytes, client: TestClient) -> None:
        answer = client.post("/api/search", content=body, headers={"content-type": kind})
        assert answer.status_code == 422 and isinstance(answer.json()["detail"], str)

    def test_pixels_are_summed_from_headers_before_one_is_decoded(self, tmp_path: Path) -> None:
        client = client_of(desk_of(tmp_path), bounds=Bounds(pixels=300))
        few = [("image", (f"{number}.png", png((9, 9, 9), (10, 10)))) for number in range(3)]
        assert client.post("/api/search", files=few).status_code == 200  # 300 are not more than 300
        answer = client.post("/api/search", files=[*few, ("image", ("more.png", RED))])  # 8 x 16 pixels
        assert answer.status_code == 422
        assert answer.json()["detail"] == "the images have 428 pixels together, more than 300"
        assert "--most-megapixels" in answer.json()["hint"]
        # A file that claims 400 pixels and has none: it would be damaged if it were decoded.
        assert refused(client, 422, bomb(20, 20)) == "image has 400 pixels, more than 300"

    def test_sixteen_huge_deep_images_are_refused_without_their_memory(self, client: TestClient) -> None:
        buffer = io.BytesIO()
        Image.new("F", (7_000, 7_000)).save(buffer, "TIFF", compression="tiff_adobe_deflate")
        files = [("image", (f"{number}.tif", buffer.getvalue())) for number in range(16)]
        tracemalloc.start()
        try:
            answer = client.post("/api/search", files=files)
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert answer.status_code == 422
        assert answer.json()["detail"] == "the images have 784,000,000 pixels together, more than 128,000,000"
        assert peak < 8 * sum(len(one[1][1]) for one in files)  # one alone has 196 MB of pixels

    def test_too_many_images_and_too_many_bytes(self, tmp_path: Path) -> None:
        client = client_of(desk_of(tmp_path), bounds=Bounds(images=2, body_bytes=5_000))
        files = [("image", (f"{number}.png", RED)) for number in range(3)]
        answer = client.post("/api/search", files=files)
        assert answer.status_code == 422 and answer.json()["detail"] == "3 images, more than 2"
        assert refused(client, 413, bytes(5_001)) == "the body has more than 5,000 bytes"
        assert client.post("/api/search", content=iter([bytes(2_000)] * 50)).status_code == 413  # of unknown length
        assert client.post("/api/feedback", content=bytes(70_000)).status_code == 413
        assert search(client)["hits"]

    @pytest.mark.parametrize(
        ("values", "reason"),
        [
            ({"k": 0}, "k: "),
            ({"k": 201}, "k: "),
            ({"k": "many"}, "k: "),
            ({"modality": "thermal"}, "modality: "),
            ({"camera": "77"}, "the gallery has no camera '77'"),
            ({"since": "yesterday"}, "since 'yesterday' is not like"),
            ({"until": "99999-01-01"}, "until "),
        ],
    )
    def test_values_without_a_meaning(self, values: dict[str, Any], reason: str, client: TestClient) -> None:
        assert refused(client, 422, **values).startswith(reason)


class TestMarks:
    def mark(self, client: TestClient, answer: dict[str, Any], place: int, mark: str) -> int:
        body = {"search": answer["search"], "row": answer["hits"][place]["row"], "mark": mark}
        return client.post("/api/feedback", json=body).status_code

    def test_a_mark_is_a_line_with_what_was_searched_and_found(self, tmp_path: Path) -> None:
        desk = desk_of(tmp_path)
        client = client_of(desk)
        answer = search(client, name='a\nb,"c".png')
        assert [self.mark(client, answer, place, mark) for place, mark in ((0, "right"), (1, "wrong"))] == [204, 204]
        assert desk.feedback.read_text().splitlines()[0] == ",".join(COLUMNS)
        first, second = read_marks(desk.feedback)
        assert first.query == f'a_b,"c".png sha256:{hashlib.sha256(RED).hexdigest()}'
        assert (first.hit, first.rank, first.mark, first.run) == (answer["hits"][0]["path"], 1, "right", "mean")
        assert first.score == pytest.approx(answer["hits"][0]["score"], abs=1e-6)
        assert Path(first.index) == desk.galleries[Modality.INFRARED].folder.resolve()
        assert (second.rank, second.mark, second.query_modality) == (2, "wrong", "infrared")
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", first.time)

    def test_many_marks_at_once_lose_no_line(self, tmp_path: Path) -> None:
        desk = desk_of(tmp_path)
        with client_of(desk) as client:  # one event loop for all threads
            answer = search(client)
            with ThreadPoolExecutor(8) as pool:
                codes = [*pool.map(lambda number: self.mark(client, answer, number % 4, "right"), range(64))]
        assert codes == [204] * 64
        assert len(read_marks(desk.feedback)) == 64

    def test_marks_on_what_was_not_found_are_refused(self, client: TestClient) -> None:
        answer = search(client, k=1)
        hit = answer["hits"][0]["row"]
        for body, status in (
            ({"search": "unknown", "row": hit, "mark": "right"}, 404),
            ({"search": answer["search"], "row": hit + 1, "mark": "right"}, 404),
            ({"search": answer["search"], "row": hit, "mark": "maybe"}, 422),
            ({"search": answer["search"], "row": hit}, 422),
            ([], 422),
        ):
            refusal = client.post("/api/feedback", json=body)
            assert refusal.status_code == status and isinstance(refusal.json()["detail"], str)


def test_the_description_names_every_route_and_loads_nothing(client: TestClient) -> None:
    paths = client.get("/openapi.json").json()["paths"]
    assert set(paths) == {
        "/api/search", "/api/feedback", "/api/gallery", "/api/images/{row}", "/api/login", "/health",
    }  # fmt: skip
    assert "multipart/form-data" in paths["/api/search"]["post"]["requestBody"]["content"]
    for page in ("/docs", "/redoc"):
        assert client.get(page).status_code == 404


@pytest.mark.parametrize("token", [None, "correct-horse-battery-staple"])
def test_the_description_has_every_refusal_and_the_token(token: str | None, tmp_path: Path) -> None:
    description = client_of(desk_of(tmp_path), token=token).get("/openapi.json").json()
    paths, schemes = description["paths"], description["components"]["securitySchemes"]
    search_answers = paths["/api/search"]["post"]["responses"]
    assert set(search_answers) == {"200", "401", "403", "408", "413", "422", "500", "503"}
    for status, answer in search_answers.items():
        if status != "200":
            assert answer["content"]["application/json"]["schema"] == {"$ref": "#/components/schemas/Refusal"}
    assert schemes["token"]["scheme"] == "bearer" and schemes["cookie"]["name"] == "vireid-search"
    needed = [{"token": []}, {"cookie": []}]
    for path, operations in paths.items():
        for operation in operations.values():
            if path in ("/health", "/api/login"):
                assert "security" not in operation
            else:
                assert operation["security"] == (needed if token else [{}, *needed])
