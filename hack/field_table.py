"""The tables of docs/inferencemodel.md, from the schema: fields, and what is allowed for each framework."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from moorage_operator.api.crd import spec_schema
from moorage_operator.api.engines import ENGINES

PAGE: Final = Path(__file__).resolve().parents[1] / "docs" / "inferencemodel.md"
MANY: Final = 8
"""Values of an enum that are told; of more, their number is."""

Schema = dict[str, Any]


def rendered() -> str:
    """The page with its tables as they have to be now."""
    text = PAGE.read_text(encoding="utf-8")
    for name, made in {"fields": table(), "allowed": allowed()}.items():
        before, begin, rest = text.partition(f"<!-- {name}: made by `make generate` -->\n")
        _, end, after = rest.partition(f"<!-- end of {name} -->\n")
        if not end:
            raise ValueError(f"{PAGE} has no place for its table of {name}")
        text = before + begin + made + end + after
    return text


def table() -> str:
    """One row for each field of the spec."""
    rows = ["| field | what may be there | default | what it does |\n", "|---|---|---|---|\n"]
    for path, schema in _fields(spec_schema(), ""):
        default = f"`{_yaml(schema['default'])}`" if _has_plain_default(schema) else ""
        rows.append(f"| `{path}` | {_values(schema)} | {default} | {_cell(schema['description'])} |\n")
    return "".join(rows)


def allowed() -> str:
    """One row for each framework."""
    rows = ["| framework | `extraArgs` | names in `env` |\n", "|---|---|---|\n"]
    for framework, engine in ENGINES.items():
        options = ", ".join(f"`{_cell(option)}`" for option in engine.options_in_words()) or "none"
        rows.append(f"| {framework} | {options} | {', '.join(f'`{name}`' for name in sorted(engine.variables))} |\n")
    return "".join(rows)


def _fields(schema: Schema, path: str) -> Iterator[tuple[str, Schema]]:
    for name, field in schema.get("properties", {}).items():
        inner = f"{path}.{name}" if path else name
        yield inner, field
        yield from _fields(field, inner)
        if "items" in field:
            yield from _fields(field["items"], f"{inner}[]")


def _has_plain_default(schema: Schema) -> bool:
    return "default" in schema and not isinstance(schema["default"], dict)


def _values(schema: Schema) -> str:
    kind = schema.get("type", "quantity")
    if "enum" in schema:
        values = schema["enum"]
        return _cell(", ".join(values)) if len(values) <= MANY else f"one of {len(values)} names"
    if kind in ("integer", "number"):
        return f"{kind} {schema['minimum']} to {schema['maximum']}"
    if kind == "string":
        return f"text, at most {schema['maxLength']}"
    if kind == "array":
        return f"list, at most {schema['maxItems']}"
    if "maxProperties" in schema:
        return f"map, at most {schema['maxProperties']}"
    return str(kind)


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


def _yaml(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value)
