"""What requests for one model may be, and the refusals of what its engine has not."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, NoReturn

import msgspec

from moorage_common.http.message import Refusal
from moorage_runtime.errors import bad_request

COMPLETIONS_PATH: Final = "/v1/completions"

_OBJECT: Final = msgspec.Raw(b'{"type":"object"}')


@dataclass(frozen=True, kw_only=True)
class Contract:
    """What requests for one model may be."""

    served: str
    """What they have in `model`."""
    limit: int
    """How many answers one request can ask for: the places that the engine has."""
    defaults: Mapping[str, msgspec.Raw] = field(default_factory=dict)
    """What a request gets that leaves a field out, or has it as null."""
    refused: frozenset[str] = frozenset()
    """Fields that the engine has not: whoever asks for one is told so, rather than getting an answer without it."""
    renamed: Mapping[str, str] = field(default_factory=dict)
    """What the engine calls a field."""
    capped: Mapping[str, int] = field(default_factory=dict)
    """Fields that may say more than the engine takes, with the most that it takes."""
    chats_only: frozenset[str] = frozenset()
    """Fields that the engine has for chats, and not for completions."""
    one_answer: bool = False
    """The engine does not tell the tokens of several answers, so a request is for one."""
    formats_as_schemas: bool = False
    """For completions, the engine takes no `response_format`, but `json_schema`."""
    vocabulary: int | None = None
    """How many tokens the model has."""
    context: int | None = None
    """Tokens that a prompt may have."""
    longest_token: int | None = None
    """Bytes of text that one token can stand for at most."""


def refuse(name: str, problem: str) -> NoReturn:
    """Refuse a request for one of its fields."""
    raise Refusal(bad_request(f'"{name}": {problem}.', param=name))


def refuse_lacking(path: str, given: Mapping[str, bytes], contract: Contract) -> None:
    """Raise Refusal for what the engine has not, instead of leaving it out."""
    for name in given:
        if name in contract.refused:
            refuse(name, "the engine of this model does not have it; leave it out")
        if name in contract.chats_only and path == COMPLETIONS_PATH:
            refuse(name, "the engine of this model has it in chats only; leave it out")
    _refuse_inside(given, contract.refused)
    if contract.vocabulary is not None and "logit_bias" in given:
        for token in msgspec.json.decode(given["logit_bias"], type=dict[str, float]):
            if int(token) >= contract.vocabulary:
                refuse("logit_bias", f"{token} is not a token number from 0 to {contract.vocabulary - 1}")


def format_as_schema(passed: dict[str, msgspec.Raw]) -> None:
    """Write what `response_format` asks for as `json_schema`."""
    if "response_format" not in passed:
        return
    asked = msgspec.json.decode(passed.pop("response_format"), type=dict[str, msgspec.Raw])
    kind = msgspec.json.decode(asked["type"], type=str)
    if kind == "json_object":
        passed["json_schema"] = asked.get("schema", _OBJECT)
    elif kind == "json_schema":
        passed["json_schema"] = msgspec.json.decode(asked["json_schema"], type=dict[str, msgspec.Raw])["schema"]


def _refuse_inside(given: Mapping[str, bytes], refused: frozenset[str]) -> None:
    """Refuse members of fields that the engine has not: `response_format.schema`, say."""
    for name in refused:
        outer, dot, inner = name.partition(".")
        if dot and outer in given and inner in msgspec.json.decode(given[outer], type=dict[str, msgspec.Raw]):
            refuse(outer, f"the engine of this model has no {inner} in it; leave it out")
