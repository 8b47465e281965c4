"""vLLM: safetensors, on GPUs, one copy of a model over several of them."""

from collections.abc import Mapping

from moorage_operator.api.v1alpha1 import InferenceModelSpec


def environment(spec: InferenceModelSpec) -> Mapping[str, str]:
    """The settings that only this engine has."""
    return {"TENSOR_PARALLEL_SIZE": str(spec.tensor_parallel_size)}
