"""Lines on stderr that say what a long step is doing and for how long; stdout stays free for results."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

HEARTBEAT_SECONDS = 15.0
_TERMINAL_HEARTBEAT_SECONDS = 1.0


def say(text: str) -> None:
    """Print one line of progress."""
    print(text, file=sys.stderr, flush=True)


def elapsed(seconds: float) -> str:
    """Write a duration as people do.

    >>> elapsed(0.84), elapsed(75.2)
    ('0.8 s', '1 min 15 s')
    """
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s"


@contextmanager
def step(label: str) -> Iterator[None]:
    """Say that a step starts, beats while it runs, and ends."""
    start = time.monotonic()
    finished = threading.Event()
    say(f"  … {label}")
    beat = threading.Thread(target=_beat, args=(label, start, finished), daemon=True)
    beat.start()
    outcome = "failed after"
    try:
        yield
        outcome = "done in"
    finally:
        finished.set()
        beat.join()
        mark = "✓" if outcome == "done in" else "✗"
        say(f"  {mark} {label}: {outcome} {elapsed(time.monotonic() - start)}")


def _beat(label: str, start: float, finished: threading.Event) -> None:
    terminal = sys.stderr.isatty()
    while not finished.wait(_TERMINAL_HEARTBEAT_SECONDS if terminal else HEARTBEAT_SECONDS):
        text = f"  … {label}: {elapsed(time.monotonic() - start)}"
        print(text, file=sys.stderr, end="\r" if terminal else "\n", flush=True)
