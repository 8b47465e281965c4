"""The operator sets what the runtime reads: the same names, and nothing that the one allows and the other refuses."""

import json
import re
from typing import Any

import msgspec
import pytest
from annotated_types import Ge, Le

from moorage_operator.api.engines import ENGINES, Framework
from moorage_operator.api.parameters import Parameters
from moorage_operator.engines import environment
from moorage_runtime.engines.llamacpp_options import OPTIONS, read_options
from moorage_runtime.fields import CHAT, COMPLETIONS
from moorage_runtime.settings import RequestDefaults, describe, read_settings
from moorage_runtime.settings_used import unused
from tests.golden.cases import Case, cases

NAMES = {name.split(" ")[0] for name, _, _ in describe()}


@pytest.mark.parametrize("case", cases(), ids=lambda case: case.folder.name)
def test_what_the_operator_sets_for_an_engine_is_used_by_it(case: Case) -> None:
    asked = environment(case.model, "/models")
    assert unused(asked, read_settings(asked)) == []


@pytest.mark.parametrize(
    "case",
    [case for case in cases() if case.model.spec.framework is Framework.LLAMACPP],
    ids=lambda case: case.folder.name,
)
def test_all_that_the_operator_sets_for_llama_cpp_is_read(case: Case) -> None:
    asked = environment(case.model, "/models")
    read = read_settings(asked)
    assert set(asked) <= NAMES
    assert [name for name in asked if getattr(read, name.lower()) is None] == []


def test_the_options_of_llama_cpp_are_those_that_its_runtime_takes() -> None:
    allowed = ENGINES[Framework.LLAMACPP].options
    assert {f"--{name}" for name in allowed} == set(OPTIONS)
    for name, pattern in allowed.items():
        for value in ["7"] if "[0-9]" in pattern else pattern.split("|"):
            assert re.fullmatch(pattern, value), name
            argument = f"--{name}={value}" if value else f"--{name}"
            assert read_options((argument,)) == {f"--{name}": value}


def bounds(name: str) -> tuple[Any, Any]:
    """The least and the greatest value of a parameter in a spec."""
    field = Parameters.model_fields[name]
    rule = re.search(r"self >= ([0-9.]+)", str(field.json_schema_extra))
    least = float(rule[1]) if rule else next(m.ge for m in field.metadata if isinstance(m, Ge))
    return least, next(m.le for m in field.metadata if isinstance(m, Le))


@pytest.mark.parametrize("name", Parameters.model_fields)
def test_what_a_spec_may_have_as_a_default_is_what_a_request_may_have(name: str) -> None:
    assert name in RequestDefaults.__struct_fields__
    for value in bounds(name):
        text = json.dumps({name: value})
        assert read_settings({"REQUEST_DEFAULTS": text}).request_defaults == RequestDefaults(**{name: value})
        for fields in (CHAT, COMPLETIONS):
            assert fields[name](msgspec.json.encode(value)) is None


@pytest.mark.parametrize("name", RequestDefaults.__struct_fields__)
@pytest.mark.parametrize("value", [-3, -2, -1, 0, 0.005, 0.5, 1, 2, 100, 101, 2**31, "1", True, [], 1.5])
def test_a_default_is_taken_if_and_only_if_a_request_may_say_it(name: str, value: object) -> None:
    raw = msgspec.json.encode(value)
    try:
        msgspec.json.decode(msgspec.json.encode({name: value}), type=RequestDefaults)
        taken = True
    except msgspec.ValidationError:
        taken = False
    assert taken is (CHAT[name](raw) is None) is (COMPLETIONS[name](raw) is None)
