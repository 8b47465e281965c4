"""Puts a request together from what the parser tells, within the limits; what is over them becomes a refusal."""

import httptools

from moorage_common.http.message import Answer, Limits, Request
from moorage_common.http.strict import body_too_large, too_much_at_once


class Buffers:
    """What all connections of a server keep of bodies together."""

    buffered: int = 0
    """Bytes."""
    of_strangers: int = 0
    """Those of them that come from clients of whom it is not known yet whether they may ask at all."""


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
        self._stranger = False
        self._strange = 0
        """Bytes of the body that comes, where it is a stranger's."""
        self.on_message_begin()

    def on_message_begin(self) -> None:
        """Begin a request."""
        self._url = b""
        self._headers: dict[bytes, bytes] = {}
        self._count = self._head_size = self._body_size = 0
        self._body: bytes | bytearray = b""
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
        elif not self._room(size):
            self._refusal = self._refusal or too_much_at_once()
        if self._refusal is not None:
            self._body = b""
            return
        if not self._body:
            self._body = body
        elif isinstance(self._body, bytes):
            self._body = bytearray(self._body)
            self._body += body
        else:
            # Not a list: chunks of one byte would take forty times what is counted.
            self._body += body
        self._held += size
        buffers.buffered += size
        if self._stranger:
            self._strange += size
            buffers.of_strangers += size

    def _room(self, size: int) -> bool:
        room, buffers = self._limits.buffered_bytes, self._buffers
        strangers = self._stranger and buffers.of_strangers + size > room // 4
        return buffers.buffered + size <= room and not strangers

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
        path, _, query = self._url.partition(b"?")
        request = Request(
            self._method.decode("ascii"),
            path.decode("latin-1"),
            query,
            self._headers,
            self._version == "1.1",
            self._keep_alive,
            bytes(self._body),
        )
        self._body = b""
        if self._stranger:
            self._forget_stranger()
        return request

    def _forget_stranger(self) -> None:
        """Whoever sent the body: it is whole now, or given up."""
        self._buffers.of_strangers -= self._strange
        self._strange = 0
        self._stranger = False

    def _release(self, size: int) -> None:
        """Let go of bytes of bodies."""
        if size:
            size = min(size, self._held)
            self._held -= size
            self._buffers.buffered -= size
