"""The batcher with a fake model: what goes together, in which order, and who fails or waits."""

import asyncio
import threading
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moorage_runtime.embedding.batching import Batcher, ItemFailed, QueueFull
from moorage_runtime.embedding.queueing import BatchPolicy, FairQueue, Item, Job, choose


class FakeModel:
    """A model whose vectors are its inputs in capitals; it notes its batches and waits at a gate."""

    def __init__(self) -> None:
        self.batches: list[list[str]] = []
        self.gate = threading.Event()
        self.gate.set()
        self.busy = threading.Event()
        self.dead = False

    def __call__(self, payloads: Sequence[str]) -> list[Any]:
        self.batches.append(list(payloads))
        self.busy.set()
        assert self.gate.wait(20)
        if self.dead or any("bad" in text for text in payloads):
            raise ValueError("it cannot be computed")
        return [ValueError("not finite") if "nan" in text else text.upper() for text in payloads]


@asynccontextmanager
async def batcher(model: FakeModel, **policy: Any) -> AsyncIterator[Batcher]:
    broken: list[BaseException] = []
    made = Batcher(model, BatchPolicy(**policy), broken=broken.append, canary="canary")
    made.start()
    try:
        yield made
    finally:
        model.gate.set()
        made.close()
    assert model.dead == bool(broken)


async def embed(made: Batcher, *texts: str) -> list[Any]:
    return await made.embed(texts, [len(text) for text in texts])


async def started(coroutine: Any) -> "asyncio.Task[Any]":
    """Start a task and let it come to where it waits."""
    task = asyncio.create_task(coroutine)
    await asyncio.sleep(0)
    return task


async def until_busy(model: FakeModel) -> None:
    assert await asyncio.to_thread(model.busy.wait, 20)


async def test_a_lone_request_is_computed_at_once_however_long_a_batch_may_wait() -> None:
    model = FakeModel()
    async with batcher(model, patience=3600) as made, asyncio.timeout(20):
        assert await embed(made, "a") == ["A"]
    assert model.batches == [["a"]]


async def test_what_comes_while_the_model_works_is_one_batch() -> None:
    model = FakeModel()
    async with batcher(model, size=16) as made:
        model.gate.clear()
        first = await started(embed(made, "first"))
        await until_busy(model)
        others = [await started(embed(made, f"text {number}")) for number in range(10)]
        model.gate.set()
        assert [await one for one in others] == [[f"TEXT {number}"] for number in range(10)]
        assert await first == ["FIRST"]
    assert [len(batch) for batch in model.batches] == [1, 10]
    assert (made.stats.batches, made.stats.items, made.waiting) == (2, 11, (0, 0))


async def test_results_come_in_the_order_of_the_texts_over_many_batches() -> None:
    model = FakeModel()
    texts = [f"{number} " + "x" * (number * 37 % 101) for number in range(100)]
    async with batcher(model, size=7) as made:
        assert await embed(made, *texts) == [text.upper() for text in texts]
    assert max(map(len, model.batches)) == 7
    assert sorted(text for batch in model.batches for text in batch) == sorted(texts)


async def test_a_bad_item_fails_alone_and_is_named() -> None:
    model = FakeModel()
    async with batcher(model) as made:
        model.gate.clear()
        first = await started(embed(made, "first"))
        await until_busy(model)
        good = [await started(embed(made, f"good {number}")) for number in range(5)]
        bad = await started(embed(made, "x", "bad", "y"))
        nan = await started(embed(made, "x", "y", "nan"))
        model.gate.set()
        assert [await one for one in good] == [[f"GOOD {number}"] for number in range(5)]
        for task, index in ((bad, 1), (nan, 2)):
            with pytest.raises(ItemFailed) as raised:
                await task
            assert raised.value.index == index
        await first
        assert await embed(made, "later") == ["LATER"]
    assert (made.stats.retried_batches, made.stats.failed_items) == (1, 2)


async def test_a_model_that_cannot_compute_its_canary_is_broken() -> None:
    model = FakeModel()
    async with batcher(model) as made:
        model.dead = True
        waiting = await started(embed(made, "a"))
        await asyncio.to_thread(made._thread.join, 20)
        assert not made._thread.is_alive()
        waiting.cancel()


async def test_a_client_that_leaves_takes_its_items_along() -> None:
    model = FakeModel()
    async with batcher(model, size=2) as made:
        model.gate.clear()
        first = await started(embed(made, "first"))
        await until_busy(model)
        left = await started(embed(made, *(f"gone {number}" for number in range(50))))
        stays = await started(embed(made, "stays"))
        assert made.waiting[0] == 51
        left.cancel()
        await asyncio.wait([left])
        assert made.waiting == (1, len("stays"))
        model.gate.set()
        await first
        assert await stays == ["STAYS"]
    assert model.batches == [["first"], ["stays"]]


async def test_a_full_queue_refuses_with_the_numbers_and_one_request_may_always_wait() -> None:
    model = FakeModel()
    async with batcher(model, waiting_tokens=10) as made:
        model.gate.clear()
        first = await started(embed(made, "first"))
        await until_busy(model)
        alone = await started(embed(made, "x" * 25))
        with pytest.raises(QueueFull, match=r"1 inputs of 25 tokens are waiting, and these have 3: at most 10"):
            await embed(made, "abc")
        model.gate.set()
        await first
        assert await alone == ["X" * 25]


async def test_a_request_with_thousands_of_texts_does_not_keep_others_waiting() -> None:
    model = FakeModel()
    async with batcher(model, size=16) as made:
        model.gate.clear()
        many = await started(embed(made, *(f"text {number:05}" for number in range(2048))))
        await until_busy(model)
        single = await started(embed(made, "single text"))
        model.gate.set()
        await single
        assert "single text" in model.batches[1]
        await many


async def test_the_thread_shows_that_it_lives_between_two_batches() -> None:
    model = FakeModel()
    async with batcher(model) as made:
        await asyncio.wait_for(made.idle_turn(), 20)
        model.gate.clear()
        first = await started(embed(made, "first"))
        await until_busy(model)
        turn = await started(made.idle_turn())
        await asyncio.sleep(0)
        assert not turn.done()
        model.gate.set()
        await asyncio.wait_for(turn, 20)
        await first


# -- the choice --------------------------------------------------------------------------------------------------------


def queue(*jobs: Sequence[int], **policy: Any) -> FairQueue:
    made = FairQueue(BatchPolicy(**policy))
    for lengths in jobs:
        add(made, *lengths)
    return made


def add(made: FairQueue, *lengths: int) -> Job:
    job = Job()
    job.items = [Item(None, length, job, index) for index, length in enumerate(lengths)]
    made.put(job)
    return job


def lengths_of(batch: list[Item]) -> list[int]:
    return [item.length for item in batch]


def test_alike_lengths_go_together_and_the_first_in_the_order_is_always_there() -> None:
    made = queue([40], [200], [45], [250], [48], [42], [210], size=4)

    assert lengths_of(made.take(0)) == [40, 42, 45, 48]
    assert lengths_of(made.take(0)) == [200, 210, 250]
    assert made.take(0) == []


def test_short_texts_go_together_whatever_their_lengths() -> None:
    assert len(queue([3], [30], [9], [31]).take(0)) == 4


@pytest.mark.parametrize(("now", "goes"), [(0.04, [400, 400]), (0.06, [400, 10])])
def test_what_was_passed_over_for_max_wait_goes_next_whatever_its_length(now: float, goes: list[int]) -> None:
    made = queue(*([[400]] * 8), size=2, patience=0.05)
    first, short = made._candidates()[0], Item(None, 10, Job(), 0, passed_over=0.0)
    others = [Item(None, 400, Job(), 0) for _ in range(3)]

    assert lengths_of(choose([first, *others, short], now, made.policy)) == goes


def test_a_batch_keeps_to_its_tokens_but_one_item_always_goes() -> None:
    made = queue([300], [300], [300], [5000], size=16, tokens=650)

    assert [lengths_of(made.take(0)) for _ in range(3)] == [[300, 300], [300], [5000]]


def test_without_padding_the_order_is_all_that_counts() -> None:
    assert lengths_of(queue([5], [500], [7], size=3, padded=False, tokens=600).take(0)) == [5, 500, 7]


def test_two_big_requests_share_by_tokens() -> None:
    made = FairQueue(BatchPolicy(size=1))
    long, short = add(made, *[100] * 20), add(made, *[10] * 200)
    served = {id(long): 0, id(short): 0}
    for _ in range(110):
        item = made.take(0)[0]
        served[id(item.job)] += item.length
    assert abs(served[id(long)] - served[id(short)]) <= 100


def test_items_of_requests_that_left_do_not_pile_up() -> None:
    made = queue([10])
    for _ in range(50):
        made.drop(add(made, *[10] * 2048))
    assert (made.items, made.tokens) == (1, 10)
    assert len(made._heap) <= 1024 + 2


@given(
    jobs=st.lists(st.lists(st.integers(1, 600), min_size=1, max_size=40), max_size=12),
    size=st.integers(1, 20),
    padded=st.booleans(),
)
def test_everything_is_taken_once_within_the_bounds(jobs: list[list[int]], size: int, padded: bool) -> None:
    made = queue(*jobs, size=size, tokens=1000, padded=padded)
    taken: list[Item] = []
    clock = 0.0
    while batch := made.take(clock):
        clock += 0.02
        cost = max(lengths_of(batch)) * len(batch) if padded else sum(lengths_of(batch))
        assert len(batch) == 1 or (len(batch) <= size and cost <= 1000)
        taken += batch
    assert sorted(lengths_of(taken)) == sorted(length for job in jobs for length in job)
    assert len({id(item) for item in taken}) == len(taken)
    assert (made.items, made.tokens) == (0, 0)
