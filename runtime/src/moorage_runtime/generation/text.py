"""From tokens to text that can be sent: characters are whole, and nothing of a stop string ever leaves.

Pure: the tokenizer is a function from token numbers to text.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

REPLACEMENT: Final = "\N{REPLACEMENT CHARACTER}"
"""What decoders write for bytes that are no whole character (yet)."""

Decode = Callable[[Sequence[int]], str]


class Detokenizer:
    """The text of one answer, token by token.

    A token's text depends on those before it (a space at the start, bytes of one character in several tokens), so the
    last few are always decoded together, and what is new is what they have grown by.
    """

    def __init__(self, decode: Decode) -> None:
        """Begin with nothing."""
        self._decode = decode
        self._tokens: list[int] = []
        self._begin = 0
        self._sent = 0

    def add(self, token: int) -> str:
        """Give the text that is whole now; nothing while a character is not."""
        self._tokens.append(token)
        before = self._decode(self._tokens[self._begin : self._sent])
        now = self._decode(self._tokens[self._begin :])
        if len(now) <= len(before) or now.endswith(REPLACEMENT):
            return ""
        self._begin, self._sent = self._sent, len(self._tokens)
        return now[len(before) :]

    def end(self) -> str:
        """Give what was held back; bytes that never became a character are left out."""
        before = self._decode(self._tokens[self._begin : self._sent])
        now = self._decode(self._tokens[self._begin :])
        return now[len(before) :].rstrip(REPLACEMENT)


class Stopper:
    """Looks for stop strings in a text that comes in pieces; holds back what may be the beginning of one."""

    def __init__(self, stops: Sequence[str]) -> None:
        """Stop at the first of `stops`; empty ones say nothing."""
        self._stops = [stop for stop in stops if stop]
        self._held = ""
        self.stopped = False

    def add(self, text: str) -> str:
        """Give what can be sent now."""
        if self.stopped:
            return ""
        self._held += text
        found = [at for stop in self._stops if (at := self._held.find(stop)) >= 0]
        if found:
            self.stopped = True
            out, self._held = self._held[: min(found)], ""
            return out
        keep = max((self._beginning_of(stop) for stop in self._stops), default=0)
        cut = len(self._held) - keep
        out, self._held = self._held[:cut], self._held[cut:]
        return out

    def end(self) -> str:
        """Give what was held back: the text ended, so it was no stop string."""
        out, self._held = self._held, ""
        return out

    def _beginning_of(self, stop: str) -> int:
        """Give the length of the longest end of the text that is a beginning of a stop string."""
        longest = min(len(stop) - 1, len(self._held))
        return next((size for size in range(longest, 0, -1) if self._held.endswith(stop[:size])), 0)
