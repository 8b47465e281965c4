"""What the HTTP server hands to a handler, the limits it keeps, and how heads of answers are written."""

from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Final

import msgspec

JSON: Final = b"application/json"
EVENT_STREAM: Final = b"text/event-stream"

STATUS_LINES: Final = {status.value: f"HTTP/1.1 {status.value} {status.phrase}\r\n".encode() for status in HTTPStatus}

_HEADS: dict[tuple[object, ...], bytes] = {}
"""Heads that were written before, without their lengths: nearly all answers have one of a few."""
_MOST_HEADS: Final = 256
_LONGEST_KEPT: Final = 1024


@dataclass(frozen=True, kw_only=True)
class Limits:
    """How much and how slowly a client may send. Sizes in bytes, times in seconds."""

    head_bytes: int = 16 * 1024
    headers: int = 100
    body_bytes: int = 4 * 1024 * 1024
    pipelined: int = 16
    connections: int = 8192
    buffered_bytes: int = 128 * 1024 * 1024
    """Of the bodies of all requests that are there at a time."""
    head_seconds: float = 10.0
    body_idle_seconds: float = 30.0
    body_seconds: float = 120.0
    keep_alive_seconds: float = 75.0
    write_stall_seconds: float = 30.0
    linger_seconds: float = 2.0
    write_buffer_bytes: int = 64 * 1024


@dataclass(slots=True)
class Request:
    """One whole request. Names of headers are lower-case; the values of a repeated one are joined with a comma."""

    method: str
    path: str
    query: bytes
    headers: dict[bytes, bytes]
    http11: bool
    keep_alive: bool
    body: bytes = b""


@dataclass(slots=True, frozen=True)
class Answer:
    """A whole answer: what a handler that streams nothing gives back."""

    status: int
    body: bytes
    content_type: bytes = JSON
    headers: tuple[tuple[bytes, bytes], ...] = field(default=())
    close: bool = False


class Refusal(Exception):  # noqa: N818 - it is an answer, not a fault of ours
    """Raised where a request cannot be taken; carries the answer that says why."""

    def __init__(self, answer: Answer) -> None:
        """Carry `answer`."""
        super().__init__(answer.status)
        self.answer = answer


def json_answer(status: int, content: object) -> Answer:
    """Encode `content` as the body of an answer."""
    return Answer(status, msgspec.json.encode(content))


def head_bytes(  # noqa: PLR0913 - the parts of a head
    status: int,
    content_type: bytes,
    *,
    length: int | None,
    keep_alive: bool,
    headers: tuple[tuple[bytes, bytes], ...] = (),
    chunked: bool = False,
    lines: bytes = b"",
) -> bytes:
    """Write the head of an answer; one with neither a length nor chunks ends with the connection.

    `lines` are headers that are written already, each with its end of line: those that no two answers share.
    """
    key = (status, content_type, keep_alive, headers, chunked)
    if (begun := _HEADS.get(key)) is None:
        if len(_HEADS) >= _MOST_HEADS:
            _HEADS.clear()
        begun = _without_length(status, content_type, keep_alive, headers, chunked)
        if len(begun) <= _LONGEST_KEPT:  # what an upstream says may be long, and another one each time
            _HEADS[key] = begun
    if length is None or chunked:
        return b"%b%b\r\n" % (begun, lines)
    return b"%b%bContent-Length: %d\r\n\r\n" % (begun, lines, length)


def _without_length(
    status: int, content_type: bytes, keep_alive: bool, headers: tuple[tuple[bytes, bytes], ...], chunked: bool
) -> bytes:
    parts = [STATUS_LINES[status], b"Content-Type: ", content_type, b"\r\n"]
    if chunked:
        parts.append(b"Transfer-Encoding: chunked\r\n")
    for name, value in headers:
        parts += (name, b": ", value, b"\r\n")
    if not keep_alive:
        parts.append(b"Connection: close\r\n")
    return b"".join(parts)
