"""Builds the CustomResourceDefinition from the classes of `api.v1alpha1`. Pure.

pydantic writes JSON schema of draft 2020-12; the API server wants a structural OpenAPI v3 schema: no references, no
`anyOf` with null, no titles. https://kubernetes.io/docs/tasks/extend-kubernetes/custom-resources/custom-resource-definitions/
"""

from enum import StrEnum
from typing import Any

from moorage_operator.api import v1alpha1 as api
from moorage_operator.api.conditions import ConditionType, Phase, Reason
from moorage_operator.api.facts_schema import estimate_schema, shape_schema, startup_schema
from moorage_operator.api.schema import rule

Schema = dict[str, Any]

_DROPPED = {"title", "$defs", "examples"}


def structural(schema: Schema, definitions: Schema) -> Schema:
    """`schema` as a structural schema; `definitions` are the `$defs` that its references point to.

    Raises ValueError for a construct that a structural schema cannot say.
    """
    if "$ref" in schema:
        target = definitions[schema["$ref"].removeprefix("#/$defs/")]
        overrides = {key: value for key, value in schema.items() if key != "$ref"}
        return structural({**target, **overrides}, definitions)
    if "anyOf" in schema:
        options = [option for option in schema["anyOf"] if option != {"type": "null"}]
        if len(options) != 1:
            raise ValueError(f"a field must have one type: {schema}")
        rest = {key: value for key, value in schema.items() if key != "anyOf"}
        return structural({**options[0], **rest}, definitions)
    return _converted(schema, definitions)


def _converted(schema: Schema, definitions: Schema) -> Schema:
    result: Schema = {}
    for key, value in schema.items():
        if key in _DROPPED or (key == "default" and value is None):
            continue
        if key == "properties":
            result[key] = {name: structural(field, definitions) for name, field in value.items()}
        elif key in ("items", "additionalProperties"):
            result[key] = structural(value, definitions)
        elif key == "default":
            result[key] = _without_nulls(value)
        else:
            result[key] = value
    if schema.get("examples"):
        # OpenAPI v3 has `example`, one value; kubectl explain shows the description only, so it is said there too.
        result["example"] = schema["examples"][0]
    return result


def _without_nulls(default: Any) -> Any:
    """An absent field is absent: the API server would take a null of a default for a value, and refuse it."""
    if isinstance(default, dict):
        return {name: _without_nulls(value) for name, value in default.items() if value is not None}
    return default


def spec_schema() -> Schema:
    """The schema of `spec`."""
    schema = api.InferenceModelSpec.model_json_schema(by_alias=True, mode="validation")
    return structural(schema, schema.get("$defs", {}))


def _field(kind: str, description: str, **extra: Any) -> Schema:
    return {"type": kind, "description": description, **extra}


def _values(choices: type[StrEnum]) -> list[str]:
    return [choice.value for choice in choices]


def _condition_schema() -> Schema:
    """One condition, in the form of KEP-1623 (metav1.Condition)."""
    return {
        "type": "object",
        "description": "A condition of the model.",
        "required": ["type", "status", "reason", "message", "lastTransitionTime"],
        "properties": {
            "type": _field("string", "Type of the condition.", enum=_values(ConditionType)),
            "status": _field("string", "Status of the condition.", enum=["True", "False", "Unknown"]),
            "reason": _field("string", "Reason for the status, one word of a closed list.", enum=_values(Reason)),
            "message": _field("string", "Human-readable details of the reason.", maxLength=api.MAX_MESSAGE_LENGTH),
            "lastTransitionTime": _field(
                "string", "When the status of the condition last changed.", format="date-time"
            ),
            "observedGeneration": _field(
                "integer", "The generation of the spec that the condition is based on.", format="int64"
            ),
        },
    }


def _preemption_schema() -> Schema:
    """The schema of `status.preemption`."""
    preemption = {
        "time": _field("string", "When the pod was preempted.", format="date-time"),
        "pod": _field("string", "The pod that was preempted.", maxLength=253),
        "node": _field("string", "The node of the pod.", maxLength=253),
        "by": _field(
            "string",
            "The preemptor: an InferenceModel as NAMESPACE/NAME, or `pod UID`; empty while unknown.",
            maxLength=512,
        ),
    }
    last = {"type": "object", "description": "The last preemption.", "properties": preemption}
    return {
        "type": "object",
        "description": "Pods of this model that were preempted by pods of higher priority.",
        "properties": {
            "count": _field("integer", "Number of preemptions.", format="int32"),
            "last": last,
            "history": {
                "type": "array",
                "description": "The last ten preemptions, newest first.",
                "maxItems": api.MAX_PREEMPTIONS,
                "x-kubernetes-list-type": "atomic",
                "items": {**last, "description": "One preemption."},
            },
        },
    }


def _resolved_schema() -> Schema:
    """The schema of `status.resolved`."""
    resolved = {
        "engine": _field("string", "Name of the engine.", maxLength=api.MAX_FACT_LENGTH),
        "engineVersion": _field("string", "Version of the engine.", maxLength=api.MAX_FACT_LENGTH),
        "device": _field("string", "The device that the engine uses.", maxLength=api.MAX_FACT_LENGTH),
        "quantization": _field("string", "The precision of the loaded weights.", maxLength=api.MAX_FACT_LENGTH),
        "contextLength": _field("integer", "Maximum number of tokens in a request and its response.", format="int64"),
        "weightsBytes": _field("integer", "Size of the weights in bytes.", format="int64"),
        "memoryBytes": _field("integer", "Memory of the engine in bytes when it became ready.", format="int64"),
    }
    return {
        "type": "object",
        "description": "What the engine reported after it loaded the model.",
        "properties": resolved,
    }


def status_schema() -> Schema:
    """The schema of `status`. Only the operator writes it."""
    return {
        "type": "object",
        "description": "Most recently observed status. Read-only.",
        "properties": {
            "phase": _field("string", "Summary of the conditions in one word.", enum=_values(Phase)),
            "observedGeneration": _field(
                "integer", "The generation of the spec that the operator last observed.", format="int64"
            ),
            "replicas": _field("integer", "Number of pods that are not terminating.", format="int32"),
            "readyReplicas": _field("integer", "Number of pods that are ready.", format="int32"),
            "readyOfDesired": _field(
                "string", "The same with the pods that are wanted, for tables: 2/3.", maxLength=32
            ),
            "selector": _field("string", "Label selector of the pods, for the scale subresource.", maxLength=512),
            "url": _field("string", "Base address of the OpenAI-compatible API inside the cluster.", maxLength=512),
            "servedName": _field("string", 'The name of the model in requests ("model").', maxLength=128),
            "queue": {
                "type": "object",
                "description": "Position among the models that wait for the same resource; absent if not waiting.",
                "properties": {
                    "position": _field("integer", "Position in the queue, starting at 1.", format="int32"),
                    "of": _field("integer", "Length of the queue.", format="int32"),
                    "summary": _field("string", "Position and length, such as 2/5.", maxLength=32),
                    "waitingFor": _field(
                        "string", "Amount and name of the resource that the model waits for.", maxLength=256
                    ),
                },
            },
            "preemptedBy": _field(
                "string", "The preemptor of the last preempted pod, until all replicas are ready again.", maxLength=512
            ),
            "preemption": _preemption_schema(),
            "resolved": _resolved_schema(),
            "shape": shape_schema(),
            "estimate": estimate_schema(),
            "startup": startup_schema(),
            "conditions": {
                "type": "array",
                "description": "Conditions of the model.",
                "maxItems": len(ConditionType),
                "x-kubernetes-list-type": "map",
                "x-kubernetes-list-map-keys": ["type"],
                "items": _condition_schema(),
            },
        },
    }


NAME_RULE = rule(
    "self.metadata.name.matches('^[a-z]([-a-z0-9]{0,38}[a-z0-9])?$')",
    f"metadata.name must be at most {api.MAX_NAME_LENGTH} characters: lower-case letters, digits and '-', "
    "beginning with a letter and without dots, for example qwen2-7b",
)


def _column(name: str, path: str, *, kind: str = "string", wide: bool = False, description: str) -> Schema:
    column: Schema = {"name": name, "type": kind, "jsonPath": path, "description": description}
    return column | ({"priority": 1} if wide else {})


def _columns() -> list[Schema]:
    ready = '.status.conditions[?(@.type=="Ready")]'
    return [
        _column("Ready", f"{ready}.status", description="Whether the model serves requests."),
        _column("Status", f"{ready}.reason", description="The reason of the condition Ready."),
        _column("Framework", ".spec.framework", description="The engine."),
        _column("GPUs", ".spec.gpu.count", kind="integer", description="GPUs per replica."),
        _column("Replicas", ".status.readyOfDesired", description="Ready and desired replicas."),
        _column("Priority", ".spec.priority", kind="integer", description="Scheduling priority, 10 is the highest."),
        _column(
            "Queue",
            ".status.queue.summary",
            description="Position in the queue of models that wait for the same resource.",
        ),
        _column(
            "Preempted-By", ".status.preemptedBy", description="The preemptor, until all replicas are ready again."
        ),
        _column("URL", ".status.url", wide=True, description="Address of the API."),
        _column(
            "Quantization",
            ".status.resolved.quantization",
            wide=True,
            description="The precision of the loaded weights.",
        ),
        _column("Message", f"{ready}.message", wide=True, description="The message of the condition Ready."),
        _column("Age", ".metadata.creationTimestamp", kind="date", description="Time since creation."),
    ]


def custom_resource_definition() -> Schema:
    """The whole CustomResourceDefinition."""
    schema = {
        "type": "object",
        "description": "A language or embedding model that Moorage runs behind an OpenAI-compatible API.",
        "required": ["spec"],
        "x-kubernetes-validations": [NAME_RULE],
        "properties": {
            "apiVersion": _field("string", "Version of the schema of this object: moorage.dev/v1alpha1."),
            "kind": _field("string", "The kind of this object: InferenceModel."),
            "metadata": {"type": "object"},
            "spec": {**spec_schema(), "description": "Desired state."},
            "status": status_schema(),
        },
    }
    version = {
        "name": api.VERSION,
        "served": True,
        "storage": True,
        "schema": {"openAPIV3Schema": schema},
        "additionalPrinterColumns": _columns(),
        "subresources": {
            "status": {},
            "scale": {
                "specReplicasPath": ".spec.replicas",
                "statusReplicasPath": ".status.replicas",
                "labelSelectorPath": ".status.selector",
            },
        },
    }
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{api.PLURAL}.{api.GROUP}"},
        "spec": {
            "group": api.GROUP,
            "scope": "Namespaced",
            "names": {
                "kind": api.KIND,
                "listKind": f"{api.KIND}List",
                "plural": api.PLURAL,
                "singular": api.KIND.lower(),
                "shortNames": ["im", "imodel"],
                "categories": ["ai"],
            },
            "versions": [version],
        },
    }
