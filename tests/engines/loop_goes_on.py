"""Run by test_loop.py in the engine's environment: one request's choice fails, or is very cold; others go on."""

import asyncio
from unittest.mock import patch

import torch

from moorage_runtime.generation.batch import Batch, Running
from moorage_runtime.generation.choice import GenerationFailed
from moorage_runtime.generation.config import ChildConfig
from moorage_runtime.generation.request import Sampling
from moorage_runtime.generation.sampling import Row
from tests.engines.loop_dies import said, tiny

PROMPT = [5, 6, 7]
BROKEN = 666
"""The seed of the request whose choice fails."""


async def numbers(running: Running) -> list[int]:
    """Give the tokens of an answer."""
    return [token.number async for token in running]


async def the_cold_are_greedy(batch: Batch) -> None:
    """No temperature is so low that the numbers overflow."""
    likeliest = await said(batch, PROMPT, 20)
    for temperature in (1e-300, 1e-45, 1e-38, 1e-6, 1e-5):
        for more in ({}, {"top_k": 5}, {"top_p": 0.9}, {"min_p": 0.1}):
            cold = Sampling(temperature=temperature, seed=1, **more)
            assert await numbers(batch.submit(PROMPT, cold, 20)) == likeliest, (temperature, more)


async def one_fails_alone(batch: Batch) -> None:
    """Whatever happens to one request in its third token, its neighbours in the batch never hear of it."""
    hot = Sampling(temperature=1.0, seed=3)
    alone = await said(batch, PROMPT, 40), await numbers(batch.submit(PROMPT, hot, 40))
    choose = Row.choose

    def broken(row: Row, logits: torch.Tensor) -> int:
        if row._asked.seed == BROKEN and row._counts.total() == 2:
            raise RuntimeError("as ordered")
        return choose(row, logits)

    with patch.object(Row, "choose", broken):
        others = asyncio.gather(said(batch, PROMPT, 40), numbers(batch.submit(PROMPT, hot, 40)))
        failing = batch.submit(PROMPT, Sampling(temperature=1.0, seed=BROKEN), 40)
        try:
            await asyncio.wait_for(numbers(failing), 10)
        except GenerationFailed as failure:
            assert "as ordered" in str(failure), failure
        else:
            raise AssertionError("a request whose choice failed was answered")
        assert tuple(await others) == alone


async def what_is_no_number_fails(batch: Batch) -> None:
    """On a GPU it would end the device for all, so it is seen before the choice."""
    real = Row._changed

    def broken(row: Row, logits: torch.Tensor) -> torch.Tensor:
        return real(row, logits) * float("nan")

    with patch.object(Row, "_changed", broken):
        try:
            await asyncio.wait_for(numbers(batch.submit(PROMPT, Sampling(temperature=1.0), 5)), 10)
        except GenerationFailed as failure:
            assert "no finite numbers" in str(failure), failure
        else:
            raise AssertionError("a token was chosen by what is no number")


async def main() -> None:
    """Whatever is not as it should be raises."""
    batch = Batch(tiny(), ChildConfig(path="", name="tiny", context=256, slots=4, threads=1), [])
    batch.start(warm=False)
    for check in (the_cold_are_greedy, one_fails_alone, what_is_no_number_fails):
        await check(batch)
        assert batch.running == 0
        await asyncio.wait_for(batch.turns(), 5)
        assert batch.alive
    batch.manager.stop(block=True, timeout=10)
    print("as it should be")


if __name__ == "__main__":
    asyncio.run(main())
