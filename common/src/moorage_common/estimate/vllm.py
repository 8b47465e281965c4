"""vLLM, on GPUs or the CPU. Pure. The formulas are vLLM's own; no GPU was at hand, so the overhead there is assumed.

KV cache (vllm/v1/kv_cache_interface.py): blocks of 16 tokens; a layer that sees all keeps the whole context, one with a
window min(window - 1 + batch, context) tokens and one block more. Heads are split over the GPUs; where there are fewer
KV heads than GPUs, they are copied. vLLM fills what it may use of a GPU with KV cache, so that what it holds says
nothing of what it needs; the estimate is what the requests that are asked for need.

Overhead: on each GPU a CUDA context, CUDA graphs, and the activations of one batch, which vLLM measures by running it.
Options that change these are taken into account: cpu-offload-gb, dtype, enforce-eager, kv-cache-dtype and
max-num-batched-tokens.

On the CPU blocks have 128 tokens, and three processes have PyTorch in them: API server, engine loop and worker.
"""

from typing import Final

from moorage_common.estimate.terms import (
    CUDA_CONTEXT,
    GIB,
    KV_BYTES,
    MIB,
    Demand,
    Estimate,
    activations,
    round_up,
    safetensors_weights,
)
from moorage_common.shape import Shape

BLOCK: Final = 16
CPU_BLOCK: Final = 128
CPU_SPARE_BLOCKS: Final = 2
"""One block is never given out; one more is for rounding."""

CPU_PROCESSES: Final = 2400 * MIB
"""Measured with vLLM 0.32 and SmolLM2: 831 + 753 + 776 MiB, without weights and KV cache."""

BATCHED_TOKENS: Final = 8192
"""Default of max_num_batched_tokens for a server on a large GPU; on small ones it is 2048."""

MOST_BATCHED_TOKENS: Final = 2**24

CUDA_GRAPHS: Final = 1024 * MIB
LOGITS_BYTES: Final = 8
"""Logits and their copy in the sampler, 32 bits each."""


def estimate(shape: Shape, demand: Demand) -> Estimate:
    """Weights in 16 bits or as quantized, KV cache for all requests at full context, overhead of each GPU."""
    if not demand.gpus:
        return _on_cpu(shape, demand)
    gpus = demand.gpus
    batch = _batch(demand)
    tokens = min(batch, demand.context * demand.requests)
    graphs = CUDA_GRAPHS if demand.option("enforce-eager") is None else 0
    each = CUDA_CONTEXT + graphs + demand.requests * shape.vocabulary * LOGITS_BYTES + activations(shape, tokens)
    width = _width(demand)
    weights = safetensors_weights(shape, demand.quantization, most_bytes=width, least_bytes=width)
    off = gpus * GIB * (_number(demand, "cpu-offload-gb") or 0)
    return Estimate(max(0, weights - off), _kv_cache(shape, demand, gpus, batch), gpus * each)


def cpu_kv_cache(shape: Shape, demand: Demand) -> int:
    """Bytes of the KV cache on the CPU, where vLLM has to be told how many to take."""
    blocks = demand.requests * -(-demand.context // _cpu_block(demand)) + CPU_SPARE_BLOCKS
    return blocks * _cpu_block_bytes(shape, demand)


def _cpu_block(demand: Demand) -> int:
    return max(CPU_BLOCK, _number(demand, "block-size") or 0)


def _cpu_block_bytes(shape: Shape, demand: Demand) -> int:
    # Layers with a window share the blocks of the others, so they are counted as if they saw all.
    return _kv_bytes(demand) * (shape.kv_numbers + shape.window_kv_numbers) * _cpu_block(demand)


def _on_cpu(shape: Shape, demand: Demand) -> Estimate:
    width = _width(demand)
    weights = safetensors_weights(shape, demand.quantization, most_bytes=width, least_bytes=width)
    tokens = min(_batch(demand), demand.context * demand.requests)
    working = demand.requests * shape.vocabulary * LOGITS_BYTES + activations(shape, tokens)
    spare = CPU_SPARE_BLOCKS * _cpu_block_bytes(shape, demand)
    return Estimate(weights, cpu_kv_cache(shape, demand) - spare, CPU_PROCESSES + spare + working)


def _width(demand: Demand) -> int:
    """Bytes of a number that is not quantized."""
    return 4 if demand.option("dtype") in ("float", "float32") else 2


def _batch(demand: Demand) -> int:
    return min(_number(demand, "max-num-batched-tokens") or BATCHED_TOKENS, MOST_BATCHED_TOKENS)


def _number(demand: Demand, option: str) -> int | None:
    text = demand.option(option) or ""
    return int(text[:9]) if text.isascii() and text.isdigit() else None


def _kv_cache(shape: Shape, demand: Demand, gpus: int, batch: int) -> int:
    window = min(demand.context, max(0, shape.window - 1) + batch)
    numbers = shape.kv_numbers * round_up(demand.context, BLOCK)
    if shape.window_kv_numbers:
        numbers += shape.window_kv_numbers * (round_up(window, BLOCK) + BLOCK)
    copies = -(-gpus // shape.kv_heads) if shape.kv_heads else 1
    return _kv_bytes(demand) * demand.requests * numbers * copies


def _kv_bytes(demand: Demand) -> int:
    asked = demand.option("kv-cache-dtype") or "auto"
    if asked.startswith("fp8"):
        return 1
    return _width(demand) if asked == "auto" else KV_BYTES
