"""A queue of keys: each once, never worked on twice at a time, later when asked, slower after failures.

The behaviour is that of client-go's workqueue (https://pkg.go.dev/k8s.io/client-go/util/workqueue). It is bounded by
nature: a key that is queued already is not queued again, so it never holds more keys than there are objects.
"""

import asyncio
import random
import sys
from collections import Counter, deque
from collections.abc import Callable, Hashable, Iterator
from typing import Final, Generic, TypeVar

K = TypeVar("K", bound=Hashable)

FIRST_RETRY: Final = 0.05
LAST_RETRY: Final = 30.0


def backoffs(longest: float = 2.0) -> Iterator[float]:
    """Endless delays in seconds that double up to `longest`, with jitter."""
    delay = 0.25
    while True:
        yield delay * random.uniform(0.75, 1.25)  # noqa: S311 - jitter is no secret
        delay = min(longest, delay * 2)


class WorkQueue(Generic[K]):
    """Keys come in by `add`, go out by `get`, and are given back by `done`.

    For `pause` seconds after it was given back a key is not handed out again: what is added meanwhile is one turn.
    Keys of one `group` come out in the order in which they came, and at most `most` of them are in work at a time.
    Groups take turns, so none waits for all of another; nor for slow ones, if there are more workers than `most`.
    """

    def __init__(
        self, pause: float = 0.0, group: Callable[[K], Hashable] = lambda _key: None, most: int = sys.maxsize
    ) -> None:
        self._pause = pause
        self._group = group
        self._most = most
        self._resting: dict[K, asyncio.TimerHandle] = {}
        self._groups: dict[Hashable, deque[K]] = {}
        """Keys that are due, by group; the first group is the next."""
        self._full: dict[Hashable, deque[K]] = {}
        """The same of groups that have `most` keys in work."""
        self._in_work: Counter[Hashable] = Counter()
        self._queued: set[K] = set()
        self._active: set[K] = set()
        self._again: dict[K, bool] = {}
        self._timers: dict[K, asyncio.TimerHandle] = {}
        self._held_until: dict[K, float] = {}
        self._failures: dict[K, int] = {}
        self._waiters: deque[asyncio.Future[None]] = deque()

    def __len__(self) -> int:
        """Keys that are due and not yet taken."""
        return len(self._queued)

    def add(self, key: K, delay: float = 0.0, *, urgent: bool = False) -> None:
        """Queues `key` now, or after `delay` seconds unless it is due sooner already; never while it is held.

        What is urgent does not wait for the pause of the key.
        """
        delay = max(delay, self._held_for(key), 0.0 if urgent else self._rests_for(key))
        if delay > 0:
            self._schedule(key, delay)
            return
        if timer := self._timers.pop(key, None):
            timer.cancel()
        if key in self._active:
            self._again[key] = urgent or self._again.get(key, False)
        elif key not in self._queued:
            self._queued.add(key)
            group = self._group(key)
            self._with(group).setdefault(group, deque()).append(key)
            self._wake()

    def retry(self, key: K, at_least: float = 0.0) -> float:
        """Queues `key` after a time that doubles with each failure in a row, with jitter; returns it in seconds.

        For `at_least` seconds the key is held: no worker gets it sooner, whatever is added.
        """
        failures = self._failures[key] = self._failures.get(key, 0) + 1
        backoff = min(LAST_RETRY, FIRST_RETRY * 2.0 ** min(failures - 1, 16))
        delay = max(backoff * random.uniform(0.8, 1.2), at_least)  # noqa: S311 - jitter is no secret
        if at_least > 0:
            self._held_until[key] = asyncio.get_running_loop().time() + at_least
        self._schedule(key, delay)
        return delay

    def succeeded(self, key: K) -> None:
        """Forgets the failures of `key`."""
        self._failures.pop(key, None)

    def failures(self, key: K) -> int:
        """Failures of `key` in a row."""
        return self._failures.get(key, 0)

    async def get(self) -> K:
        """The next key; it stays out of the queue until `done`."""
        while not self._groups:
            waiter = asyncio.get_running_loop().create_future()
            self._waiters.append(waiter)
            try:
                await waiter
            except asyncio.CancelledError:
                # The wake-up that this waiter may have been given must reach another one.
                if waiter.done() and not waiter.cancelled() and self._groups:
                    self._wake()
                raise
        group = next(iter(self._groups))
        keys = self._groups.pop(group)
        key = keys.popleft()
        self._in_work[group] += 1
        if keys:
            self._with(group)[group] = keys
        self._queued.discard(key)
        self._active.add(key)
        return key

    def done(self, key: K) -> None:
        """Gives `key` back; it is queued at once when it was added meanwhile."""
        if key in self._active:
            self._active.discard(key)
            self._one_less(self._group(key))
        if self._pause:
            self._resting[key] = asyncio.get_running_loop().call_later(self._pause, self._resting.pop, key, None)
        if key in self._again:
            self.add(key, urgent=self._again.pop(key))

    def _with(self, group: Hashable) -> dict[Hashable, deque[K]]:
        """Where the due keys of a group belong."""
        return self._groups if self._in_work[group] < self._most else self._full

    def _one_less(self, group: Hashable) -> None:
        self._in_work[group] -= 1
        if not self._in_work[group]:
            del self._in_work[group]
        if keys := self._full.pop(group, None):
            self._groups[group] = keys
            self._wake()

    def _schedule(self, key: K, delay: float) -> None:
        loop = asyncio.get_running_loop()
        due = loop.time() + delay
        if timer := self._timers.get(key):
            if timer.when() <= due:
                return
            timer.cancel()
        self._timers[key] = loop.call_at(due, self._due, key)

    def _due(self, key: K) -> None:
        del self._timers[key]
        self.add(key)

    def _held_for(self, key: K) -> float:
        if (until := self._held_until.get(key)) is None:
            return 0.0
        if (left := until - asyncio.get_running_loop().time()) <= 0:
            del self._held_until[key]
        return left

    def _rests_for(self, key: K) -> float:
        resting = self._resting.get(key)
        return resting.when() - asyncio.get_running_loop().time() if resting else 0.0

    def _wake(self) -> None:
        while self._waiters:
            waiter = self._waiters.popleft()
            if not waiter.done():
                waiter.set_result(None)
                return
