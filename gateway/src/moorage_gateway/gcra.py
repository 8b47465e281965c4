"""How fast somebody may go: the generic cell rate algorithm (ITU-T I.371), pure, with the clock passed in.

A bucket of `limit` units fills again at `limit` units a minute. All that is known of one is a single number, the time
at which it will be full: adding to it spends, and a time in the past is a full bucket. It stays right where the limit
changes, and fits into eight bytes of shared memory. The whole bucket may be spent at once, so in any stretch of t
seconds at most limit * (1 + t / 60) units are.
"""

from typing import Final

PERIOD: Final = 60.0
"""Seconds in which an empty bucket fills."""

_ROUNDING: Final = 1e-6
WHOLE: Final = PERIOD + _ROUNDING
"""A bucket that needs longer than this to fill is overdrawn."""


def wait(full_at: float, now: float, cost: float, limit: float) -> float:
    """Seconds until `cost` units are there; 0 or less where they are now."""
    return (full_at if full_at > now else now) - now + cost * PERIOD / limit - WHOLE


def spent(full_at: float, now: float, cost: float, limit: float) -> float:
    """When the bucket will be full after `cost` units were spent, whether they were there or not."""
    return (full_at if full_at > now else now) + cost * PERIOD / limit


def remaining(seconds: float, limit: int) -> int:
    """Whole units that are there in a bucket that will be full in so many seconds."""
    if seconds <= 0:
        return limit
    left = int(limit - seconds * limit / PERIOD + _ROUNDING)
    return left if left > 0 else 0
