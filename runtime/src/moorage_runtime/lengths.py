"""Refuses, before the queue, prompts that cannot fit: token numbers are counted, of text a least count is known.

The exact count of text is the engine's, which refuses what is left.
"""

from collections.abc import Iterator
from typing import Any

import msgspec

from moorage_common.http.message import Refusal
from moorage_runtime.errors import context_exceeded


class _Message(msgspec.Struct):
    content: Any = None


def refuse_too_long(raw: bytes, context: int | None, longest: int | None) -> None:
    """Raise Refusal where a prompt, an input or a message in `raw` has certainly more tokens than `context`."""
    if context is None or len(raw) <= context:  # a token has at least a byte, in either form
        return
    if longest is not None and len(raw) > context * longest:
        # JSON never writes a text shorter than it is.
        size = max(map(len, _texts(raw)), default=0)
        least = -(-size // longest)
        if least > context:
            raise Refusal(context_exceeded(least, context, at_least=True))
    if raw.count(b",") >= context:
        count = max(map(len, _token_lists(raw)), default=0)
        if count > context:
            raise Refusal(context_exceeded(count, context))


def _texts(raw: bytes) -> Iterator[bytes]:
    """Give the texts, each of which has to fit by itself."""
    value = msgspec.json.decode(raw)
    if isinstance(value, str):
        yield value.encode()
    elif isinstance(value, list) and value and isinstance(value[0], dict):
        # Templates trim what was said. Those that drop old thoughts of the assistant could make some of these fit; but
        # an engine would have to read all of them to find that out, while others wait.
        messages = msgspec.convert(value, list[_Message])
        yield b"".join(text.strip().encode() for message in messages for text in _said(message))
    elif isinstance(value, list):
        yield from (one.encode() for one in value if isinstance(one, str))


def _said(message: _Message) -> Iterator[str]:
    if isinstance(message.content, str):
        yield message.content
    elif isinstance(message.content, list):
        yield from (part["text"] for part in message.content if isinstance(part.get("text"), str))


def _token_lists(raw: bytes) -> Iterator[list[int]]:
    value = msgspec.json.decode(raw)
    if isinstance(value, list) and value:
        if isinstance(value[0], int):
            yield value
        else:
            yield from (one for one in value if isinstance(one, list))
