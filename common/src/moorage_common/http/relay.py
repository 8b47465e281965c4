"""A relay: the sink that writes an upstream's answer to a client as it comes.

A stream of events is passed on piece by piece; anything else is collected, so that a broken answer can still become an
error. What was cut short never looks complete: an event with the error ends it, and the connection closes without the
last chunk.
"""

from bisect import bisect_left
from collections import deque
from collections.abc import Callable, Sequence
from typing import Final

from moorage_common.http.client import AnswerTooLong, UpstreamConnection
from moorage_common.http.message import EVENT_STREAM, JSON, Answer
from moorage_common.http.responder import Responder

BUFFERED_BYTES: Final = 32 * 1024 * 1024
"""The longest answer that is collected; an engine that writes more is broken."""

TAIL_PIECES: Final = 4

STREAM_HEADERS: Final = ((b"Cache-Control", b"no-cache"), (b"X-Accel-Buffering", b"no"))


class Relay:
    """One answer on its way from an upstream to a client."""

    __slots__ = (
        "_bounds",
        "_clock",
        "_pieces",
        "_responder",
        "_size",
        "content_type",
        "first_byte",
        "flow",
        "gaps",
        "last_byte",
        "status",
        "streamed",
    )

    def __init__(
        self, responder: Responder, clock: Callable[[], float], gap_bounds: Sequence[float] | None = None
    ) -> None:
        """Write to `responder`; `clock` gives the times of the first and last byte.

        With `gap_bounds`, the times between pieces are counted in `gaps` by these upper bounds.
        """
        self._responder = responder
        self._clock = clock
        self._pieces: deque[bytes] = deque()
        self._size = 0
        self.flow: UpstreamConnection | None = None
        self.status = 0
        self.streamed = False
        self.content_type = JSON
        self.first_byte: float | None = None
        self.last_byte = clock()
        self._bounds = gap_bounds
        self.gaps = [0] * (len(gap_bounds) + 1) if gap_bounds is not None else []

    @property
    def held_back(self) -> bool:
        """True while it is the client that does not read."""
        return self.flow is not None and self.flow.paused

    def head(self, status: int, headers: dict[bytes, bytes], flow: UpstreamConnection) -> None:
        """Start the client's answer where the upstream's is a stream."""
        self.status = status
        self.flow = flow
        self.content_type = headers.get(b"content-type", JSON)
        if self.content_type.startswith(EVENT_STREAM):
            self.streamed = True
            self._responder.start(status, EVENT_STREAM, flow=flow, headers=STREAM_HEADERS)

    def body(self, data: bytes) -> None:
        """Pass a piece on, or keep it."""
        now = self._clock()
        if self.first_byte is None:
            self.first_byte = now
        elif self._bounds is not None:
            self.gaps[bisect_left(self._bounds, now - self.last_byte)] += 1
        self.last_byte = now
        self._pieces.append(data)
        if self.streamed:
            self._responder.write(data)
            if len(self._pieces) > TAIL_PIECES:
                self._pieces.popleft()
            return
        self._size += len(data)
        if self._size > BUFFERED_BYTES:
            raise AnswerTooLong(f"the answer has more than {BUFFERED_BYTES} bytes")

    def kept(self) -> bytes:
        """Give the whole body of an answer that was collected, or the last pieces of one that was streamed."""
        return b"".join(self._pieces)

    def complete(self, translate: Callable[[int, bytes], Answer] | None = None) -> None:
        """End the client's answer as complete; `translate` makes the client's answer out of an upstream's error."""
        if self.streamed:
            self._responder.finish()
        elif self.status >= 400 and translate is not None:
            self._responder.send(translate(self.status, self.kept()))
        else:
            self._responder.send(Answer(self.status, self.kept(), self.content_type))

    def broken(self, status: int, error: bytes) -> None:
        """End the client's answer as broken, with `error` as its body or as its last event."""
        if not self.streamed:
            self._responder.send(Answer(status, error, headers=((b"Retry-After", b"1"),) if status == 503 else ()))
        elif not self._responder.finished:
            # The upstream may have gone in the middle of a line: an empty line ends whatever was begun.
            self._responder.write(b"\n\ndata: " + error + b"\n\n")
            self._responder.break_off()
