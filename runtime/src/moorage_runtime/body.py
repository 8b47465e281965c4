"""Reads the body of a request: only known fields, each at most once and checked, written anew for the engine.

Nothing that a client sent reaches an engine as it was: an unknown field could be one of the engine's own, and a
thousand of them take it seconds each, because it looks for a name by going through all of them.
"""

import re
from collections.abc import Mapping
from itertools import islice
from typing import Annotated, Any, Final

import msgspec
from msgspec import Meta

from moorage_common.http.message import Refusal
from moorage_runtime.contract import COMPLETIONS_PATH, Contract, format_as_schema, refuse, refuse_lacking
from moorage_runtime.embedding_fields import EMBEDDINGS, FUSED, IMAGES, SIMILARITY, TEXTS
from moorage_runtime.errors import bad_request, not_found
from moorage_runtime.fields import CHAT, COMPLETIONS, INT32, NOT_PASSED_ON, UNSHAPED, Check
from moorage_runtime.lengths import refuse_too_long

MAX_MEMBERS: Final = 1024
"""Members of one object: the engine's time for an object grows with the square of their number."""

MAX_DEPTH: Final = 64
MAX_WORDS: Final = 100_000
"""Names, values and opening brackets of one field."""

SAME: Final[Mapping[str, tuple[str, ...]]] = {"max_tokens": ("max_completion_tokens",)}
"""Other names of a field: who has given one has not left the field out."""

_ABSENT: Final = msgspec.Raw(b"")
_NULL: Final = b"null"


def _decoder(fields: Mapping[str, Check]) -> "msgspec.json.Decoder[Any]":
    """Make a decoder that ends at the first unknown field; it reads no value, however long."""
    raw = [(name, msgspec.Raw, _ABSENT) for name in fields]
    return msgspec.json.Decoder(msgspec.defstruct("Body", raw, forbid_unknown_fields=True))


FIELDS: Final[Mapping[str, Mapping[str, Check]]] = {
    "/v1/chat/completions": CHAT,
    "/v1/completions": COMPLETIONS,
    "/v1/embeddings": EMBEDDINGS,
    "/embeddings/text": TEXTS,
    "/embeddings/image": IMAGES,
    "/embeddings/fused": FUSED,
    "/similarity": SIMILARITY,
}
_DECODERS: Final = {path: _decoder(fields) for path, fields in FIELDS.items()}
_REQUIRED: Final[Mapping[str, tuple[str, ...]]] = {
    "/v1/chat/completions": ("messages",),
    "/v1/completions": ("prompt",),
    "/v1/embeddings": ("input",),
    "/embeddings/text": ("texts",),
    "/embeddings/image": ("images",),
    "/embeddings/fused": ("texts", "images"),
    "/similarity": (),
}
_GENERATION: Final = frozenset({"/v1/chat/completions", "/v1/completions"})
"""The routes whose requests get defaults."""

_PROMPTS_OF_ENGINES: Final = frozenset({"messages", "prompt", "input"})
"""What is refused before the queue where it certainly cannot fit."""

# msgspec has no other way to tell which field it was; where its words change, the answer has no `param`.
_UNKNOWN: Final = re.compile(r"Object contains unknown field `(.*)`$", re.DOTALL)

_Tokens = Annotated[list[Annotated[int, Meta(ge=0, le=INT32)]], Meta(min_length=1)]
_PROMPTS: "Final[dict[bytes, msgspec.json.Decoder[Any]]]" = {
    b'"': msgspec.json.Decoder(list[Annotated[str, Meta(min_length=1)]]),
    b"[": msgspec.json.Decoder(list[_Tokens]),
}
_TEXT: Final = msgspec.json.Decoder(str)
_ONE_OF_Tokens: Final = msgspec.json.Decoder(_Tokens)
_WORD: Final = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"|[\[{]|[^\s\[\]{},:"]+')
_START_OF_LIST: Final = re.compile(rb"\[\s*(.?)", re.DOTALL)


class _Name:
    """A name in a body; no two are equal."""


class _TwiceError(ValueError):
    pass


class Body(msgspec.Struct, frozen=True):
    """A request that may go to the engine."""

    content: bytes
    places: int
    """How many of the engine's slots it takes: one for each answer to each prompt."""


def read_body(path: str, content: bytes, contract: Contract) -> Body:
    """Check a request and write it anew for the engine; raise Refusal that says what is wrong."""
    given = _given(path, content)
    fields = FIELDS[path]
    if "model" in fields:
        _check_model(given.get("model"), contract.served)
    for name, raw in given.items():
        problem = _problem(name, raw, fields[name])
        if problem is not None:
            refuse(name, problem)
    _check_together(given)
    refuse_lacking(path, given, contract)
    _check_required(path, given, contract)
    passed = {name: msgspec.Raw(raw) for name, raw in given.items() if name not in NOT_PASSED_ON}
    if contract.formats_as_schemas and path == COMPLETIONS_PATH:
        format_as_schema(passed)
    for name, value in contract.defaults.items() if path in _GENERATION else ():
        if name not in passed and given.keys().isdisjoint(SAME.get(name, ())):
            passed[name] = value
    for name, most in contract.capped.items():
        if name in passed and msgspec.json.decode(passed[name]) > most:
            passed[name] = msgspec.Raw(str(most).encode())
    for name, theirs in contract.renamed.items():
        if name in passed:
            passed[theirs] = passed.pop(name)
    return Body(msgspec.json.encode(passed), _places(given, contract))


def _check_required(path: str, given: Mapping[str, bytes], contract: Contract) -> None:
    for name in _REQUIRED[path]:
        if name not in given:
            refuse(name, "it is missing")
        if name in _PROMPTS_OF_ENGINES:
            refuse_too_long(given[name], contract.context, contract.longest_token)
    if path == "/similarity" and given.keys().isdisjoint({"texts", "images"}):
        refuse("texts", 'it is missing, and so is "images"')


def _places(given: Mapping[str, bytes], contract: Contract) -> int:
    """Give how many of the engine's places a request takes: one for each answer to each prompt."""
    prompts = _count_prompts(given["prompt"], contract.limit) if "prompt" in given else 1
    places = prompts * msgspec.json.decode(given.get("n", b"1"), type=int)
    if places > contract.limit:
        refuse("n", f"{places} answers are asked for; at most {contract.limit} are possible in one request")
    if places > 1 and contract.one_answer:
        asked = f"{prompts} prompts are" if prompts > 1 else f"{places} answers are"
        problem = "the engine of this model counts the tokens of one answer only; send a request for each"
        refuse("prompt" if prompts > 1 else "n", f"{asked} asked for, and {problem}")
    return places


def _given(path: str, content: bytes) -> dict[str, bytes]:
    """Give the text of each known field that is there and not null."""
    try:
        if not content.isascii():
            content.decode()  # msgspec looks only at the text of what it decodes
        body = _DECODERS[path].decode(content)
        _refuse_twice(content)
    except msgspec.ValidationError as error:
        found = _UNKNOWN.search(str(error))
        if found is None:
            raise Refusal(bad_request(f"The body is not a JSON object: {error}.")) from error
        name = found[1][:100]
        raise Refusal(bad_request(f'"{name}" is not a field that is taken here.', param=name)) from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise Refusal(bad_request(f"The body is not a valid JSON object: {error}.")) from error
    except RecursionError:
        raise Refusal(bad_request("The body is nested too deeply.")) from None
    values = ((name, bytes(getattr(body, name))) for name in FIELDS[path])
    return {name: raw for name, raw in values if raw and raw != _NULL}


def _refuse_twice(content: bytes) -> None:
    """Refuse a name that is there twice: the decoder takes the last one, another reader might take the first."""
    seen: set[str] = set()

    def name(_: type, found: str) -> _Name:
        if found in seen:
            raise _TwiceError(found)
        seen.add(found)
        return _Name()

    try:
        msgspec.json.decode(content, type=dict[_Name, msgspec.Raw], dec_hook=name)
    except msgspec.ValidationError as error:
        if not isinstance(error.__cause__, _TwiceError):
            raise
        refuse(str(error.__cause__), "it is there twice")


def _check_model(raw: bytes | None, served: str) -> None:
    if raw is None:
        refuse("model", f'it is missing; the model served here is "{served}"')
    try:
        model = msgspec.json.decode(raw, type=str)
    except msgspec.DecodeError as error:
        refuse("model", str(error))
    if model != served:
        message = f'The model "{model[:200]}" is not served here; "{served}" is.'
        raise Refusal(not_found(message, param="model", code="model_not_found"))


def _count_prompts(raw: bytes, limit: int) -> int:
    """Give the number of prompts: text, token numbers, or a list of either."""
    start = _START_OF_LIST.match(raw)
    if start is None:
        if not raw.startswith(b'"'):
            refuse("prompt", "it is text, a list of token numbers, or a list of either")
        if not _decoded(raw, _TEXT):
            refuse("prompt", "it is empty")
        return 1
    decoder = _PROMPTS.get(start[1])
    if decoder is None:
        _decoded(raw, _ONE_OF_Tokens)
        return 1
    # A number of lists too high is seen before they are decoded.
    count = raw.count(b"[") - 1 if start[1] == b"[" else 0
    count = count if count > limit else len(_decoded(raw, decoder))
    if count > limit:
        refuse("prompt", f"{count} prompts are in one request; at most {limit} are possible")
    return count


def _decoded(raw: bytes, decoder: "msgspec.json.Decoder[Any]") -> Any:
    try:
        return decoder.decode(raw)
    except msgspec.DecodeError as error:
        refuse("prompt", str(error))
    except RecursionError:
        refuse("prompt", f"it is nested more than {MAX_DEPTH} deep")


def _problem(name: str, raw: bytes, check: Check) -> str | None:
    try:
        if name in NOT_PASSED_ON or name in UNSHAPED:
            return check(raw)
        return _shape_problem(raw) or check(raw)
    except msgspec.DecodeError as error:
        return str(error)
    except RecursionError:
        return f"it is nested more than {MAX_DEPTH} deep"


def _shape_problem(raw: bytes) -> str | None:
    """Say what there is too much of in a value. Most have too few colons and brackets for that: quick to see."""
    if raw.count(b":") <= MAX_MEMBERS and raw.count(b"[") + raw.count(b"{") <= MAX_DEPTH:
        return None
    if sum(1 for _ in islice(_WORD.finditer(raw), MAX_WORDS + 1)) > MAX_WORDS:
        return f"it has more than {MAX_WORDS} names and values"
    level = [msgspec.json.decode(raw)]
    for _ in range(MAX_DEPTH):
        below: list[Any] = []
        for value in level:
            if isinstance(value, dict):
                if len(value) > MAX_MEMBERS:
                    return f"an object has {len(value)} members; at most {MAX_MEMBERS} are possible"
                below += value.values()
            elif isinstance(value, list):
                below += value
        if not below:
            return None
        level = below
    return f"it is nested more than {MAX_DEPTH} deep"


def _check_together(given: Mapping[str, bytes]) -> None:
    if "grammar" in given and ("json_schema" in given or "response_format" in given):
        refuse("grammar", "only one of it, json_schema and response_format can be there")
    if "json_schema" in given and "response_format" in given:
        refuse("json_schema", "only one of it and response_format can be there")
    if "tools" in given and ("grammar" in given or "json_schema" in given):
        refuse("tools", "they cannot be there together with grammar or json_schema")
