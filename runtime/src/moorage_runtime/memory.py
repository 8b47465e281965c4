"""How much memory llama.cpp will need for a model, estimated from the header before anything is loaded."""

from dataclasses import dataclass
from typing import Final

from moorage_runtime.gguf import Header

MIB: Final = 1024 * 1024
OVERHEAD: Final = 200 * MIB
"""The front, the child's Python and llama.cpp itself: measured 90 to 150 MiB on SmolLM2 and Gemma 3."""

KV_BYTES: Final = 2
"""Keys and values are kept as 16-bit floats."""

CELL_ROUNDING: Final = 256
UBATCH: Final = 512

SWA_PERIODS: Final = {
    # Every n-th layer sees the whole context, the others a window: load_swa_pattern() in llama.cpp's src/models/
    "afmoe": 4, "cohere2": 4, "exaone4": 4, "gemma2": 2, "gemma3": 6, "gemma3n": 5, "gpt-oss": 2, "llama4": 4,
    "olmo2": 4, "plamo3": 8,
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """Bytes by purpose."""

    weights: int
    kv_cache: int
    overhead: int = OVERHEAD

    @property
    def total(self) -> int:
        """Everything together."""
        return self.weights + self.kv_cache + self.overhead

    def __str__(self) -> str:
        """Write the sum with its parts."""
        return (
            f"{mib(self.total)} (weights {mib(self.weights)}, KV cache {mib(self.kv_cache)}, "
            f"overhead {mib(self.overhead)})"
        )


def estimate(header: Header, *, context: int, slots: int, checkpoints: int = 0) -> Estimate:
    """Estimate the memory of a model that serves `slots` requests of `context` tokens each.

    weights = bytes of all tensors; KV cache = for each layer kv_heads * (key_length + value_length) * 2 bytes * cells,
    where cells = slots * context, or for a layer with a sliding window slots * min(context, window + ubatch), both
    rounded up to 256 (llama.cpp, src/llama-kv-cache.cpp and llama-kv-cache-iswa.cpp); each checkpoint of a sliding
    window keeps a copy of the window's part. Without these sizes in the header the KV cache counts as 0.
    """
    layers = header.number("block_count") or 0
    window = header.number("attention.sliding_window") or 0
    full_cells = slots * rounded_up(context)
    window_cells = slots * min(rounded_up(context), rounded_up(window + UBATCH))
    total = 0
    for layer in range(layers):
        by_cell = _kv_heads(header, layer) * _key_and_value_length(header) * KV_BYTES
        if window and not _sees_all(header, layer):
            total += by_cell * (window_cells + checkpoints * slots * min(context, window))
        else:
            total += by_cell * full_cells
    return Estimate(weights=header.tensor_bytes, kv_cache=total)


def rounded_up(context: int) -> int:
    """Give the context that llama.cpp really makes for one slot."""
    return -(-context // CELL_ROUNDING) * CELL_ROUNDING


def mib(size: int) -> str:
    """Write bytes as MiB.

    >>> mib(3 * 1024 * 1024)
    '3 MiB'
    """
    return f"{-(-size // MIB)} MiB"


def _kv_heads(header: Header, layer: int) -> int:
    by_layer = header.entries.get(f"{header.architecture}.attention.head_count_kv")
    if isinstance(by_layer, list):
        return int(by_layer[layer]) if layer < len(by_layer) else 0
    heads = header.number("attention.head_count_kv")
    return heads if heads is not None else header.number("attention.head_count") or 0


def _key_and_value_length(header: Header) -> int:
    heads = header.number("attention.head_count") or 1
    default = (header.number("embedding_length") or 0) // heads
    key = header.number("attention.key_length")
    value = header.number("attention.value_length")
    return (default if key is None else key) + (default if value is None else value)


def _sees_all(header: Header, layer: int) -> bool:
    pattern = header.entries.get(f"{header.architecture}.attention.sliding_window_pattern")
    if isinstance(pattern, list):
        return layer >= len(pattern) or not pattern[layer]
    period = pattern if isinstance(pattern, int) else SWA_PERIODS.get(header.architecture, 1)
    return period <= 1 or layer % period == period - 1
