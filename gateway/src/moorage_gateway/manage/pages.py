"""The page at /docs: what the API has, and a form for each of it. All of it is served from here; nothing is fetched."""

from pathlib import Path
from typing import Final

from fastapi import APIRouter, Request, Response

from moorage_gateway.manage.answers import told

STATIC: Final = Path(__file__).parent / "static"

HEADERS: Final = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "img-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",
}

routes = APIRouter(include_in_schema=False)


@routes.get("/openapi.json")
async def schema(request: Request) -> Response:
    """The OpenAPI description, which says nothing of what is in the cluster."""
    return told(_described(request), headers=HEADERS)


def _described(request: Request) -> object:
    description = request.app.openapi()
    components = description.setdefault("components", {})
    components["securitySchemes"] = {"token": {"type": "http", "scheme": "bearer"}}
    description["security"] = [{"token": []}]
    return description


@routes.get("/docs")
async def docs() -> Response:
    """The page."""
    return _file("docs.html", "text/html")


@routes.get("/docs/docs.js")
async def script() -> Response:
    """What the page does."""
    return _file("docs.js", "text/javascript")


@routes.get("/docs/docs.css")
async def style() -> Response:
    """How it looks."""
    return _file("docs.css", "text/css")


def _file(name: str, kind: str) -> Response:
    return Response((STATIC / name).read_bytes(), headers=HEADERS, media_type=f"{kind}; charset=utf-8")
