"""Models in the Hugging Face form, made by hand: a config, and safetensors files of zeros."""

import json
from collections.abc import Mapping
from math import prod
from pathlib import Path
from typing import Any

BYTES = {"F32": 4, "F16": 2, "BF16": 2, "F8_E4M3": 1, "I32": 4, "U8": 1, "I8": 1}

Tensors = Mapping[str, tuple[str, list[int]]]
"""Type and shape by name."""

TINY: Tensors = {
    "model.embed_tokens.weight": ("BF16", [1000, 64]),
    "model.layers.0.self_attn.q_proj.weight": ("BF16", [64, 64]),
    "model.layers.0.mlp.up_proj.weight": ("BF16", [128, 64]),
    "model.layers.0.input_layernorm.weight": ("BF16", [64]),
    "lm_head.weight": ("BF16", [1000, 64]),
}


def safetensors(tensors: Tensors, **changed: Any) -> bytes:
    """Write a file; `changed` replaces what the header says of tensors, by their names."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name, (kind, shape) in tensors.items():
        begin, end = end, end + prod(shape) * BYTES[kind]
        header[name] = {"dtype": kind, "shape": shape, "data_offsets": [begin, end]}
    content = json.dumps({**header, **changed}).encode()
    return len(content).to_bytes(8, "little") + content + bytes(end)


def folder(path: Path, config: Mapping[str, Any], tensors: Tensors = TINY, name: str = "model.safetensors") -> Path:
    """Write a model with one file."""
    path.mkdir(exist_ok=True)
    (path / "config.json").write_text(json.dumps(config))
    (path / name).write_bytes(safetensors(tensors))
    return path
