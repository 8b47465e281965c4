"""One answer on its way: tokens in, pieces of text out, ended by the model, a stop string or the limit."""

from __future__ import annotations

from collections.abc import AsyncIterator, Container, Sequence
from typing import Protocol

from moorage_runtime.generation.answers import Piece, Token
from moorage_runtime.generation.text import Decode, Detokenizer, Stopper


class GenerationFailed(Exception):  # noqa: N818 - it names what happened
    """The engine gave a request up; the text says why."""


class Generation(Protocol):
    """The tokens of one answer, as the engine makes them."""

    def __aiter__(self) -> AsyncIterator[Token]:
        """Give each token as it comes, that which ends the text included."""

    def cancel(self) -> None:
        """Make no more; nothing happens to one that has ended."""


class Choice:
    """One answer; `count` is how many tokens it has cost so far."""

    def __init__(self, generation: Generation, decode: Decode, stops: Sequence[str], ends: Container[int]) -> None:
        """Make text of `generation`; `ends` are the tokens with which a model says that it is done."""
        self.count = 0
        self._generation = generation
        self._text = Detokenizer(decode)
        self._stopper = Stopper(stops)
        self._ends = ends

    async def pieces(self) -> AsyncIterator[Piece]:
        """Give what the answer grows by; the last piece, and no other, says why it ended."""
        finish, pending = "length", []
        async for token in self._generation:
            self.count += 1
            if token.number in self._ends:
                finish = "stop"
                break
            pending.append(token)
            text = self._stopper.add(self._text.add(token.number))
            if self._stopper.stopped:
                self._generation.cancel()
                # Tokens that are held back are those of the stop string.
                yield Piece(text, (), "stop")
                return
            if text:
                yield Piece(text, pending)
                pending = []
        rest = self._stopper.add(self._text.end())
        if self._stopper.stopped:
            yield Piece(rest, (), "stop")
        else:
            yield Piece(rest + self._stopper.end(), pending, finish)

    def cancel(self) -> None:
        """Make no more."""
        self._generation.cancel()
