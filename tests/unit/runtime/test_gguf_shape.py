"""The shape of GGUF models: sums over layers and tensors, and headers that say odd things."""

from pathlib import Path
from typing import cast

import pytest

from moorage_common.shape import Shape
from moorage_runtime.gguf import Header, Tensor, Value, read_header
from moorage_runtime.gguf_shape import gguf_shape
from tests.unit.runtime.support import gguf

LLAMA: dict[str, Value] = {
    "general.architecture": "llama",
    "general.file_type": 3,
    "llama.block_count": 30,
    "llama.context_length": 8192,
    "llama.embedding_length": 576,
    "llama.feed_forward_length": 1536,
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
EMBEDDED = Tensor("token_embd.weight", "Q8_0", 2, 49_152, 576 * 49_152, 30_081_024)


def shape(entries: dict[str, Value], *tensors: Tensor) -> Shape:
    return gguf_shape(Header(entries=entries, tensors=tensors))


def matrix(name: str, kind: str, rows: int = 64, size: int = 1000) -> Tensor:
    return Tensor(name, kind, 2, rows, rows * 64, size)


def test_a_plain_llama() -> None:
    norm = Tensor("output_norm.weight", "F32", 1, 1, 576, 2304)

    assert shape(LLAMA, EMBEDDED, norm) == Shape(
        architecture="llama",
        stored_bytes=30_083_328,
        quantization="q4_1",
        tensor_bytes={"Q8_0": 30_081_024, "F32": 2304},
        parameters=576 * 49_152 + 576,
        context_length=8192,
        layers=30,
        embedding=576,
        feed_forward=1536,
        heads=9,
        kv_heads=3,
        head_size=64,
        vocabulary=49_152,
        kv_numbers=30 * 3 * (64 + 64),
    )


def test_a_file_is_read_and_summed_up(tmp_path: Path) -> None:
    (tmp_path / "m.gguf").write_bytes(gguf())

    found = gguf_shape(read_header(tmp_path / "m.gguf"))

    assert (found.quantization, found.layers, found.kv_numbers, found.parameters) == ("q4_k_m", 2, 2 * 2 * 32, 64)


def test_layers_with_a_window_are_told_apart() -> None:
    found = shape(GEMMA3)

    # Layers 6, 12 and 18 of 18 see everything.
    assert (found.kv_numbers, found.window, found.window_kv_numbers) == (3 * 512, 512, 15 * 512)


def test_a_pattern_by_layer_wins_over_the_period() -> None:
    found = shape({**GEMMA3, "gemma3.attention.sliding_window_pattern": [False] * 17 + [True]})

    assert (found.kv_numbers, found.window_kv_numbers) == (17 * 512, 512)


def test_heads_by_layer_are_counted_by_layer() -> None:
    assert shape({**LLAMA, "llama.attention.head_count_kv": [3] * 15 + [0] * 15}).kv_numbers == 15 * 3 * 128


def test_layers_that_use_the_cache_of_others_have_none() -> None:
    assert shape({**LLAMA, "llama.attention.shared_kv_layers": 20}).kv_numbers == 10 * 3 * 128


def test_without_kv_heads_there_are_as_many_as_heads() -> None:
    entries = {name: value for name, value in LLAMA.items() if not name.endswith("_kv")}

    assert (shape(entries).kv_heads, shape(entries).kv_numbers) == (9, 30 * 9 * 128)


def test_experts_that_work_together_count_together() -> None:
    experts: dict[str, Value] = {"llama.expert_feed_forward_length": 1000, "llama.expert_used_count": 8}

    assert shape({**LLAMA, **experts, "llama.expert_shared_feed_forward_length": 500}).feed_forward == 8500


def test_only_matrices_of_some_types_are_kept_twice() -> None:
    output = matrix("output.weight", "Q6_K")
    found = shape(
        LLAMA,
        output,
        matrix("token_embd.weight", "Q4_K"),
        matrix("blk.0.ffn_up.weight", "Q4_K", size=70),
        matrix("blk.0.attn_q.weight", "Q4_0", size=5),
        matrix("blk.0.attn_k.weight", "Q4_0", rows=12),
        matrix("blk.0.attn_v.weight", "Q4_1"),
        matrix("blk.0.attn_v.bias", "Q4_0"),
        Tensor("blk.0.attn_norm.weight", "Q4_0", 1, 1, 64, 36),
    )

    assert found.repacked_bytes == 75


def test_an_embedding_that_is_the_output_too_is_kept_twice() -> None:
    assert shape(LLAMA, matrix("token_embd.weight", "Q4_K", size=9)).repacked_bytes == 9


def test_a_header_that_says_nothing_of_sizes_has_its_bytes() -> None:
    assert shape({"general.architecture": "mystery"}, EMBEDDED) == Shape(
        architecture="mystery",
        stored_bytes=30_081_024,
        tensor_bytes={"Q8_0": 30_081_024},
        parameters=28_311_552,
        vocabulary=49_152,
    )


@pytest.mark.parametrize("odd", [2**64 - 1, float("inf"), float("nan"), -5, True])
@pytest.mark.parametrize("name", sorted(set(LLAMA) - {"general.architecture", "general.file_type"}))
def test_bad_input_17_absurd_numbers_give_a_shape_in_bounds(name: str, odd: Value) -> None:
    found = shape({**LLAMA, name: odd, "llama.attention.sliding_window": 512})
    by_layer = shape({**LLAMA, "llama.attention.head_count_kv": cast("Value", [odd] * 30)})

    for told in (found, by_layer):
        numbers = [getattr(told, field) for field in told.__struct_fields__]
        assert all(0 <= number <= 2**62 for number in numbers if isinstance(number, int))
