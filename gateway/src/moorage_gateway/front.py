"""What a request gets: who asks, which route, which model, which pod. Without a credential nothing is told.

The way of a request that is known in all of this is one call without a task; what has to be asked first (a token that
was not seen before) goes on in a coroutine.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from typing import Any, Final, NamedTuple

from moorage_common.http.message import JSON, Answer, Refusal, Request, json_answer
from moorage_common.http.responder import Responder
from moorage_common.http.server import Running
from moorage_common.openai_errors import error_body
from moorage_gateway.access import Access, Caller, ReviewError
from moorage_gateway.body import BodyError, asked_model, with_model
from moorage_gateway.exchange import Exchange, Order
from moorage_gateway.routing import Model, ModelKey, Table

log = logging.getLogger(__name__)

OPENAI: Final = frozenset({"/v1/chat/completions", "/v1/completions", "/v1/embeddings", "/v1/rerank"})
EMBEDDINGS: Final = frozenset({"/embeddings/text", "/embeddings/image", "/embeddings/fused", "/similarity"})
"""Routes of the embedding service, whose bodies name no model; here they may, and the pod does not see it."""

RELAYED: Final = OPENAI | EMBEDDINGS
"""The routes of pods that are passed on; all others are not there, whatever an engine has."""

_HEADS: Final = {
    path: b"POST %b HTTP/1.1\r\nContent-Type: application/json\r\nContent-Length: %%d\r\n" % path.encode()
    for path in RELAYED
}
_PASSED: Final = frozenset({b"traceparent", b"tracestate", b"x-request-id"})

MODELS: Final = "/v1/models"
BY_PATH: Final = "/models/"

Begun = Coroutine[Any, Any, None] | Running | None


class _Wanted(NamedTuple):
    """What a request means."""

    path: str
    asked: str
    models: list[Model]


class Front:
    """The handler of all requests."""

    def __init__(self, table: Table, access: Access, on_end: Callable[[Exchange], None] | None = None) -> None:
        """Route to the models of `table` for those whom `access` knows."""
        self._table = table
        self._access = access
        self._on_end = on_end

    def __call__(self, request: Request, responder: Responder) -> Begun:
        """Answer a request, or begin to."""
        if request.path == "/healthz":
            responder.send(Answer(200, b'{"status":"ok"}'))
            return None
        caller, certain = self._access.known(request.headers.get(b"authorization"))
        if caller is None:
            if not certain:
                return self._ask_first(request, responder)
            responder.send(_unauthorized())
            return None
        try:
            wanted = self._wanted(request)
            for model in wanted.models:
                if caller.may_use(model.key) is None:
                    return self._decide_first(caller, wanted, request, responder)
            return self._go(caller, wanted, request, responder)
        except Refusal as refusal:
            responder.send(refusal.answer)
            return None

    def judge(self, headers: dict[bytes, bytes]) -> Answer | bool:
        """Refuse whoever has no credential before a large body is taken; tell whether the caller is known."""
        caller, certain = self._access.known(headers.get(b"authorization"))
        return _unauthorized() if caller is None and certain else caller is not None

    async def _ask_first(self, request: Request, responder: Responder) -> None:
        try:
            caller = await self._access.ask(request.headers.get(b"authorization"))
        except ReviewError as error:
            raise Refusal(_not_checked(error)) from error
        if caller is None:
            raise Refusal(_unauthorized())
        await self._decide_first(caller, self._wanted(request), request, responder)

    async def _decide_first(self, caller: Caller, wanted: _Wanted, request: Request, responder: Responder) -> None:
        try:
            await self._access.decide(caller, [model.key for model in wanted.models])
        except ReviewError as error:
            raise Refusal(_not_checked(error)) from error
        running = self._go(caller, wanted, request, responder)
        if running is not None:
            await _ended(running)

    def _wanted(self, request: Request) -> _Wanted:
        """Find out which route and which models a request means; whether the caller may is not asked yet."""
        path, named = request.path, None
        if path.startswith(BY_PATH):
            namespace, _, rest = path[len(BY_PATH) :].partition("/")
            name, slash, rest = rest.partition("/")
            path, named = slash + rest, ModelKey(namespace, name)
        method = "GET" if path == MODELS else "POST"
        if path != MODELS and path not in RELAYED:
            raise Refusal(_not_found(request))
        if request.method != method:
            raise Refusal(_wrong_method(request, method))
        if named is not None:
            model = self._table.get(named)
            asked = str(named)
            models = [model] if model is not None else []
        elif path == MODELS:
            asked, models = "", list(self._table)
        else:
            asked = _asked(request.body)
            models = self._table.named(asked)
        return _Wanted(path, asked, models)

    def _go(self, caller: Caller, wanted: _Wanted, request: Request, responder: Responder) -> Running | None:
        models = [model for model in wanted.models if caller.may_use(model.key)]
        if len(models) > 1 and wanted.path != MODELS:
            # Nobody can take over a full name by serving a model of theirs under it.
            models = [model for model in models if str(model.key) == wanted.asked] or models
        if wanted.path == MODELS:
            entries = [_entry(model) for model in sorted(models, key=lambda model: model.key)]
            responder.send(json_answer(200, {"object": "list", "data": entries}))
            return None
        if len(models) != 1:
            raise Refusal(_ambiguous(wanted.asked, models) if models else _no_model(wanted.asked))
        (model,) = models
        body = request.body
        if wanted.path in EMBEDDINGS:
            body = body if request.path.startswith(BY_PATH) else _with_model(body, None)
        elif wanted.asked != model.served_name:
            body = _with_model(body, model.served_name)
        if not len(model.backends):
            raise Refusal(_not_ready(model))
        order = Order(str(model.key), caller.name, _head(wanted.path, request, body), body)
        exchange = Exchange(responder, model.backends, order, self._on_end)
        exchange.start()
        return exchange


async def _ended(running: Running) -> None:
    end = asyncio.get_running_loop().create_future()

    def tell(_: Running) -> None:
        if not end.done():
            end.set_result(None)

    running.add_done_callback(tell)
    try:
        await end
    except asyncio.CancelledError:
        running.cancel()
        raise


def _asked(body: bytes) -> str:
    try:
        return asked_model(body)
    except BodyError as error:
        raise Refusal(_bad_body(error)) from error


def _with_model(body: bytes, name: str | None) -> bytes:
    try:
        return with_model(body, name)
    except BodyError as error:
        raise Refusal(_bad_body(error)) from error


def _head(path: str, request: Request, body: bytes) -> bytes:
    """Write the head that goes to the pod; of the client's only the trace goes on, as all else is ours to say."""
    head = _HEADS[path] % len(body)
    headers = request.headers
    if not _PASSED.isdisjoint(headers):
        head += b"".join(b"%b: %b\r\n" % (name, headers[name]) for name in sorted(_PASSED) if name in headers)
    return head


def _entry(model: Model) -> dict[str, object]:
    return {
        "id": str(model.key),
        "object": "model",
        "created": model.created,
        "owned_by": model.key.namespace,
        "served_name": model.served_name,
        "ready": len(model.backends) > 0,
    }


def _unauthorized() -> Answer:
    body = error_body(
        "No valid credential: send `Authorization: Bearer …` with an API key or a Kubernetes token.",
        kind="authentication_error",
        code="invalid_api_key",
    )
    return Answer(401, body, headers=((b"WWW-Authenticate", b'Bearer realm="moorage"'),))


def _not_checked(error: ReviewError) -> Answer:
    log.warning("the API server did not say who asks, or what they may", extra={"error": str(error)[:500]})
    body = error_body(
        "Your credential cannot be checked now. Try again soon.", kind="service_unavailable", code="not_checked"
    )
    return Answer(503, body, headers=((b"Retry-After", b"2"),))


def _no_model(name: str) -> Answer:
    body = error_body(f"There is no model {name[:200]!r} that you may use.", param="model", code="model_not_found")
    return Answer(404, body)


def _ambiguous(name: str, found: list[Model]) -> Answer:
    names = ", ".join(sorted(str(model.key) for model in found)[:10])
    return Answer(400, error_body(f"Several models are called {name!r}: say which of {names}.", param="model"))


def _not_ready(model: Model) -> Answer:
    why = f": {model.why_not}" if model.why_not else ""
    body = error_body(f"The model {model.key} is not ready{why}.", kind="service_unavailable", code="model_not_ready")
    return Answer(503, body, headers=((b"Retry-After", b"5"),))


def _not_found(request: Request) -> Answer:
    return Answer(404, error_body(f"There is no {request.path[:200]} here.", code="unknown_url"))


def _wrong_method(request: Request, allowed: str) -> Answer:
    body = error_body(f"{request.path[:200]} takes {allowed}, not {request.method}.")
    return Answer(405, body, JSON, headers=((b"Allow", allowed.encode()),))


def _bad_body(error: BodyError) -> Answer:
    return Answer(400, error_body(f"The body is not a JSON object with a `model`: {error}.", param="model"))
