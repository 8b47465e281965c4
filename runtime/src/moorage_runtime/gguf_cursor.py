"""A cursor on the header of a GGUF file: knows where the file ends, and builds no object for what is stepped over."""

import struct
from dataclasses import dataclass
from io import BufferedReader
from typing import Any, Final

MAX_STRING: Final = 16 * 1024 * 1024
MAX_HEADER: Final = 512 * 1024 * 1024
MAX_STRINGS: Final = 2_000_000
"""Strings in all arrays of a header: each has to be looked at, some 0.3 µs. The most known are some 200 000 tokens with
450 000 merges (gpt-oss, Llama 4), or 262 144 tokens without (Gemma 3)."""

_LENGTH: Final = struct.Struct("<Q")


class GGUFError(Exception):
    """The file is not a whole and honest GGUF file; the text is a sentence that says where and why."""


class Truncated(Exception):  # noqa: N818 - turned into a GGUFError at once
    """The file ends before `what`, which begins at `position` and needs `wanted` bytes more."""

    def __init__(self, what: str, position: int, wanted: int) -> None:
        """Say what is missing."""
        super().__init__(what)
        self.what, self.position, self.wanted = what, position, wanted


@dataclass
class Spent:
    """What all parts of one model have taken of the bounds."""

    strings: int = 0
    kept: int = 0


class Cursor:
    """Where the header is read; everything is taken through `take` or stepped over by `skip`."""

    BLOCK = 1 << 20

    def __init__(self, name: str, file: BufferedReader, size: int) -> None:
        """Begin at the start of `file`, of `size` bytes."""
        self.name, self.size = name, size
        self._file = file
        self._buffer = b""
        self._base = 0
        self._at = 0

    @property
    def position(self) -> int:
        return self._base + self._at

    def take(self, length: int, what: str) -> int:
        """Make `length` bytes available and step over them; give their place in the buffer."""
        at = self._at
        if at + length > len(self._buffer):
            if self.position + length > self.size:
                raise Truncated(what, self.position, self.position + length - self.size)
            if self.position + length > MAX_HEADER:
                raise self.error(f"its header is longer than {MAX_HEADER} bytes")
            self._base += at
            self._buffer = self._buffer[at:] + self._file.read(max(length, self.BLOCK))
            at = 0
            if length > len(self._buffer):
                raise Truncated(what, self._base + len(self._buffer), length - len(self._buffer))
        self._at = at + length
        return at

    def skip(self, length: int, what: str) -> None:
        """Step over bytes without keeping them."""
        if self.position + length > self.size:
            raise Truncated(what, self.position, self.position + length - self.size)
        if self._at + length <= len(self._buffer):
            self._at += length
            return
        self._base, self._at = self.position + length, 0
        self._buffer = b""
        self._file.seek(self._base)

    def integer(self, code: str, what: str) -> int:
        """Read a whole number."""
        return int(self.unpack("<" + code, what)[0])

    def unpack(self, form: str, what: str) -> tuple[Any, ...]:
        """Read numbers."""
        at = self.take(struct.calcsize(form), what)  # first: it may replace the buffer
        return struct.unpack_from(form, self._buffer, at)

    def length(self, what: str, limit: int) -> int:
        """Read the length of a string."""
        length = self.integer("Q", what)
        if length > limit:
            raise self.error(f"{what} has {length} bytes, more than {limit}")
        return length

    def text(self, what: str, limit: int) -> str:
        """Read a string."""
        return self.decoded(self.length(what, limit), what)

    def decoded(self, length: int, what: str) -> str:
        """Read the bytes of a string."""
        at = self.take(length, what)
        try:
            return self._buffer[at : at + length].decode()
        except UnicodeDecodeError:
            raise self.error(f"{what} is not UTF-8") from None

    def skip_strings(self, count: int, what: str, spent: Spent) -> int:
        """Step over strings; give the length of the longest."""
        if count > self.size // 8:
            raise Truncated(what, self.position, count * 8)
        spent.strings += count
        if spent.strings > MAX_STRINGS:
            raise self.error(f"with {what} its arrays have {spent.strings} strings, more than {MAX_STRINGS}")
        unpack, longest = _LENGTH.unpack_from, 0
        # A vocabulary has some 10^5 strings: this loop is most of the time that reading a header takes.
        for _ in range(count):
            at = self._at
            if at + 8 > len(self._buffer):
                at = self.take(8, what)
            length = unpack(self._buffer, at)[0]
            self._at = at + 8 + length
            longest = max(longest, length)
            if self._at > len(self._buffer):
                self._at = at + 8
                if length > MAX_STRING:
                    raise self.error(f"a string in {what} has {length} bytes, more than {MAX_STRING}")
                self.skip(length, what)
        return longest

    def error(self, text: str) -> GGUFError:
        """Say what is wrong, and where."""
        return GGUFError(f"{self.name} is not a valid GGUF file: {text} (at byte {self.position})")
