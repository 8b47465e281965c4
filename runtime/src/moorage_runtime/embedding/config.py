"""What the front tells the child of an embedding model, and what the parts of the child hand to each other."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Protocol

import msgspec

if TYPE_CHECKING:
    import numpy as np
    from PIL import Image


class ChildConfig(msgspec.Struct, frozen=True, kw_only=True):
    """How to load a model and how to serve it."""

    path: str
    name: str
    kind: Literal["sentence", "vision"]
    """sentence: a folder of sentence-transformers; vision: Qwen2-VL, the last token's state."""
    max_tokens: int
    matryoshka: bool = False
    """Whether the first numbers of a vector are an embedding by themselves."""
    threads: int
    batch_size: int = 16
    max_wait_ms: int = 50
    image_url_hosts: tuple[str, ...] = ()


@dataclass(slots=True)
class Input:
    """One thing to embed: text or tokens, an image, or text and an image together."""

    text: str | None = None
    tokens: list[int] | None = None
    image: Image.Image | None = None
    instruction: str | None = None
    truncate: bool = False


@dataclass(slots=True)
class Prepared:
    """An input as the model takes it."""

    ids: np.ndarray[Any, Any]
    instruction_tokens: int = 0
    """Tokens at the beginning that belong to an instruction; some models do not pool them."""
    pixels: Any = None
    grid: Any = None


class InvalidInput(Exception):  # noqa: N818 - it is the client's fault
    """An input cannot be embedded; the text is for the client."""

    index: int | None = None
    """Its place in the request."""


class TooLong(InvalidInput):
    """An input has more tokens than the model takes."""

    def __init__(self, tokens: int, limit: int) -> None:
        """Carry both numbers."""
        super().__init__(f"it has {tokens} tokens, and at most {limit} are possible")
        self.tokens = tokens
        self.limit = limit


def each(function: Callable[[Input], Prepared], inputs: Sequence[Input]) -> list[Prepared]:
    """Apply `function` to each input; what it finds invalid gets its place."""
    prepared = []
    for index, one in enumerate(inputs):
        try:
            prepared.append(function(one))
        except InvalidInput as invalid:
            invalid.index = index
            raise
    return prepared


class EmbeddingModel(Protocol):
    """A loaded model."""

    dimension: int
    device: str
    padded: bool
    """Whether the texts of a batch are padded to the longest."""
    sees: bool
    """Whether it takes images."""

    def scaled(self, width: int, height: int) -> tuple[int, int]:
        """Give the size at which it looks at an image of this size."""

    def prepare(self, inputs: Sequence[Input]) -> list[Prepared]:
        """Make tokens of inputs; raise InvalidInput. Runs beside `compute`, in another thread."""

    def compute(self, prepared: Sequence[Prepared]) -> Sequence[Any]:
        """Give a vector for each, or an exception in its place."""

    def memory_bytes(self) -> int | None:
        """Give what it holds of an accelerator's memory; None on the CPU."""
