"""The memory estimate: by hand for a small model, and the sizes that models with special layers have."""

from moorage_runtime.gguf import Header, Value
from moorage_runtime.memory import MIB, OVERHEAD, estimate, rounded_up

SMOLLM2: dict[str, Value] = {
    "general.architecture": "llama",
    "llama.block_count": 30,
    "llama.embedding_length": 576,
    "llama.attention.head_count": 9,
    "llama.attention.head_count_kv": 3,
}
GEMMA3: dict[str, Value] = {
    "general.architecture": "gemma3",
    "gemma3.block_count": 18,
    "gemma3.embedding_length": 640,
    "gemma3.attention.head_count": 4,
    "gemma3.attention.head_count_kv": 1,
    "gemma3.attention.key_length": 256,
    "gemma3.attention.value_length": 256,
    "gemma3.attention.sliding_window": 512,
}


def header(entries: dict[str, Value], tensor_bytes: int = 0) -> Header:
    return Header(entries=entries, tensor_bytes=tensor_bytes, file_bytes=tensor_bytes)


def test_the_kv_cache_of_smollm2_is_what_llama_cpp_takes() -> None:
    found = estimate(header(SMOLLM2, 92 * MIB), context=4096, slots=4)

    # llama.cpp's own log for this model with n_ctx 16384 says: KV buffer size = 360.00 MiB
    assert found.kv_cache == 360 * MIB
    assert found.total == (92 + 360) * MIB + OVERHEAD


def test_layers_with_a_window_keep_only_the_window() -> None:
    found = estimate(header(GEMMA3), context=4096, slots=4)

    # Layers 6, 12 and 18 of 18 see everything; the others 512 + 512 cells for each slot.
    cell = 1 * (256 + 256) * 2
    assert found.kv_cache == cell * (3 * 4 * 4096 + 15 * 4 * 1024)


def test_checkpoints_cost_a_window_each() -> None:
    without = estimate(header(GEMMA3), context=4096, slots=4)
    kept = estimate(header(GEMMA3), context=4096, slots=4, checkpoints=2)

    assert kept.kv_cache - without.kv_cache == 15 * 1024 * 2 * 4 * 512


def test_a_pattern_by_layer_wins_over_the_period() -> None:
    all_see = {**GEMMA3, "gemma3.attention.sliding_window_pattern": [False] * 18}

    assert estimate(header(all_see), context=4096, slots=1).kv_cache == 1024 * 18 * 4096


def test_heads_by_layer_are_counted_by_layer() -> None:
    by_layer: dict[str, Value] = {**SMOLLM2, "llama.attention.head_count_kv": [3] * 15 + [0] * 15}

    assert estimate(header(by_layer), context=4096, slots=4).kv_cache == 180 * MIB


def test_a_header_without_sizes_counts_its_weights() -> None:
    found = estimate(header({"general.architecture": "mystery"}, MIB), context=4096, slots=4)

    assert (found.weights, found.kv_cache) == (MIB, 0)


def test_llama_cpp_rounds_the_context_up() -> None:
    assert [rounded_up(n) for n in (1, 256, 257, 4096)] == [256, 256, 512, 4096]


def test_the_estimate_names_its_parts() -> None:
    text = str(estimate(header(SMOLLM2, 92 * MIB), context=4096, slots=4))

    assert text == "652 MiB (weights 92 MiB, KV cache 360 MiB, overhead 200 MiB)"
