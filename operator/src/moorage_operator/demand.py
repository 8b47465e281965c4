"""What a spec asks of memory, and what a GPU has of it for a model. Pure."""

from collections.abc import Mapping
from typing import Final

from moorage_common.estimate import Demand, Estimate, context_of, estimate
from moorage_common.shape import Shape
from moorage_operator.api.engines import Framework
from moorage_operator.api.v1alpha1 import InferenceModelSpec
from moorage_operator.desired.drift import quantity

LARGEST: Final = 2**63 - 1
"""The API's integers end here."""

_USABLE: Final[Mapping[Framework, float]] = {Framework.VLLM: 0.9}
"""The share of a GPU that an engine takes, where it is not all: vLLM's default of gpu_memory_utilization."""

_LESS_ON_GPU: Final = {"--cpu-offload-gb", "--kv-cache-dtype", "--no-kv-offload"}
"""Options after which a GPU holds less than the estimate says."""


def demand(spec: InferenceModelSpec, shape: Shape) -> Demand:
    """What one replica must have room for."""
    return Demand(
        engine=spec.framework.value,
        context=context_of(spec.context_length, shape.context_length),
        requests=spec.max_concurrency,
        quantization=spec.quantization,
        gpus=split(spec),
    )


def needed(spec: InferenceModelSpec, shape: Shape) -> Estimate | None:
    """The estimate for one replica; None for a shape that is out of all bounds."""
    found = estimate(shape, demand(spec, shape))
    return found if found.total <= LARGEST else None


def split(spec: InferenceModelSpec) -> int:
    """The GPUs that one copy of the model is split over; 0 on the CPU."""
    if spec.framework is Framework.VLLM and spec.gpu.count:
        return spec.tensor_parallel_size
    return spec.gpu.count


def usable_share(spec: InferenceModelSpec) -> float:
    """The share of a GPU's memory that the engine uses."""
    asked = spec.vllm.gpu_memory_utilization if spec.vllm else None
    return asked or _USABLE.get(spec.framework, 1.0)


def is_whole_on_gpus(spec: InferenceModelSpec) -> bool:
    """Whether all that the estimate counts has to fit into GPUs: no layer is kept elsewhere, nor made smaller."""
    some_layers = spec.llamacpp is not None and spec.llamacpp.gpu_layers is not None
    options = {option.partition("=")[0] for option in spec.extra_args or ()}
    return spec.gpu.count > 0 and not some_layers and not options & _LESS_ON_GPU


def gpu_memory_asked(spec: InferenceModelSpec) -> int | None:
    """Bytes of one GPU of the kind that is asked for, if the spec says so."""
    return None if spec.gpu.memory is None else int(quantity(str(spec.gpu.memory)))
