"""What a setting may be, in words for people, read from its type: msgspec's own words are about types of Python."""

import math
import re
import types
import typing
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Final, Literal

import msgspec
from msgspec import Meta

_PLACE: Final = re.compile(r"\$\.(\w+)")


def description(hint: Any) -> str:
    """Give what a setting means."""
    return next(meta.description for meta in hint.__metadata__ if isinstance(meta, Meta) and meta.description)


def problem(hint: Any, error: Exception) -> str:
    """Say what a value has to be, where `error` is what msgspec says of the one that there is."""
    kind, metas = _plain(hint)
    if not _is_json(kind):
        return f"it has to be {_possible(kind, metas)}"
    form = "a JSON object" if isinstance(kind, type) else "a JSON list of texts"
    if not isinstance(error, msgspec.ValidationError):
        return f"it has to be {form}: {error}"
    found = _PLACE.search(str(error))
    if found and isinstance(kind, type):
        inner = typing.get_type_hints(kind, include_extras=True)[found[1]]
        return f"{found[1]} has to be {_possible(*_plain(inner))}"
    if isinstance(kind, type):
        return f"it has to be {form} of {', '.join(typing.get_type_hints(kind))} only"
    return f"it has to be {form}, each {_possible(*_plain(typing.get_args(kind)[0]))}"


def _is_json(kind: Any) -> bool:
    return typing.get_origin(kind) is tuple or (isinstance(kind, type) and issubclass(kind, msgspec.Struct))


def _plain(hint: Any) -> tuple[Any, list[Meta]]:
    """Give the type inside Annotated and Optional, and what bounds it."""
    metas: list[Meta] = []
    while True:
        if typing.get_origin(hint) is Annotated:
            metas += [one for one in hint.__metadata__ if isinstance(one, Meta)]
            hint = hint.__origin__
        elif isinstance(hint, types.UnionType) or typing.get_origin(hint) is typing.Union:
            hint = next(one for one in typing.get_args(hint) if one is not type(None))
        else:
            return hint, metas


def _possible(kind: Any, metas: list[Meta]) -> str:
    if kind is bool:
        return "true or false"
    if typing.get_origin(kind) is Literal:
        return f"one of {', '.join(typing.get_args(kind))}"
    if isinstance(kind, type) and issubclass(kind, StrEnum):
        return f"one of {', '.join(kind)}"
    if kind in {int, float}:
        return f"a {'whole ' if kind is int else ''}number{_bounds(metas)}"
    if kind is Path:
        return "a path"
    longest = next((meta.max_length for meta in metas if meta.max_length), None)
    text = f"a text of at most {longest} characters" if longest else "a text"
    form = next((meta.title for meta in metas if meta.title), None)  # what a pattern says, in words
    return f"{text}, {form}" if form else text


def _bounds(metas: list[Meta]) -> str:
    least = next((meta.ge for meta in metas if meta.ge is not None), None)
    above = next((meta.gt for meta in metas if meta.gt is not None), None)
    most = next((meta.le for meta in metas if meta.le is not None), math.inf)
    top = f" {'to' if least is not None else 'and at most'} {most}" if most != math.inf else ""
    if above is not None:
        return f" above {above}{top}"
    return f" from {least}{top}" if least is not None else ""
