"""What llama.cpp's engine checks of a file and its settings before it starts, in the front."""

from typing import Final

import msgspec

from moorage_common.estimate import Demand, context_of, estimate, mib
from moorage_common.estimate.llamacpp import CELLS
from moorage_common.estimate.terms import MIB, round_up
from moorage_common.facts import LoadError
from moorage_common.shape import Shape
from moorage_runtime import machine
from moorage_runtime.errors import CONCURRENCY_NAMES, CONTEXT_NAMES, MEMORY_NAMES, QUANTIZATION_NAMES, LoadFailure
from moorage_runtime.gguf import TEMPLATE, Header

MAX_SLOTS: Final = 256
"""LLAMA_MAX_SEQ of llama.cpp."""

FRONT_BYTES: Final = 40 * MIB
"""Resident memory of this process, the front, which shares the container with the engine's."""

TOOLS: Final = frozenset({"tools", "tool_choice", "parallel_tool_calls"})

BITS: Final = {"4bit": ("q4_", "iq4_", "mxfp4", "nvfp4"), "8bit": ("q8_",)}
"""Types of GGUF files by what the small-model server called them."""

POOLINGS: Final = {0: "NONE", 1: "MEAN", 2: "CLS", 3: "LAST"}
"""llama_pooling_type, as the header of a GGUF file has it; 4 is for rerankers."""


def knows_tools(header: Header) -> bool:
    """Say whether a template of the model speaks of tools; llama.cpp drops them without a word where none does."""
    return any("tools" in str(text) for name, text in header.entries.items() if name.startswith(TEMPLATE))


def check_quantization(asked: str | None, header: Header, file_name: str) -> None:
    if asked is None or _is_of(asked.lower(), (header.file_type or "").lower()):
        return
    found = f"is {header.file_type}" if header.file_type else "does not say its quantization (general.file_type)"
    raise LoadFailure(
        LoadError.INVALID_MODEL_CONFIG, f"{QUANTIZATION_NAMES} asked for is {asked}, but {file_name} {found}"
    )


def _is_of(asked: str, found: str) -> bool:
    """Say whether a file's type is what was asked for: by its name, or by its bits."""
    return found == asked or (asked in BITS and found.startswith(BITS[asked]))


def pooling_of(header: Header) -> str:
    """Give what the file says; a model that was made to write is taken by the mean of its tokens."""
    number = header.number("pooling_type")
    pooling = "MEAN" if number in {None, 0} else POOLINGS.get(number or 0)
    if pooling is None:
        raise LoadFailure(
            LoadError.INVALID_MODEL_CONFIG,
            f"the file's pooling_type is {number}, of a model that ranks: it makes no embeddings (MODEL_TASK=embed)",
        )
    return pooling


def context_of_slot(asked: int | None, shape: Shape) -> int:
    """Give the context length that llama.cpp will really make for one slot."""
    trained = shape.context_length
    if asked is not None and trained and asked > trained:
        raise LoadFailure(
            LoadError.INVALID_MODEL_CONFIG,
            f"the context length asked for is {asked} tokens, but the model was trained with {trained}; "
            f"set {CONTEXT_NAMES} to at most {trained}",
        )
    return round_up(context_of(asked, trained), CELLS)


def checked_slots(asked: int) -> int:
    if asked > MAX_SLOTS:
        raise LoadFailure(
            LoadError.INVALID_MODEL_CONFIG,
            f"{CONCURRENCY_NAMES} is {asked}, and llama.cpp works on at most {MAX_SLOTS} requests at once",
        )
    return asked


def check_memory(shape: Shape, demand: Demand, file_name: str) -> None:
    if machine.has_accelerator():
        return  # its memory holds the model, and llama.cpp says so if it cannot
    limit = machine.memory_limit()
    # The kernel gives the file's pages back when memory is short, so weights of which there is a copy count once.
    needed = estimate(msgspec.structs.replace(shape, repacked_bytes=0), demand)
    needed = needed._replace(overhead=needed.overhead + FRONT_BYTES)
    if limit is None or needed.total <= limit.size:
        return
    raise LoadFailure(
        LoadError.OUT_OF_MEMORY,
        f"{file_name} needs about {needed} for {demand.requests} requests of {demand.context} tokens, and "
        f"{limit.source} is {mib(limit.size)}; lower {CONTEXT_NAMES} or {CONCURRENCY_NAMES}, or raise {MEMORY_NAMES} "
        f"to at least {mib(needed.total)}",
    )
