"""How many tokens a request takes: by the usage in its answer, and by an estimate where there is none. Pure.

Estimates: four bytes of a body are a token (English text has about 4.5 characters a token, and JSON adds to it), an
image is a thousand, and an event of a stream is a token, as engines send them. They serve for what is reserved before
an answer is there, and for streams whose client did not ask for usage; metrics tell them apart.
"""

import re
from collections.abc import Sequence
from typing import Final

import msgspec

BYTES_A_TOKEN: Final = 4
IMAGE_TOKENS: Final = 1000

EVENT: Final = b"\ndata: {"
"""Begins an event in a stream of chunks; no text in an event can contain it, as a line feed is escaped there."""

# OpenAI's usage; a text cannot contain these, as its quotes are escaped.
_IN: Final = b'"prompt_tokens"'
_OUT: Final = b'"completion_tokens"'
_ALL: Final = b'"total_tokens"'
_NUMBER: Final = re.compile(rb":\s*(\d{1,9})")
_READ: Final = 8 * 1024
_BASE64: Final = b";base64,"
_MOST_IMAGES: Final = 64
_SMALL: Final = IMAGE_TOKENS * BYTES_A_TOKEN
_NOTHING: Final = msgspec.Raw()


class Tokens(msgspec.Struct, frozen=True, gc=False):
    """What a request took."""

    input: int
    output: int
    estimated: bool = False


class Wish(msgspec.Struct):
    """What a request says of the length of its answer; the engine checks it, so nothing is refused for it here."""

    max_tokens: msgspec.Raw = _NOTHING
    max_completion_tokens: msgspec.Raw = _NOTHING
    n: msgspec.Raw = _NOTHING

    def tokens(self, typical: float) -> int:
        """Estimate the tokens of the answer: what is allowed, else `typical`."""
        most = 0
        if self.max_completion_tokens is not _NOTHING:
            most = _count(self.max_completion_tokens)
        if not most and self.max_tokens is not _NOTHING:
            most = _count(self.max_tokens)
        most = most or int(typical)
        return most if self.n is _NOTHING else most * (_count(self.n) or 1)


_WISH: Final = msgspec.json.Decoder(Wish)
_NO_WISH: Final = Wish()


def wish_of(body: bytes) -> Wish:
    """Read what a body says of it; nothing where it is no such body.

    >>> wish_of(b'{"max_tokens":7,"n":2}').tokens(100.0), wish_of(b'{"max_tokens":"7"}').tokens(100.0)
    (14, 100)
    """
    try:
        return _WISH.decode(body)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        return _NO_WISH


def told(tail: Sequence[bytes]) -> Tokens | None:
    """Read the usage in the last pieces of an answer; None where it has none.

    >>> told([b'{"choices":[],"usage":{"prompt_tokens":5,"completion_tokens":7,"total_tokens":12}}'])
    Tokens(input=5, output=7, estimated=False)
    """
    text = (tail[0] if len(tail) == 1 else b"".join(tail))[-_READ:]
    into, out = _last(_IN, text), _last(_OUT, text)
    if into is None and out is None:
        into = _last(_ALL, text)
        if into is None:
            return None
    return Tokens(into or 0, out or 0)


def of_input(body: bytes) -> int:
    """Estimate the tokens of a request's body.

    >>> of_input(b'{"url":"data:image/png;base64,%b"}' % (b"A" * 100_000))
    1008
    """
    size, images = len(body), 0
    at = body.find(_BASE64) if size > _SMALL else -1
    while at >= 0 and images < _MOST_IMAGES:
        end = body.find(b'"', at)
        end = len(body) if end < 0 else end
        size -= end - at
        images += 1
        at = body.find(_BASE64, end)
    return size // BYTES_A_TOKEN + images * IMAGE_TOKENS


def _count(value: msgspec.Raw) -> int:
    text = bytes(value)
    return int(text) if text.isdigit() and len(text) < 10 else 0


def _last(name: bytes, text: bytes) -> int | None:
    """Give the number behind the last field of that name."""
    place = text.rfind(name)
    if place < 0:
        return None
    found = _NUMBER.match(text, place + len(name))
    return int(found[1]) if found else None
