"""The fields that a request may have, and what each may hold: a closed list. `body` reads requests by it.

A check takes the field's JSON text and gives what is wrong with it, or None. A field without effect here is taken,
because OpenAI's clients send it, and not passed on.
"""

from collections.abc import Callable, Mapping
from typing import Annotated, Any, Final, Literal

import msgspec
from msgspec import Meta

from moorage_runtime.schemas import grammar_problem, schema_problem

Check = Callable[[bytes], str | None]

INT32: Final = 2**31 - 1

MAX_LOGPROBS: Final = 20
"""OpenAI's limit. llama.cpp has none, and would write the whole vocabulary, megabytes for each token."""

MAX_STOPS: Final = 16

MAX_BIAS: Final = 100

MAX_MESSAGES: Final = 2048
"""Messages of one chat: templates go through all of them, some of them once for each."""


class _Part(msgspec.Struct):
    type: str
    text: str | None = None


class _CalledFunction(msgspec.Struct):
    name: str
    arguments: str


class _Call(msgspec.Struct):
    type: Literal["function"]
    function: _CalledFunction


class _Message(msgspec.Struct):
    role: str
    content: str | list[_Part] | None = None
    tool_calls: list[_Call] | None = None


class _Function(msgspec.Struct):
    name: str
    parameters: msgspec.Raw = msgspec.Raw(b"")


class _Tool(msgspec.Struct):
    type: Literal["function"]
    function: _Function


class _NamedSchema(msgspec.Struct):
    schema: msgspec.Raw = msgspec.Raw(b"")


class _Format(msgspec.Struct):
    type: Literal["text", "json_object", "json_schema"]
    json_schema: _NamedSchema | None = None
    schema: msgspec.Raw = msgspec.Raw(b"")


class _StreamOptions(msgspec.Struct):
    include_usage: bool | None = None


def of_type(kind: Any) -> Check:
    """Check the type, in msgspec's words."""
    decoder = msgspec.json.Decoder(kind)

    def check(raw: bytes) -> str | None:
        try:
            decoder.decode(raw)
        except msgspec.ValidationError as error:
            return str(error)
        return None

    return check


def whole(low: int, high: int) -> Check:
    """Check for a whole number in a range."""
    decoder = msgspec.json.Decoder(int)

    def check(raw: bytes) -> str | None:
        try:
            number = decoder.decode(raw)
        except msgspec.ValidationError:
            return f"{_shown(raw)} is not a whole number from {low} to {high}"
        return None if low <= number <= high else f"{_shown(raw)} is not from {low} to {high}"

    return check


def real(low: float, high: float) -> Check:
    """Check for a number in a range."""
    decoder = msgspec.json.Decoder(float)

    def check(raw: bytes) -> str | None:
        try:
            number = decoder.decode(raw)
        except msgspec.ValidationError:
            return f"{_shown(raw)} is not a number from {low:g} to {high:g}"
        return None if low <= number <= high else f"{_shown(raw)} is not from {low:g} to {high:g}"

    return check


def only(*texts: bytes) -> Check:
    """Take only these values, which ask for nothing that is not there."""
    return lambda raw: None if raw in texts else f"{_shown(raw)} is not possible here; leave it out"


def anything(raw: bytes) -> str | None:
    """Take what comes: the field has no effect."""
    return None


def _messages(raw: bytes) -> str | None:
    problem = _MESSAGES_TYPE(raw)
    if problem is not None:
        return problem
    messages = msgspec.json.decode(raw, type=list[_Message])
    if not messages:
        return "the list is empty"
    if len(messages) > MAX_MESSAGES:
        return f"{len(messages)} messages are in one request; at most {MAX_MESSAGES} are possible"
    for number, message in enumerate(messages):
        for part in message.content if isinstance(message.content, list) else ():
            if part.type != "text" or part.text is None:
                return f"message {number} has a part of type {part.type[:40]!r}; only text is taken here"
    return None


def _tools(raw: bytes) -> str | None:
    problem = _TOOLS_TYPE(raw)
    if problem is not None:
        return problem
    schemas = (bytes(tool.function.parameters) for tool in msgspec.json.decode(raw, type=list[_Tool]))
    return next((problem for schema in schemas if schema and (problem := schema_problem(schema))), None)


def _response_format(raw: bytes) -> str | None:
    problem = _FORMAT_TYPE(raw)
    if problem is not None:
        return problem
    asked = msgspec.json.decode(raw, type=_Format)
    named = bytes(asked.json_schema.schema) if asked.json_schema else b""
    if asked.type == "json_schema" and not named:
        return "json_schema.schema is missing"
    # What does not belong to its type would be left out.
    if asked.type != "json_schema" and asked.json_schema is not None:
        return f"json_schema is not for the type {asked.type}"
    if asked.type != "json_object" and asked.schema:
        return f"schema is not for the type {asked.type}"
    schema = named or bytes(asked.schema)
    return schema_problem(schema) if schema else None


def _stop(raw: bytes) -> str | None:
    problem = _STOP_TYPE(raw)
    if problem is not None:
        return problem
    stops = msgspec.json.decode(raw)
    return "a text in it is empty" if "" in ([stops] if isinstance(stops, str) else stops) else None


def _logit_bias(raw: bytes) -> str | None:
    problem = _BIAS_TYPE(raw)
    if problem is not None:
        return problem
    for token, bias in msgspec.json.decode(raw, type=dict[str, float]).items():
        if not (token.isascii() and token.isdigit() and len(token) <= len(str(INT32))):
            return f"{token[:40]!r} is not a token number"
        if not -MAX_BIAS <= bias <= MAX_BIAS:
            return f"{bias:g} for the token {token} is not from -{MAX_BIAS} to {MAX_BIAS}"
    return None


def _shown(raw: bytes) -> str:
    return raw[:40].decode(errors="replace") + ("…" if len(raw) > 40 else "")


_MESSAGES_TYPE: Final = of_type(list[_Message])
_TOOLS_TYPE: Final = of_type(list[_Tool])
_FORMAT_TYPE: Final = of_type(_Format)
_STOP_TYPE: Final = of_type(str | Annotated[list[str], Meta(max_length=MAX_STOPS)])
_BIAS_TYPE: Final = of_type(dict[str, float])
_FLAG: Final = of_type(bool)

_BOTH: Final[Mapping[str, Check]] = {
    "model": of_type(str),
    "max_tokens": whole(1, INT32),
    "n": whole(1, 1024),
    "temperature": real(0, 100),
    "top_p": real(0, 1),
    "top_k": whole(-1, INT32),
    "min_p": real(0, 1),
    "typical_p": real(0, 1),
    "repeat_penalty": real(0.01, 100),
    "frequency_penalty": real(-2, 2),
    "presence_penalty": real(-2, 2),
    "seed": whole(-(2**63), 2**63 - 1),
    "stop": _stop,
    "stream": _FLAG,
    "stream_options": of_type(_StreamOptions),
    "logit_bias": _logit_bias,
    "n_probs": whole(0, MAX_LOGPROBS),
    "ignore_eos": _FLAG,
    "cache_prompt": _FLAG,
    "grammar": grammar_problem,
    "json_schema": schema_problem,
    "response_format": _response_format,
    "user": anything,
}

CHAT: Final[Mapping[str, Check]] = {
    **_BOTH,
    "messages": _messages,
    "max_completion_tokens": whole(1, INT32),
    "logprobs": _FLAG,
    "top_logprobs": whole(0, MAX_LOGPROBS),
    "tools": _tools,
    "tool_choice": of_type(Literal["none", "auto", "required"]),
    "parallel_tool_calls": _FLAG,
    "modalities": only(b'["text"]'),
    "store": anything,
    "metadata": anything,
    "service_tier": anything,
    "safety_identifier": anything,
    "prompt_cache_key": anything,
    "prompt_cache_retention": anything,
    "reasoning_effort": anything,
    "verbosity": anything,
}

COMPLETIONS: Final[Mapping[str, Check]] = {
    **_BOTH,
    "prompt": anything,  # it is counted, by `body`
    "logprobs": whole(0, MAX_LOGPROBS),
    "best_of": only(b"1"),
    "echo": only(b"false"),
    "suffix": only(b'""'),
}

UNSHAPED: Final = frozenset({"prompt", "input", "texts", "images"})
"""Fields whose own checks bound them: a list of numbers may be longer than other values."""

NOT_PASSED_ON: Final = frozenset(
    {name for fields in (CHAT, COMPLETIONS) for name, check in fields.items() if check is anything and name != "prompt"}
    | {"modalities", "best_of", "echo", "suffix"}
)
