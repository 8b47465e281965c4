"""Routes of the management API: bodies by a strict reader, and each route of a model under its two addresses."""

from collections.abc import Callable, Coroutine
from typing import Any, Final

from fastapi import APIRouter, Request, Response
from fastapi.routing import APIRoute

from moorage_gateway.manage.problems import strict_json

Handler = Callable[..., Coroutine[Any, Any, Response]]

FULL: Final = "/api/models/{namespace}/{name}"
SHORT: Final = "/api/models/{name}"

_NAMED: Final = [
    {
        "name": name,
        "in": "path",
        "required": True,
        "description": text,
        "schema": {"type": "string", "maxLength": 63},
    }
    for name, text in (("namespace", "The model's namespace."), ("name", "The model's name."))
]


class _StrictRequest(Request):
    async def json(self) -> Any:
        """The body."""
        return strict_json(await self.body())


class StrictRoute(APIRoute):
    """A route whose body is read by `strict_json`."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """The handler."""
        handle = super().get_route_handler()

        async def strictly(request: Request) -> Response:
            return await handle(_StrictRequest(request.scope, request.receive))

        return strictly


def router() -> APIRouter:
    """A router of such routes."""
    return APIRouter(route_class=StrictRoute)


def of_model(routes: APIRouter, method: str, suffix: str = "", **described: Any) -> Callable[[Handler], Handler]:
    """A route of one model, at its full address, and at its name alone, which the schema does not repeat."""

    def add(handler: Handler) -> Handler:
        extra = {"parameters": _NAMED}
        if suffix:
            routes.add_api_route(SHORT + suffix, handler, methods=[method], include_in_schema=False)
        routes.add_api_route(FULL + suffix, handler, methods=[method], openapi_extra=extra, **described)
        if not suffix:
            routes.add_api_route(SHORT, handler, methods=[method], include_in_schema=False)
        return handler

    return add
