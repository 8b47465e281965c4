"""Kinds of errors, for metrics and logs: whose doing it was that a request got no good answer."""

from typing import Final

CLIENT: Final = "client"
"""The client's: it asked for what is not there or not allowed, asked too much, or left."""
MODEL: Final = "model"
"""The model's: its pod failed, or went before its answer was complete."""
TIMEOUT: Final = "timeout"
"""It took too long."""
CAPACITY: Final = "capacity"
"""There was no pod that could take it now."""


def kind_of(status: int, broken: str) -> str:
    """The kind of what a pod answered; empty where that was no error. `broken` is who broke it off, if anybody did.

    >>> [kind_of(*told) for told in ((200, ""), (503, "backend"), (0, "client"), (504, ""), (429, ""), (404, ""))]
    ['', 'model', 'client', 'timeout', 'capacity', 'client']
    """
    if not broken and 200 <= status < 400:
        return ""
    if broken == "client":
        return CLIENT
    if broken == "timeout" or (not broken and status == 504):
        return TIMEOUT
    if broken == "capacity" or (not broken and status in {429, 503}):
        return CAPACITY
    return CLIENT if not broken and 400 <= status < 500 else MODEL
