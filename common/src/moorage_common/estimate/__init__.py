"""How much memory a model will need, from its shape and from what is asked of it. Pure.

Three terms: weights, KV cache and overhead. What they are made of differs by engine; each has its module here, with the
formulas and where they come from. Runtime and operator use the same, so that both tell the same numbers.
"""

from collections.abc import Callable, Mapping
from typing import Final

from moorage_common.estimate import llamacpp, transformers, vllm
from moorage_common.estimate.terms import Demand, Estimate, gib, mib
from moorage_common.shape import Shape

__all__ = ["DEFAULT_CONTEXT", "Demand", "Estimate", "context_of", "estimate", "gib", "mib"]

DEFAULT_CONTEXT: Final = 4096
"""Tokens of one request where nobody asks for a number: many models were trained with far more than fits."""

ENGINES: Final[Mapping[str, Callable[[Shape, Demand], Estimate]]] = {
    "llamacpp": llamacpp.estimate,
    "transformers": transformers.estimate,
    "vllm": vllm.estimate,
}
"""By the name of the framework; adding one is a module and a line."""


def estimate(shape: Shape, demand: Demand) -> Estimate:
    """The memory of one copy of a model, over all its GPUs, or of its engine's process where it has none."""
    return ENGINES[demand.engine](shape, demand)


def context_of(asked: int | None, trained: int) -> int:
    """The context length that is meant: the one that is asked for, or else the model's own up to a limit.

    >>> context_of(None, 131072), context_of(None, 2048), context_of(8192, 131072), context_of(None, 0)
    (4096, 2048, 8192, 4096)
    """
    return asked if asked is not None else min(trained or DEFAULT_CONTEXT, DEFAULT_CONTEXT)
