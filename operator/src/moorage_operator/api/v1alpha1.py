"""The InferenceModel, v1alpha1: the only description of its fields.

The CustomResourceDefinition is generated from these classes (`api.crd`), so a field's description, example, bounds and
rules stand here once. The operator parses what the API server hands out with the same classes.

Fields are snake_case here and camelCase in YAML. A rule is a CEL expression with a plain message; the API server
evaluates it, which is why nothing here repeats it in Python.
"""

import re
from typing import Annotated, Any, Final

from pydantic import ConfigDict, Field

from moorage_common.labels import RESTARTED_AT_ANNOTATION
from moorage_common.tasks import Task, default_concurrency
from moorage_operator.api.engine_rules import block_rules, engine_rules
from moorage_operator.api.engines import (
    MAX_EXTRA_ARGS,
    MAX_VARIABLES,
    QUANTIZATIONS,
    ExtraArg,
    Framework,
    LlamaCppSettings,
    TransformersSettings,
    Variable,
    VllmSettings,
)
from moorage_operator.api.parameters import Parameters
from moorage_operator.api.placement import MAX_SELECTORS, MAX_TOLERATIONS, SELECTOR_RULE, LabelValue, Toleration
from moorage_operator.api.quantities import Cpu, Memory
from moorage_operator.api.routing import Routing
from moorage_operator.api.scaling import ONE_NUMBER_OF_REPLICAS, Scaling
from moorage_operator.api.schema import IMAGE_REFERENCE, PLAIN_CHARACTER, ApiModel, matching, rule, rules
from moorage_operator.api.source import Source

GROUP: Final = "moorage.dev"
VERSION: Final = "v1alpha1"
KIND: Final = "InferenceModel"
PLURAL: Final = "inferencemodels"
API_VERSION: Final = f"{GROUP}/{VERSION}"
MAX_NAME_LENGTH: Final = 40
MAX_MESSAGE_LENGTH: Final = 4096
"""Characters of a condition's message."""

MAX_FACT_LENGTH: Final = 64
"""Characters of what an engine says of itself."""

MAX_PREEMPTIONS: Final = 10
"""Preemptions that a status keeps."""


# Anybody who may edit a model may write it, and it becomes a part of its pods.
_TIME: Final = re.compile(
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}([.][0-9]{1,9})?(Z|[+-][0-9]{2}:[0-9]{2})"
)


class Gpu(ApiModel):
    """The accelerators that each replica gets."""

    count: int = Field(0, description="GPUs of each replica; 0 runs the model on the CPU.", examples=[1], ge=0, le=64)
    resource_name: str = Field(
        "nvidia.com/gpu",
        description="Extended resource that the cluster's device plugin offers the GPUs by.",
        examples=["amd.com/gpu"],
        max_length=120,
        json_schema_extra=rules(
            rule(
                "self.matches('^[a-z0-9]([-a-z0-9]*[a-z0-9])?([.][a-z0-9]([-a-z0-9]*[a-z0-9])?)+/[A-Za-z0-9]"
                "([-A-Za-z0-9_.]*[A-Za-z0-9])?$') && !self.contains('kubernetes.io/') && !self.startsWith('requests.')",
                "must be the name of an extended resource, DOMAIN/NAME, for example nvidia.com/gpu",
            )
        ),
    )
    memory: Memory | None = Field(
        None,
        description="Memory of one GPU of the kind that is asked for: FitsGPU compares the estimate with it. Absent "
        "means what the nodes say. It chooses no node.",
        examples=["24Gi"],
    )


class Resources(ApiModel):
    """CPU and memory of each replica."""

    cpu: Cpu = Field("1", description="CPU cores that are reserved for each replica; it may use more.", examples=["4"])
    cpu_limit: Cpu | None = Field(
        None,
        description="CPU cores that each replica may use at most, for namespaces whose quota wants CPU limits. Absent "
        "means no limit, which is faster.",
        examples=["8"],
    )
    memory: Memory = Field(
        "2Gi",
        description="Memory of each replica, reserved and limited: it must hold weights, KV cache and engine.",
        examples=["16Gi"],
    )

    model_config = ConfigDict(
        json_schema_extra=rules(
            rule(
                "!has(self.cpuLimit) || !has(self.cpu)"
                " || !isQuantity(string(self.cpuLimit)) || !isQuantity(string(self.cpu))"
                " || quantity(string(self.cpuLimit)).compareTo(quantity(string(self.cpu))) >= 0",
                "must be at least resources.cpu",
                field_path=".cpuLimit",
            )
        )
    )


class InferenceModelSpec(ApiModel):
    """Desired state."""

    display_name: str | None = Field(
        None,
        description="Human-readable name. Has no effect; clients and addresses use servedName and metadata.name.",
        examples=["Qwen2 7B"],
        min_length=1,
        max_length=64,
        json_schema_extra=matching(
            f"{PLAIN_CHARACTER}*",
            "must be text in one line without control characters or overrides of direction, for example Qwen2 7B",
        ),
    )
    description: str | None = Field(
        None,
        description="Human-readable description. Has no effect.",
        examples=["Answers questions of the support team."],
        min_length=1,
        max_length=1024,
        json_schema_extra=matching(
            f"({PLAIN_CHARACTER}|\\n)*",
            "must be text without control characters or overrides of direction, "
            "for example Answers questions of the support team.",
        ),
    )
    framework: Framework = Field(
        description="The engine that runs the model.", examples=["llamacpp"], json_schema_extra={"maxLength": 16}
    )
    task: Task = Field(
        Task.GENERATE,
        description="What the model is for: generate answers chat and completions, embed answers embeddings.",
        examples=["embed"],
        json_schema_extra={"maxLength": 16},
    )
    source: Source = Field(description="Where the model's files are.", examples=[{"uri": "pvc://models/qwen2.gguf"}])
    served_name: str | None = Field(
        None,
        description='What clients put in "model"; absent means the name of the InferenceModel.',
        examples=["qwen2"],
        min_length=1,
        max_length=128,
        pattern=r"^[A-Za-z0-9]([A-Za-z0-9._:/-]*[A-Za-z0-9])?$",
    )
    quantization: str | None = Field(
        None,
        description=(
            "Precision that the weights must have; absent means as they are. For llamacpp a GGUF type such as q4_k_m, "
            "checked against the file; for vllm none, gptq, awq, fp8 or compressed-tensors; for transformers these, "
            "bitsandbytes-8bit or bitsandbytes-4bit."
        ),
        examples=["q4_k_m"],
        max_length=32,
        json_schema_extra={"enum": [*QUANTIZATIONS]},
    )
    gpu: Gpu = Field(
        Gpu(),
        description="The accelerators that each replica gets.",
        examples=[{"count": 1}],
    )
    resources: Resources = Field(
        Resources(),
        description="CPU and memory of each replica.",
        examples=[{"cpu": "4", "memory": "16Gi"}],
    )
    priority: int = Field(
        5,
        description=(
            "Scheduling priority, 10 is the highest. A model preempts others of lower priority if nothing is free."
        ),
        examples=[8],
        ge=1,
        le=10,
    )
    replicas: int = Field(1, description="Copies of the model; 0 stops it.", examples=[2], ge=0, le=100)
    scaling: Scaling | None = Field(
        None,
        description="Lets the operator choose the number of replicas by the requests that come through the gateway, "
        "down to none. Absent means as many as replicas says, which an autoscaler may set by the scale subresource.",
        examples=[{"minReplicas": 0, "maxReplicas": 3, "idleTimeout": "30m"}],
    )
    suspend: bool = Field(
        False,
        description="true stops the model: running requests are finished, then its GPUs are free; replicas is kept.",
        examples=[True],
    )
    context_length: int | None = Field(
        None,
        description="Tokens of prompt and answer of one request; absent means the smaller of 4096 and the model's own.",
        examples=[8192],
        ge=64,
        le=10_485_760,
    )
    max_concurrency: int | None = Field(
        None,
        description="Requests that each replica works on at a time; further ones wait. Absent means 4; for embeddings "
        "by transformers, which puts many requests into one batch, 256.",
        examples=[16],
        ge=1,
        le=1024,
    )
    unload_after_seconds: int | None = Field(
        None,
        description="Seconds without a request after which a replica gives back the memory of its model; the next "
        "request loads it again, and waits. Its pod and GPUs stay. Absent means never.",
        examples=[1800],
        ge=1,
        le=31_536_000,
    )
    routing: Routing | None = Field(
        None,
        description="How the gateway chooses a pod for a request; absent means the one with the fewest in flight.",
        examples=[{"strategy": "PrefixHash", "loadFactorPercent": 125}],
    )
    parameters: Parameters | None = Field(
        None,
        description="What requests get that leave it out: defaults for the parameters of chat and completions.",
        examples=[{"temperature": 0.7, "topP": 0.9}],
    )
    llamacpp: LlamaCppSettings | None = Field(
        None, description="Settings of llama.cpp; only with framework llamacpp.", examples=[{"threads": 4}]
    )
    vllm: VllmSettings | None = Field(
        None, description="Settings of vLLM; only with framework vllm.", examples=[{"tensorParallelSize": 2}]
    )
    transformers: TransformersSettings | None = Field(
        None,
        description="Settings of transformers; only with framework transformers.",
        examples=[{"compile": True}],
    )
    extra_args: list[ExtraArg] | None = Field(
        None,
        description=(
            "Options of the engine that have no field, each --NAME or --NAME=VALUE. There is a list of allowed ones "
            "for each framework; another one is refused with the list."
        ),
        examples=[["--flash-attn=on"]],
        max_length=MAX_EXTRA_ARGS,
        json_schema_extra={"x-kubernetes-list-type": "set"},
    )
    env: list[Annotated[Variable, Field(examples=[{"name": "LOG_LEVEL", "value": "DEBUG"}])]] | None = Field(
        None,
        description=(
            "Environment variables of the engine. There is a list of allowed names for each framework; another one is "
            "refused with the list."
        ),
        examples=[[{"name": "LOG_LEVEL", "value": "DEBUG"}]],
        max_length=MAX_VARIABLES,
        json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"]},
    )
    node_selector: dict[str, LabelValue] | None = Field(
        None,
        description="Labels that a node must have to run the model.",
        examples=[{"nvidia.com/gpu.product": "NVIDIA-H200"}],
        max_length=MAX_SELECTORS,
        json_schema_extra={"x-kubernetes-map-type": "atomic", **rules(SELECTOR_RULE)},
    )
    tolerations: (
        list[Annotated[Toleration, Field(examples=[{"key": "nvidia.com/gpu", "operator": "Exists"}])]] | None
    ) = Field(
        None,
        description="Taints of nodes that the pods tolerate.",
        examples=[[{"key": "nvidia.com/gpu", "operator": "Exists"}]],
        max_length=MAX_TOLERATIONS,
        json_schema_extra={"x-kubernetes-list-type": "atomic"},
    )
    runtime_image: str | None = Field(
        None,
        description=(
            "Runtime image in place of the one that the operator has for the framework. Where the chart's admission "
            "policy is on, setting it needs the verb use-custom-image on inferencemodels."
        ),
        examples=["registry.example/moorage/runtime-llamacpp:1.2.3"],
        min_length=1,
        max_length=512,
        json_schema_extra=matching(
            IMAGE_REFERENCE,
            "must be an image reference, REGISTRY/NAME:TAG or REGISTRY/NAME@sha256:DIGEST, without spaces, "
            "for example registry.example/moorage/runtime-llamacpp:1.2.3",
        ),
    )

    model_config = ConfigDict(json_schema_extra=rules(*engine_rules(), *block_rules(), ONE_NUMBER_OF_REPLICAS))

    @property
    def concurrency(self) -> int:
        """Requests that each replica works on at a time."""
        return self.max_concurrency or default_concurrency(self.task, self.framework)

    @property
    def desired_replicas(self) -> int:
        """Pods that are wanted, as far as the spec says it: none while the model is suspended."""
        if self.suspend:
            return 0
        return max(1, self.scaling.min_replicas) if self.scaling else self.replicas

    @property
    def files(self) -> str:
        """What names the model's files: two specs with the same one have the same files."""
        chooses = self.source.is_fetched and self.framework is Framework.LLAMACPP and self.quantization
        return f"{self.source.identity}#{self.quantization}" if chooses else self.source.identity

    @property
    def tensor_parallel_size(self) -> int:
        """GPUs that one copy of the model is split over."""
        asked = self.vllm.tensor_parallel_size if self.vllm else None
        return asked or max(1, self.gpu.count)


class Metadata(ApiModel):
    """The part of an object's metadata that the operator uses."""

    name: str
    namespace: str
    uid: str
    generation: int = 1
    creation_timestamp: str = ""
    deletion_timestamp: str = ""
    annotations: dict[str, str] = Field(default_factory=dict)

    @property
    def restarted_at(self) -> str:
        """When a restart of the pods was requested; empty if it never was, or if the value is no time."""
        time = self.annotations.get(RESTARTED_AT_ANNOTATION, "")
        return time if _TIME.fullmatch(time) else ""


class InferenceModel(ApiModel):
    """A model that someone wants to run, with the status that was last written."""

    metadata: Metadata
    spec: InferenceModelSpec
    status: dict[str, Any] = Field(default_factory=dict)

    @property
    def served_name(self) -> str:
        """What clients put in "model"."""
        return self.spec.served_name or self.metadata.name
