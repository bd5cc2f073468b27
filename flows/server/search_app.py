"""The search application: JSON under `/api`, described by `/openapi.json`, and the page that uses it."""

import asyncio
import secrets
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import lru_cache
from importlib import resources
from pathlib import Path
from typing import Annotated, Literal

from fastapi import FastAPI, HTTPException, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel, Field

from flows.server.search_guard import COOKIE, LOGIN, SEARCH, Access, Bounds
from flows.server.search_openapi import IMAGE_BODY, describe_token, refusals
from flows.server.search_stop import Stop, Workers
from flows.server.search_upload import Conversions, read_uploads
from models.modality import Modality
from pipeline.data.image_files import Adjustment
from pipeline.data.synthetic.record import shows_synthetic
from pipeline.data.values import moment
from pipeline.errors import CheckpointError, ConfigError, DataError, TrainingError, VireidError
from pipeline.inference.encoder import TrainedEncoder
from pipeline.inference.feedback import Mark, append_mark, query_name
from pipeline.inference.filters import Filters
from pipeline.inference.served_gallery import RankedImage, ServedGallery, read_query, shown
from pipeline.inference.served_milvus import ServedMilvus

_FILES = {
    "/": ("index.html", "text/html"),
    "/page.css": ("page.css", "text/css"),
    "/page.js": ("page.js", "text/javascript"),
}
_REMEMBERED = 1_000
"""Searches whose hits can be marked: 20 KB each with 200 hits."""
_THUMBNAIL, _FULL = 320, 2_048
"""Pixels of the longer side."""
_THUMBNAILS = 512
"""Kept in memory: about 15 KB each."""
_PICTURES_AT_ONCE = 2
_STATUS: Mapping[type[VireidError], int] = {DataError: 422, ConfigError: 422, CheckpointError: 500, TrainingError: 500}


@dataclass(frozen=True, slots=True)
class Desk:
    """What the application serves: an encoder, a gallery for each modality of queries, the file of marks.

    `conversions` counts those of the images of queries.
    """

    encoder: TrainedEncoder
    galleries: Mapping[Modality, ServedGallery | ServedMilvus]
    feedback: Path
    conversions: Conversions = field(default_factory=Conversions)


@dataclass(frozen=True, slots=True)
class CameraInfo:
    """A camera of a gallery and its number of images."""

    name: str
    images: int


@dataclass(frozen=True, slots=True)
class GalleryInfo:
    """A gallery: its modality, that of its queries, and the values of its filters (empty or null: unknown).

    `span` has the first and the last time, ISO 8601 in UTC; `group` is the rule by which images are found in groups;
    `strangers` their number in the calibration of scores, null without one.
    """

    modality: Modality
    queries: Modality
    images: int
    cameras: list[CameraInfo]
    span: tuple[str, str] | None
    group: str
    strangers: int | None
    recall: float | None


@dataclass(frozen=True, slots=True)
class Limits:
    """The largest body in bytes, numbers of images of a query and of their pixels together, and number of hits."""

    body_bytes: int
    images: int
    pixels: int
    retrieved: int


@dataclass(frozen=True, slots=True)
class ServerInfo:
    """The run, its galleries, which of `encoder` and `gallery` are synthetic, and limits of requests."""

    run: str
    galleries: list[GalleryInfo]
    synthetic: list[str]
    limits: Limits


@dataclass(frozen=True, slots=True)
class QueryImage:
    """An image of a query as it arrived, and what reading it changed or ignored, such as an orientation tag."""

    name: str
    sha256: str
    conversions: list[str]


@dataclass(frozen=True, slots=True)
class SearchAnswer:
    """Hits of a query, best first. `search` identifies the answer in marks; `gallery` is the modality of the hits."""

    search: str
    query: list[QueryImage]
    modality: Modality
    gallery: Modality
    hits: list[RankedImage]


class MarkRequest(BaseModel):
    """A mark on a hit of an earlier answer; `withdrawn` removes a mark."""

    search: str = Field(max_length=100)
    row: int = Field(ge=0)
    mark: Literal["right", "wrong", "withdrawn"]


class LoginRequest(BaseModel):
    """The token of the server."""

    token: str = Field(max_length=1_000)


@dataclass(frozen=True, slots=True)
class _SearchRequest:
    content_type: str
    body: bytes
    name: str
    modality: Modality
    k: int
    filters: Filters
    false_match: float | None


@dataclass(slots=True)
class _Memory:
    """Answers that can be marked; the oldest is forgotten first."""

    answers: OrderedDict[str, SearchAnswer] = field(default_factory=OrderedDict)

    def keep(self, answer: SearchAnswer) -> SearchAnswer:
        """Keep an answer under a new name."""
        named = replace(answer, search=secrets.token_urlsafe(9))
        self.answers[named.search] = named
        if len(self.answers) > _REMEMBERED:
            self.answers.popitem(last=False)
        return named

    def hit(self, search: str, row: int) -> tuple[SearchAnswer, RankedImage]:
        """An answer and one of its hits; HTTPException 404 without them."""
        answer = self.answers.get(search)
        if answer is None:
            raise HTTPException(404, "this search is too long ago, or the server was restarted: search again")
        for hit in answer.hits:
            if hit.row == row:
                return answer, hit
        raise HTTPException(404, f"row {row} is no hit of this search")


def search_application(desk: Desk, access: Access, bounds: Bounds, stop: Stop) -> FastAPI:
    """The application without its guard: see `guarded`."""
    app = FastAPI(
        title="vireid search",
        description="Images in, similar images of the other modality out. If the server has a token, requests below "
        "/api need it: `Authorization: Bearer TOKEN`, or the cookie of a login.",
        docs_url=None,
        redoc_url=None,
    )
    app.add_exception_handler(VireidError, _explained)
    app.add_exception_handler(RequestValidationError, _first_mistake)
    _add_page(app, access)
    _add_search(app, desk, bounds, stop)
    _add_gallery(app, desk, bounds, stop)
    describe_token(app, needed=access.token is not None)
    return app


async def _explained(_: Request, error: Exception) -> Response:
    assert isinstance(error, VireidError)
    return JSONResponse({"detail": error.message, "hint": error.hint}, _STATUS.get(type(error), 500))


async def _first_mistake(_: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    first = error.errors()[0]
    place = ".".join(str(part) for part in first["loc"][1:])
    return JSONResponse({"detail": f"{place or 'body'}: {first['msg'].lower()}"}, 422)


def _add_page(app: FastAPI, access: Access) -> None:
    """Routes of the page, of the login and of the check that the server lives; none needs the token."""
    folder = resources.files("flows.server") / "search_page"

    def add(path: str, name: str, kind: str) -> None:
        content = (folder / name).read_bytes()
        app.add_api_route(path, lambda: Response(content, media_type=kind), include_in_schema=False)

    for path, (name, kind) in _FILES.items():
        add(path, name, kind)

    @app.get("/health")
    async def health() -> dict[str, str]:
        """Whether the server answers."""
        return {"status": "ok"}

    @app.post(LOGIN, status_code=204, responses=refusals(401, 403, 408, 413, 422))
    async def login(request: LoginRequest, response: Response) -> None:
        """Exchange the token for the cookie of the page."""
        if not access.accepts(request.token):
            raise HTTPException(401, "the token is wrong")
        response.set_cookie(COOKIE, access.session, httponly=True, samesite="strict")


def _add_search(app: FastAPI, desk: Desk, bounds: Bounds, stop: Stop) -> None:
    """The routes of searching and marking."""
    encoding = Workers(1, "search", stop)
    memory = _Memory()

    def find(request: _SearchRequest) -> SearchAnswer:
        served = desk.galleries[request.modality]
        uploads = read_uploads(request.content_type, request.body, request.name, bounds.images)
        query = read_query(desk.encoder, uploads, request.modality, served.grouping, bounds.pixels)
        desk.conversions.add(query.adjustments)
        hits = served.find(query, request.k, request.filters, request.false_match)
        described = [
            QueryImage(shown(one.name), one.sha256, [str(change) for change in Adjustment if change in changes])
            for one, changes in zip(uploads, query.adjustments, strict=True)
        ]
        return SearchAnswer("", described, request.modality, served.gallery.modality, [*hits])

    @app.post(SEARCH, openapi_extra=IMAGE_BODY, responses=refusals(401, 403, 408, 413, 422, 500, 503))
    async def search(
        request: Request,
        modality: Annotated[Modality | None, Query(description="Of the query; needed if the server has two.")] = None,
        k: Annotated[int, Query(ge=1, le=bounds.retrieved, description="Number of hits.")] = 20,
        camera: Annotated[list[str], Query(description="Only hits of these cameras.")] = [],  # noqa: B006
        since: Annotated[str | None, Query(description="Only hits from this time on, ISO 8601.")] = None,
        until: Annotated[str | None, Query(description="Only hits up to this time, ISO 8601.")] = None,
        false_match: Annotated[
            float | None, Query(gt=0, lt=1, description="Only hits that this share of strangers reaches.")
        ] = None,
        name: Annotated[str, Query(max_length=300, description="File name of an image that is the body.")] = "image",
    ) -> SearchAnswer:
        """Rank the gallery by similarity to the images of one person in the body, which count as one query."""
        asked = _SearchRequest(
            content_type=request.headers.get("content-type", "application/octet-stream"),
            body=await request.body(),
            name=name,
            modality=_query_modality(desk, modality),
            k=k,
            filters=Filters(tuple(camera), _time("since", since), _time("until", until)),
            false_match=false_match,
        )
        return memory.keep(await encoding.run(lambda: find(asked)))

    @app.post("/api/feedback", status_code=204, responses=refusals(401, 403, 404, 408, 413, 422, 500))
    async def feedback(request: MarkRequest) -> None:
        """Mark a hit as right or wrong, or withdraw the mark."""
        line = _mark(desk, *memory.hit(request.search, request.row), request.mark)
        await asyncio.to_thread(append_mark, desk.feedback, line)


def _mark(desk: Desk, answer: SearchAnswer, hit: RankedImage, mark: str) -> Mark:
    return Mark(
        time=datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        query=query_name((one.name, one.sha256) for one in answer.query),
        query_modality=str(answer.modality),
        hit=hit.path,
        rank=hit.rank,
        score=round(hit.score, 6),
        mark=mark,
        run=desk.encoder.name,
        index=desk.galleries[answer.modality].place,
    )


def _add_gallery(app: FastAPI, desk: Desk, bounds: Bounds, stop: Stop) -> None:
    """The routes of the gallery's description and images."""
    decoding = Workers(_PICTURES_AT_ONCE, "pictures", stop)
    by_modality = {served.gallery.modality: served for served in desk.galleries.values()}
    info = _server_info(desk, bounds)

    @lru_cache(_THUMBNAILS)
    def thumbnail(modality: Modality, row: int) -> bytes:
        return by_modality[modality].picture(row, _THUMBNAIL)

    @app.get("/api/gallery", responses=refusals(401, 403))
    async def gallery() -> ServerInfo:
        """What is searched: galleries, their cameras and times, and limits of requests."""
        return info

    @app.get(
        "/api/images/{row}",
        response_class=Response,
        responses={200: {"content": {"image/jpeg": {}}}, **refusals(401, 403, 404, 422, 503)},
    )
    async def image(
        row: int,
        gallery: Annotated[Modality | None, Query(description="Its modality; needed if the server has two.")] = None,
        size: Annotated[Literal["thumbnail", "full"], Query(description="320 or 2,048 pixels at most.")] = "thumbnail",
    ) -> Response:
        """An image of the gallery by its row in the index, as JPEG without metadata, upright."""
        chosen = gallery or next(iter(by_modality))
        if chosen not in by_modality or not by_modality[chosen].holds(row):
            raise HTTPException(404, f"there is no image {row} of the {chosen} gallery")
        read = by_modality[chosen].picture
        content = await decoding.run(lambda: thumbnail(chosen, row) if size == "thumbnail" else read(row, _FULL))
        return Response(content, media_type="image/jpeg")


def _server_info(desk: Desk, bounds: Bounds) -> ServerInfo:
    galleries = [
        GalleryInfo(
            modality=served.gallery.modality,
            queries=modality,
            images=served.gallery.images,
            cameras=[CameraInfo(shown(name), count) for name, count in served.cameras.items()],
            span=served.span,
            group=served.grouping.gallery,
            strangers=None if (known := served.calibration(1)) is None else len(known.scores),
            recall=served.gallery.recall,
        )
        for modality, served in desk.galleries.items()
    ]
    drawn = any(shows_synthetic(served.gallery.root) for served in desk.galleries.values())
    synthetic = ["encoder"] * desk.encoder.synthetic + ["gallery"] * drawn
    limits = Limits(bounds.body_bytes, bounds.images, bounds.pixels, bounds.retrieved)
    return ServerInfo(desk.encoder.name, galleries, synthetic, limits)


def _query_modality(desk: Desk, modality: Modality | None) -> Modality:
    if modality is None and len(desk.galleries) == 1:
        return next(iter(desk.galleries))
    if modality is None or modality not in desk.galleries:
        known = " or ".join(desk.galleries)
        raise HTTPException(422, f"queries of this gallery are {known}: give the modality, which is never guessed")
    return modality


def _time(name: str, text: str | None) -> datetime | None:
    try:
        return moment(text) if text else None
    except (ValueError, OverflowError) as error:
        raise HTTPException(422, f"{name} {text!r:.60} is not like 2026-11-28T14:03:00") from error
