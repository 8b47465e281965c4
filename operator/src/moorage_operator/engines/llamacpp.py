"""llama.cpp: GGUF files, on the CPU."""

from collections.abc import Mapping

from moorage_operator.api.v1alpha1 import InferenceModelSpec


def environment(spec: InferenceModelSpec) -> Mapping[str, str]:
    """The settings that only this engine has."""
    threads = spec.llamacpp.threads if spec.llamacpp else None
    return {"LLAMA_THREADS": str(threads)} if threads else {}
