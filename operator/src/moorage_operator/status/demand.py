"""What a spec asks of memory, and what its GPUs have. Pure."""

from typing import Final

from moorage_common.estimate import Demand, Estimate, context_of, estimate
from moorage_common.shape import Shape
from moorage_common.tasks import Task
from moorage_operator.api.v1alpha1 import InferenceModelSpec
from moorage_operator.desired.drift import quantity
from moorage_operator.engines import ENGINES

LARGEST: Final = 2**63 - 1
"""The API's integers end here."""


def needed(spec: InferenceModelSpec, shape: Shape) -> Estimate | None:
    """The estimate for one replica; None for a shape that is out of all bounds."""
    asked = Demand(
        engine=spec.framework.value,
        context=context_of(spec.context_length, shape.context_length),
        requests=spec.concurrency,
        quantization=spec.quantization,
        gpus=split(spec),
        gpu_layers=spec.llamacpp.gpu_layers if spec.llamacpp else None,
        options=tuple(spec.extra_args or ()),
        embeds=spec.task is Task.EMBED,
    )
    found = estimate(shape, asked)
    return found if found.total <= LARGEST else None


def split(spec: InferenceModelSpec) -> int:
    """The GPUs that one copy of the model is split over; 0 on the CPU."""
    return ENGINES[spec.framework].gpus(spec)


def usable_share(spec: InferenceModelSpec) -> float:
    """The share of a GPU's memory that the engine uses."""
    return ENGINES[spec.framework].gpu_share(spec)


def gpu_memory_asked(spec: InferenceModelSpec) -> int | None:
    """Bytes of one GPU of the kind that is asked for, if the spec says so."""
    return None if spec.gpu.memory is None else int(quantity(str(spec.gpu.memory)))
