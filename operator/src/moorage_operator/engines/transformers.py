"""transformers: safetensors, on GPUs or the CPU."""

from collections.abc import Mapping

from moorage_operator.api.v1alpha1 import InferenceModelSpec


def environment(_spec: InferenceModelSpec) -> Mapping[str, str]:
    """The settings that only this engine has: none so far."""
    return {}
