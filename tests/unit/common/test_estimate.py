"""The estimate: by hand for known models, and what must hold for every shape and demand."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moorage_common.estimate import ENGINES, Demand, Estimate, context_of, estimate, gib, mib
from moorage_common.estimate.llamacpp import CHECKPOINTS
from moorage_common.estimate.terms import MIB, safetensors_weights
from moorage_common.estimate.vllm import cpu_kv_cache
from moorage_common.shape import Shape

SMOLLM2 = Shape(
    architecture="llama",
    stored_bytes=96_575_616,
    layers=30,
    embedding=576,
    feed_forward=1536,
    heads=9,
    kv_heads=3,
    head_size=64,
    vocabulary=49_152,
    kv_numbers=30 * 3 * 128,
)
GEMMA3 = Shape(
    architecture="gemma3",
    stored_bytes=246_587_904,
    repacked_bytes=13_271_040,
    layers=18,
    embedding=640,
    feed_forward=2048,
    heads=4,
    kv_heads=1,
    head_size=256,
    vocabulary=262_144,
    kv_numbers=3 * 512,
    window=512,
    window_kv_numbers=15 * 512,
)
LLAMA3_8B = Shape(
    architecture="llama",
    stored_bytes=16_060_522_496,
    quantization="none",
    parameters=8_030_261_248,
    linear_parameters=6_979_321_856,
    layers=32,
    embedding=4096,
    feed_forward=14_336,
    heads=32,
    kv_heads=8,
    head_size=128,
    vocabulary=128_256,
    kv_numbers=32 * 8 * 256,
)


def on(engine: str, shape: Shape, context: int, requests: int, **demand: Any) -> Estimate:
    return estimate(shape, Demand(engine, context, requests, **demand))


# Of llama.cpp's own log, at verbosity 4: `KV buffer size`, of Gemma 3 both of them.
@pytest.mark.parametrize(
    ("shape", "context", "slots", "logged_mib"),
    [
        (SMOLLM2, 256, 1, 5.625),
        (SMOLLM2, 1024, 4, 90),
        (SMOLLM2, 4096, 4, 360),
        (SMOLLM2, 8192, 8, 1440),
        (GEMMA3, 256, 1, 0.75 + 3.75),
        (GEMMA3, 1024, 4, 12 + 60),
        (GEMMA3, 4096, 4, 48 + 60),
        (GEMMA3, 2048, 16, 96 + 240),
    ],
)
def test_the_kv_cache_is_what_llama_cpp_takes(shape: Shape, context: int, slots: int, logged_mib: float) -> None:
    found = on("llamacpp", shape, context, slots).kv_cache
    copies = CHECKPOINTS * slots * min(context, shape.window) * shape.window_kv_numbers * 2
    assert found - copies == logged_mib * MIB


# Of the same runs: resident memory of the engine's process before it had answered anything.
@pytest.mark.parametrize(
    ("shape", "context", "slots", "held_mib"),
    [(SMOLLM2, 256, 1, 158), (SMOLLM2, 4096, 4, 512), (SMOLLM2, 8192, 8, 1593), (GEMMA3, 256, 1, 345)],
)
def test_the_total_is_what_the_engine_holds(shape: Shape, context: int, slots: int, held_mib: int) -> None:
    assert on("llamacpp", shape, context, slots).total == pytest.approx(held_mib * MIB, rel=0.05)


def test_after_conversations_in_all_slots_gemma_holds_its_copies_of_windows_too() -> None:
    # 2,048 tokens in 4 slots: 432 MiB after loading, 526 to 529 after two long prompts in each slot.
    assert on("llamacpp", GEMMA3, 2048, 4).total == pytest.approx(528 * MIB, rel=0.05)


def test_llama_cpp_rounds_the_context_up() -> None:
    assert on("llamacpp", SMOLLM2, 257, 1).kv_cache == on("llamacpp", SMOLLM2, 512, 1).kv_cache


@pytest.mark.parametrize(("shape", "logged_mib", "within"), [(SMOLLM2, 87.5 - 18.6, 0.03), (GEMMA3, 54.3 - 23.3, 0.11)])
def test_without_flash_attention_the_scores_are_kept(shape: Shape, logged_mib: float, within: float) -> None:
    # The compute buffer of llama.cpp's log for 4 slots of 4,096 tokens, without and with flash attention.
    more = on("llamacpp", shape, 4096, 4, options=("--flash-attn=off",)).total - on("llamacpp", shape, 4096, 4).total
    assert more == pytest.approx(logged_mib * MIB, rel=2 * within)


def test_layers_that_stay_on_the_cpu_take_no_memory_of_a_gpu() -> None:
    whole, half, none = (on("llamacpp", SMOLLM2, 4096, 4, gpus=1, gpu_layers=layers) for layers in (None, 15, 0))
    assert half.weights == SMOLLM2.stored_bytes * 15 // 31
    assert half.kv_cache == whole.kv_cache * 15 // 31
    assert (none.weights, none.kv_cache, none.overhead) == (0, 0, whole.overhead)
    assert on("llamacpp", SMOLLM2, 4096, 4, gpus=1, gpu_layers=99) == whole
    kept = on("llamacpp", SMOLLM2, 4096, 4, gpus=1, options=("--no-kv-offload",))
    assert (kept.weights, kept.kv_cache) == (whole.weights, 0)


def test_options_of_vllm_that_change_what_it_takes() -> None:
    plain = on("vllm", LLAMA3_8B, 8192, 4, gpus=1)
    assert 2 * on("vllm", LLAMA3_8B, 8192, 4, gpus=1, options=("--kv-cache-dtype=fp8_e4m3",)).kv_cache == plain.kv_cache
    wide = on("vllm", LLAMA3_8B, 8192, 4, gpus=1, options=("--dtype=float32",))
    assert (wide.weights, wide.kv_cache) == (2 * plain.weights, 2 * plain.kv_cache)
    narrow = on("vllm", LLAMA3_8B, 8192, 4, gpus=1, options=("--dtype=float32", "--kv-cache-dtype=bfloat16"))
    assert (narrow.weights, narrow.kv_cache) == (wide.weights, plain.kv_cache)
    eager = on("vllm", LLAMA3_8B, 8192, 4, gpus=1, options=("--enforce-eager",))
    assert plain.overhead - eager.overhead == 1024 * MIB
    shared = on("vllm", LLAMA3_8B, 8192, 4, gpus=2, options=("--cpu-offload-gb=4",))
    assert plain.weights - shared.weights == 8 * 1024 * MIB, "4 GiB of each GPU"
    assert on("vllm", LLAMA3_8B, 8192, 4, gpus=1, options=("--cpu-offload-gb=999999999",)).weights == 0
    small = on("vllm", LLAMA3_8B, 8192, 4, gpus=1, options=("--seed=1", "--max-num-batched-tokens=2048"))
    assert small.overhead < plain.overhead
    assert on("vllm", LLAMA3_8B, 8192, 4, gpus=1, options=("--max-num-batched-tokens=\u0663",)) == plain


def test_weights_that_are_kept_twice_count_on_the_cpu_only() -> None:
    twice = GEMMA3
    once = Shape(**{name: getattr(GEMMA3, name) for name in GEMMA3.__struct_fields__ if name != "repacked_bytes"})
    assert on("llamacpp", twice, 512, 1).total - on("llamacpp", once, 512, 1).total == GEMMA3.repacked_bytes
    assert on("llamacpp", twice, 512, 1, gpus=1) == on("llamacpp", once, 512, 1, gpus=1)
    unmapped = on("llamacpp", twice, 512, 1, options=("--no-mmap",))
    assert unmapped == on("llamacpp", once, 512, 1), "without a mapping there is nothing to keep beside the copy"


def test_the_kv_cache_of_llama_3_8b_is_the_128_kib_a_token_that_everybody_counts() -> None:
    assert on("vllm", LLAMA3_8B, 8192, 1, gpus=1).kv_cache == 8192 * 128 * 1024
    assert on("transformers", LLAMA3_8B, 8192, 4, gpus=1).kv_cache == 4 * 8192 * 128 * 1024


def test_vllm_keeps_blocks_of_16_tokens() -> None:
    assert on("vllm", LLAMA3_8B, 17, 1, gpus=1).kv_cache == 32 * 128 * 1024


def test_vllm_on_the_cpu_keeps_blocks_of_128_tokens_and_has_three_processes() -> None:
    found = on("vllm", LLAMA3_8B, 129, 3)
    assert found.kv_cache == 3 * 256 * 128 * 1024
    assert cpu_kv_cache(LLAMA3_8B, Demand("vllm", 129, 3)) == (3 + 1) * 256 * 128 * 1024
    assert found.overhead > 2.3 * 1024**3


def test_a_window_bounds_what_a_layer_keeps() -> None:
    assert on("transformers", GEMMA3, 100_000, 1).kv_cache == 2 * (1536 * 100_000 + 7680 * 512)
    # vLLM: the window, one batch, and a block.
    assert on("vllm", GEMMA3, 100_000, 1, gpus=1).kv_cache == 2 * (1536 * 100_000 + 7680 * (8704 + 16))


def test_more_gpus_than_kv_heads_hold_copies_of_them() -> None:
    assert on("vllm", LLAMA3_8B, 4096, 1, gpus=8).kv_cache == on("vllm", LLAMA3_8B, 4096, 1, gpus=1).kv_cache
    assert on("vllm", LLAMA3_8B, 4096, 1, gpus=16).kv_cache == 2 * on("vllm", LLAMA3_8B, 4096, 1, gpus=1).kv_cache


@pytest.mark.parametrize(
    ("quantization", "bytes_by_linear"),
    [(None, 2), ("none", 2), ("bitsandbytes-8bit", 1), ("fp8", 1), ("bitsandbytes-4bit", 0.5625)],
)
def test_what_is_quantized_while_loading_shrinks_the_matrices_only(quantization: str, bytes_by_linear: float) -> None:
    rest = LLAMA3_8B.parameters - LLAMA3_8B.linear_parameters
    wanted = rest * 2 + LLAMA3_8B.linear_parameters * bytes_by_linear
    assert on("vllm", LLAMA3_8B, 4096, 1, quantization=quantization, gpus=1).weights == pytest.approx(wanted, abs=2)


@pytest.mark.parametrize("stored", ["gptq", "awq", "fp8", "compressed-tensors", "bitsandbytes-4bit"])
def test_what_is_quantized_already_stays_as_it_is(stored: str) -> None:
    shape = Shape(architecture="qwen2", stored_bytes=5_000, quantization=stored, linear_parameters=4_000)
    assert {on(engine, shape, 512, 1, quantization=stored).weights for engine in ENGINES} == {5_000}


def test_transformers_in_32_bits_has_weights_and_cache_of_twice_the_size() -> None:
    narrow, wide = (on("transformers", LLAMA3_8B, 8192, 4, options=each) for each in ((), ("--dtype=float32",)))
    assert (wide.weights, wide.kv_cache) == (2 * narrow.weights, 2 * narrow.kv_cache)
    assert wide.overhead == narrow.overhead


def test_vllm_keeps_32_bit_weights_in_16() -> None:
    shape = Shape(architecture="llama", stored_bytes=4_000, parameters=1_000)
    assert (on("vllm", shape, 16, 1).weights, on("transformers", shape, 16, 1).weights) == (2_000, 4_000)


def test_every_gpu_has_its_overhead() -> None:
    for engine in ENGINES:
        one, four = (on(engine, LLAMA3_8B, 4096, 4, gpus=gpus) for gpus in (1, 4))
        assert four.weights == one.weights
        assert four.overhead > one.overhead + 3 * 256 * MIB


def test_a_shape_without_sizes_counts_its_weights() -> None:
    found = on("llamacpp", Shape(architecture="mystery", stored_bytes=MIB), 4096, 4)
    assert (found.weights, found.kv_cache) == (MIB, 0)


def test_the_estimate_names_its_terms() -> None:
    text = str(on("llamacpp", SMOLLM2, 4096, 4))
    assert text == "526 MiB (weights 93 MiB, KV cache 360 MiB, overhead 74 MiB)"


def test_words_for_sizes_and_contexts() -> None:
    assert (mib(1), gib(24 * 1024**3), gib(5)) == ("1 MiB", "24.0 GiB", "1 MiB")
    assert [context_of(asked, trained) for asked, trained in ((None, 0), (None, 512), (9000, 512))] == [4096, 512, 9000]


sizes = st.integers(0, 10**6)
shapes = st.builds(
    Shape,
    architecture=st.just("llama"),
    stored_bytes=st.integers(0, 10**12),
    quantization=st.sampled_from([None, "none", "gptq"]),
    parameters=st.integers(0, 10**12),
    linear_parameters=st.integers(0, 10**12),
    **dict.fromkeys(
        [
            *("repacked_bytes", "layers", "embedding", "feed_forward", "heads", "kv_heads", "head_size"),
            *("vocabulary", "kv_numbers", "window", "window_kv_numbers"),
        ],
        sizes,
    ),
)
demands = st.builds(
    Demand,
    engine=st.sampled_from(sorted(ENGINES)),
    context=st.integers(1, 2**20),
    requests=st.integers(1, 1024),
    quantization=st.sampled_from([None, "none", "bitsandbytes-4bit", "fp8", "q4_k_m"]),
    gpus=st.integers(0, 8),
    gpu_layers=st.none() | st.integers(0, 100),
    options=st.sampled_from([(), ("--flash-attn=off", "--no-mmap"), ("--no-kv-offload",), ("--kv-cache-dtype=fp8",)]),
)


@given(shapes, demands, st.integers(0, 2**20))
def test_a_longer_context_never_takes_less(shape: Shape, demand: Demand, more: int) -> None:
    small, large = (estimate(shape, asked) for asked in (demand, demand._replace(context=demand.context + more)))
    assert small.weights == large.weights
    assert small.kv_cache <= large.kv_cache
    assert small.overhead <= large.overhead


@given(shapes, demands, st.integers(0, 1024))
def test_more_requests_never_take_less(shape: Shape, demand: Demand, more: int) -> None:
    few, many = (estimate(shape, asked) for asked in (demand, demand._replace(requests=demand.requests + more)))
    assert few.weights == many.weights
    rounding = demand.requests + more
    assert abs(few.kv_cache * rounding - many.kv_cache * demand.requests) <= rounding, "each request has its own"
    assert few.overhead <= many.overhead


@given(shapes, demands)
def test_terms_are_whole_and_add_up(shape: Shape, demand: Demand) -> None:
    found = estimate(shape, demand)
    assert all(type(term) is int and term >= 0 for term in found)
    assert found.total == sum(found)


@given(shapes, demands, st.integers(0, 10**6))
def test_a_window_never_takes_more_than_it_would_without_the_bound(shape: Shape, demand: Demand, window: int) -> None:
    # A window as long as the context is no window, but for the room that engines keep beside it.
    wide = Shape(**{**_fields(shape), "window": max(window, shape.window)})
    narrow = Shape(**{**_fields(shape), "window": min(window, shape.window)})
    assert estimate(narrow, demand).total <= estimate(wide, demand).total


@given(shapes, st.sampled_from([None, "none", "bitsandbytes-8bit", "bitsandbytes-4bit", "fp8"]))
def test_quantizing_while_loading_never_adds_to_16_bit_weights(shape: Shape, quantization: str | None) -> None:
    plain = Shape(**{**_fields(shape), "quantization": "none", "stored_bytes": 2 * shape.parameters})
    assert safetensors_weights(plain, quantization) <= safetensors_weights(plain, None)


def _fields(shape: Shape) -> dict[str, Any]:
    return {name: getattr(shape, name) for name in shape.__struct_fields__}
