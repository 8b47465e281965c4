"""The model's tokenizer and chat template, as the service uses them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from jinja2 import TemplateError

MAX_RENDERED = 2**24
"""Characters that a chat template may write: four times what a request can hold."""


class Words:
    """A tokenizer of transformers; it renders chat templates in jinja's sandbox."""

    def __init__(self, tokenizer: Any, vocabulary: int, ends: Sequence[int]) -> None:
        """Know how many tokens the model has, and which end a text."""
        self.vocabulary = vocabulary
        self.ends = frozenset(ends)
        self._tokenizer = tokenizer

    def encode(self, text: str) -> list[int]:
        """Give the tokens of a prompt."""
        return list(self._tokenizer(text, truncation=False, padding=False)["input_ids"])

    def chat(self, messages: list[dict[str, Any]]) -> list[int]:
        """Give the tokens of a chat; raise ValueError where the template refuses it."""
        try:
            text = self._tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
        except (TemplateError, TypeError, KeyError) as error:
            raise ValueError(str(error)) from error
        if len(text) > MAX_RENDERED:
            raise ValueError(f"it writes {len(text)} characters, over {MAX_RENDERED}")
        # The template writes the marks itself.
        return list(self._tokenizer(text, add_special_tokens=False, truncation=False, padding=False)["input_ids"])

    def decode(self, tokens: Sequence[int]) -> str:
        """Give the text of tokens, without marks."""
        text: str = self._tokenizer.decode(list(tokens), skip_special_tokens=True, clean_up_tokenization_spaces=False)
        return text

    def name(self, token: int) -> str:
        """Give the text of one token, marks included."""
        text: str = self._tokenizer.decode([token], clean_up_tokenization_spaces=False)
        return text
