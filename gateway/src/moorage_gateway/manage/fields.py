"""What a request says of a model, as an InferenceModel. Pure.

A model may be written as its `spec`, as a whole InferenceModel (what `export` gives), or with the flat names of the
model platform that came before; `spec` and flat names may stand side by side. What a field may be is said by the API
server alone, so only types are looked at here.
"""

import copy
from collections.abc import Callable, Mapping
from typing import Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field

from moorage_gateway.kube.resources import INFERENCE_MODELS
from moorage_gateway.manage.problems import Problem

API_VERSION: Final = f"{INFERENCE_MODELS.group}/{INFERENCE_MODELS.version}"


class Strict(BaseModel):
    """A body without unknown fields; "5" is no number."""

    model_config = ConfigDict(extra="forbid", strict=True, populate_by_name=True)


class Metadata(Strict):
    """The part of an object's metadata that a client may set."""

    name: str | None = None
    namespace: str | None = None
    labels: dict[str, str] | None = None
    annotations: dict[str, str] | None = None
    resource_version: str | None = Field(None, alias="resourceVersion")


class ModelBody(Strict):
    """A model, as a client writes it: with `spec` as an InferenceModel has it, with flat names, or with both."""

    name: str | None = Field(
        None, description="The model's name: a DNS label of at most 40 characters.", examples=["qwen"]
    )
    namespace: str | None = Field(None, description="Its namespace; may be left out where only one is served.")
    labels: dict[str, str] | None = Field(None, description="Labels; a PUT without them keeps those that are there.")
    resource_version: str | None = Field(
        None, alias="resourceVersion", description="The version that a PUT is for; another one is a 409."
    )
    spec: dict[str, Any] | None = Field(
        None,
        description="The spec of the InferenceModel (docs/inferencemodel.md).",
        examples=[{"framework": "llamacpp", "source": {"uri": "oci://registry.example/models/qwen:q4"}}],
    )
    api_version: Literal["moorage.dev/v1alpha1"] | None = Field(
        None, alias="apiVersion", description="Of a whole InferenceModel."
    )
    kind: Literal["InferenceModel"] | None = Field(None, description="Of a whole InferenceModel.")
    metadata: Metadata | None = Field(None, description="Of a whole InferenceModel.")

    display_name: str | None = Field(None, description="spec.displayName")
    description: str | None = Field(None, description="spec.description")
    framework: str | None = Field(None, description="spec.framework: vllm, llamacpp (also llama.cpp), transformers")
    source: str | dict[str, Any] | None = Field(None, description="spec.source, or its uri alone")
    task: str | None = Field(None, description="spec.task")
    served_name: str | None = Field(None, description="spec.servedName")
    quantization: str | None = Field(None, description="spec.quantization")
    priority: int | None = Field(None, description="spec.priority, 1 to 10, 10 the highest")
    replicas: int | None = Field(None, description="spec.replicas")
    gpu_count: int | None = Field(None, description="spec.gpu.count")
    gpu_memory: str | None = Field(None, description="spec.gpu.memory, a quantity such as 24Gi")
    cpu_cores: float | None = Field(None, description="spec.resources.cpu, in cores")
    cpu_limit: float | None = Field(None, description="spec.resources.cpuLimit, in cores")
    memory: str | None = Field(None, description="spec.resources.memory, a quantity such as 16Gi")
    n_ctx: int | None = Field(None, description="llama.cpp: spec.contextLength")
    n_threads: int | None = Field(None, description="llama.cpp: spec.llamacpp.threads")
    n_gpu_layers: int | None = Field(None, description="llama.cpp: spec.llamacpp.gpuLayers; -1 is all of them")
    temperature: float | None = Field(None, description="spec.parameters.temperature")
    top_p: float | None = Field(None, description="spec.parameters.topP")
    tensor_parallel_size: int | None = Field(None, description="vLLM: spec.vllm.tensorParallelSize")
    max_num_seqs: int | None = Field(None, description="vLLM: spec.vllm.maxNumSeqs")
    max_model_len: int | None = Field(None, description="vLLM: spec.contextLength")
    gpu_memory_utilization: float | None = Field(None, description="vLLM: spec.vllm.gpuMemoryUtilization")


def _cores(value: float) -> str:
    return f"{value:g}" if value == int(value) else f"{round(value * 1000)}m"


def _framework(value: str) -> str:
    return "llamacpp" if value.lower() in {"llama.cpp", "llama_cpp", "llama-cpp"} else value


def _source(value: str | dict[str, Any]) -> dict[str, Any]:
    return {"uri": value} if isinstance(value, str) else value


def _layers(value: int) -> int | None:
    return None if value == -1 else value


def _same(value: Any) -> Any:
    return value


FLAT: Final[Mapping[str, tuple[str, Callable[[Any], Any]]]] = {
    "display_name": ("displayName", _same),
    "description": ("description", _same),
    "framework": ("framework", _framework),
    "source": ("source", _source),
    "task": ("task", _same),
    "served_name": ("servedName", _same),
    "quantization": ("quantization", _same),
    "priority": ("priority", _same),
    "replicas": ("replicas", _same),
    "gpu_count": ("gpu.count", _same),
    "gpu_memory": ("gpu.memory", _same),
    "cpu_cores": ("resources.cpu", _cores),
    "cpu_limit": ("resources.cpuLimit", _cores),
    "memory": ("resources.memory", _same),
    "n_ctx": ("contextLength", _same),
    "n_threads": ("llamacpp.threads", _same),
    "n_gpu_layers": ("llamacpp.gpuLayers", _layers),
    "temperature": ("parameters.temperature", _same),
    "top_p": ("parameters.topP", _same),
    "tensor_parallel_size": ("vllm.tensorParallelSize", _same),
    "max_num_seqs": ("vllm.maxNumSeqs", _same),
    "max_model_len": ("contextLength", _same),
    "gpu_memory_utilization": ("vllm.gpuMemoryUtilization", _same),
}
"""The field of the spec behind each flat name."""


def spec_of(body: ModelBody) -> dict[str, Any]:
    """The spec that a body means; Problem where it says a field twice."""
    spec = copy.deepcopy(body.spec or {})
    for name in FLAT:
        value = getattr(body, name)
        if value is None:
            continue
        path, convert = FLAT[name]
        if (converted := convert(value)) is not None:
            _put(spec, path, converted, name)
    return spec


def metadata_of(body: ModelBody) -> Metadata:
    """What a body says of the object's metadata, at its top or in `metadata`; Problem where both differ."""
    inner = body.metadata or Metadata()
    found = {}
    for name in ("name", "namespace", "labels", "resource_version"):
        outer, deep = getattr(body, name), getattr(inner, name)
        if outer is not None and deep is not None and outer != deep:
            text = f"{name} and metadata.{name} say different things."
            raise Problem(422, text, "invalid", fields=[(name, text)])
        found[name] = outer if outer is not None else deep
    return Metadata(**found, annotations=inner.annotations)


def _put(spec: dict[str, Any], path: str, value: Any, name: str) -> None:
    """Set a field; a block that is not there is made."""
    *blocks, last = path.split(".")
    place = spec
    for block in blocks:
        place = place.setdefault(block, {})
        if not isinstance(place, dict):
            text = f"spec.{block} is no object, so {name} has no place in it."
            raise Problem(422, text, "invalid", fields=[(f"spec.{block}", text)])
    if last in place and place[last] != value:
        text = f"{name} says {value!r:.100}, and spec.{path} says something else: leave one of them out."
        raise Problem(422, text, "invalid", fields=[(name, text)])
    place[last] = value
