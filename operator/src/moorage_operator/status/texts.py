"""Texts of a status: counts in words, and texts of pods, files and Events made safe for a terminal. Pure."""

import re
from typing import Final, TypeVar

T = TypeVar("T")

_UNFIT: Final = re.compile(
    r"[\x00-\x1f\x7f-\x9f\u061c\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb\ud800-\udfff]+"
)
"""Control characters (C0, C1), which move the cursor or begin a new line; characters without a width, and those
that change the direction of the text (Unicode Technical Report 36, Bidirectional Text Spoofing)."""


def counted(number: int, noun: str) -> str:
    """A number with its noun: `1 pod`, `2 pods`."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def printable(value: T) -> T:
    """The same text, mapping or list with a space for each run of such characters; keys stay as they are."""
    if isinstance(value, str):
        return _UNFIT.sub(" ", value)  # type: ignore[return-value]
    if isinstance(value, dict):
        return {key: printable(item) for key, item in value.items()}  # type: ignore[return-value]
    if isinstance(value, list):
        return [printable(item) for item in value]  # type: ignore[return-value]
    return value
