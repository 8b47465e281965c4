"""Which keywords of a JSON schema restrict an answer: what llama.cpp does not enforce is named, rather than dropped.

llama.cpp has two converters. That of chats takes the first keyword of a few that it finds in a schema and drops what
stands beside it; that of completions (llguidance) drops the whole schema for one keyword that it does not know, or
where nothing can satisfy it. Neither tells the client. So a schema may hold what both of them enforce.
"""

from collections.abc import Iterator, Mapping
from typing import Any, Final

ANNOTATIONS: Final = frozenset(
    {
        *("title", "description", "default", "examples", "deprecated", "readOnly", "writeOnly", "discriminator"),
        *("$schema", "$id", "$comment", "$anchor", "$defs", "definitions"),
    }
)
"""Keywords that restrict nothing where they stand."""

OBJECT: Final = frozenset({"properties", "required", "additionalProperties"})
LENGTHS: Final = frozenset({"minLength", "maxLength"})
BOUNDS: Final = frozenset({"minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"})
COUNTS: Final = frozenset({"minItems", "maxItems"})
ALONE: Final = ("$ref", "anyOf", "oneOf")
"""Whatever stands beside these is dropped, `type` as well."""
CHOSEN: Final = ("const", "enum", "allOf")
ENFORCED: Final = frozenset(
    {"type", "items", "prefixItems", "pattern", "format", *OBJECT, *LENGTHS, *BOUNDS, *COUNTS, *ALONE, *CHOSEN}
)

FORMATS: Final = frozenset({"date", "time", "date-time", "uuid"})
MAX_OPTIONAL: Final = 300
"""Optional properties of one object; the grammar for some 500 is too large, and was left out."""
MAX_BOUND: Final = 10**15
"""For numbers near 2**62 the grammar was never finished."""
MAX_ITEMS: Final = 1000
MAX_LENGTH: Final = 100_000
MAX_REFERENCES: Final = 16
"""References in a row."""
MAX_REFERENCE: Final = 1000
"""Characters."""

_TYPES: Final[Mapping[str, tuple[type, ...]]] = {
    "object": (dict,),
    "array": (list,),
    "string": (str,),
    "integer": (int,),
    "number": (int, float),
    "boolean": (bool,),
    "null": (type(None),),
}


def keyword_problem(schema: dict[str, Any], root: Any) -> str | None:
    """Say which keyword of a schema would not be enforced or could not be read; not what is below it."""
    asked = schema.keys() - ANNOTATIONS
    unknown = sorted(asked - ENFORCED)
    if unknown:
        return f"{unknown[0][:40]} is not enforced"
    problem = _type_problem(schema) or next((found for name in asked if (found := _value_problem(name, schema))), None)
    if problem is not None:
        return problem
    dropped = sorted(asked - _followed(schema))
    if dropped:
        return f"{dropped[0]} is not enforced with {_beside(schema, dropped[0])}"
    return _reference_problem(schema, root) or _object_problem(schema) or _range_problem(schema)


def children(schema: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    """Give the schemas that stand in a schema, each with where."""
    for name in ("properties", "$defs", "definitions"):
        held = schema.get(name)
        if isinstance(held, dict):
            yield from ((f"{name}/{key}", child) for key, child in held.items())
    for name in ("anyOf", "oneOf", "allOf", "prefixItems"):
        yield from ((f"{name}/{number}", child) for number, child in enumerate(schema.get(name, ())))
    if "items" in schema:
        yield "items", schema["items"]
    if not isinstance(schema.get("additionalProperties", True), bool):
        yield "additionalProperties", schema["additionalProperties"]


def _types(schema: dict[str, Any]) -> list[str | None]:
    types = schema.get("type")
    return types if isinstance(types, list) else [types]


def _type_problem(schema: dict[str, Any]) -> str | None:
    types = _types(schema) if "type" in schema else ()
    if "type" in schema and not types:
        return "type is an empty list"
    for one in types:
        if not isinstance(one, str) or one not in _TYPES:
            return f"type {str(one)[:40]!r} is not known"
    return None


def _value_problem(name: str, schema: dict[str, Any]) -> str | None:  # noqa: PLR0911 - one for each kind of keyword
    """Say what is wrong with the value of a keyword."""
    value = schema[name]
    if name in BOUNDS:
        fine = isinstance(value, int) and not isinstance(value, bool) and abs(value) <= MAX_BOUND
        return None if fine else f"{name} is not a whole number from {-MAX_BOUND} to {MAX_BOUND}"
    if name in COUNTS | LENGTHS:
        most = MAX_ITEMS if name in COUNTS else MAX_LENGTH
        fine = isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= most
        return None if fine else f"{name} is not a whole number from 0 to {most}"
    if name in {"anyOf", "oneOf", "allOf", "prefixItems", "enum"}:
        return None if isinstance(value, list) and value else f"{name} is not a list with something in it"
    if name == "properties":
        return None if isinstance(value, dict) else "properties is not an object"
    if name == "required":
        fine = isinstance(value, list) and all(isinstance(one, str) for one in value)
        return None if fine else "required is not a list of names"
    if name == "pattern":
        return None if isinstance(value, str) else "pattern is not a string"
    if name == "format" and not (isinstance(value, str) and value in FORMATS):
        return f"format {str(value)[:40]!r} is not enforced; {', '.join(sorted(FORMATS))} are"
    return None


def _followed(schema: dict[str, Any]) -> frozenset[str]:
    """Give the keywords that are enforced, as the converter of chats chooses them."""
    for name in ALONE:
        if name in schema:
            return frozenset({name})
    for name in ("const", "enum"):
        if name in schema:
            return frozenset({name, "type"})
    return frozenset({"type"}).union(*(_followed_for(one, schema) for one in _types(schema)))


def _followed_for(kind: str | None, schema: dict[str, Any]) -> frozenset[str]:
    """Give the keywords that are enforced for one type; None where the schema has no `type`."""
    if kind in {None, "object"} and ("properties" in schema or schema.get("additionalProperties", True) is not True):
        return OBJECT
    if kind in {None, "object", "string"} and "allOf" in schema:
        return frozenset({"allOf"})
    if kind in {None, "array"} and ("items" in schema or "prefixItems" in schema):
        return COUNTS | {"items" if "items" in schema else "prefixItems"}
    if kind in {None, "string"}:
        for name in ("pattern", "format"):
            if name in schema:
                return frozenset({name})
    if kind == "object":
        return frozenset({"additionalProperties"})  # it is true
    return {"string": LENGTHS, "integer": BOUNDS}.get(kind or "", frozenset())


def _beside(schema: dict[str, Any], name: str) -> str:
    """Say why a keyword is dropped."""
    needed = {"required": "no properties"} | dict.fromkeys(COUNTS, "no items")
    if name in needed and not any(other in schema for other in (*ALONE, *CHOSEN)):
        return needed[name]
    for other in (*ALONE, *CHOSEN, "properties", "items", "pattern", "format"):
        if other in schema and other != name:
            return f"{other} beside it"
    return f"type {schema['type']!r}" if "type" in schema else "no type beside it"


def _reference_problem(schema: dict[str, Any], root: Any) -> str | None:
    if "$ref" in schema:
        found = isinstance(_resolved(schema, root), dict)
        return None if found else f"$ref {str(schema['$ref'])[:100]!r} leads nowhere"
    for part in schema.get("allOf", ()):
        target = _resolved(part, root)
        # Of the parts of allOf, these are taken over; of any other nothing is.
        if not isinstance(target, dict) or target.keys().isdisjoint({"properties", "enum"}):
            return "allOf is enforced for properties and enum only, or references to them"
    return None


def _resolved(schema: Any, root: Any) -> Any:
    """Give what references lead to; None where that is nothing."""
    for _ in range(MAX_REFERENCES):
        if not isinstance(schema, dict) or "$ref" not in schema:
            return schema
        reference = schema["$ref"]
        if not isinstance(reference, str) or not reference.startswith("#/") or len(reference) > MAX_REFERENCE:
            return None
        schema = root
        for name in reference[2:].split("/"):
            if isinstance(schema, list) and name.isascii() and name.isdigit() and len(name) < len(str(MAX_BOUND)):
                schema = schema[int(name)] if int(name) < len(schema) else None
            else:
                schema = schema.get(name) if isinstance(schema, dict) else None
    return None


def _object_problem(schema: dict[str, Any]) -> str | None:
    """Say what is wrong with names, and with values that have to be of a type."""
    properties, required = schema.get("properties", {}), set(schema.get("required", ()))
    missing = sorted(required - properties.keys())
    if missing:
        return f"required names {missing[0][:40]!r}, which is not in properties"
    optional = len(properties.keys() - required)
    if optional > MAX_OPTIONAL:
        return f"properties has {optional} optional ones; at most {MAX_OPTIONAL} are possible"
    if "type" not in schema:
        return None
    kinds = _types(schema)
    for value in [schema["const"]] if "const" in schema else schema.get("enum", ()):
        if not any(_is_of(value, kind or "") for kind in kinds):
            return f"{'const' if 'const' in schema else 'enum'} has a value that is not of its type"
    return None


def _is_of(value: Any, kind: str) -> bool:
    if isinstance(value, bool):
        return kind == "boolean"
    whole = isinstance(value, float) and value.is_integer() and kind == "integer"
    return whole or isinstance(value, _TYPES[kind])


def _range_problem(schema: dict[str, Any]) -> str | None:
    """Say where nothing can satisfy a range; a list with prefixItems is exactly these items."""
    least = max(schema.get("minimum", -MAX_BOUND), schema.get("exclusiveMinimum", -MAX_BOUND - 1) + 1)
    most = min(schema.get("maximum", MAX_BOUND), schema.get("exclusiveMaximum", MAX_BOUND + 1) - 1)
    if least > most:
        return f"no number from {least} to {most} is there"
    for low, high in (("minItems", "maxItems"), ("minLength", "maxLength")):
        if schema.get(low, 0) > schema.get(high, MAX_LENGTH):
            return f"{low} is more than {high}"
    count = len(schema.get("prefixItems", ()))
    if count and not schema.get("minItems", 0) <= count <= schema.get("maxItems", count):
        return f"a list with prefixItems has exactly {count} items, which minItems or maxItems excludes"
    return None
