"""The CustomResourceDefinition of ModelAliases: bounded, described, with examples that fit, like that of the models."""

from moorage_operator.api import v1alpha1
from moorage_operator.api.alias import ModelAliasSpec, custom_resource_definition
from tests.unit.operator.support import Object
from tests.unit.operator.test_crd import WORDS, nodes

CRD = custom_resource_definition()
(VERSION,) = CRD["spec"]["versions"]
ROOT: Object = VERSION["schema"]["openAPIV3Schema"]
SPEC = dict(nodes(ROOT["properties"]["spec"], ".spec"))


def test_the_schema_is_structural_and_unknown_fields_are_pruned() -> None:
    for path, node in nodes(ROOT):
        assert "type" in node, path
        # An alias without models would be none.
        assert set(node) <= WORDS | {"minItems"}, path
    assert set(ROOT["properties"]) == {"apiVersion", "kind", "metadata", "spec"}


def test_every_field_is_described_with_an_example_and_bounded() -> None:
    for path, node in SPEC.items():
        assert node["description"].endswith("."), path
        assert path == ".spec" or node["example"], path
        kind = node["type"]
        assert kind != "string" or node["maxLength"] == v1alpha1.MAX_NAME_LENGTH, path
        assert kind != "integer" or (node["minimum"], node["maximum"]) == (0, 1000), path
        assert kind != "array" or (node["minItems"], node["maxItems"]) == (1, 5), path


def test_the_example_is_an_alias_and_a_weight_has_a_default() -> None:
    example = SPEC[".spec.models"]["example"]
    assert [share.name for share in ModelAliasSpec.model_validate({"models": example}).models] == [
        "qwen2-7b",
        "qwen3-8b",
    ]
    (share,) = ModelAliasSpec.model_validate({"models": [{"name": "a"}]}).models
    assert share.weight == SPEC[".spec.models[].weight"]["default"] == 100


def test_the_names_of_the_kind() -> None:
    names = CRD["spec"]["names"]
    assert CRD["metadata"]["name"] == f"{names['plural']}.{CRD['spec']['group']}" == "modelaliases.moorage.dev"
    assert (names["kind"], names["shortNames"], CRD["spec"]["scope"]) == ("ModelAlias", ["ima"], "Namespaced")
    shown = [column["name"] for column in VERSION["additionalPrinterColumns"] if not column.get("priority")]
    assert shown == ["Model-1", "Weight-1", "Model-2", "Weight-2", "Age"]
