"""A prompt whose template or tokenizer does not come back: its clients hear of it, and so does the child."""

import asyncio
import subprocess
import sys
import threading
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from moorage_runtime.engines.transformers import ENGINE
from moorage_runtime.generation.choice import GenerationFailed
from moorage_runtime.generation.encoder import BYTES_PER_SECOND, Encoder
from tests.unit.runtime.support import until
from tests.unit.runtime.test_generation_service import CHAT, Echo, Letters, serving

SECONDS = 0.2


@pytest.fixture
def held() -> Iterator[threading.Event]:
    """What never comes while the test runs; no thread is left behind."""
    event = threading.Event()
    yield event
    event.set()


class Endless(Letters):
    """A tokenizer whose chat template loops for ever."""

    def __init__(self, held: threading.Event) -> None:
        self._held = held

    def chat(self, messages: list[dict[str, Any]]) -> list[int]:
        """Never give anything."""
        self._held.wait()
        return []


async def test_a_template_that_loops_for_ever_is_an_error_for_all_that_wait(held: threading.Event) -> None:
    encoder = Encoder(SECONDS)
    async with serving(Echo(), Endless(held), encoder) as client:
        first = asyncio.create_task(client.post("/v1/chat/completions", json={"messages": CHAT}))
        await asyncio.sleep(0)
        answers = [await first, await client.post("/v1/completions", json={"prompt": "hi"})]

        assert encoder.stuck
        for answer in answers:
            assert answer.status_code == 500
            assert "rendering the chat template or tokenizing took longer" in answer.json()["error"]["message"]
        assert (await client.get("/probe")).status_code == 200, "the child's own loop goes on, until it ends itself"


async def test_it_is_seen_when_the_client_has_left(held: threading.Event) -> None:
    encoder = Encoder(SECONDS)
    async with serving(Echo(), Endless(held), encoder) as client:
        with pytest.raises(httpx.ReadTimeout):
            await client.post("/v1/chat/completions", json={"messages": CHAT}, timeout=0.05)
        await until(lambda: encoder.stuck, 2.0)


async def test_work_that_ends_leaves_nothing_behind() -> None:
    encoder = Encoder(SECONDS)

    def fail() -> None:
        raise ValueError("no")

    assert await encoder.run(lambda: 5, 0) == 5
    with pytest.raises(ValueError, match="no"):
        await encoder.run(fail, 0)
    assert not encoder.stuck


async def test_a_long_prompt_has_longer(held: threading.Event) -> None:
    encoder = Encoder(0.0)
    long = asyncio.create_task(encoder.run(held.wait, BYTES_PER_SECOND * 60))
    short = asyncio.create_task(encoder.run(lambda: 5, 0))
    done, _ = await asyncio.wait({long, short}, timeout=SECONDS)
    assert not done
    assert not encoder.stuck

    held.set()
    assert await long


async def test_what_waits_and_leaves_is_not_worked_for(held: threading.Event) -> None:
    encoder, worked = Encoder(), threading.Event()
    first = asyncio.create_task(encoder.run(held.wait, 0))
    second = asyncio.create_task(encoder.run(worked.set, 0))
    await asyncio.sleep(0)
    second.cancel()
    await asyncio.gather(second, return_exceptions=True)
    held.set()
    assert await first
    await encoder.run(lambda: None, 0)
    assert not worked.is_set()


async def test_stuck_work_fails_with_its_reason(held: threading.Event) -> None:
    with pytest.raises(GenerationFailed, match="took longer than 0 s"):
        await Encoder(0.0).run(held.wait, 0)


HELD_BY_ONE_OPERATION = """
import asyncio
from moorage_runtime.generation import encoder
encoder.HARD_SECONDS = 0.1
asyncio.run(encoder.Encoder(0.1).run(lambda: 10 ** (10 ** 9), 0))
"""


def test_one_operation_that_holds_python_ends_the_process() -> None:
    """No thread of Python comes to look at the time then."""
    done = subprocess.run(
        [sys.executable, "-c", HELD_BY_ONE_OPERATION], capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 1
    first = done.stderr.splitlines()[0]
    level, text = ENGINE.log_line(first)
    assert (level, text) == (50, f"{first[:-1]}: the chat template or the tokenizer does not come back")
    assert first.startswith("Timeout (0:00:00.2")
