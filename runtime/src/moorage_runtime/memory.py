"""The memory of one runtime, front and engine together, as `/health/memory` tells it."""

import os

import msgspec

from moorage_runtime import machine


class Memory(msgspec.Struct, frozen=True):
    """Bytes, and the share of the limit that is used."""

    current_usage_bytes: int
    current_usage_percent: float | None
    peak_usage_bytes: int
    """The front at its worst, and the worst engine so far: an unload or a restart takes nothing back."""
    limit_bytes: int | None
    limit_source: str | None
    """Who says so, in words."""
    front_bytes: int
    engine_bytes: int | None
    """None while no engine runs."""


def memory(engine: int | None, engine_peak: int) -> Memory:
    """Look at this process and at the session of the engine that the process `engine` leads."""
    front = os.getpid()
    ours, theirs = machine.resident_bytes(front) or 0, None
    peak = (machine.peak_bytes(front) or 0) + engine_peak
    if engine is not None:
        theirs = machine.session_resident(engine)
    limit = machine.memory_limit()
    now = ours + (theirs or 0)
    return Memory(
        current_usage_bytes=now,
        current_usage_percent=round(100 * now / limit.size, 1) if limit else None,
        peak_usage_bytes=max(peak, now),
        limit_bytes=limit.size if limit else None,
        limit_source=limit.source if limit else None,
        front_bytes=ours,
        engine_bytes=theirs,
    )
