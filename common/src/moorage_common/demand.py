"""What a gateway tells the operator about the use of models: lines of JSON, `GET /demand` at its port 9090.

The first line is everything that the gateway serves and that may be scaled; each later one has what has changed, or
nothing at all, which only says that the gateway is there. Nobody who asks is named, nor what they ask.
"""

from typing import Final

import msgspec

HEARTBEAT_SECONDS: Final = 2.0
"""A line comes at least this often."""

LINE_BYTES: Final = 16 * 1024 * 1024
"""No line is longer: a hundred thousand models fit."""


class Use(msgspec.Struct, frozen=True, omit_defaults=True):
    """How a model is used through one gateway."""

    in_flight: int = 0
    """Requests that a pod works on."""
    held: int = 0
    """Requests that wait for a pod."""
    idle: float | None = None
    """Seconds since a request was there; None where this gateway has seen none."""


class News(msgspec.Struct, frozen=True, omit_defaults=True):
    """One line."""

    gateway: str = ""
    """Which process it is, in the first line: one that was started anew has another name."""
    models: dict[str, Use | None] = {}
    """By `namespace/name`; None for one that is served no more."""
    end: bool = False
    """The gateway has answered everything and ends: nothing is unknown of it."""


def encode(news: News) -> bytes:
    """Write a line."""
    return msgspec.json.encode(news) + b"\n"


def decode(line: bytes) -> News:
    """Read a line; msgspec.MsgspecError where it is none."""
    return _NEWS.decode(line)


_NEWS: Final = msgspec.json.Decoder(News)
