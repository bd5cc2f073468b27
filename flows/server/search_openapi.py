"""The parts of `/openapi.json` besides routes and parameters: bodies of images, refusals, and the token."""

from collections.abc import Mapping
from typing import Any

from fastapi import FastAPI
from pydantic import BaseModel

from flows.server.search_guard import API, COOKIE, LOGIN
from flows.server.search_upload import FORM

IMAGE_BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "description": "One image as the body, or several images of one person as files of a form.",
        "content": {
            "application/octet-stream": {"schema": {"type": "string", "format": "binary"}},
            FORM: {
                "schema": {
                    "type": "object",
                    "properties": {"image": {"type": "array", "items": {"type": "string", "format": "binary"}}},
                }
            },
        },
    }
}

_REASONS: Mapping[int, str] = {
    401: "The token is missing or wrong.",
    403: "Not a request of this server's page, or of a program that names this host.",
    404: "There is no such search, hit or image.",
    408: "The body was not complete in time.",
    413: "The body is too large.",
    422: "A parameter has no meaning here, or an image cannot be read, or there are too many images or pixels.",
    500: "The encoder or a file of the server failed.",
    503: "Too many searches at once, or the server stops; `Retry-After` has the seconds to wait.",
}
_SCHEMES: Mapping[str, Mapping[str, str]] = {
    "token": {"type": "http", "scheme": "bearer", "description": "The token of the server."},
    "cookie": {"type": "apiKey", "in": "cookie", "name": COOKIE, "description": f"Of a login: POST {LOGIN}."},
}


class Refusal(BaseModel):
    """Why a request was refused, in one sentence; `hint` is what to do, where that is known."""

    detail: str
    hint: str | None = None


def refusals(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The refusals of a route, by status."""
    return {status: {"model": Refusal, "description": _REASONS[status]} for status in statuses}


def describe_token(app: FastAPI, *, needed: bool) -> None:
    """Add the token and the page's cookie to the description of all routes that check them; call it after all routes.

    If the server `needed` none, requests without both are described as accepted too.
    """
    description = app.openapi()  # kept and served by the application
    description["components"]["securitySchemes"] = {name: dict(scheme) for name, scheme in _SCHEMES.items()}
    for path, operations in description["paths"].items():
        if path.startswith(API) and path != LOGIN:
            for operation in operations.values():
                operation["security"] = [*[{}] * (not needed), *({name: []} for name in _SCHEMES)]
