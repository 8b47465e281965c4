"""How many bytes of text one token can stand for at most: enough to refuse, without a tokenizer, what cannot fit.

A prompt of so many bytes has at least bytes / longest tokens. That holds only for tokenizers that keep every byte: not
where a normalizer drops or shortens text, nor where a token stands for a whole unknown word. Of those nothing is known.
"""

from pathlib import Path
from typing import Any, Final

import msgspec

MAX_FILE: Final = 64 * 1024 * 1024


class _Model(msgspec.Struct):
    vocab: dict[str, int]
    type: str | None = None


class _Added(msgspec.Struct):
    content: str


class _Tokenizer(msgspec.Struct):
    model: _Model
    normalizer: Any = None
    pre_tokenizer: Any = None
    added_tokens: list[_Added] = []


def longest_token(folder: Path | None) -> int | None:
    """Read the tokenizer.json of a folder in the Hugging Face form; None where it says nothing that is certain."""
    path = folder / "tokenizer.json" if folder is not None else None
    if path is None or not path.is_file() or path.stat().st_size > MAX_FILE:
        return None
    try:
        found = msgspec.json.decode(path.read_bytes(), type=_Tokenizer)
    except (OSError, msgspec.DecodeError, RecursionError):
        return None  # whoever loads the tokenizer says what is wrong with it
    if found.model.type != "BPE" or found.normalizer is not None or not _keeps_bytes(found.pre_tokenizer):
        return None
    # A byte is written as one character there, of one or two bytes: the length as UTF-8 is never too small.
    texts = (*found.model.vocab, *(added.content for added in found.added_tokens))
    return max((len(text.encode()) for text in texts), default=0) or None


def _keeps_bytes(step: Any) -> bool:
    """Say whether a pre-tokenizer cuts text into bytes, whatever else it does before."""
    if not isinstance(step, dict):
        return False
    steps = step.get("pretokenizers") if step.get("type") == "Sequence" else [step]
    if not isinstance(steps, list) or not all(isinstance(one, dict) for one in steps):
        return False
    removes = any(one.get("behavior") == "Removed" for one in steps)
    return not removes and any(one.get("type") == "ByteLevel" for one in steps)
