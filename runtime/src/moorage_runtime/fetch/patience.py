"""How often and how late is tried again: exponential, with jitter, bounded; a server that asks to wait is obeyed."""

from __future__ import annotations

import email.utils
import random
import time
from collections.abc import Callable
from typing import Final, TypeVar

from moorage_common.facts import LoadError
from moorage_runtime.errors import LoadFailure
from moorage_runtime.fetch.http import PassingFailure, Reply

FIRST_PAUSE: Final = 1.0
LAST_PAUSE: Final = 30.0
LONGEST_WAIT: Final = 300.0
"""Seconds that a server may ask for; one that asks for more is asked again after these."""

PASSING: Final = frozenset({408, 425, 429, 500, 502, 503, 504})
"""Answers that may be another one later."""

T = TypeVar("T")


def check_passing(reply: Reply) -> None:
    """Raise PassingFailure for an answer that may be another one later."""
    if reply.status in PASSING:
        raise PassingFailure(f"{reply.host} answers {reply.status}", retry_after(reply.headers.get("retry-after", "")))


def retry_after(text: str, now: float | None = None) -> float | None:
    """Read Retry-After, seconds or a date; None where it says nothing that can be understood.

    >>> retry_after("120"), retry_after("soon"), retry_after("Thu, 01 Jan 1970 00:02:00 GMT", now=60)
    (120.0, None, 60.0)
    """
    if text.strip().isascii() and text.strip().isdigit():
        return float(text.strip()[:9])
    try:
        due = email.utils.parsedate_to_datetime(text).timestamp()
    except (ValueError, OverflowError):
        return None
    return max(0.0, due - (time.time() if now is None else now))


class Patience:
    """Counts attempts in a row that got nothing on."""

    def __init__(self, attempts: int, chance: Callable[[], float] = random.random) -> None:
        """Allow so many attempts in a row."""
        self._attempts = attempts
        self._chance = chance
        self._failures = 0

    def progress(self) -> None:
        """Something came: count anew."""
        self._failures = 0

    def pause(self, failure: PassingFailure) -> float:
        """Take in a failure; give the seconds to wait, or raise LoadFailure when it was one too many."""
        self._failures += 1
        if self._failures >= self._attempts:
            raise LoadFailure(
                LoadError.DOWNLOAD_FAILED, f"{failure}; {self._failures} attempts in a row got nothing on"
            ) from failure
        backoff = min(LAST_PAUSE, FIRST_PAUSE * 2.0 ** (self._failures - 1)) * (0.5 + self._chance() / 2)
        return backoff if failure.wait is None else max(backoff, min(failure.wait, LONGEST_WAIT))


def persist(attempt: Callable[[], T], patience: Patience, wait: Callable[[float, str], None]) -> T:
    """Try until it works; `wait` is given the seconds and the reason."""
    while True:
        try:
            return attempt()
        except PassingFailure as failure:
            wait(patience.pause(failure), str(failure))
