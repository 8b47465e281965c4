"""Writes answers in OpenAI's form, whole and as events of a stream. Pure."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import msgspec

Name = Callable[[int], str]
"""The text of a token by its number."""


class Token(NamedTuple):
    """A token that was chosen, and how likely it was, where that is asked for."""

    number: int
    logprob: float | None = None
    top: tuple[tuple[int, float], ...] = ()


class Piece(NamedTuple):
    """What one answer has grown by."""

    text: str
    tokens: Sequence[Token] = ()
    finish: str | None = None
    """Why it ended, in the last piece."""


@dataclass
class Whole:
    """One answer, put together."""

    text: str = ""
    tokens: list[Token] = field(default_factory=list)
    finish: str | None = None

    def add(self, piece: Piece) -> None:
        """Add what came."""
        self.text += piece.text
        self.tokens += piece.tokens
        self.finish = piece.finish or self.finish


@dataclass(frozen=True, kw_only=True)
class Writer:
    """Writes the answer to one request."""

    identity: str
    created: int
    model: str
    chat: bool
    logprobs: bool
    name: Name

    def whole(self, answers: Sequence[Whole], usage: dict[str, int]) -> dict[str, Any]:
        """Write a whole answer."""
        return {
            **self._envelope(chunk=False),
            "choices": [self._choice(*one) for one in enumerate(answers)],
            "usage": usage,
        }

    def first(self, index: int) -> bytes:
        """Write the event that begins an answer: a chat says who speaks, a completion nothing."""
        return self._event(index, {"delta": {"role": "assistant", "content": ""}}, None) if self.chat else b""

    def piece(self, index: int, piece: Piece, offset: int, counts: dict[str, int] | None = None) -> bytes:
        """Write the event of a piece that begins at character `offset`; the last tells `counts`, as llama.cpp does."""
        said = {"content": piece.text} if piece.text else {}
        delta: dict[str, Any] = {"delta": said} if self.chat else {"text": piece.text}
        if self.logprobs:
            delta["logprobs"] = self._logprobs(piece.tokens, offset)
        return self._event(index, delta, piece.finish, counts)

    def usage(self, usage: dict[str, int]) -> bytes:
        """Write the event that tells the counts."""
        return _event({**self._envelope(chunk=True), "choices": [], "usage": usage})

    def _choice(self, index: int, answer: Whole) -> dict[str, Any]:
        text: dict[str, Any] = (
            {"message": {"role": "assistant", "content": answer.text}} if self.chat else {"text": answer.text}
        )
        logprobs = self._logprobs(answer.tokens, 0) if self.logprobs else None
        return {"index": index, **text, "logprobs": logprobs, "finish_reason": answer.finish}

    def _logprobs(self, tokens: Sequence[Token], offset: int) -> dict[str, Any]:
        if self.chat:
            return {
                "content": [
                    {**self._one(token[:2]), "top_logprobs": list(map(self._one, token.top))} for token in tokens
                ]
            }
        names = [self.name(token.number) for token in tokens]
        return {
            "tokens": names,
            "token_logprobs": [token.logprob for token in tokens],
            "top_logprobs": [{self.name(number): value for number, value in token.top} for token in tokens],
            "text_offset": [offset + sum(map(len, names[:place])) for place in range(len(names))],
        }

    def _one(self, token: tuple[int, float | None]) -> dict[str, Any]:
        text = self.name(token[0])
        return {"token": text, "logprob": token[1], "bytes": list(text.encode())}

    def _event(
        self, index: int, part: dict[str, Any], finish: str | None, counts: dict[str, int] | None = None
    ) -> bytes:
        body = self._envelope(chunk=True)
        body["choices"] = [{"index": index, **part, "finish_reason": finish}]
        return _event(body | ({"timings": counts} if counts is not None else {}))

    def _envelope(self, *, chunk: bool) -> dict[str, Any]:
        kind = ("chat.completion.chunk" if chunk else "chat.completion") if self.chat else "text_completion"
        return {"id": self.identity, "object": kind, "created": self.created, "model": self.model}


DONE = b"data: [DONE]\n\n"


def usage(prompt: int, completion: int) -> dict[str, int]:
    """Write the counts."""
    return {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion}


def failed(message: str) -> bytes:
    """Write the event that ends a stream which failed."""
    return _event({"error": {"message": message, "type": "server_error", "param": None, "code": None}})


def _event(content: dict[str, Any]) -> bytes:
    return b"data: " + msgspec.json.encode(content) + b"\n\n"
