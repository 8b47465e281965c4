"""The answer to one request, written onto the client's connection whole or as a stream, with backpressure."""

from collections.abc import Callable
from typing import Protocol

from moorage_common.http.message import Answer, Request, head_bytes


class Connection(Protocol):
    """What a responder needs of the connection that it answers on."""

    closing: bool
    write_paused: bool

    @property
    def peer(self) -> str:
        """The client's address."""

    def draining(self) -> bool:
        """Tell whether connections are to end with their answer."""

    def write(self, data: bytes) -> None:
        """Write bytes to the client, unless it is gone."""

    def answered(self, *, keep_alive: bool) -> None:
        """Take note of a complete answer."""

    def abort(self) -> None:
        """Close at once."""


class Flow(Protocol):
    """A source of bytes that can be held back while they cannot be written on."""

    def pause(self) -> None:
        """Read no more for now."""

    def resume(self) -> None:
        """Read again."""


class Responder:
    """The answer to one request: `send` it whole, or `start`, `write` and `finish` a stream of chunks."""

    __slots__ = ("_chunked", "_connection", "_flow", "_keep_alive", "_no_body", "finished", "lines", "status")

    def __init__(self, connection: Connection, request: Request) -> None:
        """Answer `request` on `connection`."""
        self._connection = connection
        self._keep_alive = request.keep_alive
        self._chunked = request.http11
        self._no_body = request.method == "HEAD"
        self._flow: Flow | None = None
        self.status = 0
        self.finished = False
        self.lines = b""
        """Headers of any answer, written already: each with its end of line."""

    @property
    def peer(self) -> str:
        """The address at the other end of the connection."""
        return self._connection.peer

    @property
    def started(self) -> bool:
        """True once a head has been written."""
        return self.status != 0

    def send(self, answer: Answer) -> None:
        """Write a whole answer."""
        if self._connection.closing or self.started:
            return
        keep_alive = self._keep_alive and not answer.close and not self._connection.draining()
        head = head_bytes(
            answer.status,
            answer.content_type,
            length=len(answer.body),
            keep_alive=keep_alive,
            headers=answer.headers,
            lines=self.lines,
        )
        self.status = answer.status
        self._keep_alive = keep_alive
        self._connection.write(head if self._no_body else head + answer.body)
        self._end()

    def start(
        self, status: int, content_type: bytes, *, flow: Flow, headers: tuple[tuple[bytes, bytes], ...] = ()
    ) -> None:
        """Write the head of a streamed answer whose bytes come from `flow`."""
        # A client of HTTP/1.0 knows no chunks: the end of the connection ends its answer.
        self._keep_alive = self._keep_alive and self._chunked
        self.status = status
        self._flow = flow
        self._connection.write(
            head_bytes(
                status,
                content_type,
                length=None,
                chunked=self._chunked,
                keep_alive=self._keep_alive,
                headers=headers,
                lines=self.lines,
            )
        )
        if self._connection.write_paused:
            flow.pause()

    def go_on(self, *, flow: Flow) -> None:
        """Let the bytes of an answer that has been started come from another source from now on."""
        self._flow = flow
        if self._connection.write_paused:
            flow.pause()

    @property
    def takes_chunks(self) -> bool:
        """True where an answer without a length can be framed by chunks."""
        return self._chunked

    def pass_head(  # noqa: PLR0913 - the parts of a head
        self,
        status: int,
        content_type: bytes,
        *,
        length: int | None,
        flow: Flow,
        headers: tuple[tuple[bytes, bytes], ...] = (),
        data: bytes = b"",
    ) -> Callable[[bytes], None]:
        """Write the head of an answer whose body is passed on as it was framed: by its length, or by chunks.

        `data` is what has come of the body; what is given back writes the rest. Without a length the client has to
        take chunks.
        """
        connection = self._connection
        self._keep_alive = keep_alive = self._keep_alive and not connection.draining()
        self.status = status
        self._flow = flow
        head = head_bytes(
            status,
            content_type,
            length=length,
            chunked=length is None,
            keep_alive=keep_alive,
            headers=headers,
            lines=self.lines,
        )
        connection.write(head + data)
        if connection.write_paused:
            flow.pause()
        return connection.write

    def passed(self, *, whole: bool) -> None:
        """End an answer that was passed on; one that is not whole ends the connection, and never looks whole."""
        self.finished = True
        self._flow = None
        if not whole:
            self._keep_alive = False
            self._connection.abort()
        elif not self._keep_alive:
            self._connection.answered(keep_alive=False)

    def write(self, data: bytes) -> None:
        """Write a piece of a streamed answer."""
        if data:
            self._connection.write(b"%x\r\n%b\r\n" % (len(data), data) if self._chunked else data)

    def finish(self) -> None:
        """End a streamed answer as complete."""
        if self._chunked:
            self._connection.write(b"0\r\n\r\n")
        self._end()

    def break_off(self) -> None:
        """End a streamed answer as not complete: send what was written, then close without the last chunk."""
        self._keep_alive = False
        if self._chunked:
            self._end()
        else:
            # Without chunks a plain close would look like a complete answer: reset the connection instead.
            self.finished = True
            self._connection.abort()

    def writable(self, *, paused: bool) -> None:
        """Hold back or let go on where the bytes come from."""
        if self._flow is not None and not self.finished:
            if paused:
                self._flow.pause()
            else:
                self._flow.resume()

    def _end(self) -> None:
        self.finished = True
        self._flow = None
        self._connection.answered(keep_alive=self._keep_alive)
