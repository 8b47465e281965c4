"""Connections to one pod, kept between requests; what comes back is checked by llhttp and handed on as it is.

The bytes of a body are not framed anew: the parser only watches over them, so an answer that is not valid HTTP is never
passed on. Where the parser forgives (blank lines around an answer) we do not: a model's owner need not be a friend of
its clients, and a byte more or less than was framed would become a part of the next answer.

A kept connection may have been dropped by the other side without our having seen it (llama.cpp's server does that);
whoever sent a request on such a one sends it once more on a fresh one, as long as nothing has been answered.
"""

import asyncio
import contextlib
import socket
from collections import deque
from time import monotonic
from typing import Final, Protocol, cast

import httptools

KEPT: Final = 128
"""Idle connections that are kept to a pod."""
KEPT_SECONDS: Final = 4.0
"""For so long; our runtime closes them after 75 s, llama.cpp's server after 5."""
CONNECT_SECONDS: Final = 5.0
LARGE: Final = 16 * 1024
"""A body from which it costs less to hand two pieces to the kernel than to make one of them."""
HEAD_BYTES: Final = 64 * 1024
"""The longest head of an answer."""

DEAD_SECONDS: Final = 30
"""A pod whose machine says nothing at all for so long, not even that it got what was sent, is gone."""

_END_OF_HEAD: Final = b"\r\n\r\n"
_BODILESS: Final = frozenset({204, 304})
_ALIVE: Final = (
    (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
    (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 10),
    (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 5),
    (socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 4),
    (socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, DEAD_SECONDS * 1000),
)


class Receiver(Protocol):
    """Who waits for an answer."""

    def head(self, status: int, headers: dict[bytes, bytes], body: bytes) -> None:
        """The head has come, and a part of the body, which may be empty, as it is framed."""

    def data(self, body: bytes) -> None:
        """More of the body, as it is framed."""

    def ended(self) -> None:
        """The answer is whole."""

    def failed(self, why: str, *, answered: bool) -> None:
        """The connection broke; `answered`, after a part of an answer had come."""


class Counts:
    """What became of the connections to the pods of one model, since its first."""

    __slots__ = ("failed", "opened", "reused", "stale")

    def __init__(self) -> None:
        self.opened = 0
        self.reused = 0
        self.stale = 0
        """Requests that were sent again because a kept connection had been dropped."""
        self.failed = 0


class Pool:
    """The connections to one pod."""

    __slots__ = ("_closed", "_idle", "address", "counts", "host", "name", "open", "port")

    def __init__(self, host: str, port: int, counts: Counts | None = None) -> None:
        """Nothing is connected yet; what happens is counted in `counts`."""
        self.host = host
        self.port = port
        self.counts = counts if counts is not None else Counts()
        self.open = 0
        """Connections that are there."""
        self.name = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        self.address = self.name.encode()
        self._idle: deque[UpstreamConnection] = deque()
        self._closed = False

    def take(self, now: float) -> "UpstreamConnection | None":
        """A kept connection, the one that was used last."""
        idle = self._idle
        while idle:
            connection = idle.pop()
            if connection.kept_until > now and not connection.lost:
                self.counts.reused += 1
                return connection
            connection.close()
        return None

    async def connect(self) -> "UpstreamConnection":
        """A fresh connection; OSError or TimeoutError where there is none."""
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(CONNECT_SECONDS):
                _, connection = await loop.create_connection(lambda: UpstreamConnection(self), self.host, self.port)
        except OSError:
            self.counts.failed += 1
            raise
        self.counts.opened += 1
        return connection

    @property
    def idle(self) -> int:
        """Connections that are kept for the next request."""
        return len(self._idle)

    def give_back(self, connection: "UpstreamConnection") -> None:
        """Keep a connection for the next request."""
        now, idle = monotonic(), self._idle
        while idle and idle[0].kept_until <= now:
            idle.popleft().close()
        if self._closed or len(idle) >= KEPT:
            connection.close()
            return
        connection.kept_until = now + KEPT_SECONDS
        idle.append(connection)

    def close(self) -> None:
        """Close what is idle, and keep nothing from now on."""
        self._closed = True
        while self._idle:
            self._idle.pop().close()


class UpstreamConnection(asyncio.Protocol):
    """One connection to a pod; one exchange at a time."""

    def __init__(self, pool: Pool) -> None:
        """Wait for a transport."""
        self.kept_until = 0.0
        self._pool = pool
        self.lost = False
        self._transport: asyncio.Transport
        self._parser = httptools.HttpResponseParser(self)
        self._receiver: Receiver | None = None
        self._reading = True
        self._headers: dict[bytes, bytes] = {}
        self._begun: bytes = b""
        self._in_head = True
        self._status = 0
        self._whole = False
        self._keep = False
        self._problem = ""
        self._left: int | None = None
        self._last = b""
        self._between_chunks = True

    def send(self, head: bytes, body: bytes, receiver: Receiver) -> None:
        """Send a request; the answer goes to `receiver`."""
        self._receiver = receiver
        self._begun = b""
        self._in_head = True
        self._whole = False
        self._left = None
        self._last = b""
        if self.lost:
            # It went before anything was sent: whoever waits is told as it is told of one that goes later.
            asyncio.get_running_loop().call_soon(self._fail, "the connection was closed")
        elif len(body) < LARGE:
            self._transport.write(head + body)
        else:
            self._transport.writelines((head, body))

    def close(self) -> None:
        """Close at once, whatever was going on; nobody is told."""
        self._receiver = None
        if not self.lost:
            self._transport.abort()

    def pause(self) -> None:
        """Read no more for now; the other side will be held back by its own socket."""
        if self._reading and not self.lost:
            self._reading = False
            self._transport.pause_reading()

    def resume(self) -> None:
        """Read again."""
        if not self._reading and not self.lost:
            self._reading = True
            self._transport.resume_reading()

    # -- the transport's calls ----------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Be ready for an exchange."""
        # uvloop's transport is an asyncio.Transport in all but its class.
        self._transport = cast(asyncio.Transport, transport)
        self._pool.open += 1
        connected = transport.get_extra_info("socket")
        for level, option, value in _ALIVE:
            with contextlib.suppress(OSError):
                connected.setsockopt(level, option, value)

    def data_received(self, data: bytes) -> None:
        """Check a piece of the answer, and hand it on."""
        receiver, in_head = self._receiver, self._in_head
        if receiver is None:
            # Bytes that nobody asked for: this connection can no longer be trusted.
            self.close()
            return
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
            self._fail(f"the answer is not valid HTTP: {error!r}")
            return
        if self._problem:
            self._fail(self._problem)
            return
        if not in_head:
            if self._within(data):
                receiver.data(data)
        elif self._in_head:
            self._begun += data
            if len(self._begun) > HEAD_BYTES:
                self._fail(f"the head of the answer has more than {HEAD_BYTES} bytes")
            return
        else:
            if self._begun:
                data = self._begun + data
            if not data.startswith(b"HTTP/1."):
                self._fail("the answer does not begin with HTTP/1.1")
                return
            body = data[data.index(_END_OF_HEAD) + 4 :]
            length = self._headers.get(b"content-length")
            self._left = None if length is None else int(length)
            if self._within(body):
                receiver.head(self._status, self._headers, body)
        if self._whole and self._receiver is receiver:
            self._end(receiver)

    def connection_lost(self, exc: Exception | None) -> None:
        """Fail the exchange that was running."""
        self.lost = True
        self._pool.open -= 1
        self._fail(f"the connection was closed{f' ({exc})' if exc else ''}")

    # -- the parser's calls -------------------------------------------------------------------------------------------

    def on_message_begin(self) -> None:
        """Begin an answer; a second one, which nobody asked for, makes all of it worthless."""
        if self._whole:
            self._problem = "more came than was asked for"
        self._headers = {}

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take one header; what comes after the body would have to be framed anew."""
        if not self._in_head:
            self._problem = "the answer has trailers"
        name = name.lower()
        self._headers[name] = self._headers[name] + b", " + value if name in self._headers else value

    def on_headers_complete(self) -> None:
        """Take note of the end of the head."""
        self._in_head = False
        self._status = status = self._parser.get_status_code()
        if status < 200:
            self._problem = "an answer before the answer, which nobody asked for"
        elif status in _BODILESS:
            self._problem = f"an answer with status {status}, whose body would have to be left out"

    def on_chunk_header(self) -> None:
        """Take note that a chunk has begun: what is cut off in it cannot be followed by one of ours."""
        self._between_chunks = False

    def on_chunk_complete(self) -> None:
        """Take note that it is whole."""
        self._between_chunks = True

    def on_message_complete(self) -> None:
        """Take note of the end."""
        self._whole = True
        self._keep = self._parser.should_keep_alive()

    # -- our own ------------------------------------------------------------------------------------------------------

    @property
    def between_chunks(self) -> bool:
        """Whether what was handed on ends with a whole chunk, so that one of ours can follow; never, by a length."""
        return self._left is None and self._between_chunks and (not self._last or self._last.endswith(b"\r\n"))

    def _within(self, body: bytes) -> bool:
        """Tell whether these bytes belong to the answer, all of them; if not, it has failed.

        The parser skips line ends behind an answer without a word.
        """
        if self._left is not None:
            self._left -= len(body)
            right = self._left == 0 if self._whole else self._left > 0
        else:
            self._last = body if len(body) > 4 else self._last[-5:] + body
            right = not self._whole or (self._last.endswith(_END_OF_HEAD) and self._last[-5:-4] not in b"\r\n")
        if not right:
            self._fail("more came than was framed")
        return right

    def _end(self, receiver: Receiver) -> None:
        self._receiver = None
        self._last = b""
        if self._keep and not self.lost:
            if not self._reading:
                self.resume()
            self._pool.give_back(self)
        else:
            self.close()
        receiver.ended()

    def _fail(self, why: str) -> None:
        receiver, answered = self._receiver, bool(self._begun) or not self._in_head
        self.close()
        if receiver is not None:
            receiver.failed(why, answered=answered)
