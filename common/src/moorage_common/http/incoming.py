"""Puts a request together from what the parser tells, within the limits; what is over them becomes a refusal."""

import httptools

from moorage_common.http.message import Answer, Limits, Request
from moorage_common.http.strict import body_too_large, origin_form, too_much_at_once


class Buffers:
    """What all connections of a server keep of bodies together."""

    buffered: int = 0
    """Bytes."""


class Incoming:
    """The parser's calls on one connection."""

    def __init__(self, limits: Limits, buffers: Buffers) -> None:
        """Begin the first request."""
        self._limits = limits
        self._buffers = buffers
        self._parser = httptools.HttpRequestParser(self)
        self._refusal: Answer | None = None
        self._in_head = True
        self._method = b""
        self._version = ""
        self._keep_alive = False
        self._length = 0
        """Bytes of the body, where the head told them."""
        self._left = 0
        """Of these, what is still to come; it goes past the parser, which would only copy it."""
        self._received = 0
        """Bytes since a request began, or since anything of its body came."""
        self._held = 0
        """Bytes of bodies that are kept for this connection."""
        self.on_message_begin()

    def on_message_begin(self) -> None:
        """Begin a request."""
        self._url = b""
        self._headers: dict[bytes, bytes] = {}
        self._count = self._head_size = self._body_size = 0
        self._body: list[bytes] = []
        self._in_head = True

    def on_url(self, url: bytes) -> None:
        """Take the target, which may come in pieces."""
        self._url += url
        self._head_size += len(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take one header; trailers of a chunked body are counted but not kept."""
        self._count += 1
        self._head_size += len(name) + len(value) + 4
        if self._in_head:
            name = name.lower()
            self._headers[name] = self._headers[name] + b", " + value if name in self._headers else value

    def on_body(self, body: bytes) -> None:
        """Keep a piece of the body, up to the limit."""
        size, limits, buffers = len(body), self._limits, self._buffers
        self._body_size += size
        self._received = 0
        if self._body_size > limits.body_bytes:
            self._refusal = self._refusal or body_too_large(limits)
        elif buffers.buffered + size > limits.buffered_bytes:
            self._refusal = self._refusal or too_much_at_once()
        if self._refusal is not None:
            self._body.clear()
            return
        self._body.append(body)
        self._held += size
        buffers.buffered += size

    def _more_body(self, data: bytes) -> bytes:
        """Take what belongs to a body of known length; give back what comes behind it."""
        piece, rest = (data, b"") if len(data) <= self._left else (data[: self._left], data[self._left :])
        self.on_body(piece)
        self._left -= len(piece)
        if not self._left:
            # The old one still waits for the body.
            self._parser = httptools.HttpRequestParser(self)
        return rest

    def _request(self) -> Request:
        """Give the request that is whole."""
        url, pieces = self._url, self._body
        path, _, query = (url if url.startswith(b"/") else origin_form(url)).partition(b"?")
        request = Request(
            self._method.decode("ascii"),
            path.decode("latin-1"),
            query,
            self._headers,
            self._version == "1.1",
            self._keep_alive,
            pieces[0] if len(pieces) == 1 else b"".join(pieces),
        )
        self._body = []
        return request

    def _release(self, size: int) -> None:
        """Let go of bytes of bodies."""
        if size:
            size = min(size, self._held)
            self._held -= size
            self._buffers.buffered -= size
