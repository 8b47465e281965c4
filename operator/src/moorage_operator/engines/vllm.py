"""vLLM: safetensors, on GPUs, one copy of a model over several of them."""

from collections.abc import Mapping

from moorage_operator.api.v1alpha1 import InferenceModelSpec
from moorage_operator.engines.base import Engine


def _settings(spec: InferenceModelSpec) -> Mapping[str, str]:
    block = spec.vllm
    share = block.gpu_memory_utilization if block else None
    sequences = block.max_num_seqs if block else None
    return {
        "TENSOR_PARALLEL_SIZE": str(spec.tensor_parallel_size),
        **({"GPU_MEMORY_UTILIZATION": str(share)} if share else {}),
        **({"MAX_NUM_SEQS": str(sequences)} if sequences else {}),
    }


ENGINE = Engine(settings=_settings)
