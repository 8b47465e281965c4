"""What a JSON schema or a grammar in a request may be: bounded, and without references to elsewhere.

The engine compiles it before the first token. One that it cannot compile it leaves out, with a line in its log; one
that is huge keeps it from everything else. Which keywords it knows is in `schema_keywords`.
"""

import re
from typing import Any, Final

import msgspec

from moorage_runtime.schema_keywords import children, keyword_problem

MAX_BYTES: Final = 64 * 1024
MAX_DEPTH: Final = 64
MAX_PATTERN: Final = 256
MAX_REPEATS: Final = 1000

# What llama.cpp's converter knows; for the rest of a pattern's language it takes any string,
# and says so only in its log.
_ESCAPE: Final = re.compile(r"\\(.)", re.DOTALL)
_KNOWN_ESCAPES: Final = frozenset("nrtxu")
_ATOM: Final = re.compile(r"\\.|\[[^\]]*\]", re.DOTALL)
_UNKNOWN: Final = re.compile(r"[\^$]|\(\?(?!:)")

_REPEATS: Final = re.compile(r"\{\s*(\d*)\s*,?\s*(\d*)\s*\}")


def schema_problem(raw: bytes) -> str | None:
    """Say what is wrong with a JSON schema; None where nothing is."""
    if len(raw) > MAX_BYTES:
        return f"the schema has {len(raw)} bytes; at most {MAX_BYTES} are possible"
    try:
        root = msgspec.json.decode(raw)
    except RecursionError:
        return _too_deep()
    level: list[tuple[str, Any]] = [("#", root)]
    for _ in range(MAX_DEPTH):
        for where, schema in level:
            problem = _problem_at(schema, root)
            if problem is not None:
                return f"{problem} (at {where[:200]})"
        level = [(f"{where}/{name}", child) for where, schema in level for name, child in children(schema)]
        if not level:
            return None
    return _too_deep()


def grammar_problem(raw: bytes) -> str | None:
    """Say what is wrong with a grammar; None where nothing is."""
    if len(raw) > MAX_BYTES:
        return f"the grammar has {len(raw)} bytes; at most {MAX_BYTES} are possible"
    try:
        grammar = msgspec.json.decode(raw, type=str)
    except msgspec.ValidationError:
        return "a grammar is a string"
    if grammar.lstrip().startswith("%"):
        return "only a grammar in GBNF, the form of llama.cpp, is taken"
    return _repeats_problem(grammar)


def _problem_at(schema: Any, root: Any) -> str | None:
    if not isinstance(schema, dict):
        said = f"; {str(schema).lower()} is not enforced" if isinstance(schema, bool) else ""
        return f"a schema is an object{said}"
    reference = schema.get("$ref")
    if isinstance(reference, str) and not reference.startswith("#/"):
        return f"$ref is {reference[:100]!r}; only references into the schema itself, #/…, are followed"
    pattern = schema.get("pattern")
    if isinstance(pattern, str):
        if len(pattern) > MAX_PATTERN:
            return f"a pattern has {len(pattern)} characters; at most {MAX_PATTERN} are possible"
        problem = _repeats_problem(pattern) or _pattern_problem(pattern)
        if problem is not None:
            return problem
    return keyword_problem(schema, root)


def _pattern_problem(pattern: str) -> str | None:
    if not (pattern.startswith("^") and pattern.endswith("$")):
        return "a pattern has to begin with ^ and to end with $"
    for found in _ESCAPE.finditer(pattern):
        if found[1] == "/" or (found[1].isalnum() and found[1] not in _KNOWN_ESCAPES):
            return f"{found[0]} in a pattern is not known; write the characters themselves, as in [0-9]"
    unknown = _UNKNOWN.search(_ATOM.sub("", pattern[1:-1]))
    return f"{unknown[0]} inside a pattern is not known" if unknown else None


def _repeats_problem(text: str) -> str | None:
    for found in _REPEATS.finditer(text):
        for count in found.groups():
            if count and (len(count) > 9 or int(count) > MAX_REPEATS):
                return f"{found[0][:40]} repeats more than {MAX_REPEATS} times"
    return None


def _too_deep() -> str:
    return f"the schema is nested more than {MAX_DEPTH} deep"
