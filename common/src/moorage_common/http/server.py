"""The server's side: one `ServerConnection` a client, one `Responder` a request, both on top of httptools.

A connection parses strictly (llhttp without leniency, and the checks of `strict`), keeps the limits, lets one request
run at a time, and tells the handler of a client that left by cancelling it. A handler is a coroutine function, or a
plain one that answers at once or goes on by callbacks, which saves the task. A body is buffered up to its limit, an
answer is written with backpressure: the responder's flow is paused while the client does not read.
"""

import asyncio
import contextlib
import logging
import socket
import struct
from collections import deque
from collections.abc import Callable, Coroutine
from dataclasses import replace
from types import CoroutineType
from typing import Any, cast

import httptools

from moorage_common.http.connections import Connections
from moorage_common.http.deadline import Deadline
from moorage_common.http.handler import Handler, Judge, Running
from moorage_common.http.incoming import Incoming
from moorage_common.http.message import Answer, Limits, Refusal, Request, head_bytes
from moorage_common.http.responder import Responder
from moorage_common.http.strict import (
    error_answer,
    head_problem,
    head_too_large,
    target_problem,
    too_much_at_once,
    without_upgrade,
)
from moorage_common.openai_errors import error_body

log = logging.getLogger(__name__)

_RESET = struct.pack("ii", 1, 0)
"""SO_LINGER with a time of 0: closing resets the connection."""


class ServerConnection(Incoming, asyncio.Protocol):
    """One client's connection."""

    def __init__(
        self,
        handler: Handler,
        *,
        limits: Limits,
        connections: Connections,
        is_draining: Callable[[], bool],
        judge: Judge | None = None,
    ) -> None:
        """Serve one client with `handler`; be in `connections` as long as the connection lives."""
        self._judge = judge
        self.draining = is_draining
        self.closing = False
        self.write_paused = False
        super().__init__(limits, connections)
        self._connections = connections
        self._handler = handler
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport
        self._queue: deque[Request] = deque()
        self._running: Running | None = None
        self._end: asyncio.Future[None] | None = None
        self._responder: Responder | None = None
        self._running_bytes = 0
        self._peer: str | None = None
        self._deadline = Deadline(self._loop, self._expired)
        self._body_until: float | None = None
        """When the body has to be whole, by the loop's clock; None while all of it came with the head."""
        self._last_word: Answer | None = None
        """The refusal of what came behind the requests that are being answered."""

    # -- the transport's calls ----------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Start to wait for a request."""
        # uvloop's transport is an asyncio.Transport in all but its class.
        self._transport = cast(asyncio.Transport, transport)
        self._transport.set_write_buffer_limits(high=self._limits.write_buffer_bytes)
        self._connections.add(self)
        if len(self._connections) > self._limits.connections and not self._connections.make_room(self):
            self._refuse(too_much_at_once())
            return
        self._deadline.set(self._limits.head_seconds)

    def data_received(self, data: bytes) -> None:
        """Parse what came; requests that are whole are started from `on_message_complete`."""
        if self.closing or self._last_word is not None:
            return
        begins = self._in_head and self._received == 0
        self._received += len(data)
        if self._left:
            data = self._more_body(data)
            if not self._left:
                self._whole()
            if self.closing:
                return  # with that answer: what comes behind it is nobody's
        try:
            if data:
                self._parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            self._decline_upgrade(data[upgrade.args[0] :])
            return
        except httptools.HttpParserError as error:
            self._refuse(error_answer(400, f"This is not a valid HTTP/1.1 request: {error}."))
            return
        # In a body only what is no content counts: extensions of chunks and trailers, which nobody else bounds.
        if self._refusal is None and self._received > self._limits.head_bytes:
            self._refusal = head_too_large(self._limits)
        if self._refusal is not None:
            self._refuse(self._refusal)
            return
        if not self._in_head:
            self._left = self._length - self._body_size if self._length else 0
        waits = self._running is None and (self._received or not self._in_head)
        if waits and not self.closing and not self.write_paused:
            self._wait_for_more(begins=begins)

    def connection_lost(self, exc: Exception | None) -> None:
        """Cancel the handler of a client that left."""
        self.closing = True
        self._connections.discard(self)
        self._deadline.cancel()
        if self._running is not None:
            self._running.cancel()
        self._queue.clear()
        self._forget_stranger()
        self._release(self._held)
        # The parser knows us and we know it: without this a body that was given up would stay until such circles are
        # looked for.
        self.on_message_begin()
        del self._parser

    def pause_writing(self) -> None:
        """Hold the answer's source back: the client does not read as fast as we write.

        Nor are more requests taken from it: their answers would gather here.
        """
        self.write_paused = True
        self._transport.pause_reading()
        self._deadline.set(self._limits.write_stall_seconds)
        if self._responder is not None:
            self._responder.writable(paused=True)

    def resume_writing(self) -> None:
        """Let the answer's source go on."""
        self.write_paused = False
        if self.closing:
            return  # to the deadline of the close
        if not self._queue:
            self._transport.resume_reading()
        self._deadline.set(self._limits.keep_alive_seconds if self.idle else None)
        if self._responder is not None:
            self._responder.writable(paused=False)

    # -- the parser's calls -------------------------------------------------------------------------------------------

    def on_headers_complete(self) -> None:
        """Judge the head, and let a client go on that waits for our word before it sends the body."""
        self._in_head = False
        self._received = 0
        self._body_until = None
        parser, headers = self._parser, self._headers
        self._version = version = parser.get_http_version()
        self._method = parser.get_method()
        self._keep_alive = parser.should_keep_alive()
        if self._method == b"CONNECT":
            self._refusal = error_answer(405, "This is not a proxy.")
        if self._refusal is None:
            told = self._count, self._head_size
            self._refusal = target_problem(self._url) or head_problem(headers, version, self._limits, *told)
        if self._judge is not None and self._refusal is None and self._large():
            verdict = self._judge(headers)
            if isinstance(verdict, Answer):
                self._refusal = replace(verdict, close=True)
            else:
                self._stranger = not verdict
        self._length = 0 if b"transfer-encoding" in headers or self._refusal else int(headers.get(b"content-length", 0))
        if b"expect" in headers and self._refusal is None and self._running is None:  # its value has been judged
            self._transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    def on_message_complete(self) -> None:
        """Take note of the end of a request."""
        if self._parser.should_upgrade() and self._refusal is None:
            return  # without its body, which llhttp leaves to the other protocol: see _decline_upgrade
        self._whole()

    # -- what the responder calls -------------------------------------------------------------------------------------

    def write(self, data: bytes) -> None:
        """Write bytes to the client, unless it is gone."""
        if not self.closing:
            self._transport.write(data)

    def answered(self, *, keep_alive: bool) -> None:
        """Take note of a complete answer: close, or wait for the next request."""
        if self.closing:
            return
        if not keep_alive:
            self.close()

    def close(self) -> None:
        """Close after what was written has been sent."""
        self.closing = True
        self._transport.close()
        # A client that does not read could hold the connection for ever.
        self._deadline.set(self._limits.write_stall_seconds)

    def abort(self) -> None:
        """Close at once, and let the client see that it was not the end."""
        if not self.closing:
            reset_on_close(self._transport)
        self.closing = True
        self._transport.abort()

    @property
    def peer(self) -> str:
        """The client's address; empty where the transport does not tell one."""
        if self._peer is None:
            told = self._transport.get_extra_info("peername")
            self._peer = str(told[0]) if told else ""
        return self._peer

    @property
    def idle(self) -> bool:
        """True while no request is running or waiting here."""
        return self._running is None and not self._queue

    async def finished(self) -> None:
        """Wait until no request is running here."""
        if self._running is not None:
            self._end = self._end or self._loop.create_future()
            await self._end

    # -- our own ------------------------------------------------------------------------------------------------------

    def _large(self) -> bool:
        """Tell whether a body comes that is not as good as here; small ones are not worth a look at their head."""
        headers = self._headers
        return b"transfer-encoding" in headers or int(headers.get(b"content-length", 0)) > self._limits.head_bytes

    def _decline_upgrade(self, rest: bytes) -> None:
        """Go on as if no other protocol had been offered, as RFC 9110 7.8 allows: Java's client offers HTTP/2 so."""
        if self._refusal is not None:
            self._refuse(self._refusal)
            return
        head = without_upgrade(self._parser.get_method(), self._url, self._parser.get_http_version(), self._headers)
        self._parser = httptools.HttpRequestParser(self)
        self.data_received(head + rest)

    def _whole(self) -> None:
        """Start the request that has come, or queue it behind the one that runs."""
        self._in_head = True
        self._received = 0
        if self._head_size > self._limits.head_bytes and self._refusal is None:
            self._refusal = head_too_large(self._limits)
        if self._refusal is not None:
            return
        request = self._request()
        if self._running is None:
            self._start(request)
            return
        self._queue.append(request)
        self._transport.pause_reading()
        if len(self._queue) > self._limits.pipelined:
            self._refusal = error_answer(
                429, f"More than {self._limits.pipelined} requests were sent ahead on one connection."
            )

    def _wait_for_more(self, *, begins: bool) -> None:
        """Bound the time for the rest of a request of which a part has come."""
        if not self._in_head:
            now, limits = self._loop.time(), self._limits
            if self._body_until is None:
                self._body_until = now + limits.body_seconds
            self._deadline.set(min(limits.body_idle_seconds, max(self._body_until - now, 0.0)))
        elif begins:
            self._deadline.set(self._limits.head_seconds)

    def _start(self, request: Request) -> None:
        if not self.write_paused:  # or a client that does not read would keep its place as long as it asks
            self._deadline.set(None)
        self._responder = responder = Responder(self, request)
        self._running_bytes = len(request.body)
        self._running = running = self._begin(request, responder)
        if running is None:
            self._done(None)
        else:
            running.add_done_callback(self._done)

    def _begin(self, request: Request, responder: Responder) -> Running | None:
        try:
            begun = self._handler(request, responder)
        except Exception as error:  # noqa: BLE001 - it is in the log, and the client is told
            self._failed(error, request, responder)
            return None
        if isinstance(begun, CoroutineType):
            return self._loop.create_task(self._handle(begun, request, responder))
        return cast("Running | None", begun)  # a string, as the union would be made anew each time

    async def _handle(self, begun: Coroutine[Any, Any, None], request: Request, responder: Responder) -> None:
        try:
            await begun
        except Exception as error:  # noqa: BLE001 - it is in the log, and the client is told
            self._failed(error, request, responder)
        finally:
            if responder.started and not responder.finished:
                responder.break_off()

    def _failed(self, error: Exception, request: Request, responder: Responder) -> None:
        if isinstance(error, Refusal):
            responder.send(error.answer)
            return
        log.error("a request failed", extra={"path": request.path}, exc_info=error)
        if not responder.started:
            responder.send(Answer(500, error_body("The server failed to handle the request.", kind="server_error")))
        elif not responder.finished:
            responder.break_off()

    def _done(self, ended: Running | None) -> None:
        self._running = None
        self._responder = None
        self._release(self._running_bytes)
        if self._end is not None:
            self._end.set_result(None)
            self._end = None
        if self.closing:
            return
        if ended is not None and ended.cancelled():
            self.abort()
        elif self._queue:
            request = self._queue.popleft()
            if not self._queue and not self.write_paused:
                self._transport.resume_reading()
            self._start(request)
        elif self._last_word is not None:
            self._refuse(self._last_word)
        elif self.draining():
            self.close()
        elif not self.write_paused:
            self._deadline.set(self._limits.keep_alive_seconds if self._in_head else self._limits.body_idle_seconds)

    def _refuse(self, answer: Answer) -> None:
        """Answer what cannot be parsed, and close in a way that lets the client read why."""
        if self.closing:
            return
        if self._running is not None:
            # Answers are on their way to earlier requests: this one comes behind them, and nothing more is read.
            self._last_word = answer
            return
        self.closing = True
        content_type, length = answer.content_type, len(answer.body)
        head = head_bytes(answer.status, content_type, length=length, keep_alive=False, headers=answer.headers)
        self._transport.write(head + answer.body)
        # Closing with unread bytes would reset the connection and may take the answer with it: read on for a while.
        self._transport.resume_reading()
        if self._transport.can_write_eof():
            with contextlib.suppress(OSError):
                self._transport.write_eof()
        self._deadline.set(self._limits.write_stall_seconds if self.write_paused else self._limits.linger_seconds)

    def _expired(self) -> None:
        if self.closing or self.write_paused or (self._in_head and self._received == 0):
            self._transport.abort()
        else:
            self._refuse(error_answer(408, "The request did not come in time."))


def reset_on_close(transport: asyncio.Transport) -> None:
    """Make the close of a connection a reset, where a plain end would look like the end of an answer."""
    if (found := transport.get_extra_info("socket")) is not None:  # a lost one of TLS has none any more
        with contextlib.suppress(OSError):
            found.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
