"""transformers on PyTorch. Pure. Constants of the overhead are assumptions until the engine is there to be measured.

KV cache (transformers, cache_utils.py): a layer keeps every token of each request, one with a sliding window the last
`window` of them. Overhead: what PyTorch takes before the model is there, the activations of one prompt at full length,
and one row of logits in 32 bits for each request.
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
    kv_cache = KV_BYTES * demand.requests * (shape.kv_numbers * demand.context + shape.window_kv_numbers * window)
    each = CUDA_CONTEXT if demand.gpus else PROCESS
    working = activations(shape, demand.context) + demand.requests * shape.vocabulary * 4
    return Estimate(safetensors_weights(shape, demand.quantization), kv_cache, max(1, demand.gpus) * each + working)
