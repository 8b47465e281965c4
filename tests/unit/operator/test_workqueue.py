"""The queue: each key once, never twice at a time, later when asked, slower after failures, no wake-up lost."""

import asyncio
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moorage_operator.workqueue import FIRST_RETRY, LAST_RETRY, WorkQueue
from tests.unit.operator.support import thorough
from tests.unit.operator.virtual_time import in_virtual_time, now, settle


@in_virtual_time
async def test_keys_come_out_in_the_order_they_came_in() -> None:
    queue: WorkQueue[str] = WorkQueue()
    for key in ("b", "a", "c"):
        queue.add(key)
    assert [await queue.get() for _ in range(3)] == ["b", "a", "c"]


@in_virtual_time
async def test_groups_take_turns_and_each_keeps_its_order() -> None:
    queue: WorkQueue[str] = WorkQueue(group=lambda key: key[0])
    for key in ("a1", "a2", "a3", "a4", "b1", "c1", "b2"):
        queue.add(key)
    assert [await queue.get() for _ in range(5)] == ["a1", "b1", "c1", "a2", "b2"]
    queue.add("d1")
    assert [await queue.get() for _ in range(3)] == ["a3", "d1", "a4"]
    assert len(queue) == 0


@in_virtual_time
async def test_slow_keys_of_one_group_leave_workers_to_the_others() -> None:
    queue: WorkQueue[str] = WorkQueue(group=lambda key: key[0], most=2)
    for key in ("a1", "a2", "a3", "a4", "a5"):
        queue.add(key)
    workers = [asyncio.create_task(queue.get()) for _ in range(4)]
    await settle()
    assert [worker.result() for worker in workers if worker.done()] == ["a1", "a2"]
    assert len(queue) == 3
    queue.add("b1")
    await settle()
    assert workers[2].result() == "b1"
    queue.done("a2")
    await settle()
    assert workers[3].result() == "a3"
    queue.done("a1")
    queue.done("a3")
    assert [await queue.get() for _ in range(2)] == ["a4", "a5"]


@in_virtual_time
async def test_a_key_that_is_queued_is_not_queued_again() -> None:
    queue: WorkQueue[str] = WorkQueue()
    queue.add("a")
    queue.add("a")
    assert len(queue) == 1
    assert await queue.get() == "a"
    queue.done("a")
    assert len(queue) == 0


@in_virtual_time
async def test_a_key_in_work_is_handed_out_again_only_when_it_was_given_back() -> None:
    queue: WorkQueue[str] = WorkQueue()
    queue.add("a")
    await queue.get()
    queue.add("a")
    queue.add("a")
    assert len(queue) == 0
    queue.done("a")
    assert len(queue) == 1
    assert await queue.get() == "a"
    queue.done("a")
    assert len(queue) == 0


@in_virtual_time
async def test_a_key_that_was_not_added_meanwhile_is_not_queued_again_when_done() -> None:
    queue: WorkQueue[str] = WorkQueue()
    queue.add("a")
    queue.done(await queue.get())
    assert len(queue) == 0


@in_virtual_time
async def test_a_delayed_key_comes_when_it_is_due() -> None:
    queue: WorkQueue[str] = WorkQueue()
    queue.add("a", 5)
    assert len(queue) == 0
    assert await queue.get() == "a"
    assert now() == pytest.approx(5)


@pytest.mark.parametrize("delays", [(5, 9), (9, 5)])
@in_virtual_time
async def test_of_two_delays_the_sooner_counts_and_the_key_comes_once(delays: tuple[float, float]) -> None:
    queue: WorkQueue[str] = WorkQueue()
    for delay in delays:
        queue.add("a", delay)
    queue.done(await queue.get())
    assert now() == pytest.approx(5)
    await asyncio.sleep(60)
    assert len(queue) == 0


@in_virtual_time
async def test_a_key_that_is_added_now_does_not_come_again_for_its_delay() -> None:
    queue: WorkQueue[str] = WorkQueue()
    queue.add("a", 5)
    queue.add("a")
    queue.done(await queue.get())
    assert now() == 0
    await asyncio.sleep(60)
    assert len(queue) == 0


@in_virtual_time
async def test_a_delay_that_ends_while_the_key_is_in_work_counts_when_it_is_done() -> None:
    queue: WorkQueue[str] = WorkQueue()
    queue.add("a")
    await queue.get()
    queue.add("a", 1)
    await asyncio.sleep(2)
    assert len(queue) == 0
    queue.done("a")
    assert len(queue) == 1


@in_virtual_time
async def test_retries_get_slower_up_to_a_limit() -> None:
    queue: WorkQueue[str] = WorkQueue()
    for failures in range(1, 30):
        delay = queue.retry("a")
        expected = min(LAST_RETRY, FIRST_RETRY * 2 ** (failures - 1))
        assert 0.8 * expected <= delay <= 1.2 * expected
        assert queue.failures("a") == failures
    assert queue.failures("b") == 0


@in_virtual_time
async def test_a_thousand_failures_do_not_overflow() -> None:
    queue: WorkQueue[str] = WorkQueue()
    assert max(queue.retry("a") for _ in range(2000)) <= 1.2 * LAST_RETRY


@in_virtual_time
async def test_retries_have_jitter_so_that_failed_keys_do_not_come_together() -> None:
    queue: WorkQueue[int] = WorkQueue()
    assert len({queue.retry(key) for key in range(50)}) > 40


@in_virtual_time
async def test_a_retry_comes_after_the_time_that_it_said() -> None:
    queue: WorkQueue[str] = WorkQueue()
    delay = queue.retry("a")
    await queue.get()
    assert now() == pytest.approx(delay)


@in_virtual_time
async def test_a_retry_waits_as_long_as_the_server_asks() -> None:
    queue: WorkQueue[str] = WorkQueue()
    assert queue.retry("a", 17) == 17
    await queue.get()
    assert now() == pytest.approx(17)


@pytest.mark.parametrize("delay", [0, 1])
@in_virtual_time
async def test_fault_09_nothing_that_is_added_shortens_the_time_that_the_server_asked_for(delay: float) -> None:
    queue: WorkQueue[str] = WorkQueue()
    queue.retry("a", 17)
    await asyncio.sleep(3)
    queue.add("a", delay)
    assert await queue.get() == "a"
    assert now() == pytest.approx(17)
    queue.done("a")
    queue.add("a")
    await queue.get()
    assert now() == pytest.approx(17)


@in_virtual_time
async def test_fault_09_a_key_that_was_due_sooner_and_one_in_work_are_held_too() -> None:
    queue: WorkQueue[str] = WorkQueue()
    queue.add("a")
    await queue.get()
    queue.add("a")
    queue.add("a", 5)
    queue.retry("a", 17)
    queue.done("a")
    assert await queue.get() == "a"
    assert now() == pytest.approx(17)
    queue.done("a")
    await asyncio.sleep(60)
    assert len(queue) == 0


@in_virtual_time
async def test_a_retry_of_our_own_accord_gives_way_to_news() -> None:
    queue: WorkQueue[str] = WorkQueue()
    for _ in range(10):
        queue.retry("a")
    queue.add("a")
    await queue.get()
    assert now() == 0


@in_virtual_time
async def test_news_in_a_burst_is_one_turn_and_the_first_does_not_wait() -> None:
    queue: WorkQueue[str] = WorkQueue(pause=1)
    turns = []
    for _ in range(5):
        queue.add("a")
        queue.add("b")
        while len(queue):
            key = await queue.get()
            turns.append((key, now()))
            queue.done(key)
        await asyncio.sleep(0.1)
    assert turns == [("a", 0), ("b", 0)]
    assert [await queue.get() for _ in range(2)] == ["a", "b"]
    assert now() == pytest.approx(1)
    await asyncio.sleep(10)
    assert len(queue) == 0
    queue.done("a")
    await asyncio.sleep(10)
    queue.add("a")
    assert len(queue) == 1


@pytest.mark.parametrize("in_work", [True, False])
@in_virtual_time
async def test_what_is_urgent_does_not_wait_for_the_pause(in_work: bool) -> None:
    queue: WorkQueue[str] = WorkQueue(pause=1)
    queue.add("a")
    await queue.get()
    if in_work:
        queue.add("a", urgent=True)
        queue.add("a")
    queue.done("a")
    if not in_work:
        queue.add("a")
        queue.add("a", urgent=True)
    assert (await queue.get(), now()) == ("a", 0)


@in_virtual_time
async def test_success_forgets_the_failures() -> None:
    queue: WorkQueue[str] = WorkQueue()
    for _ in range(10):
        queue.retry("a")
    queue.succeeded("a")
    assert queue.failures("a") == 0
    assert queue.retry("a") <= 1.2 * FIRST_RETRY


@in_virtual_time
async def test_each_waiting_worker_gets_a_key_of_its_own() -> None:
    queue: WorkQueue[str] = WorkQueue()
    workers = [asyncio.create_task(queue.get()) for _ in range(3)]
    await settle()
    for key in ("a", "b", "c"):
        queue.add(key)
    assert sorted(await asyncio.gather(*workers)) == ["a", "b", "c"]


@pytest.mark.parametrize("woken", [True, False])
@in_virtual_time
async def test_a_cancelled_worker_loses_no_wake_up(woken: bool) -> None:
    queue: WorkQueue[str] = WorkQueue()
    first, second = asyncio.create_task(queue.get()), asyncio.create_task(queue.get())
    await settle()
    if woken:
        queue.add("a")  # the first is woken, but has not run yet
    first.cancel()
    with suppress(asyncio.CancelledError):
        await first
    if not woken:
        queue.add("a")
    assert await second == "a"


operations = st.lists(
    st.one_of(
        st.tuples(st.just("add"), st.integers(0, 3), st.sampled_from([0.0, 0.0, 0.01, 3.0])),
        st.tuples(st.just("retry"), st.integers(0, 3), st.sampled_from([0.0, 0.5])),
        st.tuples(st.just("done"), st.integers(0, 3), st.just(0.0)),
        st.tuples(st.just("wait"), st.just(0), st.sampled_from([0.0, 0.02, 1.0])),
        st.tuples(st.sampled_from(["worker", "cancel"]), st.integers(0, 5), st.just(0.0)),
    ),
    max_size=40,
)


class Ledger:
    """Works on a queue as workers do and keeps account of what came in and what went out."""

    def __init__(self, pause: float, most: int) -> None:
        self.queue: WorkQueue[int] = WorkQueue(pause, lambda key: key % 2, most)
        self.active: set[int] = set()
        self.owed: set[int] = set()
        self.added = dict.fromkeys(range(4), 0)
        self.taken = dict.fromkeys(range(4), 0)
        self.workers: list[asyncio.Task[None]] = []

    async def take(self) -> None:
        """Take a key, as a worker."""
        key = await self.queue.get()
        assert key not in self.active, "handed out twice at a time"
        self.active.add(key)
        self.owed.discard(key)
        self.taken[key] += 1

    def add(self, key: int, delay: float) -> None:
        """Add a key."""
        self.queue.add(key, delay)
        self.owed.add(key)
        self.added[key] += 1

    def retry(self, key: int, at_least: float) -> None:
        """Add a key as one that failed."""
        self.queue.retry(key, at_least)
        self.owed.add(key)
        self.added[key] += 1

    def done(self, key: int, _: float) -> None:
        """Give a key back, if it is in work."""
        if key in self.active:
            self.active.remove(key)
            self.queue.done(key)

    def worker(self, *_: Any) -> None:
        """One worker more."""
        self.workers.append(asyncio.create_task(self.take()))

    def cancel(self, number: int, _: float) -> None:
        """One worker less."""
        if number < len(self.workers):
            self.workers[number].cancel()

    async def drain(self) -> None:
        """Give everything back and let workers take what is due, until nothing comes any more."""
        for _ in range(12):
            for key in list(self.active):
                self.done(key, 0)
            self.worker()
            await asyncio.sleep(100)
        for task in self.workers:
            task.cancel()
        for result in await asyncio.gather(*self.workers, return_exceptions=True):
            assert result is None or isinstance(result, asyncio.CancelledError), result


@thorough
@given(operations, st.sampled_from([0.0, 0.01, 1.0]), st.sampled_from([1, 2, 9]))
@in_virtual_time
async def test_whatever_happens_each_added_key_is_taken_and_none_twice_at_a_time(
    steps: list[tuple[str, int, float]], pause: float, most: int
) -> None:
    ledger = Ledger(pause, most)
    for name, key, delay in steps:
        if name == "wait":
            await asyncio.sleep(delay)
        else:
            getattr(ledger, name)(key, delay)
    await ledger.drain()
    assert not ledger.owed
    assert all(ledger.taken[key] <= ledger.added[key] for key in ledger.added)
