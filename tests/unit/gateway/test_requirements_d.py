"""Requirements, D, "a two-model platform behind a gateway": the gateway's part, row by row."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest

from moorage_gateway.keys import ApiKey
from moorage_gateway.routing import ModelKey
from tests.unit.common.support import get, post
from tests.unit.gateway.support import DIGEST, KEY, MODEL, Bed, Pod, running
from tests.unit.gateway.test_generate import whole
from tests.unit.gateway.test_templates import VALUES

QWEN, LLAMA = ModelKey("team-a", "qwen2-7b"), ModelKey("team-b", "llama3-8b")


def speaks(name: str) -> Callable[[Pod, bytes, asyncio.StreamWriter], None]:
    """A pod that answers a chat with its name and what it was asked."""

    def script(pod: Pod, request: bytes, writer: asyncio.StreamWriter) -> None:
        asked = json.loads(request.split(b"\r\n\r\n", 1)[1])
        said = f"{name}: {asked['messages'][0]['content']}"
        usage = {"prompt_tokens": len(said), "completion_tokens": asked.get("max_tokens", 5)}
        writer.write(whole({"choices": [{"message": {"role": "assistant", "content": said}}], "usage": usage}))

    return script


@asynccontextmanager
async def platform() -> AsyncIterator[tuple[Bed, list[Pod]]]:
    """Two models with a pod each, in two namespaces, and the chart's scenarios; the key may use both."""
    async with running(speaks("qwen"), speaks("llama")) as (bed, pods):
        bed.table.remove(MODEL)
        for key, pod in zip((QWEN, LLAMA), pods, strict=True):
            bed.table.put(key, key.name)
            bed.table.backends(key).update([("127.0.0.1", pod.port)])
        bed.templates.update(VALUES["gateway"]["templates"])
        bed.keys.put("uid", ApiKey(id="tester", digest=DIGEST, everything=True))
        yield bed, pods
        for key in (QWEN, LLAMA):
            for endpoint in bed.table.backends(key):
                endpoint.pool.close()


async def generate(bed: Bed, **fields: Any) -> dict[str, Any]:
    """What `/v1/generate` answers to any HTTP client."""
    url, headers = f"http://127.0.0.1:{bed.gateway.port}/v1/generate", {"Authorization": f"Bearer {KEY}"}
    async with httpx.AsyncClient(trust_env=False) as client:
        answer = await client.post(url, json=fields, headers=headers)
    assert answer.status_code == 200, answer.text
    told: dict[str, Any] = answer.json()
    return told


@pytest.mark.parametrize("scenario", ["qa", "summarize", "rewrite"])
async def test_row_1_generate_with_a_scenario_gives_text_model_and_tokens(scenario: str) -> None:
    async with platform() as (bed, [qwen, _]):
        parameters = {"max_new_tokens": 64, "temperature": 0.2, "top_p": 0.9}
        told = await generate(bed, model_id="qwen2-7b", inputs="Why?", scenario=scenario, parameters=parameters)

        prompt = VALUES["gateway"]["templates"][scenario].replace("{{ inputs }}", "Why?")
        assert told == {"generated_text": f"qwen: {prompt}", "model": "team-a/qwen2-7b", "tokens": 64}
        sent = json.loads(qwen.requests[0].split(b"\r\n\r\n", 1)[1])
        assert {name: sent[name] for name in ("max_tokens", "temperature", "top_p")} == {
            **{"max_tokens": 64, "temperature": 0.2, "top_p": 0.9}
        }


async def test_row_1_the_templates_can_be_edited_while_it_runs() -> None:
    async with platform() as (bed, _):
        bed.templates.update({"qa": "Question: {{ inputs }}", "translate": "Translate: {{ inputs }}"})
        told = [
            (await generate(bed, model_id="qwen2-7b", inputs="Why?", scenario=scenario))["generated_text"]
            for scenario in ("qa", "translate")
        ]
        assert told == ["qwen: Question: Why?", "qwen: Translate: Why?"]
        content = json.dumps({"model_id": "qwen2-7b", "inputs": "Why?", "scenario": "summarize"}).encode()
        reply = await bed.gateway.ask(post(content, f"Authorization: Bearer {KEY}", path="/v1/generate"))
        assert reply.status == 400
        assert "the scenarios are qa, translate" in reply.error["message"]


async def test_row_2_two_models_are_told_apart_by_their_ids() -> None:
    async with platform() as (bed, [qwen, llama]):
        for model, name in (("qwen2-7b", "qwen"), ("llama3-8b", "llama"), ("team-b/llama3-8b", "llama")):
            told = await generate(bed, model_id=model, inputs="Hi")
            assert told["generated_text"] == f"{name}: Hi"
        assert (len(qwen.requests), len(llama.requests)) == (1, 2)


async def test_row_2_the_registry_is_what_the_caller_may_see() -> None:
    async with platform() as (bed, _):

        async def seen() -> list[str]:
            reply = await bed.gateway.ask(get("/v1/models", f"Authorization: Bearer {KEY}"))
            return [entry["id"] for entry in json.loads(reply.body)["data"]]

        assert await seen() == [str(QWEN), str(LLAMA)]
        bed.keys.put("uid", ApiKey(id="tester", digest=DIGEST, namespaces=frozenset({"team-b"})))
        assert await seen() == [str(LLAMA)]


async def test_row_4_requests_latency_tokens_and_errors_are_counted_by_model() -> None:
    async with platform() as (bed, [_, llama]):
        for number in (1, 2):
            await generate(bed, model_id="qwen2-7b", inputs="Hi", parameters={"max_new_tokens": 10 * number})
        llama.script = lambda pod, request, writer: writer.write(whole({}, "500 Internal Server Error"))
        content = b'{"model_id":"llama3-8b","inputs":"Hi"}'
        reply = await bed.gateway.ask(post(content, f"Authorization: Bearer {KEY}", path="/v1/generate"))
        assert reply.status == 500

        page = bed.desk.metrics.page().body.decode()
        qwen = 'model="team-a/qwen2-7b"'
        for line in (
            f'moorage_gateway_requests_total{{error="",{qwen},status="200"}} 2.0',
            'moorage_gateway_requests_total{error="model",model="team-b/llama3-8b",status="500"} 1.0',
            f'moorage_gateway_tokens_total{{caller="key:tester",kind="input",{qwen},source="usage"}} 16.0',
            f'moorage_gateway_tokens_total{{caller="key:tester",kind="output",{qwen},source="usage"}} 30.0',
            f"moorage_gateway_request_duration_seconds_count{{{qwen}}} 2.0",
        ):
            assert line in page
