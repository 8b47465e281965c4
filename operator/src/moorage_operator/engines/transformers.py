"""transformers: safetensors, on GPUs or the CPU."""

from collections.abc import Mapping

from moorage_operator.api.v1alpha1 import InferenceModelSpec
from moorage_operator.engines.base import Engine


def _settings(spec: InferenceModelSpec) -> Mapping[str, str]:
    block = spec.transformers
    if block is None:
        return {}
    return {
        **({"COMPILE_MODEL": "true"} if block.compile else {}),
        **({"INT8_THRESHOLD": str(block.int8_threshold)} if block.int8_threshold is not None else {}),
    }


ENGINE = Engine(settings=_settings)
