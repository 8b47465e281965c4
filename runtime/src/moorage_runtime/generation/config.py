"""What the front tells the child, and the words of quantization that both know."""

from __future__ import annotations

from typing import Final

import msgspec

INT8: Final = "bitsandbytes-8bit"
NF4: Final = "bitsandbytes-4bit"
WHILE_LOADING: Final = frozenset({INT8, NF4})
"""Precisions that weights as they were trained can be given while they are loaded."""

PAGE: Final = 32
"""Tokens of a page of the KV cache."""


class ChildConfig(msgspec.Struct, frozen=True, kw_only=True):
    """How the child is to load and serve."""

    path: str
    name: str
    context: int
    slots: int
    threads: int
    quantize: str | None = None
    """One of WHILE_LOADING, where the files hold weights as they were trained."""
    int8_threshold: float = 6.0
    wide: bool = False
    """Compute in float32 what the files hold in 16 bits."""
    compile: bool = False
    low_memory: bool = True
    verbose: bool = False

    @property
    def pages(self) -> int:
        """Pages of a KV cache in which every request has its whole context, and none is ever pushed out."""
        # One for the token that is being written, and a tenth for the share that transformers keeps free.
        each = -(-(self.context + 1) // PAGE) + 1
        return each * self.slots * 10 // 9 + 1
