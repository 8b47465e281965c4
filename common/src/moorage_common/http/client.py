"""The client's side: a pool of keep-alive connections to one address, and the answer as it comes to a `Sink`.

A kept connection may have been dropped by the other side without our having seen it (llama.cpp's server does that): a
request that met such a one is sent once more, on a fresh connection, as long as no byte of an answer has come.
Cancelling an exchange closes its connection at once: that is how an engine learns that its work is no longer wanted.
"""

import asyncio
from collections import deque
from typing import Protocol, cast

import httptools


class Sink(Protocol):
    """Where an answer goes."""

    def head(self, status: int, headers: dict[bytes, bytes], flow: "UpstreamConnection") -> None:
        """Take the head; names of headers are lower-case. `flow` holds the rest back when asked to."""

    def body(self, data: bytes) -> None:
        """Take a piece of the body; raise AnswerTooLong to end the exchange."""


class AnswerTooLong(Exception):  # noqa: N818 - it names a state
    """A sink takes no more."""


class UpstreamGone(Exception):  # noqa: N818 - it names a state of the other side
    """The other side could not be reached, or went before its answer was complete."""

    def __init__(self, message: str, *, answered: bool) -> None:
        """Say what happened, and whether a part of an answer had come."""
        super().__init__(message)
        self.answered = answered


class Pool:
    """Connections to one address. An exchange takes an idle one or makes one; what is idle for too long is closed."""

    def __init__(
        self, host: str, port: int, *, keep: int = 32, idle_seconds: float = 4.0, connect_seconds: float = 5.0
    ) -> None:
        """Connect to `host` and `port` on demand; keep at most `keep` connections for at most `idle_seconds`."""
        self.address = f"{host}:{port}"
        self._host = host
        self._port = port
        self._keep = keep
        self._idle_seconds = idle_seconds
        self._connect_seconds = connect_seconds
        self._idle: deque[UpstreamConnection] = deque()
        self._closed = False

    def request_bytes(self, method: str, path: str, body: bytes = b"") -> bytes:
        """Write a request; nothing of a client's head is passed on."""
        head = f"{method} {path} HTTP/1.1\r\nHost: {self.address}\r\n"
        if body:
            head += f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n"
        return head.encode() + b"\r\n" + body

    async def exchange(self, request: bytes, sink: Sink) -> None:
        """Send a request and give its answer to `sink`; return when the answer is complete."""
        connection = self._take_idle()
        if connection is not None:
            try:
                await self._run(connection, request, sink)
            except UpstreamGone as gone:
                if gone.answered:
                    raise
            else:
                return
        await self._run(await self._connect(), request, sink)

    def close(self) -> None:
        """Close what is idle, and keep nothing from now on."""
        self._closed = True
        while self._idle:
            self._idle.pop().close()

    async def _run(self, connection: "UpstreamConnection", request: bytes, sink: Sink) -> None:
        try:
            await connection.run(request, sink)
        except BaseException:
            connection.close()
            raise
        if connection.reusable and not self._closed and len(self._idle) < self._keep:
            connection.kept_until = asyncio.get_running_loop().time() + self._idle_seconds
            self._idle.append(connection)
        else:
            connection.close()

    def _take_idle(self) -> "UpstreamConnection | None":
        now = asyncio.get_running_loop().time()
        while self._idle and (self._idle[0].kept_until < now or self._idle[0].lost):
            self._idle.popleft().close()
        while self._idle:
            connection = self._idle.pop()
            if not connection.lost:
                return connection
        return None

    async def _connect(self) -> "UpstreamConnection":
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(self._connect_seconds):
                _, connection = await loop.create_connection(UpstreamConnection, self._host, self._port)
        except (OSError, TimeoutError) as error:
            raise UpstreamGone(f"no connection to {self.address}: {error or 'timeout'}", answered=False) from error
        return connection


class UpstreamConnection(asyncio.Protocol):
    """One connection to the other side; one exchange at a time."""

    def __init__(self) -> None:
        """Wait for a transport."""
        self.kept_until = 0.0
        self.lost = False
        self.reusable = False
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport
        self._parser: httptools.HttpResponseParser
        self._sink: Sink | None = None
        self._done: asyncio.Future[None] | None = None
        self._answered = False
        self._complete = False
        self._extra = False
        self._reading = True
        self._headers: dict[bytes, bytes] = {}
        self._pieces: list[bytes] = []

    async def run(self, request: bytes, sink: Sink) -> None:
        """Send `request`, give the answer to `sink`, return at its end."""
        if self.lost:
            raise UpstreamGone("the connection was closed", answered=False)
        self._parser = httptools.HttpResponseParser(self)
        self._sink = sink
        self._answered = self._complete = self._extra = False
        self.reusable = False
        self._done = self._loop.create_future()
        self._transport.write(request)
        try:
            await self._done
        finally:
            self._done = None
            self._sink = None
        self.resume()

    def close(self) -> None:
        """Close at once."""
        self.reusable = False
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

    @property
    def paused(self) -> bool:
        """True while the answer is held back by whoever reads it."""
        return not self._reading

    # -- the transport's calls ----------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Be ready for an exchange."""
        # uvloop's transport is an asyncio.Transport in all but its class.
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        """Parse a piece of the answer."""
        if self._done is None or self._done.done():
            # Bytes that nobody asked for: this connection can no longer be trusted.
            self.close()
            return
        self._answered = True
        try:
            self._parser.feed_data(data)
            if self._pieces and self._sink is not None:
                # What came together goes on together: one write for many chunks.
                self._sink.body(self._pieces[0] if len(self._pieces) == 1 else b"".join(self._pieces))
        except httptools.HttpParserError as error:
            self._fail(f"the answer is not valid HTTP: {error}")
        except AnswerTooLong as error:
            self._fail(str(error))
        else:
            if self._complete:
                self._done.set_result(None)
        finally:
            self._pieces.clear()

    def connection_lost(self, exc: Exception | None) -> None:
        """Fail the exchange that was running."""
        self.lost = True
        self._fail(f"the connection was closed{f' ({exc})' if exc else ''}")

    # -- the parser's calls -------------------------------------------------------------------------------------------

    def on_message_begin(self) -> None:
        """Take note of a second answer, which nobody asked for: nothing on this connection can be trusted then."""
        self._extra = self._complete
        self._headers = {}
        self.reusable = False

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take one header."""
        self._headers[name.lower()] = value

    def on_headers_complete(self) -> None:
        """Give the head to the sink, unless it only says that the answer will come."""
        status = self._parser.get_status_code()
        if self._sink is not None and not self._extra and status >= 200:
            self._sink.head(status, self._headers, self)

    def on_body(self, body: bytes) -> None:
        """Keep a piece of the body until all that came with it is parsed."""
        if not self._extra:
            self._pieces.append(body)

    def on_message_complete(self) -> None:
        """Take note of the end; the exchange ends when its last piece has been given on."""
        if self._parser.get_status_code() >= 200:
            self.reusable = not self._complete and self._parser.should_keep_alive()
            self._complete = True

    def _fail(self, message: str) -> None:
        if self._done is not None and not self._done.done():
            self._done.set_exception(UpstreamGone(message, answered=self._answered))
            if not self.lost:
                self.close()
