"""What the API server says to a model that it does not take, and whether that helps."""

from typing import Any

import pytest

from tests.support.api import Api, ApiRefusedError
from tests.support.models import model


def refusal(api: Api, spec: dict[str, Any], name: str = "bad") -> str:
    """What the API server says to a model with these fields; it does not exist after that."""
    with pytest.raises(ApiRefusedError) as refused:
        api.create(model(name, **spec))
    assert refused.value.status in (400, 422)
    return str(refused.value)


def assert_says(text: str, *parts: str) -> None:
    """The message names each of these."""
    assert [part for part in parts if part not in text] == [], text


def assert_no_such_field(api: Api, name: str, **fields: Any) -> None:
    """Fields that the schema does not have: refused by name, or dropped where a client does not ask for a check."""
    text = refusal(api, fields)
    assert_says(text, *(f'unknown field "spec.{field}' for field in fields))
    kept = api.create(model(name, **fields), validate="Ignore")
    assert _names(kept["spec"]) & _leaves(fields) == set()


def _names(value: Any) -> set[str]:
    if isinstance(value, dict):
        return set(value).union(*(_names(item) for item in value.values()))
    return set().union(*map(_names, value)) if isinstance(value, list) else set()


def _leaves(fields: dict[str, Any]) -> set[str]:
    """The names of the fields themselves; of `source`, which exists, those inside it that do not."""
    return {inner for name, value in fields.items() for inner in (value if name == "source" else [name])} - {"uri"}
