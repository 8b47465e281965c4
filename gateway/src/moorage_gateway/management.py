"""The way to the management API, which is another process (`moorage_gateway.manage`): what is let through, and back.

What is asked for is judged by the whole path, made of plain names; nothing that could be read in two ways is passed on.
Without a credential there are only the pages that describe the API. A token of Kubernetes is passed on for the API
server to judge; an API key is judged here, has to have the scope `manage`, and is passed on as its ID. Nothing else of
a client's head reaches the other process but what stands in `_PASSED`.
"""

import asyncio
import re
from collections.abc import Callable, Coroutine
from typing import Any, Final

from moorage_common.http.client import UpstreamConnection, UpstreamGone
from moorage_common.http.message import JSON, Answer, Refusal, Request
from moorage_common.http.responder import Responder
from moorage_common.http.unix import UnixPool
from moorage_common.openai_errors import error_body
from moorage_gateway.access import Caller, TokenCaller, User, bearer
from moorage_gateway.keys import MANAGE, PREFIX, ApiKey
from moorage_gateway.routing import ModelKey

PAGES: Final = frozenset({"/docs", "/docs/docs.js", "/docs/docs.css", "/openapi.json"})
"""What everybody may see: it says nothing of what is in the cluster."""

METHODS: Final = frozenset({"GET", "POST", "PUT", "DELETE"})
MOST_AT_ONCE: Final = 128
HEAD_SECONDS: Final = 60.0
"""For an answer to begin; a log that is followed may go on for ever after that."""

_PATH: Final = re.compile(r"/api(/(?!\.{1,2}(/|$))[A-Za-z0-9._-]{1,253}){1,5}")
_PASSED: Final = frozenset(
    {b"accept", b"content-type", b"idempotency-key", b"if-match", b"traceparent", b"tracestate", b"x-request-id"}
)
_BACK: Final = (
    *(b"allow", b"cache-control", b"content-disposition", b"content-security-policy", b"etag"),
    *(b"idempotency-replayed", b"location", b"referrer-policy", b"retry-after", b"www-authenticate"),
    b"x-content-type-options",
)
_GO_ON: Final = b"x-moorage-go-on"
_WHO: Final = b"x-moorage-caller"

GoOn = Callable[[Caller, Request, Responder], Coroutine[Any, Any, None]]
"""Sends a request to a model for a caller who may; the data plane's own way."""


class Management:
    """Passes requests on to the management API at a unix socket."""

    def __init__(self, socket_path: str, key_of: Callable[[bytes], ApiKey | None], go_on: GoOn) -> None:
        """`key_of` knows API keys; `go_on` does what the other process sends back for the data plane to do."""
        self._pool = UnixPool(socket_path)
        self._key_of = key_of
        self._go_on = go_on
        self._running = 0

    @staticmethod
    def serves(path: str) -> bool:
        """Whether a path is the management API's; whatever is below it that is no plain path is refused there."""
        return path in PAGES or path.startswith(("/api/", "/docs/"))

    async def __call__(self, request: Request, responder: Responder, unauthorized: Answer) -> bool:
        """Answer a request; `unauthorized` is what those get who are not known. Tells whether a model has answered."""
        headers: dict[bytes, bytes] = {}
        key: ApiKey | None = None
        if request.path not in PAGES:
            key, headers = self._credential(request, unauthorized)
            if not _PATH.fullmatch(request.path):
                raise Refusal(_not_found(request))
        if request.method not in METHODS:
            raise Refusal(_wrong_method(request))
        if self._running >= MOST_AT_ONCE:
            raise Refusal(_unavailable("Too many requests to the management API are here at once."))
        self._running += 1
        try:
            going_on = await self._relay(request, responder, headers)
        finally:
            self._running -= 1
        if going_on is not None:
            await self._send_on(going_on, key, request, responder)
        return going_on is not None

    def _credential(self, request: Request, unauthorized: Answer) -> tuple[ApiKey | None, dict[bytes, bytes]]:
        token = bearer(request.headers.get(b"authorization"))
        if token is None:
            raise Refusal(unauthorized)
        if not token.startswith(PREFIX):
            return None, {b"Authorization": b"Bearer " + token}
        key = self._key_of(token)
        if key is None:
            raise Refusal(unauthorized)
        if MANAGE not in key.scopes:
            text = f"The API key {key.id} is not for the management API: its entry scopes has no {MANAGE!r}."
            raise Refusal(Answer(403, error_body(text, kind="permission_error", code="forbidden")))
        return key, {b"X-Moorage-Key": key.id.encode()}

    async def _relay(self, request: Request, responder: Responder, headers: dict[bytes, bytes]) -> "_Passing | None":
        """Pass a request on and its answer back; gives the answer where it is an order to go on."""
        try:
            async with asyncio.timeout(HEAD_SECONDS) as limit:
                passing = _Passing(responder, limit)
                await self._pool.exchange(_request_bytes(request, headers), passing)
        except UpstreamGone:
            if not responder.started:
                raise Refusal(_unavailable("The management API does not answer now. Try again soon.")) from None
            passing.break_off()
            return None
        except TimeoutError:
            raise Refusal(_too_slow()) from None
        if passing.model is not None:
            return passing
        passing.finish()
        return None

    async def _send_on(self, order: "_Passing", key: ApiKey | None, request: Request, responder: Responder) -> None:
        """Do what the other process has found to be allowed: a completion by one model."""
        assert order.model is not None  # noqa: S101 - it is an order
        caller: Caller
        if key is not None:
            caller = key
        else:
            user = User(order.who)
            caller = TokenCaller(user, asyncio.get_running_loop().time, {order.model: (True, float("inf"))})
        passed = {name: value for name, value in request.headers.items() if name not in {b"content-length"}}
        path = f"/models/{order.model.namespace}/{order.model.name}/v1/completions"
        await self._go_on(
            caller,
            Request("POST", path, b"", passed, request.http11, request.keep_alive, order.content()),
            responder,
        )


class _Passing:
    """The sink of one answer: to the client as it comes, or kept where it is an order."""

    def __init__(self, responder: Responder, limit: asyncio.Timeout) -> None:
        self._responder = responder
        self._limit = limit
        self._pass: Callable[[bytes], None] | None = None
        """Writes a piece of an answer whose length was told."""
        self._kept: list[bytes] = []
        self.model: ModelKey | None = None
        self.who = ""

    def head(self, status: int, headers: dict[bytes, bytes], flow: UpstreamConnection) -> None:
        """Begin the client's answer."""
        self._limit.reschedule(None)
        if status == 200 and (target := headers.get(_GO_ON)) is not None:
            namespace, _, name = target.decode("latin-1").partition("/")
            self.model, self.who = ModelKey(namespace, name), headers.get(_WHO, b"").decode("latin-1")
            return
        more = tuple((name.title(), headers[name]) for name in _BACK if name in headers)
        length = headers.get(b"content-length")
        kind = headers.get(b"content-type", JSON)
        if length is not None:
            self._pass = self._responder.pass_head(status, kind, length=int(length), flow=flow, headers=more)
        else:
            self._responder.start(status, kind, flow=flow, headers=more)

    def body(self, data: bytes) -> None:
        """Pass a piece on, or keep it."""
        if self.model is not None:
            self._kept.append(data)
        elif self._pass is not None:
            self._pass(data)
        else:
            self._responder.write(data)

    def finish(self) -> None:
        """The answer is whole."""
        if self._pass is not None:
            self._responder.passed(whole=True)
        else:
            self._responder.finish()

    def break_off(self) -> None:
        """It is not, and must not look so."""
        if self._pass is not None:
            self._responder.passed(whole=False)
        else:
            self._responder.break_off()

    def content(self) -> bytes:
        """The body of an order."""
        return b"".join(self._kept)


def _request_bytes(request: Request, more: dict[bytes, bytes]) -> bytes:
    target = request.path.encode("ascii") + (b"?" + request.query if request.query else b"")
    passed = {name: value for name, value in request.headers.items() if name in _PASSED}
    lines = [b"%b %b HTTP/1.1" % (request.method.encode(), target), b"Host: localhost", b"Connection: close"]
    lines += (b"%b: %b" % header for header in {**passed, **more}.items())
    if request.body or request.method in {"POST", "PUT"}:
        lines.append(b"Content-Length: %d" % len(request.body))
    return b"\r\n".join(lines) + b"\r\n\r\n" + request.body


def _not_found(request: Request) -> Answer:
    return Answer(
        404, error_body(f"There is no {request.path[:200]} here; /docs has what there is.", code="unknown_url")
    )


def _wrong_method(request: Request) -> Answer:
    allowed = ", ".join(sorted(METHODS))
    body = error_body(f"{request.path[:200]} does not take {request.method}.", code="wrong_method")
    return Answer(405, body, headers=((b"Allow", allowed.encode()),))


def _unavailable(text: str) -> Answer:
    body = error_body(text, kind="service_unavailable", code="management_unavailable")
    return Answer(503, body, headers=((b"Retry-After", b"1"),))


def _too_slow() -> Answer:
    text = f"The management API has not answered within {HEAD_SECONDS:.0f} s; whether a change was made is not known."
    return Answer(504, error_body(text, kind="server_error", code="timeout"))
