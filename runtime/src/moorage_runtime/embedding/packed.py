"""Runs a BERT-like model without padding: the texts of a batch lie end to end in one row, attention keeps them apart.

Padding costs as much as text in every matrix product; here only attention, a few percent of the work at these lengths,
sees texts as rows of equal length. transformers calls our attention by its name; the model's own code stays as it is.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import torch
from transformers import AttentionInterface
from transformers.masking_utils import AttentionMaskInterface

NAME: Final = "moorage_packed"

FAMILIES: Final = frozenset({"bert", "camembert", "roberta", "xlm-roberta"})
"""Models that take positions as an input and keep no other state of a token's place."""


class Layout:
    """Where each text of a batch lies."""

    def __init__(self, lengths: Sequence[int], device: str) -> None:
        """Lay texts of these lengths end to end."""
        self.count, self.longest = len(lengths), max(lengths)
        sizes = np.asarray(lengths)
        starts = np.concatenate([[0], np.cumsum(sizes)])
        text = np.repeat(np.arange(self.count), sizes)
        place = np.arange(starts[-1]) - np.repeat(starts[:-1], sizes)
        self.positions = torch.from_numpy(place).to(device)
        self.texts = torch.from_numpy(text).to(device)
        self.starts = torch.from_numpy(starts).to(device)
        self.cells = torch.from_numpy(text * self.longest + place).to(device)
        """Where each token is in a table with a row for each text."""
        seen = torch.arange(self.longest, device=device) < torch.from_numpy(sizes).to(device)[:, None]
        self.mask = None if int(sizes.min()) == self.longest else seen[:, None, None, :]

    def rows(self, packed: Any) -> Any:
        """Turn (1, heads, tokens, size) into (texts, heads, longest, size)."""
        heads, size = packed.shape[1], packed.shape[3]
        table = packed.new_zeros(self.count * self.longest, heads, size)
        table[self.cells] = packed[0].transpose(0, 1)
        return table.view(self.count, self.longest, heads, size).transpose(1, 2)

    def packed(self, rows: Any) -> Any:
        """Turn (texts, heads, longest, size) into (1, tokens, heads, size)."""
        heads, size = rows.shape[1], rows.shape[3]
        return rows.transpose(1, 2).reshape(self.count * self.longest, heads, size)[self.cells][None]


def attention(  # noqa: PLR0913, PLR0917 - transformers' signature
    module: Any, query: Any, key: Any, value: Any, attention_mask: Any, scaling: float | None = None, **others: Any
) -> tuple[Any, None]:
    """Let each text attend to itself."""
    layout: Layout = others["layout"]
    product = torch.nn.functional.scaled_dot_product_attention
    if layout.count == 1:
        return product(query, key, value, scale=scaling).transpose(1, 2), None
    found = product(*map(layout.rows, (query, key, value)), attn_mask=layout.mask, scale=scaling)
    return layout.packed(found), None


def _no_mask(*arguments: Any, **named: Any) -> None:
    """Make no mask: the layout has it."""


def register() -> None:
    """Make the attention known to transformers."""
    AttentionInterface.register(NAME, attention)
    AttentionMaskInterface.register(NAME, _no_mask)
