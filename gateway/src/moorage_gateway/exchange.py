"""One request on its way to a pod and back, by callbacks: no task and no future, as each token passes here.

As long as nothing has gone to the client, a pod that cannot be reached, drops the connection or says 503 is passed over
for another. After that a broken answer ends as broken: an error event in a stream of events, a cut connection else.
"""

import asyncio
from collections.abc import Callable
from typing import Final, NamedTuple

import httptools

from moorage_common.http.message import EVENT_STREAM, JSON, STATUS_LINES, Answer
from moorage_common.http.responder import Responder
from moorage_common.openai_errors import error_body
from moorage_gateway.balance import Backends, Endpoint
from moorage_gateway.upstream import UpstreamConnection

TRIES: Final = 3
"""Pods that a request is tried on."""

TAIL: Final = 4
"""Pieces of an answer whose end is kept: usage stands in it."""

STREAM_HEADERS: Final = ((b"Cache-Control", b"no-cache"), (b"X-Accel-Buffering", b"no"))


class Order(NamedTuple):
    """What is to be sent, and for whom."""

    model: str
    caller: str
    head: bytes
    """The head of the request but for its Host, which comes last."""
    body: bytes


class Exchange:
    """Runs from `start` to the callback of `add_done_callback`; `cancel` is for a client that has left."""

    __slots__ = (
        "_backends",
        "_cancelled",
        "_connecting",
        "_connection",
        "_done",
        "_endpoint",
        "_fresh",
        "_loop",
        "_on_end",
        "_order",
        "_over",
        "_pieces",
        "_responder",
        "_tried",
        "begun",
        "caller",
        "error",
        "first_byte",
        "model",
        "status",
        "streamed",
        "tail",
    )

    def __init__(
        self,
        responder: Responder,
        backends: Backends,
        order: Order,
        on_end: Callable[["Exchange"], None] | None = None,
    ) -> None:
        """Send what was ordered to one of `backends`; `on_end` is called once, whatever comes."""
        self._loop = asyncio.get_running_loop()
        self._responder = responder
        self._backends = backends
        self._order = order
        self.model = order.model
        self.caller = order.caller
        self._on_end = on_end
        self._done: Callable[[Exchange], object] | None = None
        self._tried: tuple[Endpoint, ...] = ()
        self._endpoint: Endpoint | None = None
        self._connection: UpstreamConnection | None = None
        self._connecting: asyncio.Task[None] | None = None
        self._fresh = False
        self._cancelled = False
        self._over = False
        self._pieces: _Pieces | None = None
        self.begun = self._loop.time()
        self.first_byte = 0.0
        self.status = 0
        self.streamed = False
        self.error = ""
        """Why there was no whole answer: `backend` or `client`; else empty."""
        self.tail: list[bytes] = []

    # -- what the server needs ----------------------------------------------------------------------------------------

    def add_done_callback(self, callback: "Callable[[Exchange], object]") -> None:
        """Call `callback` at the end."""
        self._done = callback
        if self._over:
            callback(self)

    def cancelled(self) -> bool:
        """Tell whether the client has left."""
        return self._cancelled

    def cancel(self) -> None:
        """Drop the answer: the pod learns of it by the end of its connection."""
        self._cancelled = True
        self.error = "client"
        if self._connecting is not None:
            self._connecting.cancel()
        self._leave(close=True)
        self._finish()

    def now(self) -> float:
        """The time by the clock of `begun` and `first_byte`."""
        return self._loop.time()

    # -- the way there ------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Send the request to the next pod."""
        endpoint = self._backends.pick(self._loop.time(), self._tried)
        if endpoint is None or len(self._tried) >= TRIES:
            self._refuse()
            return
        self._endpoint = endpoint
        endpoint.in_flight += 1
        connection = endpoint.pool.take()
        if connection is None:
            self._connecting = self._loop.create_task(self._connect(endpoint))
        else:
            self._fresh = False
            self._send(connection)

    async def _connect(self, endpoint: Endpoint) -> None:
        try:
            connection = await endpoint.pool.connect()
        except (OSError, TimeoutError):
            self._connecting = None
            self._next(endpoint)
            return
        self._connecting = None
        self._fresh = True
        self._send(connection)

    def _send(self, connection: UpstreamConnection) -> None:
        assert self._endpoint is not None  # noqa: S101 - it was picked
        self._connection = connection
        order = self._order
        connection.send(b"%bHost: %b\r\n\r\n%b" % (order.head, self._endpoint.pool.address, order.body), self)

    def _next(self, endpoint: Endpoint) -> None:
        """Pass a pod over."""
        endpoint.failed(self._loop.time())
        self._tried = (*self._tried, endpoint)
        self._leave(close=True)
        self.start()

    # -- the way back -------------------------------------------------------------------------------------------------

    def head(self, status: int, headers: dict[bytes, bytes], body: bytes) -> None:
        """Begin the client's answer, unless another pod may give a better one."""
        endpoint = self._endpoint
        assert endpoint is not None  # noqa: S101 - it was picked
        if status == 503 and len(self._backends) > len(self._tried) + 1:
            self._next(endpoint)
            return
        endpoint.succeeded()
        length = headers.get(b"content-length")
        framed = length is not None or headers.get(b"transfer-encoding") == b"chunked"
        if not framed or status not in STATUS_LINES:
            self._broken()
            return
        self.status = status
        self.first_byte = self._loop.time()
        content_type = headers.get(b"content-type", JSON)
        self.streamed = content_type.startswith(EVENT_STREAM)
        more = STREAM_HEADERS if self.streamed else _passed(headers) if status >= 400 else ()
        connection = self._connection
        assert connection is not None  # noqa: S101 - it has just answered
        if body:
            self.tail.append(body)
        if length is None and not self._responder.takes_chunks:
            self._responder.start(status, content_type, flow=connection, headers=more)
            self._pieces = _Pieces(self._responder)
            self._pieces.feed(body)
        else:
            number = None if length is None else int(length)
            self._responder.pass_head(status, content_type, length=number, flow=connection, headers=more, data=body)

    def data(self, body: bytes) -> None:
        """Pass a piece on."""
        tail = self.tail
        tail.append(body)
        if len(tail) > TAIL:
            del tail[0]
        if self._pieces is None:
            self._responder.pass_on(body)
        else:
            self._pieces.feed(body)

    def ended(self) -> None:
        """The answer is whole."""
        if self._pieces is None:
            self._responder.passed(whole=True)
        else:
            self._responder.finish()
        self._leave(close=False)
        self._finish()

    def failed(self, why: str, *, answered: bool) -> None:
        """Try again where the client has nothing yet, else end its answer as broken."""
        endpoint = self._endpoint
        assert endpoint is not None  # noqa: S101 - it was picked
        if self._responder.started:
            self._broken()
        elif not self._fresh and not answered:
            # It was dropped between two requests; that says nothing of the pod.
            self._connecting = self._loop.create_task(self._connect(endpoint))
        else:
            self._next(endpoint)

    def _broken(self) -> None:
        self.error = "backend"
        connection, responder = self._connection, self._responder
        told = error_body(
            "The model's pod went before its answer was complete.", kind="server_error", code="backend_gone"
        )
        if not responder.started:
            responder.send(Answer(502, told))
        elif self._pieces is not None:
            responder.break_off()
        elif self.streamed and connection is not None and connection.between_chunks:
            event = b"\n\ndata: %b\n\n" % told
            responder.pass_on(b"%x\r\n%b\r\n" % (len(event), event))
            responder.break_off()
        else:
            responder.passed(whole=False)
        self._leave(close=True)
        self._finish()

    def _refuse(self) -> None:
        self.error = "backend"
        message = "None of the model's pods could be reached." if self._tried else "No pod of the model is ready."
        body = error_body(message, kind="service_unavailable", code="model_not_ready")
        self._responder.send(Answer(503, body, headers=((b"Retry-After", b"1"),)))
        self._finish()

    # -- the end ------------------------------------------------------------------------------------------------------

    def _leave(self, *, close: bool) -> None:
        endpoint, connection = self._endpoint, self._connection
        self._endpoint = self._connection = None
        if endpoint is not None:
            endpoint.in_flight -= 1
        if close and connection is not None:
            connection.close()

    def _finish(self) -> None:
        self._over = True
        if self._on_end is not None:
            self._on_end(self)
        if self._done is not None:
            self._done(self)


class _Pieces:
    """Takes chunks apart for a client of HTTP/1.0, which knows none."""

    def __init__(self, responder: Responder) -> None:
        self._responder = responder
        self._parser = httptools.HttpResponseParser(self)
        self._parser.feed_data(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")

    def feed(self, data: bytes) -> None:
        """Write what is in the chunks; they were found valid before."""
        self._parser.feed_data(data)

    def on_body(self, body: bytes) -> None:
        """Write a piece."""
        self._responder.write(body)


def _passed(headers: dict[bytes, bytes]) -> tuple[tuple[bytes, bytes], ...]:
    return ((b"Retry-After", headers[b"retry-after"]),) if b"retry-after" in headers else ()
