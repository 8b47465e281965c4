"""What a spec asks of memory, and what a GPU has of it for a model. Pure."""

from collections.abc import Mapping
from typing import Final

from moorage_common.estimate import Demand, Estimate, context_of, estimate
from moorage_common.shape import Shape
from moorage_operator.api.v1alpha1 import Framework, InferenceModelSpec
from moorage_operator.desired.drift import quantity

LARGEST: Final = 2**63 - 1
"""The API's integers end here."""

_USABLE: Final[Mapping[Framework, float]] = {Framework.VLLM: 0.9}
"""The share of a GPU that an engine takes, where it is not all: vLLM's default of gpu_memory_utilization."""


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
    return _USABLE.get(spec.framework, 1.0)


def gpu_memory_asked(spec: InferenceModelSpec) -> int | None:
    """Bytes of one GPU of the kind that is asked for, if the spec says so."""
    return None if spec.gpu.memory is None else int(quantity(str(spec.gpu.memory)))
