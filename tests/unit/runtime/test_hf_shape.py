"""The shape of models in the Hugging Face form: configs of several families, and headers that are wrong."""

import json
from math import prod
from pathlib import Path
from typing import Any

import pytest

from moorage_common.shape import Shape
from moorage_runtime.hf_shape import hf_shape
from moorage_runtime.safetensors import MAX_HEADER, MAX_OBJECTS, SafetensorsError
from tests.unit.runtime.hf_folder import TINY, Tensors, folder, safetensors

# As they are on the hub, but for what has no part in a size.
LLAMA_3_8B: dict[str, Any] = {
    "model_type": "llama",
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "max_position_embeddings": 8192,
    "num_attention_heads": 32,
    "num_hidden_layers": 32,
    "num_key_value_heads": 8,
    "vocab_size": 128256,
}
QWEN2_7B_GPTQ: dict[str, Any] = {
    "model_type": "qwen2",
    "hidden_size": 3584,
    "intermediate_size": 18944,
    "max_position_embeddings": 32768,
    "max_window_layers": 28,
    "num_attention_heads": 28,
    "num_hidden_layers": 28,
    "num_key_value_heads": 4,
    "quantization_config": {"quant_method": "gptq", "bits": 4, "group_size": 128},
    "sliding_window": 131072,
    "use_sliding_window": False,
    "vocab_size": 152064,
}
MISTRAL_7B: dict[str, Any] = {
    "model_type": "mistral",
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "max_position_embeddings": 32768,
    "num_attention_heads": 32,
    "num_hidden_layers": 32,
    "num_key_value_heads": 8,
    "sliding_window": 4096,
    "vocab_size": 32000,
}
GEMMA_3_4B: dict[str, Any] = {
    "model_type": "gemma3",
    "text_config": {
        "model_type": "gemma3_text",
        "head_dim": 256,
        "hidden_size": 2560,
        "intermediate_size": 10240,
        "max_position_embeddings": 131072,
        "num_attention_heads": 8,
        "num_hidden_layers": 34,
        "num_key_value_heads": 4,
        "sliding_window": 1024,
        "vocab_size": 262208,
    },
    "vision_config": {"hidden_size": 1152, "num_hidden_layers": 27},
}
DEEPSEEK_V2: dict[str, Any] = {
    "model_type": "deepseek_v2",
    "hidden_size": 5120,
    "intermediate_size": 12288,
    "kv_lora_rank": 512,
    "moe_intermediate_size": 1536,
    "num_attention_heads": 128,
    "num_experts_per_tok": 6,
    "num_hidden_layers": 60,
    "num_key_value_heads": 128,
    "qk_rope_head_dim": 64,
}


def numbers(path: Path, config: dict[str, Any], tensors: Tensors = TINY) -> tuple[int, int, int, int]:
    """Give layers, KV numbers of those that see all, the window, and KV numbers of those that see it."""
    found = hf_shape(folder(path, config, tensors))
    return found.layers, found.kv_numbers, found.window, found.window_kv_numbers


def test_a_plain_llama(tmp_path: Path) -> None:
    assert hf_shape(folder(tmp_path, LLAMA_3_8B)) == Shape(
        architecture="llama",
        stored_bytes=(2 * 64_000 + 64 * 64 + 128 * 64 + 64) * 2,
        quantization="none",
        tensor_bytes={"BF16": (2 * 64_000 + 64 * 64 + 128 * 64 + 64) * 2},
        parameters=2 * 64_000 + 64 * 64 + 128 * 64 + 64,
        linear_parameters=64 * 64 + 128 * 64,
        context_length=8192,
        layers=32,
        embedding=4096,
        feed_forward=14336,
        heads=32,
        kv_heads=8,
        head_size=128,
        vocabulary=128256,
        kv_numbers=32 * 8 * 256,
    )


def test_a_window_that_is_switched_off_is_none(tmp_path: Path) -> None:
    assert numbers(tmp_path, QWEN2_7B_GPTQ) == (28, 28 * 4 * 256, 0, 0)


def test_a_window_that_begins_at_a_layer(tmp_path: Path) -> None:
    config = {**QWEN2_7B_GPTQ, "use_sliding_window": True, "max_window_layers": 21}
    assert numbers(tmp_path, config) == (28, 21 * 1024, 131072, 7 * 1024)


def test_a_window_of_all_layers(tmp_path: Path) -> None:
    assert numbers(tmp_path, MISTRAL_7B) == (32, 0, 4096, 32 * 2048)
    assert numbers(tmp_path, {**MISTRAL_7B, "sliding_window": None}) == (32, 32 * 2048, 0, 0)


def test_every_sixth_layer_of_gemma_3_sees_all(tmp_path: Path) -> None:
    found = hf_shape(folder(tmp_path, GEMMA_3_4B))
    assert (found.architecture, found.vocabulary, found.head_size) == ("gemma3", 262208, 256)
    assert (found.kv_numbers, found.window, found.window_kv_numbers) == (5 * 2048, 1024, 29 * 2048)


def test_layer_types_win_over_what_a_family_has(tmp_path: Path) -> None:
    kinds = ["sliding_attention", "full_attention", "linear_attention", "full_attention"]
    config = {**GEMMA_3_4B["text_config"], "num_hidden_layers": 4, "layer_types": kinds}
    assert numbers(tmp_path, config) == (4, 2 * 2048, 1024, 2048)


def test_latent_attention_keeps_one_vector_for_all_heads(tmp_path: Path) -> None:
    found = hf_shape(folder(tmp_path, DEEPSEEK_V2))
    assert found.kv_numbers == 60 * 576
    assert found.feed_forward == 12288


def test_experts_that_work_together_count_together(tmp_path: Path) -> None:
    config = {**LLAMA_3_8B, "num_experts_per_tok": 8, "moe_intermediate_size": 2048}
    assert hf_shape(folder(tmp_path, config)).feed_forward == 8 * 2048


@pytest.mark.parametrize(
    ("quantization", "told"),
    [
        ({"quant_method": "gptq", "bits": 4}, "gptq"),
        ({"quant_method": "awq"}, "awq"),
        ({"quant_method": "fp8"}, "fp8"),
        ({"quant_method": "compressed-tensors"}, "compressed-tensors"),
        ({"quant_method": "bitsandbytes", "load_in_4bit": True}, "bitsandbytes-4bit"),
        ({"quant_method": "bitsandbytes", "load_in_8bit": True}, "bitsandbytes-8bit"),
        (None, "none"),
        ("odd", "none"),
    ],
)
def test_the_precision_of_the_files_is_told_in_the_words_of_the_spec(
    tmp_path: Path, quantization: object, told: str
) -> None:
    found = hf_shape(folder(tmp_path, {**LLAMA_3_8B, "quantization_config": quantization}))
    assert found.quantization == told
    assert (found.parameters > 0) == (told == "none"), "packed numbers cannot be counted"


def test_of_the_same_weights_in_two_forms_one_is_counted(tmp_path: Path) -> None:
    whole = hf_shape(folder(tmp_path, LLAMA_3_8B)).stored_bytes
    folder(tmp_path, LLAMA_3_8B, name="consolidated.safetensors")
    assert hf_shape(tmp_path).stored_bytes == whole


def test_the_files_of_an_index_are_counted_once_each(tmp_path: Path) -> None:
    names = [f"model-0000{n}-of-00002.safetensors" for n in (1, 2)]
    for name in (*names, "consolidated.safetensors"):
        folder(tmp_path, LLAMA_3_8B, {"a": ("F16", [8])}, name)
    index = {"metadata": {}, "weight_map": {"a": names[0], "b": names[1], "c": names[1]}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    assert hf_shape(tmp_path).stored_bytes == 2 * 16


@pytest.mark.parametrize(
    ("index", "said"),
    [
        ({"weight_map": {"a": "gone.safetensors"}}, "'gone.safetensors', which is not there"),
        ({"weight_map": {"a": "../model.safetensors"}}, "which is not there"),
        ({"weight_map": 5}, "cannot be read"),
    ],
)
def test_an_index_that_lies_is_told(tmp_path: Path, index: object, said: str) -> None:
    folder(tmp_path / "m", LLAMA_3_8B, name="part.safetensors")
    (tmp_path / "m" / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(SafetensorsError, match=said):
        hf_shape(tmp_path / "m")


EMBEDDINGS, EIGHT = "model.embed_tokens.weight", {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}
BYTES = sum(2 * prod(shape) for _, shape in TINY.values())
LONG = {"dtype": "F32", "shape": [10**15], "data_offsets": [0, 4 * 10**15]}


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "truncated or no safetensors file"),
        (b"\x80\x02}q\x00.pickled", "truncated or no safetensors file"),
        (safetensors(TINY)[:200], "truncated"),
        (safetensors(TINY)[:-1], "truncated or lies about its sizes: tensor 'lm_head.weight'"),
        (safetensors(TINY, extra=LONG), "truncated or lies about its sizes: tensor 'extra'"),
        (safetensors(TINY, extra={**LONG, "data_offsets": [0, 8]}), "of type F32 and shape [1000000000000000] has 8 b"),
        (safetensors(TINY, extra={**LONG, "data_offsets": [8, 0]}), "lies about its sizes"),
        (safetensors(TINY, extra={**LONG, "shape": [-1]}), "cannot be read"),
        (safetensors(TINY, extra={**LONG, "shape": [1] * 99}), "cannot be read"),
        (safetensors(TINY, extra=5), "cannot be read"),
        (safetensors(TINY, extra=EIGHT), "at byte 0 overlaps the one before it, which ends at byte 8"),
        (safetensors(TINY, **{EMBEDDINGS: EIGHT}), "at byte 128000 leaves a hole before it, which ends at byte 8"),
        (safetensors(TINY) + bytes(8), f"its tensors end at byte {BYTES} of {BYTES + 8}"),
        (safetensors({"a": ("U8", [4]), "b": ("U8", [0])}).replace(b'"b"', b'"a"'), "the name 'a' is there twice"),
        (safetensors({}, __metadata__={"a": [{}] * MAX_OBJECTS}), f"more than {MAX_OBJECTS} objects"),
        ((8).to_bytes(8, "little") + b"[" * 8, "cannot be read"),
    ],
    ids=range(16),
)
def test_bad_input_17_a_header_that_lies_is_told_with_its_file(tmp_path: Path, content: bytes, said: str) -> None:
    folder(tmp_path, LLAMA_3_8B)
    (tmp_path / "model.safetensors").write_bytes(content)
    with pytest.raises(SafetensorsError) as failure:
        hf_shape(tmp_path)
    assert said in str(failure.value)
    assert str(failure.value).startswith("model.safetensors ")


def test_bad_input_17_a_header_without_end_is_not_read(tmp_path: Path) -> None:
    folder(tmp_path, LLAMA_3_8B)
    with (tmp_path / "model.safetensors").open("wb") as file:
        file.write((MAX_HEADER + 1).to_bytes(8, "little"))
        file.truncate(MAX_HEADER + 9)
    with pytest.raises(SafetensorsError, match="more than"):
        hf_shape(tmp_path)


@pytest.mark.parametrize("config", ["", "[]", "{", "5", '{"a":' * 5000])
def test_a_config_that_is_none_is_told(tmp_path: Path, config: str) -> None:
    folder(tmp_path, LLAMA_3_8B)
    (tmp_path / "config.json").write_text(config)
    with pytest.raises(SafetensorsError, match=r"config\.json cannot be read"):
        hf_shape(tmp_path)


@pytest.mark.parametrize("odd", [-1, 2**70, 1.5, "8", None, True, [], {}])
@pytest.mark.parametrize("name", sorted(set(LLAMA_3_8B) - {"model_type"}))
def test_odd_fields_of_a_config_count_as_absent(tmp_path: Path, name: str, odd: object) -> None:
    without = {key: value for key, value in LLAMA_3_8B.items() if key != name}
    assert hf_shape(folder(tmp_path, {**LLAMA_3_8B, name: odd})) == hf_shape(folder(tmp_path, without))


def test_a_folder_without_a_config_is_no_such_file(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        hf_shape(tmp_path)
