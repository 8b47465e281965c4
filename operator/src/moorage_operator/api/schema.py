"""How the API's classes say what a JSON schema of pydantic cannot: rules in CEL, and patterns with words of our own.

The API server evaluates the rules. Each has a budget of cost, so every text, list and map that a rule looks at is
bounded. https://kubernetes.io/docs/reference/using-api/cel/
"""

from collections.abc import Iterable
from typing import Any, Final

from pydantic import BaseModel, ConfigDict
from pydantic.alias_generators import to_camel

IMAGE_REFERENCE: Final = (
    "[a-z0-9]+([._-][a-z0-9]+)*(:[0-9]{1,5})?(/[a-z0-9]+([._-]+[a-z0-9]+)*)*"
    "(:[A-Za-z0-9_][A-Za-z0-9._-]{0,127})?(@sha256:[a-f0-9]{64})?"
)
"""An image in a registry, as RE2."""

PLAIN_CHARACTER: Final = r"[^\p{Cc}\x{2028}-\x{202E}\x{2066}-\x{2069}]"
"""What may be in a text for people: nothing that moves the cursor or turns the direction of what is shown after it."""


class ApiModel(BaseModel):
    """Base of every object in the API. Unknown fields are ignored when reading: a newer CRD may be installed."""

    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, frozen=True, extra="ignore")


def rule(expression: str, message: str, *, field_path: str | None = None, value: str | None = None) -> dict[str, str]:
    """One entry of `x-kubernetes-validations`.

    A rule about several fields names in `field_path` (such as `.priority`) the one to blame, and gives in `value` a CEL
    expression for its value: the API server itself shows a value only where a rule belongs to one field. (Strings that
    are bounded only: turning a number into text goes over the API server's cost budget.)
    """
    entry = {"rule": expression, "message": message, "reason": "FieldValueInvalid"}
    if field_path:
        entry["fieldPath"] = field_path
    if value:
        entry["messageExpression"] = f"{value} + {literal(f': {message}')}"
    return entry


def rules(*entries: dict[str, str]) -> dict[str, Any]:
    """The extra of a JSON schema that carries CEL rules."""
    return {"x-kubernetes-validations": list(entries)}


def literal(text: str) -> str:
    """`text` as a string of CEL; it says the same in a regular expression of CEL."""
    escaped = text.replace("\\", "\\\\").replace("'", "\\'")
    return f"'{escaped}'"


def literals(texts: Iterable[str]) -> str:
    """`texts` as a list of CEL."""
    return "[" + ", ".join(map(literal, texts)) + "]"


def matching(pattern: str, message: str) -> dict[str, Any]:
    """The extra of a text that must match `pattern` as a whole; RE2, without ^ and $."""
    return rules(rule(f"self.matches({literal(f'^(?:{pattern})$')})", message))


def at_least(least: str, example: str) -> dict[str, Any]:
    """The extra of a number whose least value is a fraction.

    `minimum` is not enough: the API server drops its decimals where the value has none, so that 0 is at least 0.1.
    """
    return rules(rule(f"self >= {least}", f"must be at least {least}, for example {example}"))
