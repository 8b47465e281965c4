"""Which files may be fetched, by their names: a closed list. Pure.

Nothing on it is run when it is loaded. What is not on it is left where it is: pickles (.bin, .pt), Python, archives.
"""

from __future__ import annotations

import re
from pathlib import PurePosixPath
from typing import Final

from moorage_runtime.hf_folder import UNSAFE

_PART: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._+=,@~ -]{0,199}")
MAX_LENGTH: Final = 255
MAX_DEPTH: Final = 4

WEIGHTS: Final = frozenset({".gguf", ".safetensors"})
_ENDINGS: Final = frozenset({".jinja", ".json", ".tiktoken"})
_NAMES: Final = frozenset(
    {"merges.txt", "sentencepiece.bpe.model", "spiece.model", "tokenizer.model", "tokenizer.model.v3", "vocab.txt"}
)


def is_safe_path(name: str) -> bool:
    """Tell whether a name stays below the folder that it is put into, and is no hidden file.

    >>> [is_safe_path(name) for name in ("model.safetensors", "1_Pooling/config.json", "../x", "/etc/x", "a//b", ".x")]
    [True, True, False, False, False, False]
    """
    parts = name.split("/")
    return (
        len(name) <= MAX_LENGTH
        and len(parts) <= MAX_DEPTH
        and all(_PART.fullmatch(part) and part == part.rstrip(" .") and ".." not in part for part in parts)
    )


def is_weights(name: str) -> bool:
    """Tell whether a file holds weights that may be fetched."""
    return PurePosixPath(name).suffix in WEIGHTS


def is_unsafe(name: str) -> bool:
    """Tell whether a file holds weights that may run code when they are loaded."""
    return PurePosixPath(name).suffix.lower() in UNSAFE


def is_allowed(name: str) -> bool:
    """Tell whether a file may be fetched at all.

    >>> [is_allowed(name) for name in ("tokenizer.json", "pytorch_model.bin", "modeling_x.py", "a.gguf.part", "x.JSON")]
    [True, False, False, False, False]
    """
    pure = PurePosixPath(name)
    return is_safe_path(name) and (pure.suffix in _ENDINGS | WEIGHTS or pure.name in _NAMES)
