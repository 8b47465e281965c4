"""Run by test_loop.py in the engine's environment: a compiled loop says what one says that is not."""

import asyncio
import time

from moorage_runtime.generation.batch import Batch
from moorage_runtime.generation.config import ChildConfig
from moorage_runtime.generation.request import Sampling
from tests.engines.loop_dies import said, tiny


async def answers(*, compiled: bool) -> list[list[int]]:
    """Give what several requests get at once, greedy and by a seed."""
    config = ChildConfig(path="", name="tiny", context=128, slots=4, threads=1, compile=compiled)
    batch = Batch(tiny(), config, [])
    batch.start(warm=compiled)
    if compiled:
        await batch.warm()
    begun = time.monotonic()
    greedy = await asyncio.gather(*(said(batch, [number] * 5 * number, 20) for number in (1, 2, 3)))
    seeded = batch.submit([4, 5, 6], Sampling(temperature=1, seed=7), 20)
    found = [*greedy, [token.number async for token in seeded]]
    print(f"compiled={compiled}: {time.monotonic() - begun:.1f} s", flush=True)
    batch.manager.stop(block=True, timeout=10)
    return found


async def main() -> None:
    """Whatever is not as it should be raises."""
    assert await answers(compiled=True) == await answers(compiled=False)
    print("as it should be")


if __name__ == "__main__":
    asyncio.run(main())
