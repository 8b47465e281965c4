"""One request on its way to a pod and back, by callbacks: no task and no future, as each token passes here.

As long as nothing of an answer has gone to the client, a pod that cannot be reached, drops the connection or says 503
is passed over for another; where there is none, the request waits in the model's room (`hold`). After that a broken
answer ends as broken: an error event in a stream of events, a cut connection else.
"""

import asyncio
from collections.abc import Callable
from time import monotonic
from typing import Final

import msgspec

from moorage_common.http.message import EVENT_STREAM, JSON, STATUS_LINES, Answer, Request
from moorage_common.http.responder import Responder
from moorage_common.openai_errors import error_body
from moorage_gateway import waiting
from moorage_gateway.balance import Endpoint, Pods
from moorage_gateway.hold import PATIENCE_SECONDS, Room
from moorage_gateway.limits import Bill
from moorage_gateway.reply import Headers, Reply
from moorage_gateway.upstream import UpstreamConnection
from moorage_gateway.usage import EVENT

TRIES: Final = 3
"""Pods that a request is tried on."""

TAIL: Final = 4
"""Pieces of an answer's end that are kept at least: usage stands in it."""


class Order(msgspec.Struct, frozen=True):
    """What is to be sent, and for whom."""

    model: str
    caller: str
    head: bytes
    """The head of the request but for its Host, which comes last."""
    body: bytes
    path: str
    """The route on the pod."""
    request: Request
    """What the client sent."""
    client: Responder
    """Who answers it."""
    bill: Bill | None = None
    """The tokens that were reserved for it, where its caller has a limit."""
    room: Room | None = None
    """Where it waits while no pod takes it; None refuses it then."""
    priority: int = 5
    may_stream: bool = False
    """Whether the route knows streams of events."""
    more: Headers = ()
    """Headers of the client's answer, besides those that it has anyway."""


class Exchange:
    """Runs from `start` to the callback of `add_done_callback`; `cancel` is for a client that has left."""

    __slots__ = (
        "_admitted",
        "_answering",
        "_backends",
        "_cancelled",
        "_connecting",
        "_connection",
        "_done",
        "_endpoint",
        "_fresh",
        "_on_end",
        "_over",
        "_pass_on",
        "_pieces",
        "_responder",
        "_room",
        "_timed_out",
        "_tried",
        "_tried_at",
        "begun",
        "bytes_out",
        "caller",
        "error",
        "events",
        "first_byte",
        "model",
        "order",
        "pod",
        "priority",
        "size",
        "status",
        "streamed",
        "tail",
    )

    def __init__(
        self,
        responder: Reply,
        backends: Pods,
        order: Order,
        on_end: Callable[["Exchange"], None] | None = None,
    ) -> None:
        """Send what was ordered to one of `backends`; `on_end` is called once, whatever comes."""
        self._responder = responder
        self._backends = backends
        self.order = order
        self.model = order.model
        self.caller = order.caller
        self.priority = order.priority
        self.size = len(order.body)
        self._room = order.room
        self._admitted = False
        self._answering = False
        self._on_end = on_end
        self._done: Callable[[Exchange], object] | None = None
        self._tried: tuple[Endpoint, ...] = ()
        self._tried_at: float | None = None
        self._endpoint: Endpoint | None = None
        self._connection: UpstreamConnection | None = None
        self._connecting: asyncio.Task[None] | None = None
        self._fresh = False
        self._cancelled = False
        self._over = False
        self._timed_out = False
        self._pass_on: Callable[[bytes], None] | None = None
        self._pieces: waiting.Writer | None = None
        self.begun = monotonic()
        self.first_byte = 0.0
        """When the first of the body came."""
        self.status = 0
        self.streamed = False
        self.error = ""
        """Why there was no whole answer: `backend`, `client`, `timeout` or `capacity`; else empty."""
        self.pod = ""
        """Where it was sent last."""
        self.bytes_out = 0
        """Of the answer's body, as it was framed."""
        self.events = 0
        """In a stream; about as many as tokens."""
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
        if self._room is not None:
            self._room.leave(self)
        self._leave(close=True)
        self._finish()

    def now(self) -> float:
        """The time by the clock of `begun` and `first_byte`."""
        return monotonic()

    # -- the way there ------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Send the request to the next pod, or let it wait behind those that do."""
        room = self._room
        if room is not None and len(room) and not self._admitted:
            self._wait(room)
            return
        now = monotonic()
        endpoint = self._backends.pick(now, self._tried) if len(self._tried) < TRIES else None
        if endpoint is None:
            if room is None:
                self._refuse()
            else:
                self._wait(room)
            return
        self._endpoint = endpoint
        self.pod = endpoint.pool.name
        endpoint.in_flight += 1
        if room is not None:
            room.began(now)
        connection = endpoint.pool.take(now)
        if connection is None:
            self._connecting = asyncio.ensure_future(self._connect(endpoint))
        else:
            self._fresh = False
            self._send(connection)

    async def _connect(self, endpoint: Endpoint) -> None:
        try:
            connection = await endpoint.pool.connect()
        except (OSError, TimeoutError) as error:
            if not self._over:
                self._connecting = None
                self._timed_out = isinstance(error, TimeoutError)
                self._next(endpoint)
            return
        if self._over:
            # The client has left meanwhile. (Cancelling the attempt would leave a connection that nobody closes.)
            endpoint.pool.give_back(connection)
            return
        self._connecting = None
        self._fresh = True
        self._send(connection)

    def _send(self, connection: UpstreamConnection) -> None:
        assert self._endpoint is not None  # noqa: S101 - it was picked
        self._connection = connection
        order = self.order
        connection.send(b"%bHost: %b\r\n\r\n" % (order.head, self._endpoint.pool.address), order.body, self)

    def _next(self, endpoint: Endpoint) -> None:
        """Pass a pod over."""
        endpoint.failed(monotonic())
        self._tried = (*self._tried, endpoint)
        self._leave(close=True)
        self.start()

    # -- waiting for a pod --------------------------------------------------------------------------------------------

    def _wait(self, room: Room) -> None:
        if self._tried and self._tried_at is None:
            self._tried_at = monotonic()
        if (refusal := room.admit(self, self._tried_at)) is not None:
            self.refuse(refusal)

    def release(self) -> None:
        """Go to a pod: one takes it now."""
        self._admitted = True
        self._tried = ()
        if self._tried_at is not None and self._tried_at + PATIENCE_SECONDS < monotonic():
            self._tried_at = None  # in the meantime there was no pod at all; this is another one
        self.start()

    def refuse(self, answer: Answer) -> None:
        """End without a pod."""
        self.error = "timeout" if self._timed_out else "capacity"
        self.status = answer.status
        waiting.end_with(self._responder, answer)
        self._finish()

    def comfort(self, why: str) -> None:
        """Tell a client that reads a stream of events that its answer will come."""
        if self._responder.started or (self.order.may_stream and waiting.wants_stream(self.order.body)):
            waiting.comfort(self._responder, why)

    # -- the way back -------------------------------------------------------------------------------------------------

    def head(self, status: int, headers: dict[bytes, bytes], body: bytes) -> None:
        """Begin the client's answer, unless another pod may give a better one."""
        endpoint = self._endpoint
        assert endpoint is not None  # noqa: S101 - it was picked
        if status == 503 and (self._room is not None or len(self._backends) > len(self._tried) + 1):
            self._next(endpoint)
            return
        endpoint.succeeded()
        length = headers.get(b"content-length")
        framed = length is not None or headers.get(b"transfer-encoding") == b"chunked"
        if not framed or status not in STATUS_LINES:
            self._broken()
            return
        self._answering = True
        self.status = status
        content_type = headers.get(b"content-type", JSON)
        self.streamed = streamed = content_type.startswith(EVENT_STREAM)
        more = waiting.HEADERS if streamed else _passed(headers) if status >= 400 else ()
        if self.order.more:
            more += self.order.more
        connection, responder = self._connection, self._responder
        assert connection is not None  # noqa: S101 - it has just answered
        if body:
            self.first_byte = monotonic()
            self.bytes_out = len(body)
            if streamed:
                self.events = body.count(EVENT) + body.startswith(EVENT[1:])
            self.tail.append(body)
        if responder.started:
            responder.go_on(flow=connection)
            self._pieces = waiting.writer(responder, status, headers)
            self._pieces.feed(body)
            self._pass_on = self._pieces.feed
        elif length is None and not responder.takes_chunks:
            responder.start(status, content_type, flow=connection, headers=more)
            self._pieces = waiting.Pieces(waiting.Plain(responder))
            self._pieces.feed(body)
            self._pass_on = self._pieces.feed
        else:
            number = None if length is None else int(length)
            self._pass_on = responder.pass_head(
                status, content_type, length=number, flow=connection, headers=more, data=body
            )

    def data(self, body: bytes) -> None:
        """Pass a piece on."""
        if not self.first_byte:
            self.first_byte = monotonic()
        self.bytes_out += len(body)
        if self.streamed:
            self.events += body.count(EVENT)
        tail = self.tail
        tail.append(body)
        if len(tail) > 2 * TAIL:
            del tail[:TAIL]
        assert self._pass_on is not None  # noqa: S101 - the head has been passed on
        self._pass_on(body)

    def ended(self) -> None:
        """The answer is whole."""
        endpoint = self._endpoint
        assert endpoint is not None  # noqa: S101 - it was picked
        if self._pieces is None:
            self._responder.passed(whole=True)
        else:
            self._pieces.end()
        self._leave(close=False)
        self._finish()

    def failed(self, why: str, *, answered: bool) -> None:
        """Try again where the client has nothing yet, else end its answer as broken."""
        endpoint = self._endpoint
        assert endpoint is not None  # noqa: S101 - it was picked
        if self._answering:
            self._broken()
        elif not self._fresh and not answered:
            # It was dropped between two requests; that says nothing of the pod.
            endpoint.pool.counts.stale += 1
            self._connecting = asyncio.ensure_future(self._connect(endpoint))
        else:
            self._next(endpoint)

    def _broken(self) -> None:
        self.error = "backend"
        connection, responder = self._connection, self._responder
        told = error_body(
            "The model's pod went before its answer was complete.", kind="server_error", code="backend_gone"
        )
        if not self._answering:
            self.status = 502
            waiting.end_with(responder, Answer(502, told))
        elif self._pieces is not None:
            if self.streamed and responder.takes_chunks:
                responder.write(b"\n\ndata: %b\n\n" % told)
            responder.break_off()
        elif self.streamed and connection is not None and connection.between_chunks:
            event = b"\n\ndata: %b\n\n" % told
            self.data(b"%x\r\n%b\r\n" % (len(event), event))
            responder.break_off()
        else:
            responder.passed(whole=False)
        self._leave(close=True)
        self._finish()

    def _refuse(self) -> None:
        self.error = "timeout" if self._timed_out else "capacity"
        self.status = 503
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
            if self._room is not None:
                self._room.ended(monotonic())
        if close and connection is not None:
            connection.close()

    def _finish(self) -> None:
        self._over = True
        if self._on_end is not None:
            self._on_end(self)
        if self._done is not None:
            self._done(self)


def _passed(headers: dict[bytes, bytes]) -> tuple[tuple[bytes, bytes], ...]:
    return ((b"Retry-After", headers[b"retry-after"]),) if b"retry-after" in headers else ()
