"""A model that nobody uses gives its memory back, and comes back for the next request."""

import asyncio
import os
from pathlib import Path
from typing import Any

import psutil
import pytest

from moorage_common.facts import LoadError, Phase, Termination
from moorage_runtime import machine
from tests.unit.runtime.support import Running, events, running, until
from tests.unit.runtime.test_supervision import crash_file

SOON: dict[str, Any] = {"model_unload_enabled": True, "model_idle_timeout": 0.2}


async def unloaded(runtime: Running) -> None:
    """Wait until no engine runs."""
    await until(lambda: runtime.phase is Phase.UNLOADED)
    await until(lambda: runtime.server.service.supervisor.pid is None)


async def metric(runtime: Running, name: str) -> float:
    """The value of a metric without labels."""
    lines = (await runtime.client.get("/metrics")).text.splitlines()
    return next(float(line.split()[1]) for line in lines if line.startswith(f"{name} "))


async def test_an_idle_model_is_unloaded_and_stays_ready() -> None:
    async with running(**SOON) as runtime:
        child = psutil.Process(runtime.server.service.supervisor.pid)
        await unloaded(runtime)

        await until(lambda: not child.is_running())
        assert (await runtime.client.get("/health")).status_code == 200
        ready = await runtime.client.get("/health/ready")
        assert (ready.status_code, ready.json()) == (200, {"status": "unloaded"})
        health = (await runtime.client.get("/health/detailed")).json()
        assert health["status"] == "unloaded"
        assert health["engineResidentBytes"] is None
        assert await metric(runtime, "moorage_runtime_model_unloads_total") == 1
        assert await metric(runtime, "moorage_runtime_engine_ready") == 0


async def test_the_next_request_loads_it_again_and_waits(tmp_path: Path) -> None:
    async with running(model={"load_seconds": 0.3}, folder=tmp_path, **SOON) as runtime:
        await unloaded(runtime)
        whole = asyncio.create_task(runtime.chat("!tokens=2"))
        async with runtime.streaming("!tokens=2") as lines:
            found = events([line async for line in lines])

        assert found[-1] == "[DONE]"
        assert (await whole).status_code == 200
        assert await metric(runtime, "moorage_runtime_engine_restarts_total") == 0  # it did not fail
        await unloaded(runtime)
        assert runtime.server.service.supervisor.unloads == 2


async def test_the_peak_of_memory_outlives_the_engine_that_had_it(tmp_path: Path) -> None:
    async with running(model={}, folder=tmp_path, **SOON) as runtime:
        await unloaded(runtime)  # nobody has asked while it was loaded
        told = (await runtime.client.get("/health/memory")).json()["memory"]

        assert told["engine_bytes"] is None
        assert told["peak_usage_bytes"] > machine.peak_bytes(os.getpid()) + 2 * 1024**2  # type: ignore[operator]


async def test_many_that_wait_start_one_load(tmp_path: Path) -> None:
    loads = tmp_path / "loads"
    loads.write_text("")
    async with running(
        model={"load_seconds": 0.2, "loads_file": str(loads)}, folder=tmp_path, max_concurrent_requests=2, **SOON
    ) as runtime:
        await unloaded(runtime)
        answers = await asyncio.gather(*(runtime.chat("!tokens=1") for _ in range(8)))

        assert {answer.status_code for answer in answers} == {200}
        assert len(loads.read_text().splitlines()) == 2  # the first, and one for all of them


async def test_a_client_that_leaves_does_not_end_what_others_wait_for(tmp_path: Path) -> None:
    async with running(model={"load_seconds": 0.3}, folder=tmp_path, **SOON) as runtime:
        await unloaded(runtime)
        leaves, stays = (asyncio.create_task(runtime.chat("!tokens=1")) for _ in range(2))
        await until(lambda: runtime.server.service.admission.running == 2)
        leaves.cancel()

        assert (await stays).status_code == 200


async def test_it_is_not_unloaded_under_a_request() -> None:
    async with running(**SOON) as runtime:
        async with runtime.streaming("!tokens=8 !delay=0.1") as lines:
            found = events([line async for line in lines])

        assert found[-1] == "[DONE]"
        assert runtime.server.service.supervisor.unloads == 0


async def test_a_request_that_comes_while_it_is_being_unloaded_is_answered() -> None:
    async with running(**SOON) as runtime:
        await until(lambda: runtime.phase is Phase.UNLOADED)  # the child may still be there

        assert (await runtime.chat("!tokens=1")).status_code == 200


async def test_without_the_setting_it_stays() -> None:
    async with running(model_idle_timeout=0.05) as runtime:
        await asyncio.sleep(0.3)

        assert runtime.phase is Phase.READY


async def test_stopping_while_unloaded_is_prompt() -> None:
    async with running(**SOON) as runtime:
        await unloaded(runtime)
        runtime.server.stop()

        async with asyncio.timeout(2):
            assert await runtime.task == 0


async def test_a_load_that_fails_is_told_to_who_waits_and_tried_again(tmp_path: Path) -> None:
    crashes = crash_file(tmp_path, 0)
    async with running(model={"crash_file": crashes}, folder=tmp_path, **SOON) as runtime:
        await unloaded(runtime)
        Path(crashes).write_text("1")  # noqa: ASYNC240 - a byte
        refused = await runtime.chat("!tokens=1")

        assert (refused.status_code, refused.json()["error"]["code"]) == (503, "engine_restarting")
        await until(lambda: runtime.phase is Phase.READY)
        assert (await runtime.chat("!tokens=1")).status_code == 200
        assert runtime.server.service.supervisor.restarts == 1


async def test_a_load_that_cannot_succeed_ends_the_process_with_its_reason(tmp_path: Path) -> None:
    crashes, path = crash_file(tmp_path, 0), tmp_path / "termination"
    async with running(
        model={"crash_file": crashes}, folder=tmp_path, termination_message_path=path, **SOON
    ) as runtime:
        await unloaded(runtime)
        Path(crashes).write_text("99")  # noqa: ASYNC240 - a byte
        assert (await runtime.chat("!tokens=1")).status_code == 503

        assert await runtime.task == 1
    termination = Termination.decode(path.read_text())
    assert termination is not None
    assert termination.reason is LoadError.ENGINE_FAILED


async def test_who_waits_for_a_load_waits_no_longer_than_for_an_answer(tmp_path: Path) -> None:
    async with running(model={"load_seconds": 0.0}, folder=tmp_path, request_timeout=0.3, **SOON) as runtime:
        await unloaded(runtime)
        supervisor = runtime.server.service.supervisor
        assert supervisor.plan is not None
        runtime.server.service.settings.model_path.write_text("{}")  # type: ignore[union-attr]
        slow = supervisor.plan.config.replace(b'"load_seconds":0.0', b'"load_seconds":5.0')
        object.__setattr__(supervisor.plan, "config", slow)

        late = await runtime.chat("!tokens=1")

        assert (late.status_code, late.json()["error"]["code"]) == (504, "request_timeout")


@pytest.mark.parametrize("streamed", [False, True])
async def test_a_request_that_takes_too_long_is_ended(*, streamed: bool) -> None:
    async with running(request_timeout=0.3) as runtime:
        late = await runtime.chat("!wait=5 !tokens=1", stream=streamed)
        # The dummy begins its stream after the wait, so both are told by the status.
        assert (late.status_code, late.json()["error"]["code"]) == (504, "request_timeout")
        assert runtime.server.service.admission.running == 0
        assert await metric(runtime, "moorage_runtime_request_timeouts_total") == 1


async def test_a_stream_that_takes_too_long_ends_with_an_error_event() -> None:
    import httpx

    async with running(request_timeout=0.5) as runtime:
        received: list[str] = []
        with pytest.raises(httpx.RemoteProtocolError, match="incomplete chunked read"):
            async with runtime.streaming("!tokens=100 !delay=0.05") as lines:
                async for line in lines:
                    received.append(line)  # noqa: PERF401 - what came before the error is wanted

        found = events(received)
        assert found[0]["choices"][0]["delta"]["content"] == "word0 "
        assert found[-1]["error"]["code"] == "request_timeout"


async def test_the_time_in_the_queue_counts() -> None:
    async with running(max_concurrent_requests=1, request_timeout=0.6) as runtime:
        first = asyncio.create_task(runtime.chat("!wait=0.5 !tokens=1"))
        await until(lambda: runtime.server.service.admission.running == 1)
        second = await runtime.chat("!wait=0.5 !tokens=1")

        assert (await first).status_code == 200
        assert second.status_code == 504


async def test_bad_input_54_the_queue_s_length_is_a_setting() -> None:
    async with running(max_concurrent_requests=1, max_queued_requests=0) as runtime:
        first = asyncio.create_task(runtime.chat("!wait=0.3 !tokens=1"))
        await until(lambda: runtime.server.service.admission.running == 1)

        assert (await runtime.chat("!tokens=1")).status_code == 429
        assert (await first).status_code == 200
