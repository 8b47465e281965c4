"""Models of sentence-transformers: tokens of texts in one thread, vectors of batches in another.

The library loads the model and its modules; tokenizing and the shape of a batch are ours, since they decide the speed.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import torch
from sentence_transformers import SentenceTransformer

from moorage_common.facts import LoadError
from moorage_runtime.embedding import packed
from moorage_runtime.embedding.config import ChildConfig, Input, InvalidInput, Prepared, TooLong, each
from moorage_runtime.errors import LoadFailure

log = logging.getLogger(__name__)

TOLERANCE: Final = {torch.float32: 1e-4, torch.float16: 1e-2, torch.bfloat16: 5e-2}
"""How far a number of a vector may move when the same text is computed without padding."""

AFTER_POOLING: Final = frozenset({"Dense", "Dropout", "LayerNorm", "Normalize"})
"""Modules that see one vector for each text, and no tokens."""

PROBE: Final = ("Hi", "Without padding the texts of a batch lie end to end in one row.", "A text of another length.")


class SentenceModel:
    """A folder of sentence-transformers."""

    sees = False

    def __init__(self, config: ChildConfig, device: str) -> None:
        """Load it; raise LoadFailure where it is not a model of texts."""
        # On the CPU 16-bit numbers are slower than 32-bit ones and lose precision; an accelerator takes the file's own.
        dtype = torch.float32 if device == "cpu" else "auto"
        self.model = SentenceTransformer(
            config.path,
            device=device,
            local_files_only=True,
            trust_remote_code=False,
            model_kwargs={"dtype": dtype, "attn_implementation": "sdpa"},
        ).eval()
        self.device = device
        self.max_tokens = config.max_tokens
        self.dimension = int(self.model.get_embedding_dimension() or 0)
        self._first: Any = self.model[0]
        tokenizer: Any = getattr(self._first, "tokenizer", None)
        if type(self._first).__name__ != "Transformer" or not hasattr(tokenizer, "backend_tokenizer"):
            kind = type(self._first).__name__
            raise LoadFailure(
                LoadError.INVALID_MODEL_CONFIG, f"the first module is {kind}, not a Transformer with a fast tokenizer"
            )
        self._tokenizer = tokenizer.backend_tokenizer
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()
        self._pad, self._pad_left = int(tokenizer.pad_token_id or 0), tokenizer.padding_side == "left"
        self._lower = bool(getattr(self._first, "do_lower_case", False))
        self._vocabulary = int(self._first.model.get_input_embeddings().num_embeddings)
        pooling: Any = self.model[1] if len(self.model) > 1 else None
        self._pools_instruction = bool(getattr(pooling, "include_prompt", True))
        default = self.model.default_prompt_name
        self._prompt = (self.model.prompts or {}).get(default, "") if default else ""
        self.padded = not self._try_packed()

    # -- tokens -------------------------------------------------------------------------------------------------------

    def scaled(self, width: int, height: int) -> tuple[int, int]:
        """Give an image's own size: it looks at none."""
        return width, height

    def prepare(self, inputs: Sequence[Input]) -> list[Prepared]:
        """Tokenize all texts in one call; the library lets other threads run meanwhile."""
        texts = [self._text(one) for one in inputs if one.tokens is None]
        encoded = iter(self._tokenizer.encode_batch_fast(texts) if texts else ())
        return each(
            lambda one: self._bounded(next(encoded).ids, one) if one.tokens is None else self._tokens(one), inputs
        )

    def _text(self, one: Input) -> str:
        text = (self._prompt if one.instruction is None else one.instruction) + (one.text or "")
        return text.lower() if self._lower else text

    def _bounded(self, ids: list[int], one: Input) -> Prepared:
        if len(ids) > self.max_tokens:
            if not one.truncate:
                raise TooLong(len(ids), self.max_tokens)
            ids = self._cut(self._text(one))
        prompt = self._prompt if one.instruction is None else one.instruction
        skipped = 0 if self._pools_instruction or not prompt else self._prompt_tokens(prompt)
        return Prepared(np.asarray(ids, dtype=np.int64), skipped)

    def _cut(self, text: str) -> list[int]:
        """Keep the beginning, and around it the tokens that the model wants around every text."""
        around = self._tokenizer.num_special_tokens_to_add(False)
        encoding = self._tokenizer.encode(text, add_special_tokens=False)
        encoding.truncate(self.max_tokens - around)
        ids: list[int] = self._tokenizer.post_process(encoding).ids
        return ids

    def _prompt_tokens(self, prompt: str) -> int:
        """Count as the library does: the tokens of the prompt alone, without the one that ends a text."""
        ids = self._tokenizer.encode(prompt.lower() if self._lower else prompt).ids
        ends = self._first.tokenizer.all_special_ids
        return len(ids) - (1 if ids and ids[-1] in ends else 0)

    def _tokens(self, one: Input) -> Prepared:
        ids = one.tokens or []
        if max(ids) >= self._vocabulary:
            raise InvalidInput(f"token {max(ids)} is not in the vocabulary of {self._vocabulary}")
        if len(ids) > self.max_tokens:
            if not one.truncate:
                raise TooLong(len(ids), self.max_tokens)
            ids = ids[: self.max_tokens]
        return Prepared(np.asarray(ids, dtype=np.int64))

    # -- vectors ------------------------------------------------------------------------------------------------------

    def compute(self, prepared: Sequence[Prepared]) -> Sequence[Any]:
        """Give a vector for each; a vector with a number that is none is an error of its own."""
        if not self._pools_instruction and len({one.instruction_tokens for one in prepared}) > 1:
            return [self.compute([one])[0] for one in prepared]  # pooling knows one length of prompt a batch
        with torch.inference_mode():
            features = self._padded_features(prepared) if self.padded else self._packed_features(prepared)
            for module in list(self.model)[1:]:
                features = module(features)
            return rows(features["sentence_embedding"].float())

    def memory_bytes(self) -> int | None:
        """Give what torch holds of the accelerator."""
        return None if self.device == "cpu" else int(torch.cuda.memory_reserved())

    def _padded_features(self, prepared: Sequence[Prepared]) -> Any:
        longest = max(len(one.ids) for one in prepared)
        ids = np.full((len(prepared), longest), self._pad, dtype=np.int64)
        mask = np.zeros((len(prepared), longest), dtype=np.int64)
        for row, one in enumerate(prepared):
            place = slice(longest - len(one.ids), None) if self._pad_left else slice(len(one.ids))
            ids[row, place], mask[row, place] = one.ids, 1
        features: dict[str, Any] = {
            "input_ids": torch.from_numpy(ids).to(self.device),
            "attention_mask": torch.from_numpy(mask).to(self.device),
        }
        if prepared[0].instruction_tokens:
            features["prompt_length"] = prepared[0].instruction_tokens
        return self._first(features)

    def _packed_features(self, prepared: Sequence[Prepared]) -> dict[str, Any]:
        layout = packed.Layout([len(one.ids) for one in prepared], self.device)
        ids = torch.from_numpy(np.concatenate([one.ids for one in prepared])).to(self.device)
        state = self._first.model(
            input_ids=ids[None], position_ids=layout.positions[None] + self._offset, layout=layout
        ).last_hidden_state
        return {"token_embeddings": state, "cu_seq_lens_q": layout.starts, "seq_idx": layout.texts[None]}

    def _try_packed(self) -> bool:
        """Run without padding where that gives the same vectors; whether it does is tried, not believed."""
        model = self._first.model
        names = {type(module).__name__ for module in list(self.model)[2:]}
        known = model.config.model_type in packed.FAMILIES and not getattr(model.config, "is_decoder", False)
        if not known or type(self.model[1]).__name__ != "Pooling" or names - AFTER_POOLING:
            return False
        if not self._pools_instruction:
            return False
        self._offset = 0 if model.config.model_type == "bert" else int(model.config.pad_token_id) + 1
        prepared = self.prepare([Input(text=text, truncate=True) for text in PROBE])
        self.padded = True
        expected = np.stack(self.compute(prepared))
        packed.register()
        try:
            model.set_attn_implementation(packed.NAME)
            self.padded = False
            moved = float(np.abs(np.stack(self.compute(prepared)) - expected).max())
        except (TypeError, ValueError, KeyError, RuntimeError) as error:
            moved, why = float("inf"), f"{type(error).__name__}: {error}"
        else:
            why = f"numbers move by {moved:.1e}"
        if moved <= TOLERANCE.get(model.dtype, 0.0):
            return True
        log.warning("texts are padded, because without padding %s", why)
        model.set_attn_implementation("sdpa")
        return False


def rows(vectors: Any) -> list[Any]:
    """Give the rows of a matrix as arrays, and errors for those that hold a number that is none."""
    found = vectors.cpu().numpy()
    finite = np.isfinite(found).all(axis=1)
    return [row if good else ValueError("its vector is not finite") for row, good in zip(found, finite, strict=True)]
