"""What a client of a stream is told while its request is held, and how its answer goes on from there.

Comments of server-sent events keep proxies from giving up. After the first one the head of the answer is out: from then
on what comes of the pod is framed anew, and whatever is no stream becomes an event.
"""

from collections.abc import Mapping
from typing import Final, Protocol

import httptools
import msgspec

from moorage_common.http.message import EVENT_STREAM, Answer
from moorage_common.openai_errors import error_body
from moorage_gateway.reply import Reply

HEADERS: Final = ((b"Cache-Control", b"no-cache"), (b"X-Accel-Buffering", b"no"))
MOST_ERROR: Final = 64 * 1024
"""Of an answer that is no stream."""
MOST_TOLD: Final = 200


class _Body(msgspec.Struct):
    """What is read of a body."""

    stream: bool | None = False


_BODY: Final = msgspec.json.Decoder(_Body)


def wants_stream(body: bytes) -> bool:
    """Whether a body asks for a stream of events."""
    try:
        return bool(_BODY.decode(body).stream)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        return False  # the pod will say what is wrong with it


class Still:
    """Where nothing comes from yet."""

    def pause(self) -> None:
        """Nothing comes."""

    def resume(self) -> None:
        """Nothing comes."""


def comfort(responder: Reply, why: str) -> None:
    """Begin the answer, if that has not been, and write a comment."""
    if not responder.started:
        responder.start(200, EVENT_STREAM, flow=Still(), headers=HEADERS)
    responder.write(b": waiting: %b\n\n" % " ".join(why.split())[:MOST_TOLD].encode("utf-8", "replace"))


def end_with(responder: Reply, answer: Answer) -> None:
    """Send an answer, as an event where the head is out."""
    if not responder.started:
        responder.send(answer)
        return
    responder.write(b"data: %b\n\n" % answer.body)
    responder.finish()


class Writer(Protocol):
    """Takes what comes of a pod, as it is framed."""

    def feed(self, data: bytes) -> None:
        """Take a piece."""

    def end(self) -> None:
        """It was whole."""


def writer(responder: Reply, status: int, headers: Mapping[bytes, bytes]) -> Writer:
    """What puts a pod's answer behind the comments that are out."""
    streams = status == 200 and headers.get(b"content-type", b"").startswith(EVENT_STREAM)
    taker = Plain(responder) if streams else _OneEvent(responder, status)
    return taker if b"content-length" in headers else Pieces(taker)


class Plain:
    """Writes pieces as they are."""

    def __init__(self, responder: Reply) -> None:
        """Write to `responder`, whose head is out."""
        self._responder = responder

    def feed(self, data: bytes) -> None:
        """Write a piece."""
        self._responder.write(data)

    def end(self) -> None:
        """End the answer as complete."""
        self._responder.finish()


class Pieces:
    """Takes chunks apart, for whoever cannot have them as they are."""

    def __init__(self, taker: Writer) -> None:
        """Give what is in them to `taker`."""
        self._taker = taker
        self._parser = httptools.HttpResponseParser(self)
        self._parser.feed_data(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")

    def feed(self, data: bytes) -> None:
        """Hand on what is in the chunks; they were found valid before."""
        self._parser.feed_data(data)

    def on_body(self, body: bytes) -> None:
        """Hand a piece on."""
        self._taker.feed(body)

    def end(self) -> None:
        """End the answer as complete."""
        self._taker.end()


class _OneEvent:
    """Makes one event of an answer that is no stream, such as an error."""

    def __init__(self, responder: Reply, status: int) -> None:
        self._responder = responder
        self._status = status
        self._body = bytearray()

    def feed(self, data: bytes) -> None:
        """Keep a piece."""
        if len(self._body) <= MOST_ERROR:
            self._body += data

    def end(self) -> None:
        """Write the event."""
        try:
            content = msgspec.json.encode(msgspec.json.decode(self._body))  # in one line
        except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
            text = f"The model's pod answered {self._status} in words that are no JSON."
            content = error_body(text, kind="server_error", code="backend_error")
        self._responder.write(b"data: %b\n\n" % content)
        self._responder.finish()
