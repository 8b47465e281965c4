"""Counts what has come: bytes, speed, time left. Written by the transfers' threads, read by log and HTTP."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Final

from moorage_common.download import MAX_NOTE, Download

WINDOW_SECONDS: Final = 10.0
_SAMPLE_SECONDS: Final = 0.5


class Progress:
    """The progress of all files together."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        """Begin with nothing known."""
        self._clock = clock
        self._lock = threading.Lock()
        self._sizes: dict[str, int | None] = {}
        self._there: dict[str, int] = {}
        self._finished: set[str] = set()
        self._received = 0
        self._samples: deque[tuple[float, int]] = deque([(clock(), 0)])
        self._note = ""

    def expect(self, sizes: dict[str, int | None]) -> None:
        """Take in the files that are wanted, and their sizes as far as they are known."""
        with self._lock:
            self._sizes = dict(sizes)

    def learn(self, name: str, size: int) -> None:
        """Take in the size of a file that its source did not list."""
        with self._lock:
            self._sizes[name] = size

    def there(self, name: str, size: int) -> None:
        """So many bytes of a file are there already, from before; or again none."""
        with self._lock:
            self._there[name] = size

    def received(self, name: str, count: int) -> None:
        """So many bytes more have come."""
        with self._lock:
            self._there[name] = self._there.get(name, 0) + count
            self._received += count
            self._note = ""
            now = self._clock()
            if now - self._samples[-1][0] >= _SAMPLE_SECONDS:
                self._samples.append((now, self._received))
                self._forget(now)

    def finished(self, name: str, size: int) -> None:
        """A file is whole."""
        with self._lock:
            self._sizes[name] = self._there[name] = size
            self._finished.add(name)

    def waits(self, note: str) -> None:
        """Nothing comes for now, and why."""
        with self._lock:
            self._note = note[:MAX_NOTE]

    def now(self) -> Download:
        """How far it is."""
        with self._lock:
            known = [size for size in self._sizes.values() if size is not None]
            total = sum(known) if self._sizes and len(known) == len(self._sizes) else None
            done, speed = sum(self._there.values()), self._speed()
            left = None if total is None or speed <= 0 else round(max(0, total - done) / speed)
            return Download(done, total, round(speed), left, len(self._finished), len(self._sizes), self._note)

    def _speed(self) -> float:
        now = self._clock()
        self._forget(now)
        began, before = self._samples[0]
        return (self._received - before) / (now - began) if now > began else 0.0

    def _forget(self, now: float) -> None:
        while len(self._samples) > 1 and self._samples[1][0] <= now - WINDOW_SECONDS:
            self._samples.popleft()
