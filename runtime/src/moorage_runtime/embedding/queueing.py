"""What waits to be embedded, and which of it goes together next: pure, without threads, clocks or models.

The order is that of start-time fair queueing: an item's tag is the number of tokens that were served when its turn in
its own request came, so a request with 2,048 texts and one with a single text get the model by turns of equal tokens.
From the front of that order a batch takes what is alike in length, because the shorter ones are padded to the longest.
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import count
from typing import Any, Final

WINDOW: Final = 4
"""Times the size of a batch: so far into the order a batch looks for items of a length that fits."""

COMPACT: Final = 1024
"""Items of requests that left: with so many more of them than of others, they are cleared away at once."""

SHORT: Final = 32
"""Tokens below which padding costs less than another batch."""


@dataclass(frozen=True, kw_only=True)
class BatchPolicy:
    """How batches are made."""

    size: int = 16
    """Items in a batch."""
    tokens: int = 8192
    """Tokens in a batch, padding included; one item alone may have more."""
    waiting_tokens: int = 1_000_000
    """Tokens that may wait; one request alone may have more."""
    patience: float = 0.05
    """Seconds for which an item may be passed over for others that fit together better."""
    padded: bool = True
    """Items are padded to the longest of their batch; without padding, lengths need not fit."""


@dataclass(slots=True, eq=False)
class Job:
    """A request: items that are answered together."""

    items: list[Item] = field(default_factory=list)
    dropped: bool = False


@dataclass(slots=True, eq=False)
class Item:
    """One thing to embed; `length` is its number of tokens."""

    payload: Any
    length: int
    job: Job
    index: int
    tag: int = 0
    taken: bool = False
    passed_over: float | None = None
    """When it was first left out of a batch."""


class FairQueue:
    """All that waits. Not safe for threads: whoever shares it holds a lock."""

    def __init__(self, policy: BatchPolicy) -> None:
        """Begin empty."""
        self.policy = policy
        self.tokens = 0
        self.items = 0
        self._heap: list[tuple[int, int, Item]] = []
        self._served = 0
        self._number = count()

    def has_room(self, tokens: int) -> bool:
        """Say whether so many tokens more may wait."""
        return self.tokens == 0 or self.tokens + tokens <= self.policy.waiting_tokens

    def put(self, job: Job) -> None:
        """Queue all items of a request. Within it the order is free, so neighbours are made alike in length."""
        tag = self._served
        for item in sorted(job.items, key=_length, reverse=True):
            item.tag = tag
            tag += item.length
            self._push(item)
        self.tokens += tag - self._served
        self.items += len(job.items)

    def drop(self, job: Job) -> None:
        """Forget what still waits of a request; its places in the order are skipped when they come."""
        if job.dropped:
            return
        job.dropped = True
        for item in job.items:
            if not item.taken:
                self._gone(item)
        if len(self._heap) > 2 * self.items + COMPACT:
            self._heap = [entry for entry in self._heap if not entry[2].job.dropped]
            heapq.heapify(self._heap)

    def take(self, now: float) -> list[Item]:
        """Take the next batch out; an empty one when nothing waits."""
        candidates = self._candidates()
        if not candidates:
            return []
        self._served = max(self._served, candidates[0].tag)
        chosen = choose(candidates, now, self.policy)
        for item in chosen:
            item.taken = True
            self._gone(item)
        for item in candidates:
            if not item.taken:
                item.passed_over = now if item.passed_over is None else item.passed_over
                self._push(item)
        return chosen

    def _candidates(self) -> list[Item]:
        limit = self.policy.size * (WINDOW if self.policy.padded else 1)
        found: list[Item] = []
        while self._heap and len(found) < limit:
            item = heapq.heappop(self._heap)[2]
            if not item.job.dropped:
                found.append(item)
        return found

    def _push(self, item: Item) -> None:
        heapq.heappush(self._heap, (item.tag, next(self._number), item))

    def _gone(self, item: Item) -> None:
        self.tokens -= item.length
        self.items -= 1


def choose(candidates: Sequence[Item], now: float, policy: BatchPolicy) -> list[Item]:
    """Choose a batch: the first in the order, those that have been passed over for too long, then what fits best."""
    chosen = [candidates[0]]
    late = [item for item in candidates[1:] if _is_late(item, now, policy)]
    rest = [item for item in candidates[1:] if not _is_late(item, now, policy)]
    for item in late:
        _add(chosen, item, policy)
    longest, shortest = max(map(_length, chosen)), min(map(_length, chosen))
    if policy.padded:
        # Python's sort is stable: what costs the same padding stays in order.
        rest.sort(key=lambda item: max(item.length - longest, shortest - item.length, 0))
        rest = [item for item in rest if _alike(item, chosen[0])]
    for item in rest:
        _add(chosen, item, policy)
    return chosen


def _add(chosen: list[Item], item: Item, policy: BatchPolicy) -> None:
    """Add an item where it has room."""
    if len(chosen) >= policy.size:
        return
    longest = max(item.length, *map(_length, chosen))
    padded = longest * (len(chosen) + 1)
    if (padded if policy.padded else sum(map(_length, chosen)) + item.length) <= policy.tokens:
        chosen.append(item)


def _alike(item: Item, first: Item) -> bool:
    """Say whether two lengths go together: no more than half of either would be padding."""
    shorter, longer = sorted((item.length, first.length))
    return longer <= max(2 * shorter, SHORT)


def _is_late(item: Item, now: float, policy: BatchPolicy) -> bool:
    return item.passed_over is not None and now - item.passed_over >= policy.patience


def _length(item: Item) -> int:
    return item.length
