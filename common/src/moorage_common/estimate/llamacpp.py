"""llama.cpp, as our runtime starts it (`moorage_runtime.engines.llamacpp`). Pure.

KV cache (src/llama-kv-cache.cpp, llama-kv-cache-iswa.cpp): one cell for each token of each slot, 16 bits a number. The
context of a slot is rounded up to 256; a layer with a sliding window keeps min(context, window + ubatch) cells, rounded
up to 256 as well, and each checkpoint of a slot keeps a copy of the window's part.

Compute buffer (ggml's graph allocator, which reserves it for the largest batch): for each token of a batch 5 times the
embedding and, at its widest, 3 times the feed-forward width or one row of logits for each slot, in 32 bits; and the
masks, 16 bits for each token and cell of one slot. Fitted to what llama.cpp (xllamacpp 2026.10) logs for SmolLM2 and
Gemma 3 at 5 sizes each: within 2 %. Without flash attention, which it turns on by itself, the scores of all heads are
kept, and masks in 32 bits: within 11 %.

Process: 45 MiB for Python and the library, 140 bytes for each token of the vocabulary; for each slot one row of logits
and, once it has answered, one of candidates (12 bytes each). Fitted to the resident memory of the same runs.
"""

from typing import Final

from moorage_common.estimate.terms import CUDA_CONTEXT, KV_BYTES, MIB, Demand, Estimate, round_up
from moorage_common.shape import Shape

CELLS: Final = 256
"""The context of a slot is a multiple of this."""

UBATCH: Final = 512
"""Tokens that are computed at a time."""

CHECKPOINTS: Final = 2
"""Copies of a sliding window that our runtime keeps for each slot, so that a conversation goes on without reading it
all again. The default of llama.cpp, 32, can take more memory than the model."""

PROCESS: Final = 45 * MIB
VOCABULARY_BYTES: Final = 140
LOGIT, CANDIDATE = 4, 12


def estimate(shape: Shape, demand: Demand) -> Estimate:
    """Weights as they are in the file, KV cache for every slot at its full context, overhead as above.

    On the CPU the overhead includes the second, rearranged copy of some types of weights; on GPUs what counts is what
    is on them: a context and a compute buffer each.
    """
    context = round_up(demand.context, CELLS)
    kv_cache = _kv_cache(shape, context, demand.requests)
    compute = _compute_buffer(shape, demand)
    if demand.gpus:
        layers, all_layers = on_gpus(shape, demand.gpu_layers)
        kv_cache = 0 if demand.option("no-kv-offload") is not None else kv_cache * layers // all_layers
        return Estimate(shape.stored_bytes * layers // all_layers, kv_cache, demand.gpus * (CUDA_CONTEXT + compute))
    process = PROCESS + shape.vocabulary * (VOCABULARY_BYTES + demand.requests * CANDIDATE)
    logits = (context if demand.embeds else demand.requests) * shape.vocabulary * LOGIT
    twice = shape.repacked_bytes if demand.option("no-mmap") is None else 0
    return Estimate(shape.stored_bytes, kv_cache, process + compute + logits + twice)


def on_gpus(shape: Shape, asked: int | None) -> tuple[int, int]:
    """How many of how many layers are on GPUs; the output counts as one, and is the last to go there."""
    layers = shape.layers + 1
    return (layers if asked is None else min(asked, layers)), layers


def _kv_cache(shape: Shape, context: int, slots: int) -> int:
    cells = _window_cells(shape, context) + CHECKPOINTS * min(context, shape.window)
    return KV_BYTES * slots * (shape.kv_numbers * context + shape.window_kv_numbers * cells)


def _window_cells(shape: Shape, context: int) -> int:
    return min(context, round_up(shape.window + UBATCH, CELLS))


def _compute_buffer(shape: Shape, demand: Demand) -> int:
    context, flash = round_up(demand.context, CELLS), demand.option("flash-attn") != "off"
    # An embedding needs its whole prompt in one batch, and llama.cpp keeps a row of logits for each token of it.
    batch = context if demand.embeds else min(UBATCH, context * demand.requests)
    rows = batch if demand.embeds else demand.requests
    masks = (context if shape.kv_numbers else 0) + (_window_cells(shape, context) if shape.window_kv_numbers else 0)
    scores = 0 if flash else batch * shape.heads * context
    widest = max(batch * 3 * shape.feed_forward, rows * shape.vocabulary, scores)
    return 4 * (batch * 5 * shape.embedding + widest) + (2 if flash else 4) * batch * masks
