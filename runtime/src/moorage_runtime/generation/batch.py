"""transformers' continuous batching as one object: requests go in at any time, their tokens come out one by one.

Its loop runs in a thread of its own. What it leaves to us: a cancelled request gets no last event; a prompt longer than
its cache would stop the loop for all, so the cache has room for every request's whole context and lengths are checked
before; and nobody is told when the thread ends, so `alive` has to be watched.
"""

from __future__ import annotations

import asyncio
import itertools
import threading
from collections.abc import AsyncIterator, Sequence
from typing import Any

from transformers import GenerationConfig
from transformers.generation.configuration_utils import ContinuousBatchingConfig

from moorage_runtime.generation.answers import Token
from moorage_runtime.generation.choice import GenerationFailed
from moorage_runtime.generation.config import PAGE, ChildConfig
from moorage_runtime.generation.request import Sampling
from moorage_runtime.generation.sampling import Chooser, Row

PREFILL = 256
"""Tokens that one step computes at most: a long prompt is read in parts of it, between which other requests go on."""

NO_END = -1
"""The token that ends a text where none may."""


class Running:
    """The tokens of one request, as they come. It belongs to the event loop that submitted it."""

    def __init__(self, batch: Batch, number: int, row: Row | None) -> None:
        """Wait for the first token."""
        self._batch = batch
        self.number = number
        self._row = row
        self._seen = 0
        self._tokens: asyncio.Queue[Token | Exception | None] = asyncio.Queue()

    @property
    def identity(self) -> str:
        """What transformers calls it."""
        return str(self.number)

    async def __aiter__(self) -> AsyncIterator[Token]:
        """Give each token; raise GenerationFailed where the engine gave up."""
        while True:
            token = await self._tokens.get()
            if token is None:
                return
            if isinstance(token, Exception):
                raise token
            yield token

    def cancel(self) -> None:
        """Make no more tokens; nothing happens to a request that has ended."""
        if self._batch.forget(self):
            self._batch.manager.cancel_request(self.identity)
            self._tokens.put_nowait(None)  # transformers says nothing more of it

    def arrived(self, output: Any) -> None:
        """Take what is new in transformers' account of the request, which is always the whole."""
        if self._row is not None and self._row.failure is not None:
            self._fail(self._row.failure)
            return
        told = self._row.tokens if self._row is not None else []
        for place in range(self._seen, len(output.generated_tokens)):
            self._tokens.put_nowait(told[place] if place < len(told) else Token(output.generated_tokens[place]))
        self._seen = len(output.generated_tokens)
        if output.is_finished() and self._batch.forget(self):
            self._tokens.put_nowait(GenerationFailed(output.error) if output.error else None)

    def _fail(self, failure: Exception) -> None:
        """End a request for which no token can be chosen; the loop knows nothing of that and would go on with it."""
        if self._batch.forget(self):
            self._batch.manager.cancel_request(self.identity)
            self._tokens.put_nowait(GenerationFailed(f"no token could be chosen: {failure}"))


class Batch:
    """All requests of one model."""

    def __init__(self, model: Any, config: ChildConfig, ends: Sequence[int]) -> None:
        """Prepare the loop; `ends` are the tokens that end a text."""
        self._ends = list(ends) or [NO_END]
        self._device = model.device
        self._slots, self._context = config.slots, config.context
        self._chooser = Chooser()
        self._running: dict[int, Running] = {}
        self._numbers = itertools.count(1)
        self._pausing: asyncio.Future[None] | None = None
        self.manager = model.init_continuous_batching(
            generation_config=GenerationConfig(do_sample=False, eos_token_id=self._ends),
            continuous_batching_config=ContinuousBatchingConfig(
                page_size=PAGE,
                num_blocks=config.pages,
                max_batch_tokens=max(PREFILL, config.slots),
                max_requests_per_batch=config.slots,
                default_compile_level=1 if config.compile else 0,
                # What is compiled is padded: to steps this small, or a step for one token would compute 64.
                q_padding_interval_size=config.slots,
                kv_padding_interval_size=8 * PAGE,
                # The chooser works on what the step before has chosen, in Python.
                use_async_batching=False,
                use_cuda_graph=False,
                auto_switch_to_flash=False,
            ),
        )
        self.manager.logit_processor = self._chooser.as_list()

    def start(self, *, warm: bool) -> None:
        """Start the loop; with `warm` what is compiled is compiled first."""
        if warm:
            self.manager.warmup()
        self.manager.start()

    async def warm(self) -> None:
        """Let what is compiled meet the shapes of real work: a long prompt and short ones, many at once and one."""
        greedy = Sampling(temperature=0, ignore_eos=True)
        for count in (self._slots, 1):
            prompts = [[0] * (min(PREFILL, self._context // 2) if place == 0 else 2) for place in range(count)]
            for running in [self.submit(prompt, greedy, 4) for prompt in prompts]:
                async for _ in running:
                    pass

    @property
    def alive(self) -> bool:
        """Whether the loop's thread lives."""
        return bool(self.manager.is_running())

    @property
    def running(self) -> int:
        """How many requests it works on."""
        return len(self._running)

    def submit(self, prompt: Sequence[int], sampling: Sampling, limit: int) -> Running:
        """Begin an answer of at most `limit` tokens."""
        number = next(self._numbers)
        row = Row(sampling, prompt, self._device) if Row.needed(sampling) else None
        running = Running(self, number, row)
        self._running[number] = running
        if row is not None:
            self._chooser.rows[number] = row
        self.manager.register_result_handler(running.identity, running.arrived)
        taken = self.manager.add_request(
            list(prompt),
            request_id=running.identity,
            max_new_tokens=limit,
            streaming=True,
            eos_token_id=[NO_END] if sampling.ignore_eos else self._ends,
            row=number if row is not None else 0,
        )
        if taken is None:
            self.forget(running)
            raise GenerationFailed("the engine's loop has ended")
        return running

    def forget(self, running: Running) -> bool:
        """Drop what is kept of a request; say whether it was running."""
        self._chooser.rows.pop(running.number, None)
        # transformers does this itself only for requests that come to their end.
        self.manager.output_router.result_handlers.pop(running.identity, None)
        return self._running.pop(running.number, None) is not None

    async def turns(self) -> None:
        """Wait until the loop has come round once more: it takes a pause between two steps, and ends it at once."""
        if self._pausing is None or self._pausing.done():
            loop = asyncio.get_running_loop()
            self._pausing = loop.create_future()
            threading.Thread(target=self._pause, args=(loop, self._pausing), daemon=True).start()
        await asyncio.shield(self._pausing)

    def _pause(self, loop: asyncio.AbstractEventLoop, done: asyncio.Future[None]) -> None:
        try:
            with self.manager.pause():
                pass
        except RuntimeError as error:
            loop.call_soon_threadsafe(done.set_exception, GenerationFailed(str(error)))
        else:
            loop.call_soon_threadsafe(done.set_result, None)
