"""llama.cpp: GGUF files, on the CPU or on GPUs."""

from collections.abc import Mapping

from moorage_operator.api.v1alpha1 import InferenceModelSpec
from moorage_operator.engines.base import Engine


def _settings(spec: InferenceModelSpec) -> Mapping[str, str]:
    block = spec.llamacpp
    if block is None:
        return {}
    return {
        **({"LLAMA_GPU_LAYERS": str(block.gpu_layers)} if block.gpu_layers is not None else {}),
        **({"LLAMA_THREADS": str(block.threads)} if block.threads else {}),
    }


ENGINE = Engine(settings=_settings)
