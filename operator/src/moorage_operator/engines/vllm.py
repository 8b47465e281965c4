"""vLLM: safetensors, on GPUs, one copy of a model over several of them."""

from collections.abc import Mapping
from typing import Final

from moorage_operator.api.v1alpha1 import InferenceModelSpec
from moorage_operator.engines.base import Engine

DEFAULT_GPU_SHARE: Final = 0.9
"""The default of the setting GPU_MEMORY_UTILIZATION; vLLM's own moves with its versions (0.32: 0.92)."""


def _settings(spec: InferenceModelSpec) -> Mapping[str, str]:
    block = spec.vllm
    share = block.gpu_memory_utilization if block else None
    sequences = block.max_num_seqs if block else None
    return {
        "TENSOR_PARALLEL_SIZE": str(spec.tensor_parallel_size),
        **({"GPU_MEMORY_UTILIZATION": str(share)} if share else {}),
        **({"MAX_NUM_SEQS": str(sequences)} if sequences else {}),
    }


def _gpu_share(spec: InferenceModelSpec) -> float:
    return (spec.vllm.gpu_memory_utilization if spec.vllm else None) or DEFAULT_GPU_SHARE


def _gpus(spec: InferenceModelSpec) -> int:
    return spec.tensor_parallel_size if spec.gpu.count else 0


ENGINE = Engine(settings=_settings, gpu_share=_gpu_share, gpus=_gpus, shared_memory=True)
