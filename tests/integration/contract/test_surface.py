"""What is around the answers: models, errors, methods, health, metrics, and clients that leave."""

import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import openai
import pytest

from tests.integration.contract.engines import CAPITAL, MODEL, PLACES, Subject
from tests.integration.runtime.conftest import Runtime


def path_and_body(subject: Subject) -> tuple[str, dict[str, Any]]:
    """A request that the engine answers."""
    if subject.embeds:
        return "/v1/embeddings", {"model": MODEL, "input": CAPITAL}
    return "/v1/completions", {"model": MODEL, "prompt": CAPITAL, "max_tokens": 2}


def error_of(response: httpx.Response, status: int) -> dict[str, Any]:
    """OpenAI's error body."""
    assert response.status_code == status, response.text[:500]
    assert response.headers["content-type"] == "application/json"
    error: dict[str, Any] = response.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert isinstance(error["message"], str)
    return error


def test_the_model_is_listed(client: openai.OpenAI, subject: Subject) -> None:
    (model,) = client.models.list()

    assert (model.id, model.object) == (MODEL, "model")
    assert model.model_dump()["max_model_len"] == subject.context
    assert client.models.retrieve(MODEL) == model
    with pytest.raises(openai.NotFoundError) as failure:
        client.models.retrieve("gpt-4")
    assert failure.value.code == "model_not_found"


def test_bad_input_55_another_model_is_not_found(runtime: Runtime, subject: Subject) -> None:
    path, body = path_and_body(subject)
    error = error_of(httpx.post(runtime.url + path, json={**body, "model": "gpt-4"}), 404)

    assert (error["code"], error["param"]) == ("model_not_found", "model")
    assert MODEL in error["message"]


def test_bad_input_55_a_wrong_method_is_told_the_right_one(runtime: Runtime, subject: Subject) -> None:
    path, _ = path_and_body(subject)
    response = httpx.get(runtime.url + path)

    error_of(response, 405)
    assert response.headers["allow"] == "POST"


def test_head_is_a_get_without_a_body(runtime: Runtime) -> None:
    for path in ("/health", "/v1/models"):
        response = httpx.head(runtime.url + path)
        assert (response.status_code, response.content) == (200, b"")


def test_a_route_of_the_other_task_is_not_there(runtime: Runtime, subject: Subject) -> None:
    path, body = ("/v1/completions", {"prompt": "x"}) if subject.embeds else ("/v1/embeddings", {"input": "x"})

    assert path in error_of(httpx.post(runtime.url + path, json={"model": MODEL, **body}), 404)["message"]


@pytest.mark.parametrize(
    "path", ["/tokenize", "/slots", "/v1/responses", "/invocations", "/load_lora_adapter", "/docs"]
)
def test_bad_input_56_the_engine_s_own_routes_are_not_reachable(runtime: Runtime, path: str) -> None:
    error_of(httpx.post(runtime.url + path, json={}), 404)


def test_bad_input_49_an_unknown_field_is_refused_by_name(runtime: Runtime, subject: Subject) -> None:
    path, body = path_and_body(subject)
    error = error_of(httpx.post(runtime.url + path, json={**body, "prompt_embeds": "x"}), 400)

    assert error["param"] == "prompt_embeds"


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"model": NaN}', b'{"model": "\xff"}'])
def test_bad_input_47_a_body_that_is_no_request_is_a_400(runtime: Runtime, subject: Subject, content: bytes) -> None:
    error_of(httpx.post(runtime.url + path_and_body(subject)[0], content=content), 400)


def test_health_and_metrics_tell_of_a_request(runtime: Runtime, subject: Subject) -> None:
    path, body = path_and_body(subject)
    assert httpx.post(runtime.url + path, json=body, timeout=60).status_code == 200

    health = runtime.health()
    assert health["status"] == "ready"
    assert health["model"] == MODEL
    assert health["maxConcurrentRequests"] == PLACES
    assert health["facts"]["engineVersion"]
    assert health["facts"]["device"] == "cpu"
    metrics = httpx.get(f"{runtime.url}/metrics").text
    assert f'moorage_runtime_requests_total{{route="{path}",status="200"}}' in metrics


def test_bad_input_53_a_client_that_leaves_frees_its_place(runtime: Runtime, subject: Subject) -> None:
    if subject.embeds:
        return  # an embedding is one step
    body = {"model": MODEL, "prompt": "Once upon a time", "max_tokens": 900, "temperature": 1.0, "stream": True}
    if subject.name == "dummy":
        body["prompt"] = "!delay=0.05"
    with httpx.stream("POST", f"{runtime.url}/v1/completions", json=body, timeout=60) as response:
        lines = response.iter_lines()  # kept: its end would close the stream
        next(lines)
        assert runtime.health()["inFlight"] == 1
    left = time.monotonic()

    while runtime.health()["inFlight"]:
        assert time.monotonic() - left < 1
    # What it left behind in the engine is done too: all places answer at once.
    body = {"model": MODEL, "prompt": CAPITAL, "max_tokens": 1}

    def ask(_: int) -> int:
        return httpx.post(f"{runtime.url}/v1/completions", json=body, timeout=60).status_code

    with ThreadPoolExecutor(PLACES) as pool:
        assert list(pool.map(ask, range(PLACES))) == [200] * PLACES
