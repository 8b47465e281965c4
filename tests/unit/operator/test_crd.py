"""The CustomResourceDefinition: structural, bounded, described, and the same in the code, in crds/ and in the docs."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel, Field

from hack.gen_crd import CRD_FILE, rendered
from moorage_common.facts import LoadError
from moorage_operator.api.conditions import ConditionType, Phase, Reason
from moorage_operator.api.crd import custom_resource_definition, spec_schema, status_schema, structural
from moorage_operator.api.engines import ENGINES as ENGINE_APIS
from moorage_operator.api.engines import GGUF_TYPES, TENSOR_TYPES, Framework
from moorage_operator.api.v1alpha1 import InferenceModelSpec
from moorage_operator.engines import ENGINES
from tests.unit.operator.support import OCI, Object

CRD = custom_resource_definition()
(VERSION,) = CRD["spec"]["versions"]
ROOT: Object = VERSION["schema"]["openAPIV3Schema"]
DOCS = CRD_FILE.parents[1] / "docs" / "conditions.md"

# What the API server knows of; https://kubernetes.io/docs/tasks/extend-kubernetes/custom-resources/custom-resource-definitions/
WORDS = {
    *("type", "format", "description", "default", "example", "enum", "properties", "required", "items"),
    *("minimum", "maximum", "minLength", "maxLength", "pattern", "maxItems", "maxProperties", "additionalProperties"),
    *("x-kubernetes-validations", "x-kubernetes-int-or-string", "x-kubernetes-map-type"),
    *("x-kubernetes-list-type", "x-kubernetes-list-map-keys"),
}
RULE_WORDS = {"rule", "message", "messageExpression", "fieldPath", "reason"}


def nodes(schema: Object, path: str = "") -> Iterator[tuple[str, Object]]:
    """Every schema inside `schema`, itself too, with its path."""
    yield path, schema
    for name, inner in schema.get("properties", {}).items():
        yield from nodes(inner, f"{path}.{name}")
    if "items" in schema:
        yield from nodes(schema["items"], f"{path}[]")
    if "additionalProperties" in schema:
        yield from nodes(schema["additionalProperties"], f"{path}{{}}")


ALL = dict(nodes(ROOT))
SPEC = {path: node for path, node in nodes(spec_schema(), ".spec") if path != ".spec"}
STATUS = dict(nodes(status_schema(), ".status"))


def test_the_schema_is_structural() -> None:
    for path, node in ALL.items():
        assert ("type" in node) != (node.get("x-kubernetes-int-or-string") is True), f"{path} has no single type"
        assert set(node) <= WORDS, f"{path}: {set(node) - WORDS}"
        inner = [word for word in ("properties", "additionalProperties") if word in node]
        assert len(inner) == (node.get("type") == "object" and path != ".metadata"), path
        assert ("items" in node) == (node.get("type") == "array"), path


def test_no_default_holds_a_null_which_the_api_server_would_refuse_in_every_object() -> None:
    # kubectl drops nulls from what it applies and helm does not, so only a cluster that helm has set up shows it.
    assert [path for path, node in ALL.items() if "null" in json.dumps(node.get("default", {}))] == []
    assert SPEC[".spec.gpu"]["default"] == {"count": 0, "resourceName": "nvidia.com/gpu"}


def test_unknown_fields_are_pruned_everywhere() -> None:
    assert not [path for path, node in ALL.items() if "x-kubernetes-preserve-unknown-fields" in node]
    assert set(ROOT["properties"]) == {"apiVersion", "kind", "metadata", "spec", "status"}
    assert ROOT["required"] == ["spec"]


@pytest.mark.parametrize("path", SPEC)
def test_every_field_of_the_spec_is_described_with_an_example(path: str) -> None:
    node = SPEC[path]
    assert re.search(r"\.$", node["description"]), "a description is a sentence"
    assert node["example"] not in (None, ""), path


@pytest.mark.parametrize("path", STATUS)
def test_every_field_of_the_status_is_described(path: str) -> None:
    assert STATUS[path]["description"].endswith(".")


def test_every_text_list_and_number_of_the_spec_is_bounded() -> None:
    for path, node in SPEC.items():
        kind = node.get("type", "string")
        if kind == "string":
            assert 0 < node["maxLength"] <= 1024, path
        if kind == "integer":
            assert node["minimum"] < node["maximum"] < 2**31, path
        if kind == "number":
            assert -1000 <= node["minimum"] < node["maximum"] <= 1000, path
            # The API server compares a whole number with a bound without its decimals: 0 would be at least 0.1.
            assert node["minimum"] % 1 == node["maximum"] % 1 == 0, f"{path}: see api.schema.at_least"
        if kind == "array":
            assert 0 < node["maxItems"] <= 64, path
        if "additionalProperties" in node:
            assert 0 < node["maxProperties"] <= 64, path


def test_bad_input_34_the_largest_spec_is_small() -> None:
    def most(node: Object) -> int:
        """Characters, at most."""
        fields = sum(len(name) + most(field) for name, field in node.get("properties", {}).items())
        items = node["maxItems"] * most(node["items"]) if "items" in node else 0
        values = node["maxProperties"] * (317 + most(node["additionalProperties"])) if "maxProperties" in node else 0
        return fields + int(items) + int(values) + int(node.get("maxLength", 32))

    assert most(spec_schema()) < 64 * 1024


def test_every_text_and_list_of_the_status_is_bounded() -> None:
    for path, node in STATUS.items():
        if node["type"] == "string":
            assert {"maxLength", "enum", "format"} & set(node), path
        if node["type"] == "array":
            assert node["maxItems"] >= len(ConditionType), path


def test_the_examples_fit_their_own_bounds() -> None:
    for path, node in SPEC.items():
        example = node["example"]
        if node.get("type") in ("integer", "number"):
            assert node["minimum"] <= example <= node["maximum"], path
        if node.get("type") == "string":
            assert len(example) <= node["maxLength"], path
            assert example in node.get("enum", [example]), path
            assert re.search(node.get("pattern", ""), example), path


def test_the_examples_together_are_a_spec_that_the_operator_reads() -> None:
    fields = {name: node["example"] for name, node in spec_schema()["properties"].items()}
    parsed = InferenceModelSpec.model_validate(fields)
    assert parsed.framework is Framework.LLAMACPP
    assert parsed.gpu.count == 1


def test_the_defaults_of_the_schema_are_those_of_the_operator() -> None:
    # The API server fills in the one, pydantic the other; where they differ, a stored object would change its meaning.
    minimal = InferenceModelSpec.model_validate({"framework": "llamacpp", "source": {"uri": OCI}})
    dumped = dict.fromkeys(spec_schema()["properties"]) | minimal.model_dump(
        by_alias=True, mode="json", exclude_none=True
    )
    for name, node in spec_schema()["properties"].items():
        assert dumped[name] == node.get("default", dumped[name] if name in ("framework", "source") else None), name
    assert set(minimal.model_dump(by_alias=True)) == set(spec_schema()["properties"])


def test_rules_have_a_plain_message_and_name_a_field_that_exists() -> None:
    found = [(path, rule) for path, node in ALL.items() for rule in node.get("x-kubernetes-validations", ())]
    assert len(found) >= 10
    for path, rule in found:
        assert set(rule) <= RULE_WORDS
        assert rule["message"], path
        assert "\n" not in rule["message"]
        assert rule["reason"] == "FieldValueInvalid"
        assert f"{path}{rule.get('fieldPath', '')}" in ALL


def test_quantization_lists_exactly_the_types_of_the_engines() -> None:
    allowed = SPEC[".spec.quantization"]["enum"]
    assert allowed == [*TENSOR_TYPES, *GGUF_TYPES]
    assert len(set(allowed)) == len(allowed)
    assert set(allowed) == {name for engine in ENGINE_APIS.values() for name in engine.quantizations}


def test_every_framework_has_an_engine() -> None:
    assert set(ENGINES) == set(ENGINE_APIS) == set(Framework)
    assert SPEC[".spec.framework"]["enum"] == [framework.value for framework in Framework]


def test_conditions_are_a_map_of_closed_lists() -> None:
    conditions = STATUS[".status.conditions"]
    assert conditions["x-kubernetes-list-type"] == "map"
    assert conditions["x-kubernetes-list-map-keys"] == ["type"]
    fields = conditions["items"]["properties"]
    assert fields["reason"]["enum"] == [reason.value for reason in Reason]
    assert fields["type"]["enum"] == [kind.value for kind in ConditionType]
    assert STATUS[".status.phase"]["enum"] == [phase.value for phase in Phase]


@pytest.mark.parametrize("value", [*Reason, *Phase, *ConditionType])
def test_reasons_and_phases_are_words_as_kubernetes_wants_them(value: str) -> None:
    assert re.fullmatch(r"[A-Z][A-Za-z]*", value)


def test_every_load_error_of_a_runtime_is_a_reason() -> None:
    assert {error.value for error in LoadError} <= {reason.value for reason in Reason}


def test_every_reason_has_its_heading_in_the_docs_and_there_is_no_other() -> None:
    headings = re.findall(r"^### (.+)$", DOCS.read_text(encoding="utf-8"), flags=re.MULTILINE)
    assert sorted(headings) == sorted(reason.value for reason in Reason)


@pytest.mark.parametrize("path", rendered(), ids=lambda path: path.name)
def test_the_generated_file_is_up_to_date(path: Path) -> None:
    assert path.read_text(encoding="utf-8") == rendered()[path], "run `make generate`"


def test_the_kind_is_namespaced_and_has_its_names() -> None:
    assert CRD["metadata"]["name"] == f"{CRD['spec']['names']['plural']}.{CRD['spec']['group']}"
    assert CRD["spec"]["scope"] == "Namespaced"
    assert CRD["spec"]["names"]["shortNames"] == ["im", "imodel"]
    assert (VERSION["name"], VERSION["served"], VERSION["storage"]) == ("v1alpha1", True, True)


def test_columns_and_the_scale_subresource_point_to_fields_that_exist() -> None:
    assert VERSION["subresources"]["status"] == {}
    paths = [*VERSION["subresources"]["scale"].values(), *(c["jsonPath"] for c in VERSION["additionalPrinterColumns"])]
    assert len(paths) > 10
    for path in paths:
        plain = re.sub(r"\[\?\(@\.type==\"Ready\"\)\]", "[]", path)
        assert plain in ALL or plain == ".metadata.creationTimestamp", path


class Nested(BaseModel):
    """A field that is an object."""

    size: int | None = Field(None, description="A size.", examples=[1])


class Odd(BaseModel):
    """A model with what pydantic writes and a structural schema cannot have."""

    nested: Nested | None = None
    items: list[Nested] = Field(default_factory=list, max_length=3)


def converted(kind: type[BaseModel]) -> Object:
    """The structural schema of a class."""
    schema = kind.model_json_schema()
    return structural(schema, schema.get("$defs", {}))


def test_references_nulls_and_titles_are_resolved() -> None:
    schema = converted(Odd)
    text = str(schema)
    assert not [word for word in ("$ref", "$defs", "anyOf", "title", "null", "None") if word in text]
    assert schema["properties"]["nested"]["properties"]["size"] == {
        "type": "integer",
        "description": "A size.",
        "example": 1,
    }
    assert schema["properties"]["items"]["items"]["type"] == "object"
    assert schema["properties"]["items"]["maxItems"] == 3


def test_a_field_of_two_types_is_refused_when_the_schema_is_made() -> None:
    class TwoTypes(BaseModel):
        """Not possible in a structural schema."""

        value: int | list[Any]

    with pytest.raises(ValueError, match="one type"):
        converted(TwoTypes)
