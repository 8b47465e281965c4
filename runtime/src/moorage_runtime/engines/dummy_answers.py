"""What the engine `dummy` answers: words stand for tokens, and nothing but the request chooses them. Pure."""

import base64
import random
import struct
from collections.abc import Iterable, Sequence
from hashlib import sha256
from typing import Any, Final, NamedTuple

DIMENSIONS: Final = 8
NATURAL_LENGTH: Final = 4
_LOGPROB: Final = -0.5


class Answer(NamedTuple):
    """One answer: its pieces, as many as words were made, and why it ended."""

    pieces: tuple[str, ...]
    finish: str

    @property
    def text(self) -> str:
        """All of it."""
        return "".join(self.pieces)


def prompts_of(body: dict[str, Any], *, chat: bool) -> list[list[str]]:
    """Give the words of each prompt; a number of a token counts as a word."""
    if chat:
        return [[word for message in body["messages"] for word in _text(message["content"]).split()]]
    return _inputs(body["prompt"] if "prompt" in body else body["input"])


def orders(words: Iterable[str]) -> dict[str, str]:
    """Read what a prompt orders, in words of the form `!name=value`."""
    pairs = (word[1:].partition("=") for word in words if word.startswith("!"))
    return {name: value for name, _, value in pairs}


def answer(body: dict[str, Any], ordered: dict[str, str], index: int) -> Answer:
    """Make the answer number `index` to a request."""
    limit = body.get("max_tokens") or body.get("max_completion_tokens")
    wanted = int(ordered.get("tokens", limit or NATURAL_LENGTH))
    words = [word(body, index, number) for number in range(wanted if limit is None else min(wanted, limit))]
    finish = "length" if len(words) == limit else "stop"
    stops = body.get("stop") or []
    return _cut(words, [stops] if isinstance(stops, str) else stops, finish)


def word(body: dict[str, Any], index: int, number: int) -> str:
    """Give one word: by its place, or where a seed and a temperature are there by chance that the seed decides."""
    seed = body.get("seed")
    if seed is None or body.get("temperature") == 0:
        return f"word{number} "
    return f"word{random.Random(f'{seed}/{index}/{number}').randrange(1000)} "  # noqa: S311 - made to be repeated


def _cut(words: list[str], stops: Sequence[str], finish: str) -> Answer:
    text = ""
    for number, piece in enumerate(words if stops else ()):
        text += piece
        found = [at for stop in stops if stop and (at := text.find(stop)) >= 0]
        if found:
            kept = text[: min(found)]
            pieces, at = [], 0
            for made in words[: number + 1]:
                pieces.append(kept[at : at + len(made)])
                at += len(made)
            return Answer(tuple(pieces), "stop")
    return Answer(tuple(words), finish)


def logprobs(pieces: Sequence[str], body: dict[str, Any], *, chat: bool) -> dict[str, Any] | None:
    """Give what is asked for of the likelihood of words, in OpenAI's two forms."""
    if chat:
        top = body.get("top_logprobs") or 0
        return {"content": [_chat_logprob(piece, top) for piece in pieces]} if body.get("logprobs") else None
    top = body.get("logprobs")
    if top is None:
        return None
    others = [{f"{piece.strip()}-{n} ": _LOGPROB * (n + 1) for n in range(1, top)} for piece in pieces]
    return {
        "tokens": list(pieces),
        "token_logprobs": [_LOGPROB] * len(pieces),
        "top_logprobs": [{piece: _LOGPROB, **more} for piece, more in zip(pieces, others, strict=True)],
        "text_offset": [sum(map(len, pieces[:number])) for number in range(len(pieces))],
    }


def _chat_logprob(piece: str, top: int) -> dict[str, Any]:
    def one(token: str, place: int) -> dict[str, Any]:
        return {"token": token, "logprob": _LOGPROB * (place + 1), "bytes": list(token.encode())}

    likely = [piece, *(f"{piece.strip()}-{n} " for n in range(1, top))]
    return {**one(piece, 0), "top_logprobs": [one(token, place) for place, token in enumerate(likely[:top])]}


def usage(prompts: Sequence[Sequence[str]], answers: Sequence[Answer]) -> dict[str, int]:
    """Count words as tokens."""
    asked, made = sum(map(len, prompts)), sum(len(answer.pieces) for answer in answers)
    return {"prompt_tokens": asked, "completion_tokens": made, "total_tokens": asked + made}


def embeddings(body: dict[str, Any], inputs: Sequence[Sequence[str]]) -> dict[str, Any]:
    """Give each input a vector of length 1 that its words decide."""
    data = []
    for index, words in enumerate(inputs):
        vector = _vector(" ".join(words))
        packed = base64.b64encode(struct.pack(f"<{DIMENSIONS}f", *vector)).decode()
        value = packed if body.get("encoding_format") == "base64" else vector
        data.append({"object": "embedding", "index": index, "embedding": value})
    tokens = sum(map(len, inputs))
    return {"object": "list", "data": data, "usage": {"prompt_tokens": tokens, "total_tokens": tokens}}


def _vector(text: str) -> list[float]:
    numbers = [byte - 127.5 for byte in sha256(text.encode()).digest()[:DIMENSIONS]]
    length = sum(number * number for number in numbers) ** 0.5
    return list(struct.unpack(f"<{DIMENSIONS}f", struct.pack(f"<{DIMENSIONS}f", *(n / length for n in numbers))))


def _inputs(value: Any) -> list[list[str]]:
    if isinstance(value, str):
        return [value.split()]
    if value and isinstance(value[0], int):
        return [[str(number) for number in value]]
    return [one.split() if isinstance(one, str) else [str(number) for number in one] for one in value]


def _text(content: Any) -> str:
    return content if isinstance(content, str) else " ".join(part["text"] for part in content or ())
