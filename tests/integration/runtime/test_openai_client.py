"""What is particular to llama.cpp and SmolLM2; what all engines have in common is in tests/integration/contract."""

import json
import time

import httpx
import openai
import pytest

from tests.integration.runtime.conftest import Runtime

CAPITAL = "The capital of France is"


def test_a_completion_knows_paris(client: openai.OpenAI) -> None:
    answer = client.completions.create(model="smollm2", prompt=CAPITAL, max_tokens=8, temperature=0)

    assert "Paris" in answer.choices[0].text
    assert answer.model == "smollm2"
    assert answer.usage is not None
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens) == (5, 8)


def test_a_streamed_completion_knows_paris(client: openai.OpenAI) -> None:
    with client.completions.create(model="smollm2", prompt=CAPITAL, max_tokens=8, temperature=0, stream=True) as stream:
        text = "".join(chunk.choices[0].text for chunk in stream)

    assert "Paris" in text


@pytest.mark.parametrize(
    "fields",
    [
        {"prompt": 5},
        {"prompt": "x", "temperature": "hot"},
        {"prompt": "x", "n": 1_000_000},
        {"prompt": "x", "logprobs": 10**9},
        {"prompt": "x", "n_probs": 21},
        {"prompt": "\ud800"},
    ],
)
def test_bad_input_49_a_request_that_the_engine_refuses_is_a_400(runtime: Runtime, fields: dict[str, object]) -> None:
    body = json.dumps({"model": "smollm2", "max_tokens": 2, **fields}).encode()
    response = httpx.post(f"{runtime.url}/v1/completions", content=body, timeout=60)

    assert response.status_code == 400, response.text[:500]
    assert set(response.json()["error"]) == {"message", "type", "param", "code"}


def test_bad_input_48_a_million_tokens_are_refused_before_the_engine(runtime: Runtime) -> None:
    body = {"model": "smollm2", "prompt": "a " * 1_000_000}
    begun = time.monotonic()
    response = httpx.post(f"{runtime.url}/v1/completions", json=body, timeout=60)

    assert response.status_code == 400
    assert response.json()["error"]["code"] == "context_length_exceeded"
    assert "1024 tokens, and the prompt has at least 12346" in response.json()["error"]["message"]
    assert time.monotonic() - begun < 1
