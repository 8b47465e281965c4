"""The door: places, turns, and those who leave."""

import asyncio

import pytest

from moorage_common.http.message import Refusal
from moorage_runtime.admission import Admission


async def entered(door: Admission, places: int) -> "asyncio.Task[None]":
    task = asyncio.create_task(door.enter(places))
    await asyncio.sleep(0)
    return task


async def test_bad_input_50_a_request_takes_as_many_places_as_it_has_prompts() -> None:
    door = Admission(4, 16)
    await door.enter(3)
    waits = await entered(door, 2)
    assert (door.running, door.waiting) == (3, 1)

    door.leave(3)
    await waits

    assert (door.running, door.waiting) == (2, 0)


async def test_a_small_request_does_not_overtake_a_big_one() -> None:
    door = Admission(4, 16)
    await door.enter(2)
    big, small = await entered(door, 4), await entered(door, 1)
    assert door.waiting == 2

    door.leave(2)
    await big
    assert (door.running, door.waiting) == (4, 1)
    door.leave(4)
    await small

    assert (door.running, door.waiting) == (1, 0)


async def test_bad_input_53_those_behind_a_client_that_left_come_in() -> None:
    door = Admission(4, 16)
    await door.enter(2)
    big, small = await entered(door, 4), await entered(door, 1)

    big.cancel()
    await small

    assert (door.running, door.waiting) == (3, 0)


async def test_bad_input_53_a_turn_that_comes_to_a_client_that_leaves_is_given_on() -> None:
    door = Admission(1, 4)
    await door.enter()
    first, second = await entered(door, 1), await entered(door, 1)

    door.leave()
    first.cancel()
    await second

    assert (door.running, door.waiting) == (1, 0)


async def test_bad_input_54_the_queue_is_bounded() -> None:
    door = Admission(1, 4)
    await door.enter()
    waiting = [await entered(door, 1) for _ in range(4)]

    with pytest.raises(Refusal):
        await door.enter()

    for task in waiting:
        task.cancel()
    await asyncio.gather(*waiting, return_exceptions=True)
    assert (door.running, door.waiting) == (1, 0)
