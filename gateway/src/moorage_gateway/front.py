"""What a request gets: who asks, which route, which model, which pod. Without a credential nothing is told.

The way of a request that is known in all of this is one call without a task; what has to be asked first (a token that
was not seen before) goes on in a coroutine.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, Final, NamedTuple

import msgspec

from moorage_common.http.message import JSON, Answer, Refusal, Request
from moorage_common.http.responder import Responder
from moorage_common.http.server import Running
from moorage_common.openai_errors import error_body
from moorage_gateway.access import Access, Caller, ReviewError
from moorage_gateway.alias import Alias, Aliases
from moorage_gateway.exchange import Exchange, Order
from moorage_gateway.generate import Collected, GenerateRequest, Generation, pod_body, prompt_of, read_request
from moorage_gateway.hold import not_ready
from moorage_gateway.listing import listing
from moorage_gateway.management import Management
from moorage_gateway.reply import Headers
from moorage_gateway.routing import Model, ModelKey, Table
from moorage_gateway.templates import Templates

log = logging.getLogger(__name__)

OPENAI: Final = frozenset({"/v1/chat/completions", "/v1/completions", "/v1/embeddings", "/v1/rerank"})
EMBEDDINGS: Final = frozenset({"/embeddings/text", "/embeddings/image", "/embeddings/fused", "/similarity"})
"""Routes of the embedding service, whose bodies name no model; here they may, and the pod does not see it."""

STREAMED: Final = frozenset({"/v1/chat/completions", "/v1/completions"})
"""Routes that answer with a stream of events where that is asked for."""

RELAYED: Final = OPENAI | EMBEDDINGS
"""The routes of pods that are passed on; all others are not there, whatever an engine has."""

_HEADS: Final = {
    path: b"POST %b HTTP/1.1\r\nContent-Type: application/json\r\nContent-Length: %%d\r\n" % path.encode()
    for path in RELAYED
}
_PASSED: Final = frozenset({b"traceparent", b"tracestate", b"x-request-id"})

MODELS: Final = "/v1/models"
GENERATE: Final = "/v1/generate"
"""This becomes a route of the pod (`generate`)."""

OURS: Final = frozenset({MODELS, GENERATE})

BY_PATH: Final = "/models/"

Begun = Coroutine[Any, Any, None] | Running | None


class _Body(msgspec.Struct):
    """What is read of a body."""

    model: str


class _Wanted(NamedTuple):
    """What a request means."""

    path: str
    asked: str
    models: list[Model]
    aliases: Sequence[Alias] = ()
    generate: GenerateRequest | None = None


_BODY: Final = msgspec.json.Decoder(_Body)
_FIELDS: Final = msgspec.json.Decoder(dict[str, msgspec.Raw])


class Front:
    """The handler of all requests."""

    def __init__(
        self,
        table: Table,
        access: Access,
        on_end: Callable[[Exchange], None] | None = None,
        *,
        aliases: Aliases | None = None,
        templates: Templates | None = None,
    ) -> None:
        """Route to the models of `table`, by `aliases` too, for those whom `access` knows."""
        self._table = table
        self._aliases = Aliases(table) if aliases is None else aliases
        self._by_name = self._aliases.by_name
        self._templates = Templates() if templates is None else templates
        self._access = access
        self._on_end = on_end
        self.management: Management | None = None
        """What answers for the management API, where there is one."""

    def __call__(self, request: Request, responder: Responder) -> Begun:
        """Answer a request, or begin to."""
        if request.path == "/healthz":
            responder.send(Answer(200, b'{"status":"ok"}'))
            return None
        if self.management is not None and self.management.serves(request.path):
            return self.management(request, responder, _unauthorized())
        caller, certain = self._access.known(request.headers.get(b"authorization"))
        if caller is None and not certain:
            return self._ask_first(request, responder)
        try:
            if caller is None:
                raise Refusal(_unauthorized())
            wanted = self._wanted(request)
            for model in wanted.models:
                if caller.may_use(model.key) is None:
                    break
            else:
                if not wanted.aliases or self._aliases.decided(wanted.aliases, caller.may_use):
                    return self._go(caller, wanted, request, responder)
            return self._decide_first(caller, wanted, request, responder)
        except Refusal as refusal:
            responder.send(refusal.answer)
            return None

    async def go_on(self, caller: Caller, request: Request, responder: Responder) -> None:
        """Answer a request of somebody whose rights are known; Refusal."""
        await self._go_to_end(caller, self._wanted(request), request, responder)

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
            models = [*wanted.models, *self._aliases.models(wanted.aliases)]
            await self._access.decide(caller, [model.key for model in models])
        except ReviewError as error:
            raise Refusal(_not_checked(error)) from error
        await self._go_to_end(caller, wanted, request, responder)

    async def _go_to_end(self, caller: Caller, wanted: _Wanted, request: Request, responder: Responder) -> None:
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
        if path not in RELAYED and path not in OURS:
            raise Refusal(_not_found(request))
        if request.method != method:
            raise Refusal(_wrong_method(request, method))
        asked, generate = "" if named is None else str(named), None
        if path == GENERATE:
            generate = read_request(request.body, model=asked or None)
            asked = generate.model_id
        elif not asked and path == MODELS:
            return _Wanted(path, asked, list(self._table), list(self._aliases))
        elif not asked:
            asked = _asked(request.body)
        if named is None:
            models = self._table.named(asked)
        else:
            models = [model] if (model := self._table.get(named)) is not None else []
        return _Wanted(path, asked, models, self._by_name.get(asked, ()) if self._by_name else (), generate)

    def _go(self, caller: Caller, wanted: _Wanted, request: Request, responder: Responder) -> Running | None:
        models = [model for model in wanted.models if caller.may_use(model.key)]
        if wanted.path == MODELS:
            responder.send(listing(models, self._aliases.visible(wanted.aliases, caller.may_use)))
            return None
        more: Headers = ()
        if len(models) == 1:
            (model,) = models
        elif models or not wanted.aliases:
            raise Refusal(_ambiguous(wanted.asked, models) if models else _no_model(wanted.asked))
        else:
            model = self._by_alias(caller, wanted)
            more = ((b"X-Moorage-Model", model.name.encode()),)
        if wanted.generate is not None:
            return self._generate(caller, wanted.generate, model, request, responder, more=more)
        body = request.body
        if wanted.path in EMBEDDINGS:
            body = body if request.path.startswith(BY_PATH) else _with_model(body, None)
        elif wanted.asked != model.served_name:
            body = _with_model(body, model.served_name)
        if model.room is None and not len(model.backends):
            raise Refusal(not_ready(model.name, model.why_not))
        head, may_stream = _head(wanted.path, request, body), wanted.path in STREAMED
        order = Order(model.name, caller.name, head, body, model.room, caller.priority, may_stream, more)
        pods = model.backends if model.prefixes is None else model.prefixes.choosing(body)
        exchange = Exchange(responder, pods, order, self._on_end)
        exchange.start()
        return exchange

    def _generate(  # noqa: PLR0913 - what a request is made of
        self,
        caller: Caller,
        asked: GenerateRequest,
        model: Model,
        request: Request,
        responder: Responder,
        *,
        more: Headers,
    ) -> Generation:
        prompt = prompt_of(asked, self._templates, model.name)
        if model.room is None and not len(model.backends):
            raise Refusal(not_ready(model.name, model.why_not))

        def ask(path: str, collected: Collected) -> Exchange:
            body = pod_body(path, prompt, asked.parameters, model.served_name)
            head = _head(path, request, body)
            order = Order(model.name, caller.name, head, body, model.room, caller.priority, more=more)
            pods = model.backends if model.prefixes is None else model.prefixes.choosing(body)
            exchange = Exchange(collected, pods, order, self._on_end)
            exchange.start()
            return exchange

        generation = Generation(responder, model.name, ask)
        generation.start()
        return generation

    def _by_alias(self, caller: Caller, wanted: _Wanted) -> Model:
        visible = self._aliases.visible(wanted.aliases, caller.may_use)
        if len(visible) != 1:
            raise Refusal(
                _ambiguous(wanted.asked, [alias for alias, _ in visible]) if visible else _no_model(wanted.asked)
            )
        return self._aliases.choose(visible[0][1])


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
        return _BODY.decode(body).model
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise Refusal(_bad_body(error)) from error


def _with_model(body: bytes, name: str | None) -> bytes:
    """Put the name into a body under which the pod knows its model, or take it out; nothing else changes."""
    try:
        fields = _FIELDS.decode(body)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise Refusal(_bad_body(error)) from error
    fields.pop("model", None)
    if name is not None:
        fields["model"] = msgspec.Raw(msgspec.json.encode(name))
    return msgspec.json.encode(fields)


def _head(path: str, request: Request, body: bytes) -> bytes:
    """Write the head that goes to the pod; of the client's only the trace goes on, as all else is ours to say."""
    head = _HEADS[path] % len(body)
    headers = request.headers
    if not _PASSED.isdisjoint(headers):
        head += b"".join(b"%b: %b\r\n" % (name, headers[name]) for name in sorted(_PASSED) if name in headers)
    return head


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


def _ambiguous(name: str, found: Sequence[Model | Alias]) -> Answer:
    names = ", ".join(sorted(str(one.key) for one in found)[:10])
    return Answer(400, error_body(f"Several models are called {name!r}: say which of {names}.", param="model"))


def _not_found(request: Request) -> Answer:
    return Answer(404, error_body(f"There is no {request.path[:200]} here.", code="unknown_url"))


def _wrong_method(request: Request, allowed: str) -> Answer:
    body = error_body(f"{request.path[:200]} takes {allowed}, not {request.method}.")
    return Answer(405, body, JSON, headers=((b"Allow", allowed.encode()),))


def _bad_body(error: Exception) -> Answer:
    told = "it is nested too deeply" if isinstance(error, RecursionError) else str(error)
    return Answer(400, error_body(f"The body is not a JSON object with a `model`: {told}.", param="model"))
