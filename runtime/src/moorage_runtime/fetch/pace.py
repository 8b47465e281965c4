"""The least rate of a connection: a server that sends a byte now and then is as good as silent.

It is watched below HTTP, so that heads and the lines between chunks are counted like bodies.
"""

from __future__ import annotations

import http.client
import io
import socket
import time
from typing import Any, Final

LEAST_BYTES: Final = 1024
LEAST_SECONDS: Final = 60.0
"""Less than LEAST_BYTES in so many seconds of waiting is a stall; in twice FETCH_STALL_SECONDS if those are more, so
that a server whose first byte may be late is not judged by it."""


class PacedResponse(http.client.HTTPResponse):
    """An answer that raises TimeoutError where it comes too slowly."""

    def __init__(self, sock: socket.socket, *options: Any, **named: Any) -> None:
        """Read from `sock`."""
        super().__init__(sock, *options, **named)
        seconds = max(LEAST_SECONDS, 2 * (sock.gettimeout() or 0.0))
        self.fp = io.BufferedReader(_Paced(self.fp.detach(), seconds))


class _Paced(io.RawIOBase):
    """Counts what comes against the time that was waited for it; what the disk takes is not the server's time."""

    def __init__(self, raw: io.RawIOBase, seconds: float) -> None:
        super().__init__()
        self._raw = raw
        self._seconds = seconds
        self._came = 0
        self._waited = 0.0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any, /) -> int | None:
        began = time.monotonic()
        count = self._raw.readinto(buffer)
        self._waited += time.monotonic() - began
        self._came += count or 0
        if self._waited >= self._seconds:
            if count and self._came < LEAST_BYTES:
                raise TimeoutError(f"{self._came} bytes in {self._waited:.0f} s")
            self._came, self._waited = 0, 0.0
        return count

    def close(self) -> None:
        self._raw.close()
        super().close()
