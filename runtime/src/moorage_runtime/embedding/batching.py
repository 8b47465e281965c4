"""Batches without a waiting window: whenever the model is free, its thread takes the best batch of what waits.

Flow: `embed` (on the event loop) queues the items of a request → the model's thread takes a batch (`queueing`),
computes it and hands the results to the loop → a request is answered with its last item. Nothing waits for a batch to
fill: while one is computed the next gathers by itself.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from moorage_runtime.embedding.queueing import BatchPolicy, FairQueue, Item, Job

Compute = Callable[[Sequence[Any]], Sequence[Any]]
"""Gives a result for each payload, in their order, or an exception in place of one; runs in the model's thread."""


class QueueFull(Exception):  # noqa: N818 - it names a state
    """More may not wait; the text has the numbers."""


class ItemFailed(Exception):  # noqa: N818 - it names what happened
    """An item cannot be computed, not even alone."""

    def __init__(self, index: int, cause: BaseException) -> None:
        """Name the item by its place in its request."""
        super().__init__(f"{type(cause).__name__}: {cause}")
        self.index = index


@dataclass
class BatchStats:
    """What has been computed so far."""

    batches: int = 0
    items: int = 0
    failed_items: int = 0
    retried_batches: int = 0
    tokens: int = 0
    padding_tokens: int = 0
    busy_seconds: float = 0.0


class _Request(Job):
    """A job with somebody who waits for it."""

    __slots__ = ("done", "left", "results")

    def __init__(self, payloads: Sequence[Any], lengths: Sequence[int], done: asyncio.Future[None]) -> None:
        super().__init__()
        self.items = [
            Item(payload, length, self, index)
            for index, (payload, length) in enumerate(zip(payloads, lengths, strict=True))
        ]
        self.results: list[Any] = [None] * len(self.items)
        self.left = len(self.items)
        self.done = done


class Batcher:
    """The queue before one model, and the thread that runs it. Its methods are for the event loop's thread."""

    def __init__(
        self,
        compute: Compute,
        policy: BatchPolicy | None = None,
        *,
        broken: Callable[[BaseException], None],
        canary: Any = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Run `compute` in a thread of its own from `start` on.

        `canary` is a payload that a sound model can compute: after a failure it tells a bad item from a broken model,
        such as one whose accelerator is lost. `broken` hears of the latter.
        """
        self.stats = BatchStats()
        self._compute = compute
        self._canary = canary
        self._broken = broken
        self._queue = FairQueue(policy or BatchPolicy())
        self._clock = clock
        self._changed = threading.Condition()
        self._closed = False
        self._turns: list[asyncio.Future[None]] = []
        self._loop: asyncio.AbstractEventLoop
        self._thread = threading.Thread(target=self._run, name="model", daemon=True)

    def start(self) -> None:
        """Start the thread; results go to the loop that runs now."""
        self._loop = asyncio.get_running_loop()
        self._thread.start()

    def close(self) -> None:
        """Let the thread end after the batch that it works on."""
        with self._changed:
            self._closed = True
            self._changed.notify()

    @property
    def waiting(self) -> tuple[int, int]:
        """Items and tokens that wait."""
        return self._queue.items, self._queue.tokens

    async def embed(self, payloads: Sequence[Any], lengths: Sequence[int]) -> list[Any]:
        """Give the results in the order of the payloads; raise QueueFull or ItemFailed.

        Whoever is cancelled takes along what still waits.
        """
        request = _Request(payloads, lengths, self._loop.create_future())
        with self._changed:
            self._check_room(sum(lengths))
            self._queue.put(request)
            self._changed.notify()
        try:
            await request.done
        finally:
            with self._changed:
                self._queue.drop(request)
        return request.results

    async def idle_turn(self) -> None:
        """Return when the thread has come to it between two batches: proof that it lives."""
        turn = self._loop.create_future()
        with self._changed:
            self._turns.append(turn)
            self._changed.notify()
        await turn

    def _check_room(self, tokens: int) -> None:
        if not self._queue.has_room(tokens):
            items, waiting = self.waiting
            raise QueueFull(
                f"{items} inputs of {waiting} tokens are waiting, and these have {tokens}: "
                f"at most {self._queue.policy.waiting_tokens} tokens may wait. Try again soon."
            )

    # -- in the model's thread ----------------------------------------------------------------------------------------

    def _run(self) -> None:
        try:
            while not self._closed:
                self._step()
        except Exception as error:  # noqa: BLE001 - a thread that ends in silence leaves everybody waiting
            self._broken(error)

    def _step(self) -> None:
        with self._changed:
            while not (self._closed or self._turns or self._queue.items):
                self._changed.wait()
            turns, self._turns = self._turns, []
            batch = [] if self._closed else self._queue.take(self._clock())
        if turns:
            self._hand_over(_give_turns, turns)
        if batch:
            begun = self._clock()
            outcomes = self._outcomes(batch)
            self._count(batch, outcomes, self._clock() - begun)
            self._hand_over(_settle, outcomes)

    def _hand_over(self, function: Callable[[Any], None], argument: Any) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
            self._loop.call_soon_threadsafe(function, argument)

    def _outcomes(self, batch: list[Item]) -> list[tuple[Item, Any]]:
        """Compute a batch; where that fails, each item alone, so that one bad item fails alone."""
        try:
            return list(zip(batch, self._compute([item.payload for item in batch]), strict=True))
        except Exception as error:  # noqa: BLE001 - whatever a model throws, somebody waits for an answer
            if len(batch) == 1:
                self._check_canary()
                return [(batch[0], error)]
        self.stats.retried_batches += 1
        return [outcome for item in batch if not item.job.dropped for outcome in self._outcomes([item])]

    def _check_canary(self) -> None:
        if self._canary is not None:
            self._compute([self._canary])  # what it raises ends the thread, and with it the process

    def _count(self, batch: list[Item], outcomes: list[tuple[Item, Any]], seconds: float) -> None:
        lengths = [item.length for item in batch]
        stats = self.stats
        stats.batches += 1
        stats.items += len(batch)
        stats.failed_items += sum(isinstance(result, Exception) for _, result in outcomes)
        stats.tokens += sum(lengths)
        if self._queue.policy.padded:  # what a retry computes is not counted twice
            stats.padding_tokens += max(lengths) * len(lengths) - sum(lengths)
        stats.busy_seconds += seconds


def _give_turns(turns: list[asyncio.Future[None]]) -> None:
    for turn in turns:
        if not turn.done():
            turn.set_result(None)


def _settle(outcomes: list[tuple[Item, Any]]) -> None:
    """Hand results to the requests that wait for them."""
    for item, result in outcomes:
        request = item.job
        assert isinstance(request, _Request)  # noqa: S101 - nothing else is queued
        if request.done.done():
            continue
        if isinstance(result, Exception):
            request.done.set_exception(ItemFailed(item.index, result))
            continue
        request.results[item.index] = result
        request.left -= 1
        if not request.left:
            request.done.set_result(None)
