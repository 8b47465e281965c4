"""The fields that a request for embeddings may have; a closed list, as in `fields`."""

from collections.abc import Mapping
from typing import Annotated, Any, Final, Literal

import msgspec
from msgspec import Meta

from moorage_runtime.fields import INT32, Check, anything, of_type, whole

MAX_INPUTS: Final = 2048
"""Texts in one request for embeddings: OpenAI's limit."""


MAX_IMAGES: Final = 64
"""Images in one request."""

_FLAG: Final = of_type(bool)


def _inputs(raw: bytes) -> str | None:
    if raw.count(b"[") - 1 > MAX_INPUTS:  # seen before they are decoded
        return f"more than {MAX_INPUTS} inputs are in one request"
    try:
        decoded = _INPUTS.decode(raw)
    except msgspec.ValidationError:
        return "it is text, a list of token numbers, or a list of either, none of them empty"
    inputs = decoded if isinstance(decoded, list) else [decoded]
    if not inputs or any(one in ("", []) for one in inputs):
        return "it is empty, or one of its inputs is"
    if len({type(one) for one in inputs}) > 1:
        return "its items are of different types"
    if len(inputs) > MAX_INPUTS and not isinstance(inputs[0], int):
        return f"{len(inputs)} inputs are in one request; at most {MAX_INPUTS} are possible"
    return None


_TOKEN = Annotated[int, Meta(ge=0, le=INT32)]
_INPUTS: "Final[msgspec.json.Decoder[Any]]" = msgspec.json.Decoder(str | list[str | _TOKEN | list[_TOKEN]])

EMBEDDINGS: Final[Mapping[str, Check]] = {
    "model": of_type(str),
    "input": _inputs,
    "encoding_format": of_type(Literal["float", "base64"]),
    "dimensions": whole(1, 1_000_000),
    "truncate": _FLAG,
    "user": anything,
}


def _listed(what: str, most: int) -> Check:
    def check(raw: bytes) -> str | None:
        try:
            items = _TEXTS.decode(raw)
        except msgspec.ValidationError as error:
            return str(error)
        if not items or "" in items:
            return f"it is empty, or one of its {what} is"
        return f"{len(items)} {what} are in one request; at most {most} are possible" if len(items) > most else None

    return check


_TEXTS: Final = msgspec.json.Decoder(list[str])
_INSTRUCTION: Final = of_type(Annotated[str, Meta(max_length=8192)])

_ONE_SPACE: Final[Mapping[str, Check]] = {"instruction": _INSTRUCTION, "truncate": _FLAG}
_TEXT_LIST: Final[Mapping[str, Check]] = {"texts": _listed("texts", MAX_INPUTS)}
_IMAGE_LIST: Final[Mapping[str, Check]] = {"images": _listed("images", MAX_IMAGES)}

TEXTS: Final[Mapping[str, Check]] = {**_TEXT_LIST, **_ONE_SPACE}
IMAGES: Final[Mapping[str, Check]] = {**_IMAGE_LIST, "is_query": _FLAG, "instruction": _INSTRUCTION}
FUSED: Final[Mapping[str, Check]] = {**_TEXT_LIST, **_IMAGE_LIST, "is_query": _FLAG, **_ONE_SPACE}
SIMILARITY: Final[Mapping[str, Check]] = {**_TEXT_LIST, **_IMAGE_LIST, **_ONE_SPACE}
