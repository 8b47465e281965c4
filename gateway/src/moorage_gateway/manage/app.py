"""Puts the management API together."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Final

from fastapi import Depends, FastAPI

from moorage_gateway.kube.client import Kube
from moorage_gateway.kube.credentials import Connection
from moorage_gateway.manage import actions, models, pages, system
from moorage_gateway.manage.callers import Cluster, caller_of
from moorage_gateway.manage.problems import handle_problems

NAME: Final = "moorage-manage"

DESCRIPTION: Final = """Models over REST. It keeps nothing: each request goes to Kubernetes with your own token, so your
rights there decide, and a 403 or 404 is Kubernetes' own.

A model is `/api/models/NAMESPACE/NAME`; its name alone will do where only one model that you see has it.
Send `Authorization: Bearer …` with a token that the API server takes: `kubectl create token ACCOUNT`."""


def build_app(
    server: Callable[[], Connection], own: Callable[[], Connection], namespaces: tuple[str | None, ...]
) -> FastAPI:
    """The application: `server` says where the API server is, `own` has the gateway's credentials, for API keys."""

    @asynccontextmanager
    async def life(app: FastAPI) -> AsyncIterator[None]:
        kube = Kube(server, NAME)
        app.state.cluster = Cluster(kube, namespaces, own)
        yield
        await kube.close()

    app = FastAPI(
        title="Moorage",
        version=system.VERSION,
        description=DESCRIPTION,
        lifespan=life,
        docs_url=None,
        redoc_url=None,
        openapi_url=None,
        redirect_slashes=False,
    )
    handle_problems(app)
    # Whoever has no credential gets no further, whatever route is added.
    known = [Depends(caller_of)]
    # The actions first: NAME/status is the status of NAME, not a model `status` in a namespace NAME.
    for part in (actions.routes, models.routes, system.routes):
        app.include_router(part, dependencies=known)
    app.include_router(pages.routes)
    return app
