"""Checks a value against a structural schema as the API server does, for the words that our schemas use."""

import math
import re
from typing import Any

from tests.unit.operator.support import Object

_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ")
_LIMITS = {"int32": 2**31, "int64": 2**63}
_WORDS = {"type", "description", "enum", "maxLength", "maxItems", "format", "properties", "required", "items"}


def violations(schema: Object, value: Any, path: str = "status") -> list[str]:
    """What the API server would say against `value`; empty when it takes it."""
    unknown = {word for word in schema if word not in _WORDS and not word.startswith("x-kubernetes-list-")}
    assert not unknown, f"these words of the schema are not checked here: {unknown}"
    check = {"object": _object, "array": _array, "string": _string, "integer": _integer, "number": _number}[
        schema["type"]
    ]
    return check(schema, value, path)


def _object(schema: Object, value: Any, path: str) -> list[str]:
    if not isinstance(value, dict):
        return [f"{path}: not an object"]
    properties = schema["properties"]
    wrong = [f"{path}.{name}: missing" for name in schema.get("required", ()) if name not in value]
    wrong += [f"{path}.{name}: unknown" for name in value if name not in properties]
    for name, inner in value.items():
        wrong += violations(properties[name], inner, f"{path}.{name}") if name in properties else []
    return wrong


def _array(schema: Object, value: Any, path: str) -> list[str]:
    if not isinstance(value, list):
        return [f"{path}: not a list"]
    wrong = [f"{path}: too many"] if len(value) > schema["maxItems"] else []
    return wrong + [text for n, item in enumerate(value) for text in violations(schema["items"], item, f"{path}[{n}]")]


def _string(schema: Object, value: Any, path: str) -> list[str]:
    if type(value) is not str:
        return [f"{path}: not a string but {value!r}"]
    wrong = [f"{path}: {value!r} is not in the enum"] if value not in schema.get("enum", [value]) else []
    if len(value) > schema.get("maxLength", len(value)):
        wrong.append(f"{path}: {len(value)} characters are too long")
    if schema.get("format") == "date-time" and not _TIME.fullmatch(value):
        wrong.append(f"{path}: {value!r} is no time")
    return wrong


def _number(schema: Object, value: Any, path: str) -> list[str]:
    return [] if type(value) in (int, float) and math.isfinite(value) else [f"{path}: not a number but {value!r}"]


def _integer(schema: Object, value: Any, path: str) -> list[str]:
    if type(value) is not int:
        return [f"{path}: not an integer but {value!r}"]
    limit = _LIMITS[schema["format"]]
    return [] if -limit <= value < limit else [f"{path}: {value} does not fit {schema['format']}"]
