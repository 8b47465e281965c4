"""transformers on PyTorch. Pure. Constants of the overhead are assumptions until the engine is there to be measured.

KV cache (transformers, cache_utils.py): a layer keeps every token of each request, one with a sliding window the last
`window` of them. Overhead: what PyTorch takes before the model is there, the activations of one prompt at full length,
and one row of logits in 32 bits for each request. With the option dtype=float32 weights, keys and values take 32 bits.
"""

from typing import Final

from moorage_common.estimate.terms import (
    CUDA_CONTEXT,
    KV_BYTES,
    MIB,
    Demand,
    Estimate,
    activations,
    safetensors_weights,
)
from moorage_common.shape import Shape

PROCESS: Final = 512 * MIB
"""Python with PyTorch and transformers imported."""


def estimate(shape: Shape, demand: Demand) -> Estimate:
    """Weights as in the files or as quantized, KV cache for all requests at full context, overhead as above."""
    window = min(demand.context, shape.window)
    wide = demand.option("dtype") == "float32"
    kv_bytes = 2 * KV_BYTES if wide else KV_BYTES
    kv_cache = kv_bytes * demand.requests * (shape.kv_numbers * demand.context + shape.window_kv_numbers * window)
    each = CUDA_CONTEXT if demand.gpus else PROCESS
    working = activations(shape, demand.context) + demand.requests * shape.vocabulary * 4
    weights = safetensors_weights(shape, demand.quantization, least_bytes=4 if wide else 0)
    return Estimate(weights, kv_cache, max(1, demand.gpus) * each + working)
