"""The shape of a GGUF model, from its header."""

from collections import Counter
from typing import Final

from moorage_common.shape import MAX_TEXT, Shape
from moorage_runtime.gguf import Header, Tensor

MAX_COUNT: Final = 2**62
MAX_LAYERS: Final = 65_536

SWA_PERIODS: Final = {
    # Every n-th layer sees the whole context, the others a window: load_swa_pattern() in llama.cpp's src/models/
    "afmoe": 4, "cohere2": 4, "exaone4": 4, "gemma2": 2, "gemma3": 6, "gemma3n": 5, "gpt-oss": 2, "llama4": 4,
    "olmo2": 4, "plamo3": 8,
}  # fmt: skip

REPACKED: Final = {"Q4_0", "Q4_K", "IQ4_NL"}
"""Types of which the CPU backend makes a rearranged copy where rows come in eights (ggml-cpu/repack.cpp); on x86 that
takes AVX2. Other processors rearrange other types too, which is not counted."""

INPUT: Final = "token_embd.weight"
OUTPUT: Final = "output.weight"


def gguf_shape(header: Header) -> Shape:
    """Sum up what the header says of layers and tensors."""
    by_type = Counter[str]()
    for tensor in header.tensors:
        by_type[tensor.type] += tensor.size
    heads = header.number("attention.head_count") or 0
    key, value = _lengths(header, heads)
    everywhere, windowed = _kv_heads(header)
    embedded = next((tensor.rows for tensor in header.tensors if tensor.name == INPUT), 0)
    file_type = header.file_type
    return Shape(
        architecture=header.architecture[:MAX_TEXT],
        quantization=file_type.lower() if file_type else None,  # as in spec.quantization
        stored_bytes=_count(header.tensor_bytes),
        tensor_bytes=dict(by_type),
        parameters=_count(sum(tensor.elements for tensor in header.tensors)),
        repacked_bytes=_count(_repacked_bytes(header.tensors)),
        context_length=_count(header.context_length or 0),
        layers=_count(header.number("block_count") or 0),
        embedding=_count(header.number("embedding_length") or 0),
        feed_forward=_count(_feed_forward(header)),
        heads=_count(heads),
        kv_heads=_count(_most_kv_heads(header, heads)),
        head_size=_count(key),
        vocabulary=_count(embedded or header.number("vocab_size") or 0),
        kv_numbers=_count(everywhere * (key + value)),
        window=_count(header.number("attention.sliding_window") or 0),
        window_kv_numbers=_count(windowed * (key + value)),
    )


def _count(number: int) -> int:
    return min(number, MAX_COUNT)


def _repacked_bytes(tensors: tuple[Tensor, ...]) -> int:
    # A table that is only looked up stays as it is; without an output of its own it is multiplied with, too.
    tied = all(tensor.name != OUTPUT for tensor in tensors)
    return sum(
        tensor.size
        for tensor in tensors
        if tensor.type in REPACKED
        and tensor.dimensions > 1
        and tensor.rows % 8 == 0
        and (tied or tensor.name != INPUT)
        and tensor.name.endswith(".weight")
    )


def _feed_forward(header: Header) -> int:
    experts = (header.number("expert_feed_forward_length") or 0) * (header.number("expert_used_count") or 0)
    shared = header.number("expert_shared_feed_forward_length") or 0
    return max(header.number("feed_forward_length") or 0, experts + shared)


def _lengths(header: Header, heads: int) -> tuple[int, int]:
    """Give the lengths of one head's key and value."""
    default = (header.number("embedding_length") or 0) // (heads or 1)
    key, value = header.number("attention.key_length"), header.number("attention.value_length")
    return default if key is None else key, default if value is None else value


def _most_kv_heads(header: Header, heads: int) -> int:
    found = header.number("attention.head_count_kv")
    return heads if found is None else found


def _kv_heads(header: Header) -> tuple[int, int]:
    """Give the KV heads of all layers that see the whole context, and of all that see a window."""
    heads = header.number("attention.head_count") or 0
    window = header.number("attention.sliding_window") or 0
    shared = header.number("attention.shared_kv_layers") or 0
    layers = min(header.number("block_count") or 0, MAX_LAYERS) - shared  # the last layers use the cache of others
    by_layer = header.entries.get(f"{header.architecture}.attention.head_count_kv")
    everywhere = windowed = 0
    for layer in range(layers):
        if isinstance(by_layer, list):
            found = by_layer[layer] if layer < len(by_layer) else 0
            count = int(found) if 0 <= found < MAX_COUNT else 0
        else:
            count = _most_kv_heads(header, heads)
        if window and not _sees_all(header, layer):
            windowed += count
        else:
            everywhere += count
    return everywhere, windowed


def _sees_all(header: Header, layer: int) -> bool:
    pattern = header.entries.get(f"{header.architecture}.attention.sliding_window_pattern")
    if isinstance(pattern, list):
        return layer >= len(pattern) or not pattern[layer]
    period = pattern if isinstance(pattern, int) else SWA_PERIODS.get(header.architecture, 1)
    return period <= 1 or layer % period == period - 1
