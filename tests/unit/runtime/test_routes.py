"""The routes of a runtime with the dummy engine: what is answered, and what is refused with which words."""

import asyncio
import logging
import re
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest

from moorage_common.facts import Health, Phase
from moorage_common.shape import Shape
from moorage_runtime.metrics import OPERATIONS, Metrics
from moorage_runtime.routes import ROUTES
from moorage_runtime.settings import RequestDefaults
from tests.unit.runtime.hf_folder import folder
from tests.unit.runtime.support import Running, chat, events, running, until
from tests.unit.runtime.test_hf_shape import LLAMA_3_8B


@pytest.fixture
async def runtime() -> AsyncIterator[Running]:
    async with running(max_concurrent_requests=2) as started:
        yield started


async def test_a_chat_is_answered(runtime: Running) -> None:
    response = await runtime.chat("!tokens=3")

    assert response.status_code == 200
    assert response.headers["content-type"] == "application/json"
    assert response.json()["choices"][0]["message"]["content"] == "word0 word1 word2 "
    assert response.json()["usage"]["completion_tokens"] == 3


async def test_a_completion_is_answered(runtime: Running) -> None:
    response = await runtime.client.post("/v1/completions", json={"model": "dummy", "prompt": "!tokens=2"})

    assert response.json()["choices"][0]["text"] == "word0 word1 "


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/completions"])
async def test_a_request_gets_the_defaults_of_the_settings_for_what_it_leaves_out(path: str) -> None:
    what = {"messages": [{"role": "user", "content": "Hi"}]} if "chat" in path else {"prompt": "Hi"}
    async with running(request_defaults=RequestDefaults(max_tokens=2)) as runtime:
        counts = []
        for said in ({}, {"max_tokens": None}, {"max_tokens": 5}):
            response = await runtime.client.post(path, json={"model": "dummy", **what, **said})
            counts.append(response.json()["usage"]["completion_tokens"])

    assert counts == [2, 2, 5]


async def test_a_stream_arrives_whole(runtime: Running) -> None:
    async with runtime.streaming("!tokens=50") as lines:
        found = events([line async for line in lines])

    assert found[-1] == "[DONE]"
    assert "".join(e["choices"][0]["delta"].get("content", "") for e in found[:-1]) == "".join(
        f"word{n} " for n in range(50)
    )


async def test_tokens_arrive_when_they_are_made(runtime: Running) -> None:
    loop = asyncio.get_running_loop()
    async with runtime.streaming("!tokens=3 !delay=0.2") as lines:
        times = [loop.time() async for line in lines if "word" in line]

    assert times[1] - times[0] > 0.1
    assert times[2] - times[1] > 0.1


async def test_the_model_is_listed(runtime: Running) -> None:
    listed = (await runtime.client.get("/v1/models")).json()

    assert [model["id"] for model in listed["data"]] == ["dummy"]


async def test_a_model_is_told_by_its_name(tmp_path: Path) -> None:
    async with running(model_name="team/größe") as named:
        listed = (await named.client.get("/v1/models")).json()["data"]
        for path in ("team/gr%C3%B6%C3%9Fe", "team%2Fgr%c3%b6%c3%9fe"):
            answer = await named.client.get(f"/v1/models/{path}")
            assert (answer.status_code, answer.json()) == (200, listed[0])


@pytest.mark.parametrize("name", ["gpt-4", "dummy/", "%ff", "dummy%00"])
async def test_bad_input_55_another_model_is_not_told_of(runtime: Running, name: str) -> None:
    answer = await runtime.client.get(f"/v1/models/{name}")

    error = answer.json()["error"]
    assert (answer.status_code, error["code"], error["param"]) == (404, "model_not_found", "model")
    assert '"dummy" is' in error["message"]
    assert (await runtime.client.delete(f"/v1/models/{name}")).status_code == 405
    assert (await runtime.client.get("/v1/models/")).status_code == 404


async def test_health_is_what_the_operator_reads(runtime: Running) -> None:
    response = await runtime.client.get("/health/detailed")

    health = msgspec.json.decode(response.content, type=Health)
    assert health.status is Phase.READY
    assert health.facts is not None
    assert (health.facts.engine, health.facts.device, health.facts.context_length) == ("dummy", "cpu", 4096)
    assert (health.facts.memory_bytes or 0) > 1024**2
    assert response.json()["maxConcurrentRequests"] == 2


SHAPE = Shape(architecture="llama", stored_bytes=100, tensor_bytes={"F16": 100}, layers=2)


async def test_the_shape_is_told_before_the_model_is_loaded(tmp_path: Path) -> None:
    model = {"load_seconds": 30, "shape": msgspec.to_builtins(SHAPE), "device": "CUDA0"}
    async with running(model=model, folder=tmp_path, ready=False) as runtime:
        await until(lambda: runtime.phase is Phase.LOADING)
        response = await runtime.client.get("/health/detailed")

    health = msgspec.json.decode(response.content, type=Health)
    assert (health.status, health.shape) == (Phase.LOADING, SHAPE)
    assert health.facts is not None
    assert (health.facts.device, health.facts.memory_bytes) == (None, None)


async def test_what_the_engine_held_when_it_was_ready_is_told_the_same_for_ever(tmp_path: Path) -> None:
    async with running(model={}, folder=tmp_path) as runtime:
        first = (await runtime.client.get("/health/detailed")).json()
        await runtime.chat("!tokens=3")
        second = (await runtime.client.get("/health/detailed")).json()

    assert first["facts"] == second["facts"]
    assert first["facts"]["memoryBytes"] > 1024**2
    assert second["engineResidentBytes"] > 1024**2


async def test_an_accelerator_is_told_with_what_is_taken_of_it(tmp_path: Path) -> None:
    model = {"device": "CUDA0", "memory_bytes": 12_345, "quantization": "q4_0"}
    async with running(model=model, folder=tmp_path) as runtime:
        facts = (await runtime.client.get("/health/detailed")).json()["facts"]

    assert (facts["device"], facts["memoryBytes"], facts["quantization"]) == ("CUDA0", 12_345, "q4_0")


async def test_a_folder_in_the_hugging_face_form_has_a_shape(tmp_path: Path) -> None:
    async with running(model_path=folder(tmp_path / "m", LLAMA_3_8B)) as runtime:
        health = (await runtime.client.get("/health/detailed")).json()

    assert (health["shape"]["layers"], health["facts"]["quantization"]) == (32, "none")


async def test_metrics_count_requests_and_tokens(runtime: Running) -> None:
    await runtime.chat("!tokens=3")
    async with runtime.streaming("!tokens=4") as lines:
        _ = [line async for line in lines]
    await runtime.chat("!overflow")

    found = (await runtime.client.get("/metrics")).text

    assert 'moorage_runtime_requests_total{route="/v1/chat/completions",status="200"} 2.0' in found
    assert 'moorage_runtime_requests_total{route="/v1/chat/completions",status="400"} 1.0' in found
    assert "moorage_runtime_output_tokens_total 7.0" in found
    assert 'gen_ai_server_time_to_first_token_seconds_count{gen_ai_operation_name="chat"} 1.0' in found
    assert "moorage_runtime_engine_ready 1.0" in found
    assert "moorage_runtime_input_tokens_total 1.0" in found  # a stream without usage does not tell
    usage = 'gen_ai_client_token_usage_sum{gen_ai_operation_name="chat",gen_ai_token_type="output"} 7.0'
    assert usage in found
    assert 'gen_ai_server_request_duration_seconds_count{gen_ai_operation_name="chat"} 3.0' in found
    assert 'gen_ai_server_time_per_output_token_seconds_count{gen_ai_operation_name="chat"} 1.0' in found
    assert "moorage_runtime_queue_seconds_count 3.0" in found
    assert 'moorage_runtime_batch_size_bucket{le="1.0"} 3.0' in found
    for phase in ("check", "load", "first_answer"):
        assert re.search(rf'moorage_runtime_load_phase_seconds{{phase="{phase}"}} \d', found)
    assert "_created" not in found


async def test_times_between_pieces_are_counted(runtime: Running) -> None:
    async with runtime.streaming("!tokens=5 !delay=0.02") as lines:
        _ = [line async for line in lines]

    found = (await runtime.client.get("/metrics")).text
    counts = {le: float(n) for le, n in re.findall(r'inter_token_seconds_bucket{le="(\S+)"} (\S+)', found)}
    assert counts["+Inf"] >= 4
    assert counts["+Inf"] - counts["0.01"] >= 4  # each took longer than 10 ms
    assert float(re.findall(r"inter_token_seconds_sum (\S+)", found)[0]) >= 0.08


async def test_what_costs_something_for_each_piece_can_be_switched_off() -> None:
    async with running(enable_detailed_metrics=False) as runtime:
        async with runtime.streaming("!tokens=5") as lines:
            _ = [line async for line in lines]

        assert "inter_token" not in (await runtime.client.get("/metrics")).text


async def test_the_number_of_series_does_not_grow_with_what_clients_say(runtime: Running) -> None:
    async def series() -> int:
        return len((await runtime.client.get("/metrics")).text.splitlines())

    async def ask(number: int) -> None:
        await runtime.client.post("/v1/chat/completions", json={**chat(f"{number}"), "model": f"m{number}"})
        await runtime.chat(f"!tokens=1 {number}", user=f"u{number}")
        await runtime.client.get(f"/{number}")

    await ask(0)
    before = await series()
    for number in range(1, 20):
        await ask(number)

    assert await series() == before


async def test_every_route_is_counted_and_none_writes_an_error(
    runtime: Running, caplog: pytest.LogCaptureFixture
) -> None:
    asked = [(path, method) for path, methods in ROUTES.items() for method in methods]
    for path, method in asked:
        await runtime.client.request(method, path, json={} if method == "POST" else None)
    found = (await runtime.client.get("/metrics")).text

    assert [record.message for record in caplog.records if record.levelno >= logging.ERROR] == []
    posts = [path for path, method in asked if method == "POST"]
    for path in posts:
        assert f'moorage_runtime_requests_total{{route="{path}"' in found
    assert set(posts) == set(OPERATIONS)
    embedding = [path for path in posts if OPERATIONS[path] == "embeddings"]
    counted = f'gen_ai_server_request_duration_seconds_count{{gen_ai_operation_name="embeddings"}} {len(embedding)}.0'
    assert counted in found


def test_an_answer_on_a_route_that_metrics_do_not_know_is_counted() -> None:
    metrics = Metrics(running=lambda: 0, waiting=lambda: 0)
    metrics.answered("/new", 200, 1.0)
    metrics.streamed("/new", 0.5, 1.0, 3)
    metrics.counted("/new", 2, 3)

    assert b'moorage_runtime_requests_total{route="other",status="200"} 1.0' in metrics.answer().body


async def test_memory_is_told_now_and_at_most(runtime: Running) -> None:
    told = (await runtime.client.get("/health/memory")).json()

    assert told["status"] == "ready"
    found = told["memory"]
    assert found["current_usage_bytes"] == found["front_bytes"] + found["engine_bytes"]
    assert found["peak_usage_bytes"] >= found["current_usage_bytes"] > 2 * 1024**2
    assert found["limit_bytes"] > found["current_usage_bytes"]
    assert 0 < found["current_usage_percent"] < 100


async def test_health_in_the_words_of_the_small_model_server(runtime: Running) -> None:
    health = (await runtime.client.get("/health/detailed")).json()

    assert (health["status"], health["engine"], health["engine_version"], health["device"]) == (
        *("ready", "dummy"),
        *("1", "cpu"),
    )
    assert health["memory"]["current_usage_percent"] > 0
    assert health["queue"] == {"running": 0, "waiting": 0, "limit": 8}
    assert {"dtype", "quantization", "requested_quantization", "weights_bytes"} <= set(health)
    assert health["uptime_seconds"] > 0


@pytest.mark.parametrize(
    "path",
    ["/probe", "/tokenize", "/slots", "/props", "/v1/responses", "/health/", "/v1//models", "/v1/%6dodels"],
)
async def test_bad_input_56_only_our_routes_are_reachable(runtime: Running, path: str) -> None:
    for method in ("GET", "POST"):
        response = await runtime.client.request(method, path)

        assert response.status_code == 404
        assert response.json()["error"]["type"] == "invalid_request_error"


async def test_bad_input_55_a_wrong_method_is_told_the_right_one(runtime: Running) -> None:
    response = await runtime.client.get("/v1/chat/completions")

    assert (response.status_code, response.headers["allow"]) == (405, "POST")


async def test_head_has_no_body(runtime: Running) -> None:
    response = await runtime.client.head("/health")

    assert (response.status_code, response.content) == (200, b"")
    assert int(response.headers["content-length"]) > 0


async def test_bad_input_55_another_model_is_not_found(runtime: Running) -> None:
    response = await runtime.client.post("/v1/chat/completions", json={**chat("x"), "model": "gpt-4"})

    assert response.status_code == 404
    error = response.json()["error"]
    assert (error["code"], error["param"]) == ("model_not_found", "model")
    assert '"dummy"' in error["message"]


@pytest.mark.parametrize(
    ("body", "param"),
    [
        (b'{"messages": []}', "model"),
        (b'{"model": null}', "model"),
        (b'{"model": 5}', "model"),
        (b"[]", None),
        (b"", None),
        (b'{"model": "dummy"', None),
        (b'{"model": "dummy", "logprobs": 1000000000}', "logprobs"),
        (b'{"model": "dummy", "top_logprobs": -1}', "top_logprobs"),
        (b'{"model": "dummy"} x', None),
        (b'{"model": "dummy", "temperature": NaN}', None),
        (b'{"model": "dummy", "prompt": "\xff"}', None),
        (b'{"model": "dummy", "a": ' + b"[" * 100_000 + b"]" * 100_000 + b"}", "a"),
        (b'{"model": "dummy", "messages": ' + b"[" * 100_000 + b"]" * 100_000 + b"}", None),
    ],
)
async def test_bad_input_47_a_body_that_is_no_request_is_refused(
    runtime: Running, body: bytes, param: str | None
) -> None:
    response = await runtime.client.post("/v1/chat/completions", content=body)

    assert response.status_code == 400
    assert response.json()["error"]["param"] == param


async def test_bad_input_48_an_overflow_is_told_with_both_numbers(runtime: Running) -> None:
    for stream in (False, True):
        response = await runtime.chat("!overflow", stream=stream)

        assert response.status_code == 400
        error = response.json()["error"]
        assert error["code"] == "context_length_exceeded"
        assert "4096" in error["message"]
        assert "9000" in error["message"]


async def test_an_error_of_the_engine_becomes_ours(runtime: Running) -> None:
    response = await runtime.chat("!status=501")

    assert response.status_code == 501
    assert response.json() == {"error": {"message": "as ordered", "type": "server_error", "param": None, "code": None}}


async def test_bad_input_54_a_full_queue_refuses_and_the_rest_is_answered(runtime: Running) -> None:
    admission = runtime.server.service.admission
    accepted = [asyncio.create_task(runtime.chat("!wait=0.3 !tokens=1")) for _ in range(2 + 8)]
    await until(lambda: admission.running == 2 and admission.waiting == 8)

    refused = await runtime.chat("!tokens=1")

    assert (refused.status_code, refused.headers["retry-after"]) == (429, "1")
    assert refused.json()["error"]["code"] == "queue_full"
    assert {response.status_code for response in await asyncio.gather(*accepted)} == {200}
    assert (admission.running, admission.waiting) == (0, 0)


async def test_the_engine_never_has_more_than_its_slots(runtime: Running) -> None:
    pool = runtime.server.service.supervisor.backend
    assert pool is not None
    tasks = [asyncio.create_task(runtime.chat("!wait=0.1 !tokens=1")) for _ in range(6)]
    seen = 0
    import httpx

    async with httpx.AsyncClient() as direct:
        while not all(task.done() for task in tasks):
            seen = max(seen, (await direct.get(f"http://{pool.address}/probe")).json()["running"])
            await asyncio.sleep(0.01)

    assert seen == 2


async def test_a_client_that_leaves_the_queue_leaves_no_trace(runtime: Running) -> None:
    admission = runtime.server.service.admission
    running_tasks = [asyncio.create_task(runtime.chat("!wait=0.5 !tokens=1")) for _ in range(2)]
    await until(lambda: admission.running == 2)
    waiting = asyncio.create_task(runtime.chat("!tokens=1"))
    await until(lambda: admission.waiting == 1)

    waiting.cancel()

    await until(lambda: admission.waiting == 0)
    assert {response.status_code for response in await asyncio.gather(*running_tasks)} == {200}


async def test_a_route_that_the_model_s_engine_has_not_is_said_to_be_missing(runtime: Running) -> None:
    response = await runtime.client.post("/v1/embeddings", json={"model": "dummy", "input": "x"})
    assert response.status_code == 404
    assert "/v1/embeddings" in response.json()["error"]["message"]


@pytest.mark.parametrize(
    ("method", "path"),
    [
        *(("GET", path) for path in ("/", "/stats")),
        *(("POST", path) for path in ("/embeddings/text", "/embeddings/image", "/embeddings/fused", "/similarity")),
    ],
)
async def test_a_model_that_generates_has_no_routes_of_embeddings(runtime: Running, method: str, path: str) -> None:
    assert (await runtime.client.request(method, path)).status_code == 404
