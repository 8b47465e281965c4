"""Waiting for what no event tells."""

import time
from collections.abc import Callable


def eventually(true: Callable[[], object], what: str = "", *, seconds: float = 20.0) -> None:
    """Wait until something is true; `what` says in words what did not come to be."""
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, f"not within {seconds} s: {what}"
        time.sleep(0.02)
