"""The InferenceModel, v1alpha1: the only description of its fields.

The CustomResourceDefinition is generated from these classes (`api.crd`), so a field's description, example, bounds and
rules stand here once. The operator parses what the API server hands out with the same classes.

Fields are snake_case here and camelCase in YAML. A rule is a CEL expression with a plain message; the API server
evaluates it, which is why nothing here repeats it in Python.
"""

from enum import StrEnum
from typing import Annotated, Any, Final

from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel
from pydantic.json_schema import WithJsonSchema

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
        quoted = message.replace("'", "\\'")
        entry["messageExpression"] = f"{value} + ': {quoted}'"
    return entry


def rules(*entries: dict[str, str]) -> dict[str, Any]:
    """The extra of a JSON schema that carries CEL rules."""
    return {"x-kubernetes-validations": list(entries)}


class ApiModel(BaseModel):
    """Base of every object in the API. Unknown fields are ignored when reading: a newer CRD may be installed."""

    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, frozen=True, extra="ignore")


class Framework(StrEnum):
    """The engine that runs a model."""

    VLLM = "vllm"
    LLAMACPP = "llamacpp"
    TRANSFORMERS = "transformers"


GGUF_TYPES: Final = (
    *("f32", "f16", "bf16", "q8_0", "q4_0", "q4_1", "q5_0", "q5_1"),
    *("q2_k", "q2_k_s", "q3_k_s", "q3_k_m", "q3_k_l", "q4_k_s", "q4_k_m", "q5_k_s", "q5_k_m", "q6_k"),
    *(
        "iq1_s",
        "iq1_m",
        "iq2_xxs",
        "iq2_xs",
        "iq2_s",
        "iq2_m",
        "iq3_xxs",
        "iq3_xs",
        "iq3_s",
        "iq3_m",
        "iq4_nl",
        "iq4_xs",
    ),
)
TENSOR_TYPES: Final = ("none", "gptq", "awq", "fp8", "compressed-tensors", "bitsandbytes-8bit", "bitsandbytes-4bit")


def _cel_list(values: tuple[str, ...]) -> str:
    return "[" + ", ".join(f"'{value}'" for value in values) + "]"


def _quantity(pattern: str, least: str, most: str, examples: str) -> WithJsonSchema:
    """A Kubernetes quantity of at most three decimals, which is what the API server stores without rounding.

    https://kubernetes.io/docs/reference/kubernetes-api/common-definitions/quantity/
    """
    text = "string(self)"
    check = rule(
        f"{text}.matches('{pattern}') && quantity({text}).compareTo(quantity('{least}')) >= 0"
        f" && quantity({text}).compareTo(quantity('{most}')) <= 0",
        f"must be a positive Kubernetes quantity from {least} to {most}, without spaces, such as {examples}",
    )
    return WithJsonSchema({"x-kubernetes-int-or-string": True, "maxLength": 32, **rules(check)})


Cpu = Annotated[int | str, _quantity("^([0-9]{1,7}m|[0-9]{1,4}([.][0-9]{1,3})?)$", "1m", "1024", "500m, 0.5 or 4")]
"""CPU cores."""

Memory = Annotated[
    int | str, _quantity("^[0-9]{1,15}([.][0-9]{1,3})?(Ki|Mi|Gi|Ti|k|M|G|T)?$", "16Mi", "64Ti", "512Mi, 1.5Gi or 16Gi")
]
"""Bytes of memory."""


class Source(ApiModel):
    """Where the model's files are."""

    uri: str = Field(
        description=(
            "Address of the model. oci://IMAGE mounts an OCI image with the files, read-only, cached on the node. "
            "pvc://CLAIM/PATH reads a file or a folder of a PersistentVolumeClaim in the same namespace."
        ),
        examples=["oci://localhost/models/smollm2:135m-q4"],
        min_length=7,
        max_length=1024,
        json_schema_extra=rules(
            rule(
                "self.startsWith('oci://') || self.startsWith('pvc://')",
                "the scheme must be oci:// (an OCI image) or pvc:// (a PersistentVolumeClaim of this namespace), "
                "for example oci://registry.example/models/qwen2:7b or pvc://models/qwen2.gguf",
            ),
            rule(
                "!self.startsWith('oci://') || self.matches('^oci://[a-z0-9]+([._-][a-z0-9]+)*(:[0-9]{1,5})?"
                "(/[a-z0-9]+([._-]+[a-z0-9]+)*)*(:[A-Za-z0-9_][A-Za-z0-9._-]{0,127})?(@sha256:[a-f0-9]{64})?$')",
                "an oci:// address must be an image reference, REGISTRY/NAME:TAG or REGISTRY/NAME@sha256:DIGEST, "
                "without spaces, for example oci://registry.example/models/qwen2:7b",
            ),
            rule(
                "!self.startsWith('pvc://') || (self.matches('^pvc://[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?"
                "(/[A-Za-z0-9_][A-Za-z0-9._-]*)*$') && !self.contains('..'))",
                "a pvc:// address must be pvc://CLAIM/PATH, the path of letters, digits, '.', '_' and '-', "
                "without '..', '//' or '%', for example pvc://models/qwen2/qwen2-q4.gguf",
            ),
        ),
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
                "([-A-Za-z0-9_.]*[A-Za-z0-9])?$') && !self.contains('kubernetes.io/')",
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
    memory: Memory = Field(
        "2Gi",
        description="Memory of each replica, reserved and limited: it must hold weights, KV cache and engine.",
        examples=["16Gi"],
    )


class LlamaCppSettings(ApiModel):
    """What only llama.cpp understands."""

    threads: int | None = Field(
        None, description="Threads that compute; absent means one for each CPU in reach.", examples=[4], ge=1, le=256
    )


class VllmSettings(ApiModel):
    """What only vLLM understands."""

    tensor_parallel_size: int = Field(
        1,
        description="GPUs that one copy of the model is split over; must divide gpu.count.",
        examples=[2],
        ge=1,
        le=64,
    )


class InferenceModelSpec(ApiModel):
    """What is wanted."""

    framework: Framework = Field(
        description="The engine that runs the model.", examples=["llamacpp"], json_schema_extra={"maxLength": 16}
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
            "checked against the file; for vllm and transformers none, gptq, awq, fp8, compressed-tensors, "
            "bitsandbytes-8bit or bitsandbytes-4bit."
        ),
        examples=["q4_k_m"],
        max_length=32,
        json_schema_extra={"enum": [*TENSOR_TYPES, *GGUF_TYPES]},
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
        description="Importance, 10 the highest: a model without room takes the place of models of lower priority.",
        examples=[8],
        ge=1,
        le=10,
    )
    replicas: int = Field(1, description="Copies of the model; 0 stops it.", examples=[2], ge=0, le=100)
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
    max_concurrency: int = Field(
        4, description="Requests that each replica works on at a time; further ones wait.", examples=[16], ge=1, le=1024
    )
    llamacpp: LlamaCppSettings | None = Field(
        None, description="What only llama.cpp understands; only with framework llamacpp.", examples=[{"threads": 4}]
    )
    vllm: VllmSettings | None = Field(
        None, description="What only vLLM understands; only with framework vllm.", examples=[{"tensorParallelSize": 2}]
    )

    model_config = ConfigDict(
        json_schema_extra=rules(
            rule(
                "!has(self.quantization) || self.framework != 'llamacpp' || "
                f"self.quantization in {_cel_list(GGUF_TYPES)}",
                "with framework llamacpp it must be a GGUF type such as q4_k_m or q8_0, or absent",
                field_path=".quantization",
                value="self.quantization",
            ),
            rule(
                "!has(self.quantization) || self.framework == 'llamacpp' || "
                f"self.quantization in {_cel_list(TENSOR_TYPES)}",
                "with frameworks vllm and transformers it must be one of none, gptq, awq, fp8, compressed-tensors, "
                "bitsandbytes-8bit, bitsandbytes-4bit, or absent",
                field_path=".quantization",
                value="self.quantization",
            ),
            rule(
                "!has(self.vllm) || self.framework == 'vllm'",
                "vllm is only for framework vllm: remove it, or set framework to vllm",
                field_path=".vllm",
                value="'framework ' + self.framework",
            ),
            rule(
                "!has(self.llamacpp) || self.framework == 'llamacpp'",
                "llamacpp is only for framework llamacpp: remove it, or set framework to llamacpp",
                field_path=".llamacpp",
                value="'framework ' + self.framework",
            ),
            rule(
                "self.framework != 'llamacpp' || self.maxConcurrency <= 256",
                "with framework llamacpp it must be at most 256, the slots that llama.cpp has",
                field_path=".maxConcurrency",
            ),
            rule(
                "!has(self.vllm) || self.vllm.tensorParallelSize == 1 || "
                "(self.gpu.count > 0 && self.gpu.count % self.vllm.tensorParallelSize == 0)",
                "tensorParallelSize must divide gpu.count: with gpu.count 4 it may be 1, 2 or 4",
                field_path=".vllm.tensorParallelSize",
            ),
        )
    )

    @property
    def wanted_replicas(self) -> int:
        """Pods that are wanted: none while the model is suspended."""
        return 0 if self.suspend else self.replicas

    @property
    def tensor_parallel_size(self) -> int:
        """GPUs that one copy of the model is split over."""
        return self.vllm.tensor_parallel_size if self.vllm else 1


class Metadata(ApiModel):
    """The part of an object's metadata that the operator uses."""

    name: str
    namespace: str
    uid: str
    generation: int = 1
    creation_timestamp: str = ""


class InferenceModel(ApiModel):
    """A model that someone wants to run, with the status that was last written."""

    metadata: Metadata
    spec: InferenceModelSpec
    status: dict[str, Any] = Field(default_factory=dict)

    @property
    def served_name(self) -> str:
        """What clients put in "model"."""
        return self.spec.served_name or self.metadata.name
