"""A request's ID and its W3C trace context: passed on where they are valid, never trusted for anything.

The W3C recommendation "Trace Context" says what is valid, and that a tracestate without a valid traceparent is dropped.
"""

import re
import secrets
from itertools import count
from random import Random
from typing import Final

REQUEST_ID: Final = b"x-request-id"
TRACE_PARENT: Final = b"traceparent"
TRACE_STATE: Final = b"tracestate"

_ID: Final = re.compile(rb"[A-Za-z0-9._:=+/-]{1,128}")
_IDS: Final = rb"-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}"
_PARENT: Final = re.compile(rb"00%b|(?!00|ff)[0-9a-f]{2}%b(?:-[\x21-\x7e]{0,200})?" % (_IDS, _IDS))
_STATE: Final = re.compile(rb"[\x20-\x7e]{1,512}")


class Traces:
    """Gives requests their IDs."""

    def __init__(self, *, make: bool) -> None:
        """With `make`, a request without a trace context gets one, not sampled."""
        self._make = make
        # An ID has to be unlike all others, not hard to guess: of this process, and the next number in it.
        self._prefix = secrets.token_hex(8).encode() + b"-"
        self._numbers = count(1)
        self._random = Random(secrets.randbits(128))  # noqa: S311 - trace IDs are no secrets

    def mark(self, headers: dict[bytes, bytes]) -> bytes:
        """Leave in `headers` what is to be passed on, and give the request's ID."""
        if REQUEST_ID not in headers or not _ID.fullmatch(headers[REQUEST_ID]):
            headers[REQUEST_ID] = b"%b%x" % (self._prefix, next(self._numbers))
        identity = headers[REQUEST_ID]
        if TRACE_PARENT in headers:
            self._check(headers)
        elif TRACE_STATE in headers:
            del headers[TRACE_STATE]
        if self._make and TRACE_PARENT not in headers:
            number = self._random.getrandbits
            headers[TRACE_PARENT] = b"00-%032x-%016x-00" % (number(128) or 1, number(64) or 1)
        return identity

    def _check(self, headers: dict[bytes, bytes]) -> None:
        parent, state = headers[TRACE_PARENT], headers.get(TRACE_STATE)
        if not valid_parent(parent):
            del headers[TRACE_PARENT]
            headers.pop(TRACE_STATE, None)
        elif state is not None and not _STATE.fullmatch(state):
            del headers[TRACE_STATE]


def valid_parent(parent: bytes) -> bool:
    """Whether this is a traceparent; of a version that is not known yet, more may follow.

    >>> valid_parent(b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")
    True
    >>> valid_parent(b"00-00000000000000000000000000000000-b7ad6b7169203331-01")
    False
    """
    return bool(_PARENT.fullmatch(parent))


def trace_id(headers: dict[bytes, bytes]) -> str:
    """The trace that a marked request belongs to; empty where it has none."""
    return headers.get(TRACE_PARENT, b"")[3:35].decode("ascii")
