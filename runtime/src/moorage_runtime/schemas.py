"""What a JSON schema or a grammar in a request may be: bounded, and without references to elsewhere.

The engine compiles it before the first token. One that it cannot compile it leaves out, with a line in its log; one
that is huge keeps it from everything else.
"""

import re
from typing import Any, Final

import msgspec

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
        schema = msgspec.json.decode(raw)
    except RecursionError:
        return _too_deep()
    if not isinstance(schema, (dict, bool)):
        return "a schema is an object"
    level: list[Any] = [schema]
    for _ in range(MAX_DEPTH):
        level = [child for value in level for child in _children(value)]
        if not level:
            return None
        for value in level:
            problem = _keyword_problem(value) if isinstance(value, tuple) else None
            if problem is not None:
                return problem
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


def _children(value: Any) -> list[Any]:
    """Give what is one level below: of an object its members as pairs, of a pair what its value holds."""
    inner = value[1] if isinstance(value, tuple) else value
    if isinstance(inner, dict):
        return list(inner.items())
    if isinstance(inner, list):
        return [("", item) for item in inner]
    return []


def _keyword_problem(member: tuple[str, Any]) -> str | None:
    name, value = member
    if not isinstance(value, str):
        return None
    if name in {"$ref", "$dynamicRef", "$recursiveRef"} and not value.startswith("#"):
        return f"{name} is {value[:100]!r}; only references into the schema itself, #/…, are followed"
    if name != "pattern":
        return None
    if len(value) > MAX_PATTERN:
        return f"a pattern has {len(value)} characters; at most {MAX_PATTERN} are possible"
    return _repeats_problem(value) or _pattern_problem(value)


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
