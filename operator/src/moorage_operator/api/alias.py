"""The ModelAlias, v1alpha1: one name for several models of a namespace, each with its share of the requests.

Only the gateway acts on it. It has no status: whether its models run is in theirs.
"""

from typing import Annotated, Any, Final

from pydantic import ConfigDict, Field

from moorage_operator.api.crd import NAME_RULE, structural
from moorage_operator.api.schema import ApiModel, matching, rule, rules
from moorage_operator.api.v1alpha1 import GROUP, MAX_NAME_LENGTH, VERSION

KIND: Final = "ModelAlias"
PLURAL: Final = "modelaliases"
MAX_MODELS: Final = 5
SHOWN_MODELS: Final = 2
"""As a canary has; `kubectl get -o wide` shows the others."""
MAX_WEIGHT: Final = 1000
DEFAULT_WEIGHT: Final = 100


class Share(ApiModel):
    """One of the models."""

    name: str = Field(
        description="Name of an InferenceModel of the same namespace.",
        examples=["qwen2-7b"],
        min_length=1,
        max_length=MAX_NAME_LENGTH,
        json_schema_extra=matching(
            "[a-z]([-a-z0-9]{0,38}[a-z0-9])?",
            "must be the name of an InferenceModel of the same namespace, for example qwen2-7b",
        ),
    )
    weight: int = Field(
        DEFAULT_WEIGHT,
        description="Its share of the requests, among the weights of all models; 0 gets none.",
        examples=[90],
        ge=0,
        le=MAX_WEIGHT,
    )


class ModelAliasSpec(ApiModel):
    """Desired state."""

    models: list[Annotated[Share, Field(examples=[{"name": "qwen2-7b", "weight": 90}])]] = Field(
        description="The models, of the same namespace, that requests for the alias go to.",
        examples=[[{"name": "qwen2-7b", "weight": 90}, {"name": "qwen3-8b", "weight": 10}]],
        min_length=1,
        max_length=MAX_MODELS,
        json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"]},
    )

    model_config = ConfigDict(
        json_schema_extra=rules(
            rule(
                "self.models.exists(model, model.weight > 0)",
                "at least one model must have a weight above 0, or no request would be answered",
                field_path=".models",
            )
        )
    )


def custom_resource_definition() -> dict[str, Any]:
    """The whole CustomResourceDefinition."""
    spec = ModelAliasSpec.model_json_schema(by_alias=True, mode="validation")
    schema = {
        "type": "object",
        "description": "One name for several models of a namespace, each with its share of the requests.",
        "required": ["spec"],
        "x-kubernetes-validations": [NAME_RULE],
        "properties": {
            "apiVersion": {
                "type": "string",
                "description": f"Version of the schema of this object: {GROUP}/{VERSION}.",
            },
            "kind": {"type": "string", "description": f"The kind of this object: {KIND}."},
            "metadata": {"type": "object"},
            "spec": {**structural(spec, spec.get("$defs", {})), "description": "Desired state."},
        },
    }
    version = {
        "name": VERSION,
        "served": True,
        "storage": True,
        "schema": {"openAPIV3Schema": schema},
        "additionalPrinterColumns": _columns(),
    }
    names = {
        "kind": KIND,
        "listKind": f"{KIND}List",
        "plural": PLURAL,
        "singular": KIND.lower(),
        "shortNames": ["ima"],
        "categories": ["ai"],
    }
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{PLURAL}.{GROUP}"},
        "spec": {"group": GROUP, "scope": "Namespaced", "names": names, "versions": [version]},
    }


def _columns() -> list[dict[str, Any]]:
    """Give what `kubectl get` shows: a path names one value, so each model has two columns; those past two are wide."""
    shown = []
    for number in range(MAX_MODELS):
        model, wide = f".spec.models[{number}]", {"priority": 1} if number >= SHOWN_MODELS else {}
        name = {"name": f"Model-{number + 1}", "type": "string", "jsonPath": f"{model}.name", **wide}
        weight = {"name": f"Weight-{number + 1}", "type": "integer", "jsonPath": f"{model}.weight", **wide}
        shown += [
            {**name, "description": "A model that requests go to."},
            {**weight, "description": "Its share of the requests, among the weights of all models."},
        ]
    age = {"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp"}
    return [*shown, {**age, "description": "Time since creation."}]
