"""What can go wrong in hack.images; the command line prints the message, callers catch the class."""

from __future__ import annotations


class ImageError(Exception):
    """An image cannot be built; `hint` says what a person can do."""

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(f"{message}\n{hint}" if hint else message)
