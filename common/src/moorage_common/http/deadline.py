"""A deadline that is moved at nearly every step and hardly ever passes: moving it costs no timer."""

import asyncio
from collections.abc import Callable

_NEVER = float("inf")


class Deadline:
    """Calls back once when its time has come; the timer behind it is moved only when it fires too early."""

    __slots__ = ("_at", "_fires_at", "_loop", "_passed", "_timer")

    def __init__(self, loop: asyncio.AbstractEventLoop, passed: Callable[[], None]) -> None:
        """Call `passed` when the time has come; none is set yet."""
        self._loop = loop
        self._passed = passed
        self._at = _NEVER
        self._timer: asyncio.TimerHandle | None = None
        self._fires_at = _NEVER

    def set(self, seconds: float | None) -> None:
        """Pass in so many seconds, or with None not at all."""
        if seconds is None:
            self._at = _NEVER
            return
        self._at = self._loop.time() + seconds
        # The handle of uvloop does not tell when it fires, if that is at once.
        if self._timer is None or self._fires_at > self._at:
            self.cancel()
            self._start()

    def cancel(self) -> None:
        """Drop the timer, for good or before a new one."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _fire(self) -> None:
        self._timer = None
        if self._at == _NEVER:
            return
        if self._loop.time() < self._at:
            self._start()
        else:
            self._passed()

    def _start(self) -> None:
        self._fires_at = self._at
        self._timer = self._loop.call_at(self._at, self._fire)
