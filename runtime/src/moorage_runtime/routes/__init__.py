"""The routes: a table of exact paths and methods, and each model's by its name.

Nothing else is reachable, least of all an engine's own routes.
"""

from collections.abc import Awaitable, Callable

from moorage_common.http.message import Request
from moorage_common.http.responder import Responder
from moorage_runtime.errors import not_found, wrong_method
from moorage_runtime.routes import embed, generate, info
from moorage_runtime.service import Service

Route = Callable[[Service, Request, Responder], Awaitable[None]]

ROUTES: dict[str, dict[str, Route]] = {
    "/v1/chat/completions": {"POST": generate.relay},
    "/v1/completions": {"POST": generate.relay},
    "/v1/embeddings": {"POST": generate.relay},
    "/embeddings/text": {"POST": generate.relay},
    "/embeddings/image": {"POST": generate.relay},
    "/embeddings/fused": {"POST": generate.relay},
    "/similarity": {"POST": generate.relay},
    "/stats": {"GET": embed.stats},
    "/": {"GET": embed.index},
    "/v1/models": {"GET": info.models},
    "/health": {"GET": info.alive},
    "/health/ready": {"GET": info.ready},
    "/ready": {"GET": info.ready},
    "/health/detailed": {"GET": info.detailed},
    "/health/memory": {"GET": info.memory_use},
    "/metrics": {"GET": info.metrics},
}


async def dispatch(service: Service, request: Request, responder: Responder) -> None:
    """Answer a request by its route."""
    methods = ROUTES.get(request.path)
    if methods is None and len(request.path) > len(info.MODEL_PATH) and request.path.startswith(info.MODEL_PATH):
        methods = {"GET": info.model}
    if methods is None:
        responder.send(not_found(f"There is no {request.path[:200]} here."))
        return
    method = "GET" if request.method == "HEAD" else request.method
    route = methods.get(method)
    if route is None:
        responder.send(wrong_method(request.method, request.path, ", ".join(methods)))
        return
    await route(service, request, responder)
