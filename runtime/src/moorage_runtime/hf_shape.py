"""The shape of a model in the Hugging Face form: config.json and safetensors files in one folder.

What a config does not say has the default that transformers gives it (configuration_*.py in src/transformers/models);
where families differ, theirs is named.
"""

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import msgspec

from moorage_common.shape import MAX_TEXT, Shape
from moorage_runtime.safetensors import SafetensorsError, Tensor, read_tensors

MAX_CONFIG: Final = 4 * 1024 * 1024
MAX_NUMBER: Final = 2**40
MAX_LAYERS: Final = 65_536

Config = Mapping[str, Any]

_WINDOW_TYPES: Final = {"sliding_attention", "chunked_attention"}
_NO_CACHE_TYPES: Final = {"linear_attention", "mamba", "recurrent", "conv"}

_PERIODS: Final = {"cohere2": 4, "gemma2": 2, "gemma3": 6, "gemma3_text": 6}
"""Every n-th layer sees the whole context, the others a window; for configs that were written before layer_types."""

_NOT_QUANTIZED: Final = ("embed", "lm_head", "wte", "wpe")
"""Parts of the names of matrices that engines leave as they are when they quantize while loading."""


def hf_shape(folder: Path) -> Shape:
    """Sum up config and headers; raise SafetensorsError where they are not what they should be, or OSError."""
    whole = _config(folder / "config.json")
    # A model that sees or hears keeps what belongs to its language model in a section.
    text = whole.get("text_config")
    config: Config = {**whole, **text} if isinstance(text, dict) else whole
    tensors = read_tensors(folder)
    by_type = Counter[str]()
    for tensor in tensors:
        by_type[tensor.type] += tensor.size
    quantization = _quantization(whole)
    heads, embedding = _number(config, "num_attention_heads", "n_head"), _number(config, "hidden_size", "n_embd")
    head_size = _number(config, "head_dim") or embedding // (heads or 1)
    kv_heads = _kv_heads(config, heads)
    everywhere, windowed = _layers(config)
    by_layer = _numbers_by_layer(config, kv_heads, head_size)
    return Shape(
        architecture=str(whole.get("model_type", ""))[:MAX_TEXT],
        quantization=quantization,
        stored_bytes=sum(tensor.size for tensor in tensors),
        tensor_bytes=dict(by_type),
        # Packed numbers cannot be counted by the shapes of what they are packed into.
        parameters=sum(tensor.elements for tensor in tensors) if quantization == "none" else 0,
        linear_parameters=_linear_parameters(tensors) if quantization == "none" else 0,
        context_length=_number(config, "max_position_embeddings", "n_positions"),
        layers=everywhere + windowed + _without_cache(config),
        embedding=embedding,
        feed_forward=_feed_forward(config, embedding),
        heads=heads,
        kv_heads=kv_heads,
        head_size=head_size,
        vocabulary=_number(config, "vocab_size"),
        kv_numbers=everywhere * by_layer,
        window=_window(config),
        window_kv_numbers=windowed * by_layer,
    )


def _config(path: Path) -> Config:
    with path.open("rb") as file:
        content = file.read(MAX_CONFIG + 1)
    if len(content) > MAX_CONFIG:
        raise SafetensorsError(f"{path.name} has more than {MAX_CONFIG} bytes")
    try:
        return msgspec.json.decode(content, type=dict[str, Any])
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise SafetensorsError(f"{path.name} cannot be read: {error}") from error


def _number(config: Config, *names: str) -> int:
    """Give the first of some fields that is a whole number in bounds, else 0."""
    values = (config.get(name) for name in names)
    return next((value for value in values if type(value) is int and 0 <= value <= MAX_NUMBER), 0)


def _quantization(config: Config) -> str:
    """Give what the files hold, in the words of spec.quantization where it has one."""
    found = config.get("quantization_config") or config.get("compression_config")
    if not isinstance(found, dict):
        return "none"
    method = str(found.get("quant_method", "unknown"))
    if method == "bitsandbytes":
        return "bitsandbytes-4bit" if found.get("load_in_4bit") else "bitsandbytes-8bit"
    return method[:MAX_TEXT]


def _kv_heads(config: Config, heads: int) -> int:
    if config.get("multi_query") is True:
        return 1
    return _number(config, "num_key_value_heads") or heads


def _numbers_by_layer(config: Config, kv_heads: int, head_size: int) -> int:
    latent = _number(config, "kv_lora_rank")
    if latent:
        # Multi-head latent attention (deepseek_v2): one latent vector and the rotated part of the key for all heads.
        return latent + _number(config, "qk_rope_head_dim")
    return kv_heads * 2 * head_size


def _window(config: Config) -> int:
    # Qwen 2 and 3 name a window that is switched off by default.
    if config.get("use_sliding_window", True) is False:
        return 0
    return _number(config, "sliding_window", "attention_chunk_size")


def _layer_count(config: Config) -> int:
    return min(_number(config, "num_hidden_layers", "n_layer"), MAX_LAYERS)


def _layers(config: Config) -> tuple[int, int]:
    """Give how many layers see the whole context, and how many a window."""
    count, kinds = _layer_count(config), config.get("layer_types")
    if isinstance(kinds, list):
        windowed = sum(kind in _WINDOW_TYPES for kind in kinds[:count] if isinstance(kind, str))
        windowed = windowed if _window(config) else 0
        return max(0, count - windowed - _without_cache(config)), windowed
    if not _window(config):
        return count, 0
    if "max_window_layers" in config:  # Qwen 2: the layers from this one on
        everywhere = min(count, _number(config, "max_window_layers"))
        return everywhere, count - everywhere
    period = _number(config, "sliding_window_pattern") or _PERIODS.get(str(config.get("model_type")), 0)
    everywhere = count // period if period else 0  # without a pattern all have it, as in Mistral
    return everywhere, count - everywhere


def _without_cache(config: Config) -> int:
    kinds = config.get("layer_types")
    if not isinstance(kinds, list):
        return 0
    return sum(kind in _NO_CACHE_TYPES for kind in kinds[: _layer_count(config)] if isinstance(kind, str))


def _feed_forward(config: Config, embedding: int) -> int:
    dense = _number(config, "intermediate_size", "n_inner") or 4 * embedding
    experts = _number(config, "num_experts_per_tok")
    if not experts:
        return dense
    return max(dense, experts * (_number(config, "moe_intermediate_size") or dense))


def _linear_parameters(tensors: tuple[Tensor, ...]) -> int:
    return sum(
        tensor.elements
        for tensor in tensors
        if len(tensor.shape) > 1 and not any(part in tensor.name for part in _NOT_QUANTIZED)
    )
