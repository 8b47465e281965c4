"""Engines that crash, hang, cannot load, or are asked to stop: nobody waits in silence and nothing is left behind."""

import asyncio
from pathlib import Path

import httpx
import psutil
import pytest

from moorage_common.facts import LoadError, Phase, Termination
from tests.unit.runtime.support import Running, chat, events, running, until


def crash_file(folder: Path, starts: int) -> str:
    """Make the next `starts` loads end their process."""
    path = folder / "crashes"
    path.write_text(str(starts))
    return str(path)


async def test_a_crash_in_a_stream_is_an_error_event_and_a_restart() -> None:
    async with running() as runtime:
        first = runtime.server.service.supervisor.pid
        received: list[str] = []
        with pytest.raises(httpx.RemoteProtocolError, match="incomplete chunked read"):  # no end: it is not complete
            async with runtime.streaming("!tokens=9 !crash=3") as lines:
                async for line in lines:
                    received.append(line)  # noqa: PERF401 - what came before the error is wanted

        found = events(received)
        assert [e["choices"][0]["delta"]["content"] for e in found[:-1]] == ["word0 ", "word1 ", "word2 "]
        assert found[-1]["error"]["code"] == "engine_gone"
        await restarted(runtime)
        assert runtime.server.service.supervisor.pid != first
        assert (await runtime.chat("!tokens=1")).status_code == 200
        assert "moorage_runtime_engine_restarts_total 1.0" in (await runtime.client.get("/metrics")).text


async def test_a_crash_is_seen_within_two_seconds() -> None:
    async with running() as runtime:
        loop = asyncio.get_running_loop()
        begun = loop.time()
        response = await runtime.chat("!crash=0")

        assert loop.time() - begun < 2
        assert response.status_code == 502
        assert response.json()["error"]["code"] == "engine_gone"


async def test_a_crash_ends_all_running_requests_and_the_next_wait_or_hear_why() -> None:
    async with running(max_concurrent_requests=4) as runtime:
        bystanders = [asyncio.create_task(runtime.chat("!tokens=1 !wait=30")) for _ in range(3)]
        await until(lambda: runtime.server.service.admission.running == 3)

        await runtime.chat("!crash=0")

        assert {response.status_code for response in await asyncio.gather(*bystanders)} == {502}
        await restarted(runtime)
        assert (await runtime.chat("!tokens=1")).status_code == 200


async def test_a_connection_cut_by_the_engine_is_no_complete_answer() -> None:
    async with running() as runtime:
        received: list[str] = []
        with pytest.raises(httpx.RemoteProtocolError):
            async with runtime.streaming("!tokens=9 !cut=2") as lines:
                async for line in lines:
                    received.append(line)  # noqa: PERF401 - what came before the error is wanted

        assert events(received)[-1]["error"]["code"] == "engine_gone"
        assert (await runtime.chat("!tokens=9 !cut=2")).status_code == 502
        assert runtime.phase is Phase.READY


async def test_a_hang_is_seen_and_mended() -> None:
    async with running() as runtime:
        received: list[str] = []
        with pytest.raises(httpx.RemoteProtocolError):
            async with runtime.streaming("!tokens=9 !hang=2") as lines:
                async for line in lines:
                    received.append(line)  # noqa: PERF401 - what came before the error is wanted

        assert events(received)[-1]["error"]["code"] == "engine_gone"
        await restarted(runtime)
        assert (await runtime.chat("!tokens=1")).status_code == 200


async def test_bad_input_53_a_client_that_leaves_frees_its_slot() -> None:
    async with running() as runtime:
        pool = runtime.server.service.supervisor.backend
        assert pool is not None
        loop = asyncio.get_running_loop()
        async with runtime.streaming("!tokens=100000 !delay=0.001") as lines:
            await anext(lines)
        left = loop.time()

        async with httpx.AsyncClient() as direct:
            while (await direct.get(f"http://{pool.address}/probe")).json()["running"]:  # noqa: ASYNC110
                await asyncio.sleep(0.01)

        assert loop.time() - left < 1
        assert runtime.server.service.admission.running == 0


async def test_not_ready_before_the_model_answers(tmp_path: Path) -> None:
    async with running(model={"load_seconds": 0.5}, folder=tmp_path, ready=False) as runtime:
        await until(lambda: runtime.phase is Phase.LOADING)

        assert (await runtime.client.get("/health")).status_code == 200
        not_ready = await runtime.client.get("/health/ready")
        assert (not_ready.status_code, not_ready.json()) == (503, {"status": "loading"})
        refused = await runtime.chat("hello")
        assert (refused.status_code, refused.json()["error"]["code"]) == (503, "model_not_ready")
        assert refused.headers["retry-after"] == "1"
        await runtime.ready()
        assert (await runtime.client.get("/health/ready")).status_code == 200


async def restarted(runtime: Running) -> None:
    """Wait until the first crash has been seen and mended."""
    await until(lambda: runtime.server.service.supervisor.restarts == 1)
    await runtime.ready()


async def ended(runtime: Running, path: Path) -> tuple[int, Termination]:
    """Wait for the end of a runtime, and give its exit code and termination message."""
    async with asyncio.timeout(20):
        code = await runtime.task
    termination = Termination.decode(path.read_text())  # noqa: ASYNC240 - nothing else runs any more
    assert termination is not None
    return code, termination


async def test_a_load_that_fails_ends_the_process_with_its_reason(tmp_path: Path) -> None:
    path = tmp_path / "termination"
    model = {"failure": "OutOfMemory"}
    async with running(model=model, folder=tmp_path, ready=False, termination_message_path=path) as runtime:
        code, termination = await ended(runtime, path)

    assert (code, termination.reason) == (1, LoadError.OUT_OF_MEMORY)
    assert "cannot be loaded" in termination.message


async def test_a_missing_file_ends_the_process_before_any_engine(tmp_path: Path) -> None:
    path = tmp_path / "termination"
    async with running(model_path=tmp_path / "no.json", ready=False, termination_message_path=path) as runtime:
        code, termination = await ended(runtime, path)

    assert (code, termination.reason) == (1, LoadError.MODEL_NOT_FOUND)


async def test_a_termination_path_that_cannot_be_written_changes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "no" / "folder"
    async with running(model_path=tmp_path / "no.json", ready=False, termination_message_path=path) as runtime:
        assert await runtime.task == 1


async def test_starts_that_crash_are_tried_again(tmp_path: Path) -> None:
    async with running(model={"crash_file": crash_file(tmp_path, 2)}, folder=tmp_path) as runtime:
        assert (await runtime.chat("!tokens=1")).status_code == 200
        assert runtime.server.service.supervisor.restarts == 2


async def test_too_many_crashed_starts_end_the_process(tmp_path: Path) -> None:
    path = tmp_path / "termination"
    model = {"crash_file": crash_file(tmp_path, 99)}
    async with running(model=model, folder=tmp_path, ready=False, termination_message_path=path) as runtime:
        code, termination = await ended(runtime, path)

    assert (code, termination.reason) == (1, LoadError.ENGINE_FAILED)
    assert "3 starts failed" in termination.message
    assert "SIGABRT" in termination.message


async def test_a_model_that_listens_but_cannot_answer_is_not_ready(tmp_path: Path) -> None:
    path = tmp_path / "termination"
    async with running(
        model={"smoke_fails": True}, folder=tmp_path, ready=False, termination_message_path=path
    ) as runtime:
        code, termination = await ended(runtime, path)

    assert (code, termination.reason) == (1, LoadError.ENGINE_FAILED)
    assert "status 500: as ordered" in termination.message


async def test_stopping_lets_streams_finish_and_takes_no_more() -> None:
    async with running() as runtime:
        async with runtime.streaming("!tokens=20 !delay=0.02") as lines:
            received = [await anext(lines)]
            async with httpx.AsyncClient(base_url=runtime.client.base_url) as other:
                await other.get("/health")  # an idle connection, which must not hold the end up
                async with runtime.client.stream("POST", "/v1/chat/completions", json=chat("!wait=0.1", stream=True)):
                    runtime.server.stop()
                    await until(lambda: runtime.phase is Phase.DRAINING)
            received += [line async for line in lines]
        assert events(received)[-1] == "[DONE]"
        assert await runtime.task == 0


async def test_new_requests_hear_that_it_stops() -> None:
    async with running() as runtime:
        async with runtime.streaming("!tokens=20 !delay=0.02") as lines:
            await anext(lines)
            runtime.server.stop()
            response = await runtime.chat("late")
            not_ready = await runtime.client.get("/health/ready")
            _ = [line async for line in lines]

        assert (response.status_code, response.json()["error"]["code"]) == (503, "shutting_down")
        assert response.headers["connection"] == "close"
        assert (not_ready.status_code, not_ready.json()) == (503, {"status": "draining"})
        assert await runtime.task == 0


async def test_the_drain_has_an_end() -> None:
    async with running(drain_timeout=0.1) as runtime:
        with pytest.raises(httpx.HTTPError):
            async with runtime.streaming("!tokens=1000 !delay=0.1") as lines:
                await anext(lines)
                runtime.server.stop()
                _ = [line async for line in lines]
        async with asyncio.timeout(5):
            assert await runtime.task == 0


async def test_stopping_while_loading_is_prompt(tmp_path: Path) -> None:
    async with running(model={"load_seconds": 60}, folder=tmp_path, ready=False) as runtime:
        supervisor = runtime.server.service.supervisor
        await until(lambda: supervisor.pid is not None)
        child = supervisor.pid
        assert child is not None
        runtime.server.stop()
        async with asyncio.timeout(5):
            assert await runtime.task == 0
        assert not psutil.pid_exists(child)


def test_the_model_file_of_the_dummy_is_json(tmp_path: Path) -> None:
    # The crafted "model" and DummyModel must not drift apart: an unknown field would be ignored in silence.
    from moorage_runtime.engines.dummy import DummyModel

    assert set(DummyModel.__struct_fields__) == {
        *("load_seconds", "failure", "crash_file", "smoke_fails", "context", "loads_file"),
        *("shape", "device", "quantization", "memory_bytes"),
    }
