"""Embeddings, as OpenAI's client sees them (it asks for base64 unless told otherwise)."""

import math
from typing import Any

import httpx
import openai
import pytest

from tests.integration.contract.engines import CAPITAL, COUNTING, MODEL, UNICODE, Subject
from tests.integration.runtime.conftest import Runtime


def embed(client: openai.OpenAI, given: Any, **fields: Any) -> openai.types.CreateEmbeddingResponse:
    """Embeddings of one text or several."""
    return client.embeddings.create(model=MODEL, input=given, **fields)


def cosine(a: list[float], b: list[float]) -> float:
    """How alike two are."""
    return sum(x * y for x, y in zip(a, b, strict=True)) / math.hypot(*a) / math.hypot(*b)


def test_floats_and_base64_are_the_same_numbers(client: openai.OpenAI, subject: Subject) -> None:
    packed = embed(client, CAPITAL)
    plain = embed(client, CAPITAL, encoding_format="float")

    assert len(packed.data[0].embedding) == subject.dimensions
    assert math.isclose(math.hypot(*plain.data[0].embedding), 1, abs_tol=1e-3)
    assert cosine(packed.data[0].embedding, plain.data[0].embedding) > 0.9999


def test_base64_is_base64_on_the_wire(runtime: Runtime, subject: Subject) -> None:
    body = {"model": MODEL, "input": CAPITAL, "encoding_format": "base64"}
    (item,) = httpx.post(f"{runtime.url}/v1/embeddings", json=body, timeout=60).json()["data"]

    assert isinstance(item["embedding"], str)
    assert len(item["embedding"]) == -(-subject.dimensions * 4 // 3) * 4


def test_many_keep_their_order_and_count_their_tokens(client: openai.OpenAI, subject: Subject) -> None:
    texts = [CAPITAL, COUNTING, UNICODE, CAPITAL]
    answer = embed(client, texts)

    assert answer.object == "list"
    assert answer.model == MODEL
    assert [item.index for item in answer.data] == [0, 1, 2, 3]
    assert cosine(answer.data[0].embedding, answer.data[3].embedding) > 0.999
    assert cosine(answer.data[0].embedding, answer.data[1].embedding) < 0.999
    for text, item in zip(texts, answer.data, strict=True):
        assert cosine(item.embedding, embed(client, text).data[0].embedding) > 0.999, text
    assert answer.usage.prompt_tokens == answer.usage.total_tokens == sum(subject.tokens[text] for text in texts)


@pytest.mark.parametrize("given", [[], "", ["x", ""], [[]], ["x", 5], [1.5], {"a": 1}, ["x"] * 2049])
def test_bad_input_50_what_cannot_be_embedded_is_refused(runtime: Runtime, given: object) -> None:
    response = httpx.post(f"{runtime.url}/v1/embeddings", json={"model": MODEL, "input": given})

    assert response.status_code == 400
    assert response.json()["error"]["param"] == "input"


def test_dimensions_are_cut_or_refused_by_name(client: openai.OpenAI, subject: Subject) -> None:
    if "dimensions" in subject.lacks:
        with pytest.raises(openai.BadRequestError) as failure:
            embed(client, CAPITAL, dimensions=4)
        assert failure.value.param == "dimensions"
        return
    assert len(embed(client, CAPITAL, dimensions=4).data[0].embedding) == 4


def test_bad_input_48_a_text_over_the_context_is_told_with_both_numbers(
    client: openai.OpenAI, subject: Subject
) -> None:
    told = rf"{subject.context} tokens, and the prompt has (at least )?\d+"
    with pytest.raises(openai.BadRequestError, match=told) as failure:
        embed(client, ["short", "hello " * 3000])

    assert failure.value.code == "context_length_exceeded"
