"""Answers written from arrays: numbers as JSON or base64, in pieces that let others have their turn."""

from __future__ import annotations

import asyncio
import binascii
from collections.abc import Callable, Sequence
from typing import Any, Final

import msgspec

PIECE: Final = 64
"""Vectors that are written before the event loop does something else."""

MAX_BYTES: Final = 32 * 1024 * 1024
"""The longest answer that the front passes on."""

NUMBER_BYTES: Final = 23
"""A 32-bit number as JSON, its comma included: at most `-0.01234567890123456789,`."""

_encode: Final = msgspec.json.Encoder().encode


def answer_bytes(count: int, dimension: int, *, base64: bool) -> int:
    """Give how long an answer may get."""
    return count * ((dimension * 4 + 2) // 3 * 4 if base64 else dimension * NUMBER_BYTES)


async def vectors_json(vectors: Sequence[Any], write: Callable[[int, Any], bytes]) -> bytes:
    """Write a list of vectors, each by `write`."""
    pieces = []
    for index, vector in enumerate(vectors):
        pieces.append(write(index, vector))
        if index % PIECE == PIECE - 1:
            await asyncio.sleep(0)
    return b"[" + b",".join(pieces) + b"]"


def as_floats(index: int, vector: Any) -> bytes:
    """Write one as OpenAI does, with numbers."""
    return b'{"object":"embedding","index":%d,"embedding":%b}' % (index, _encode(vector.tolist()))


def as_base64(index: int, vector: Any) -> bytes:
    """Write one as OpenAI does, with the bytes of 32-bit numbers."""
    return b'{"object":"embedding","index":%d,"embedding":"%b"}' % (index, binascii.b2a_base64(vector, newline=False))


def as_list(index: int, vector: Any) -> bytes:
    """Write only the numbers."""
    return _encode(vector.tolist())
