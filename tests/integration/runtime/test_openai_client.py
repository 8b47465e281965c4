"""What the official `openai` client sees of SmolLM2 through the runtime."""

import json

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


def test_a_chat_is_answered(client: openai.OpenAI) -> None:
    answer = client.chat.completions.create(
        model="smollm2", messages=[{"role": "user", "content": "Say hello."}], max_tokens=16, temperature=0
    )

    assert answer.choices[0].message.role == "assistant"
    assert answer.choices[0].message.content
    assert answer.choices[0].finish_reason in {"stop", "length"}


def test_a_streamed_chat_is_the_same_text(client: openai.OpenAI) -> None:
    messages = [{"role": "user", "content": "Count from one to five."}]
    request = {"model": "smollm2", "messages": messages, "max_tokens": 24, "temperature": 0}
    whole = client.chat.completions.create(**request)  # type: ignore[call-overload]

    with client.chat.completions.create(**request, stream=True, stream_options={"include_usage": True}) as stream:  # type: ignore[call-overload]
        chunks = list(stream)

    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert text == whole.choices[0].message.content
    assert chunks[-1].usage.completion_tokens == whole.usage.completion_tokens


def test_a_streamed_completion_knows_paris(client: openai.OpenAI) -> None:
    with client.completions.create(model="smollm2", prompt=CAPITAL, max_tokens=8, temperature=0, stream=True) as stream:
        text = "".join(chunk.choices[0].text for chunk in stream)

    assert "Paris" in text


def test_the_model_is_listed(client: openai.OpenAI) -> None:
    assert [model.id for model in client.models.list()] == ["smollm2"]


def test_a_prompt_over_the_context_is_told_with_both_numbers(client: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError, match=r"1024 tokens, and the prompt has 3001") as failure:
        client.completions.create(model="smollm2", prompt="hello " * 3000, max_tokens=8)

    assert failure.value.code == "context_length_exceeded"


def test_another_model_is_not_found(client: openai.OpenAI) -> None:
    with pytest.raises(openai.NotFoundError, match="smollm2"):
        client.completions.create(model="gpt-4", prompt="x")


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
