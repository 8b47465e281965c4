"""Reads what the front passes on: checked already, so only what needs the model's vocabulary is refused here."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NoReturn

import msgspec

from moorage_common.http.message import Refusal
from moorage_runtime.errors import bad_request


class Sampling(msgspec.Struct, frozen=True, kw_only=True):
    """How the tokens of one answer are chosen."""

    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0
    repeat_penalty: float = 1.0
    frequency_penalty: float = 0.0
    presence_penalty: float = 0.0
    seed: int | None = None
    logit_bias: dict[int, float] = {}
    logprobs: int | None = None
    """How many of the likeliest tokens are told beside each chosen one; None: not even that one's."""
    ignore_eos: bool = False


class _Part(msgspec.Struct):
    text: str = ""


class _Format(msgspec.Struct):
    type: str


class _StreamOptions(msgspec.Struct):
    include_usage: bool | None = None


class Body(msgspec.Struct):
    """The fields of both routes; what is not here was refused by the front or has no effect."""

    prompt: str | list[str | int | list[int]] | None = None
    messages: list[dict[str, Any]] = []
    max_tokens: int | None = None
    max_completion_tokens: int | None = None
    n: int = 1
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    min_p: float | None = None
    repeat_penalty: float | None = None
    frequency_penalty: float | None = None
    presence_penalty: float | None = None
    seed: int | None = None
    stop: str | list[str] = []
    stream: bool = False
    stream_options: _StreamOptions | None = None
    logit_bias: dict[str, float] = {}
    logprobs: bool | int | None = None
    top_logprobs: int | None = None
    ignore_eos: bool = False
    response_format: _Format | None = None

    @property
    def limit(self) -> int | None:
        """How many tokens may be generated, if that is said."""
        return self.max_completion_tokens if self.max_completion_tokens is not None else self.max_tokens

    @property
    def stops(self) -> list[str]:
        """The stop strings."""
        return [self.stop] if isinstance(self.stop, str) else self.stop

    @property
    def wants_usage(self) -> bool:
        """Whether a stream ends with the counts."""
        return self.stream_options is not None and bool(self.stream_options.include_usage)

    def prompts(self) -> Sequence[str | list[int]]:
        """The prompts of a completion, each text or token numbers."""
        prompt = self.prompt
        if isinstance(prompt, str):
            return [prompt]
        if not prompt:
            refuse("prompt", "it is empty")
        # The front has seen that they are all of one kind.
        numbers = [item for item in prompt if isinstance(item, int)]
        return [numbers] if numbers else [item for item in prompt if not isinstance(item, int)]

    def plain_messages(self) -> list[dict[str, Any]]:
        """The messages with their content as one text, which is what chat templates expect."""
        return [{**message, "content": _text(message.get("content"))} for message in self.messages]


def read(content: bytes, *, vocabulary: int, defaults: Sampling) -> tuple[Body, Sampling]:
    """Read a request; raise Refusal for what this engine has not."""
    try:
        body = msgspec.json.decode(content, type=Body)
    except msgspec.DecodeError as error:
        raise Refusal(bad_request(str(error))) from error
    if body.response_format is not None and body.response_format.type != "text":
        refuse("response_format", "this engine answers as text only; leave it out, or ask for the type text")
    return body, _sampling(body, vocabulary, defaults)


def check_tokens(tokens: Sequence[int], vocabulary: int) -> None:
    """Refuse token numbers that the model has not: they would end the engine."""
    if tokens and not 0 <= min(tokens) <= max(tokens) < vocabulary:
        refuse("prompt", f"a token number is not from 0 to {vocabulary - 1}")


def refuse(name: str, problem: str) -> NoReturn:
    """Refuse a request for one of its fields."""
    raise Refusal(bad_request(f'"{name}": {problem}.', param=name))


def _sampling(body: Body, vocabulary: int, defaults: Sampling) -> Sampling:
    given = {name: getattr(body, name) for name in _SAME if getattr(body, name) is not None}
    return msgspec.structs.replace(
        defaults,
        **given,
        ignore_eos=body.ignore_eos,
        logit_bias=_bias(body.logit_bias, vocabulary),
        logprobs=_logprobs(body),
    )


def _bias(given: dict[str, float], vocabulary: int) -> dict[int, float]:
    for name, value in given.items():
        if not name.isascii() or not name.isdigit() or len(name) > 10 or int(name) >= vocabulary:
            refuse("logit_bias", f"{name[:40]!r} is no token number from 0 to {vocabulary - 1}")
        if not -100 <= value <= 100:
            refuse("logit_bias", f"{value:g} is not from -100 to 100")
    return {int(name): value for name, value in given.items()}


def _logprobs(body: Body) -> int | None:
    """Chats say `logprobs: true` and a number in `top_logprobs`; completions the number in `logprobs`."""
    if isinstance(body.logprobs, bool) or body.logprobs is None:
        if body.logprobs:
            return body.top_logprobs or 0
        if body.top_logprobs:
            refuse("top_logprobs", 'it needs "logprobs": true')
        return None
    return body.logprobs


def _text(content: Any) -> str:
    if isinstance(content, list):
        return "".join(msgspec.convert(part, _Part).text for part in content)
    return content or ""


_SAME = (
    "temperature",
    "top_p",
    "top_k",
    "min_p",
    "repeat_penalty",
    "frequency_penalty",
    "presence_penalty",
    "seed",
)
