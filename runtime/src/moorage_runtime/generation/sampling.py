"""Chooses the next tokens of a batch, each request's in its own way.

transformers' continuous batching has one setting of greedy or sampled for all, and no seeds, penalties or biases. But
it calls a processor with the logits of the whole batch: this one chooses itself where a request asks for more than the
likeliest token, and leaves of that request's row only what it has chosen, so that the argmax behind it takes just that.
"""

from __future__ import annotations

import logging
import math
from collections import Counter
from collections.abc import Sequence
from typing import Any

import torch
from transformers.generation.continuous_batching.cb_logits_processors import (
    ContinuousBatchingLogitsProcessor,
    ContinuousBatchingLogitsProcessorList,
)
from transformers.generation.logits_process import LogitsProcessorList

from moorage_runtime.generation.answers import Token
from moorage_runtime.generation.request import Sampling

log = logging.getLogger(__name__)

NUCLEUS = 1024
"""So many of the likeliest tokens nearly always hold the mass of a nucleus; sorting a whole vocabulary takes longer."""

COLDEST = 1e-5
"""Below it a temperature is none: what it leaves beside the likeliest token is nothing, or no number in 32 bits."""


class Row:
    """One request's way of choosing; it lives in the thread that generates."""

    def __init__(self, sampling: Sampling, prompt: Sequence[int], device: torch.device) -> None:
        """Begin an answer to `prompt`."""
        self.tokens: list[Token] = []
        """What was chosen, with its likelihood, where that is asked for."""
        self.failure: Exception | None = None
        """Why nothing more is chosen for this request."""
        self._asked = sampling
        self._prompt = frozenset(prompt) if sampling.repeat_penalty != 1.0 else frozenset()
        self._counts: Counter[int] = Counter()
        self._random = torch.Generator(device=device)
        if sampling.seed is None:
            self._random.seed()
        else:
            self._random.manual_seed(sampling.seed & (2**63 - 1))

    @staticmethod
    def needed(sampling: Sampling) -> bool:
        """Say whether a request wants anything but the likeliest token."""
        plain = sampling.frequency_penalty == sampling.presence_penalty == 0 and sampling.repeat_penalty == 1
        return sampling.temperature > 0 or sampling.logprobs is not None or bool(sampling.logit_bias) or not plain

    def choose(self, logits: torch.Tensor) -> int:
        """Choose by the logits of the vocabulary."""
        asked = self._asked
        scores = self._changed(logits)
        number = int(scores.argmax()) if asked.temperature < COLDEST else self._sample(self._tempered(scores))
        if asked.logprobs is not None:
            likelihoods = torch.log_softmax(logits, dim=-1)
            values, numbers = likelihoods.topk(asked.logprobs)
            top = tuple(zip(numbers.tolist(), values.tolist(), strict=True))
            self.tokens.append(Token(number, float(likelihoods[number]), top))
        self._counts[number] += 1
        return number

    def _changed(self, logits: torch.Tensor) -> torch.Tensor:
        """Give the logits with biases and penalties."""
        asked, scores = self._asked, logits
        seen = list(self._prompt | self._counts.keys()) if asked.repeat_penalty != 1 else []
        counted = list(self._counts) if asked.frequency_penalty or asked.presence_penalty else []
        if not (asked.logit_bias or seen or counted):
            return scores
        scores = scores.clone()
        if seen:
            found = scores[seen]
            scores[seen] = torch.where(found < 0, found * asked.repeat_penalty, found / asked.repeat_penalty)
        if counted:
            counts = torch.tensor([self._counts[number] for number in counted], device=scores.device)
            scores[counted] -= asked.frequency_penalty * counts + asked.presence_penalty
        if asked.logit_bias:
            scores[list(asked.logit_bias)] += torch.tensor(list(asked.logit_bias.values()), device=scores.device)
        return scores

    def _tempered(self, scores: torch.Tensor) -> torch.Tensor:
        """Give the logits over the temperature; raise ArithmeticError where they are no numbers to choose by."""
        top = scores.max()
        # On a GPU the choice itself would not raise: it would end the device for the whole process.
        if not math.isfinite(top):
            raise ArithmeticError("the model's logits are no finite numbers")
        return (scores - top) / self._asked.temperature

    def _sample(self, scores: torch.Tensor) -> int:
        asked, size = self._asked, scores.shape[-1]
        top_k = asked.top_k if 0 < asked.top_k < size else size
        if top_k == size and asked.top_p >= 1 and asked.min_p <= 0:
            return int(torch.multinomial(torch.softmax(scores, dim=-1), 1, generator=self._random))
        if top_k == size:
            values, numbers = self._likeliest(torch.softmax(scores, dim=-1))
        else:
            found, numbers = scores.topk(top_k)
            values = torch.softmax(found, dim=-1)
        # A token stays while those before it hold less than top_p; so the likeliest always stays.
        kept = (values.cumsum(dim=-1) - values < asked.top_p) & (values >= asked.min_p * values[0])
        kept[0] = True
        return int(numbers[torch.multinomial(values * kept, 1, generator=self._random)])

    def _likeliest(self, values: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Give at least the tokens of the nucleus, the likeliest first."""
        found, numbers = values.topk(min(NUCLEUS, values.shape[-1]))
        enough = float(found.sum()) >= self._asked.top_p or float(found[-1]) < self._asked.min_p * float(found[0])
        if enough:
            return found, numbers
        sorted_values = values.sort(descending=True)
        return sorted_values.values, sorted_values.indices


class Chooser(ContinuousBatchingLogitsProcessor):  # type: ignore[misc]
    """The processor: it knows the rows of the requests that want more than the likeliest token."""

    supported_kwargs = {"row": int}  # noqa: RUF012 - as the base class has it
    ignored_kwargs = ()

    def __init__(self) -> None:
        """Know no request."""
        self.rows: dict[int, Row] = {}
        self._live = 0

    def as_list(self) -> Any:
        """Give the list of processors that transformers takes."""
        made = ContinuousBatchingLogitsProcessorList(LogitsProcessorList([self]))
        made.tensors_required = 1  # it counts only the processors that it has converted itself
        return made

    def fill_defaults(self, int32_tensor: torch.Tensor) -> None:
        """Row 0 is nobody's."""
        int32_tensor.fill_(0)

    def prepare_tensor_args(self, requests_with_new_token: list[Any]) -> torch.Tensor:
        """Give the row of each request, in the order of the logits."""
        self._live = len(requests_with_new_token)
        rows = [request.state.logit_processor_kwargs.get("row", 0) for request in requests_with_new_token]
        return torch.tensor(rows, dtype=torch.int32, device="cpu")

    # What is compiled around this must not look into it: it has a state, and its loop is as long as the batch.
    @torch.compiler.disable  # type: ignore[untyped-decorator, unused-ignore]
    def __call__(self, scores: torch.Tensor, tensor_arg: torch.Tensor) -> torch.Tensor:
        """Leave of the rows that are chosen here only what was chosen."""
        # Beyond these are rows of padding, whose numbers are left from earlier batches.
        for place, number in enumerate(tensor_arg[: min(self._live, scores.shape[0])].tolist()):
            row = self.rows.get(number)
            if row is not None and row.failure is None:
                self._choose(row, scores[place])
        return scores

    @staticmethod
    def _choose(row: Row, scores: torch.Tensor) -> None:
        """Leave only what was chosen; what goes wrong is told to the one request, because the loop is everybody's."""
        try:
            chosen = row.choose(scores)
        except Exception as error:
            log.exception("a token could not be chosen; the request is given up")
            row.failure = error
            return  # the likeliest token goes on, to nobody
        scores.fill_(-torch.inf)
        scores[chosen] = 0.0
