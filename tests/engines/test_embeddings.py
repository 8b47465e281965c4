"""all-MiniLM-L6-v2 through the runtime, as OpenAI's client and the users of the old embedding service see it."""

import base64
import random
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import numpy as np
import openai
import pytest

from hack.engines.embedding_models import minilm_folder
from tests.engines.embedding_runtime import EmbeddingRuntime, embedding_runtime

pytestmark = pytest.mark.timeout(600)

WORDS = "the of and to in market river engine policy winter garden language signal planet was for on are with"


def texts(count: int, seed: int = 1) -> list[str]:
    """Texts of 3 to 60 words."""
    rng = random.Random(seed)  # noqa: S311 - texts, not secrets
    return [" ".join(rng.choices(WORDS.split(), k=rng.randint(3, 60))) for _ in range(count)]


@pytest.fixture(scope="module")
def runtime(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddingRuntime]:
    with embedding_runtime(tmp_path_factory.mktemp("embed"), minilm_folder()) as started:
        yield started


@pytest.fixture(scope="module")
def client(runtime: EmbeddingRuntime) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{runtime.url}/v1", api_key="none", max_retries=0, timeout=120) as made:
        yield made


def embed(client: openai.OpenAI, given: Any, **fields: Any) -> Any:
    """The vectors, one below the other."""
    answer = client.embeddings.create(model="m", input=given, **fields)
    assert [item.index for item in answer.data] == list(range(len(answer.data)))
    return np.array([item.embedding for item in answer.data], dtype=np.float32)


def cosines(left: Any, right: Any) -> Any:
    """How alike each on the left is to its neighbour on the right."""
    return (left * right).sum(axis=1) / np.linalg.norm(left, axis=1) / np.linalg.norm(right, axis=1)


def test_what_is_batched_is_what_is_computed_alone_in_the_same_order(
    runtime: EmbeddingRuntime, client: openai.OpenAI
) -> None:
    given = texts(100)
    before = runtime.stats()
    together = embed(client, given)
    after = runtime.stats()
    alone = np.concatenate([embed(client, text) for text in given])

    assert cosines(together, alone).min() >= 0.9999
    assert after["batches"] - before["batches"] < 20
    assert after["items"] - before["items"] == 100
    assert after["padding_share"] == 0.0
    assert after["padded"] is False


def test_base64_holds_the_same_numbers_as_floats(runtime: EmbeddingRuntime) -> None:
    floats = runtime.ask("/v1/embeddings", model="m", input="a text", encoding_format="float")
    packed = runtime.ask("/v1/embeddings", model="m", input="a text", encoding_format="base64")

    numbers = np.frombuffer(base64.b64decode(packed["data"][0]["embedding"]), dtype="<f4")
    assert np.array_equal(np.array(floats["data"][0]["embedding"], dtype=np.float32), numbers)
    assert np.isclose(np.linalg.norm(numbers), 1, atol=1e-5)
    assert len(numbers) == 384


def test_usage_counts_the_tokens_with_those_around_each_text(client: openai.OpenAI) -> None:
    answer = client.embeddings.create(model="m", input=["hello world", "hello"])

    assert (answer.usage.prompt_tokens, answer.usage.total_tokens) == (4 + 3, 7)
    assert answer.model == "m"


def test_tokens_are_taken_as_they_are(client: openai.OpenAI) -> None:
    hello_world = [101, 7592, 2088, 102]

    assert np.array_equal(embed(client, "hello world"), embed(client, hello_world))
    assert np.array_equal(
        embed(client, [hello_world, [101, 7592, 102]])[:1], embed(client, ["hello world", "hello"])[:1]
    )


def test_meaning_is_where_it_should_be(client: openai.OpenAI) -> None:
    found = embed(client, ["A cat sits on the mat.", "A kitten rests on a rug.", "Interest rates rose again."])

    assert found[0] @ found[1] > found[0] @ found[2] + 0.3


def test_thirty_two_clients_at_once_get_what_one_gets(runtime: EmbeddingRuntime, client: openai.OpenAI) -> None:
    given = texts(96, seed=2)
    expected = embed(client, given)
    before = runtime.stats()
    with ThreadPoolExecutor(32) as pool:
        found = np.concatenate(list(pool.map(lambda text: embed(client, text), given)))
    after = runtime.stats()

    assert cosines(found, expected).min() >= 0.9999
    assert (after["items"] - before["items"]) / (after["batches"] - before["batches"]) > 2


def test_one_bad_request_among_others_fails_alone(runtime: EmbeddingRuntime, client: openai.OpenAI) -> None:
    bodies: list[dict[str, Any]] = [{"model": "m", "input": text} for text in texts(15, seed=3)]
    bodies.insert(7, {"model": "m", "input": [[101, 30522, 102]]})
    bodies.insert(3, {"model": "m", "input": "word " * 400})
    with ThreadPoolExecutor(len(bodies)) as pool:
        answers = list(pool.map(lambda body: runtime.post("/v1/embeddings", **body), bodies))

    assert [answer.status_code for answer in answers] == [400 if number in {3, 8} else 200 for number in range(17)]
    assert "input[0]: token 30522 is not in the vocabulary of 30522" in answers[8].text


def test_the_old_routes_give_the_same_vectors(runtime: EmbeddingRuntime, client: openai.OpenAI) -> None:
    given = texts(3)
    found = runtime.ask("/embeddings/text", texts=given)

    assert found["dimension"] == 384
    assert np.array_equal(
        np.array(found["embeddings"], dtype=np.float32), embed(client, given, encoding_format="float")
    )
    instructed = runtime.ask("/embeddings/text", texts=given[:1], instruction="query: ")
    expected = embed(client, f"query: {given[0]}", encoding_format="float")
    assert np.array_equal(np.array(instructed["embeddings"], dtype=np.float32), expected)


def test_similarity_of_texts_is_symmetric(runtime: EmbeddingRuntime) -> None:
    found = runtime.ask("/similarity", texts=[*texts(4), "A cat."])
    matrix = np.array(found["similarity_matrix"])

    assert found["shape"] == [5, 5]
    assert np.array_equal(matrix, matrix.T)
    assert np.allclose(np.diag(matrix), 1, atol=1e-5)
    assert (np.abs(matrix) <= 1).all()


def test_bad_input_48_a_text_that_is_too_long_is_told_with_both_numbers_or_cut(client: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError, match=r"256 tokens, and the prompt has 402: input\[1\]") as failure:
        embed(client, ["short", "word " * 400])
    assert (failure.value.code, failure.value.param) == ("context_length_exceeded", "input")

    cut = embed(client, "word " * 400, extra_body={"truncate": True})
    assert cosines(cut, embed(client, "word " * 254)).min() >= 0.9999


def test_what_the_model_has_not_is_refused_by_name(runtime: EmbeddingRuntime) -> None:
    assert runtime.refused("/v1/embeddings", model="m", input="a", dimensions=64)[0] == "dimensions"
    assert runtime.refused("/similarity", texts=["a"], images=["data:,"])[0] == "images"
    assert runtime.post("/embeddings/image", images=["data:,"]).status_code == 404
    assert runtime.ask("/v1/embeddings", model="m", input="a", dimensions=384)


def test_a_request_with_two_thousand_texts_leaves_room_for_others(runtime: EmbeddingRuntime) -> None:
    many = [f"{number} {text}" for number, text in enumerate(texts(2048, seed=4))]
    with ThreadPoolExecutor(1) as pool:
        big = pool.submit(runtime.post, "/v1/embeddings", model="m", input=many, encoding_format="base64")
        while runtime.stats()["queue"]["items"] < 1000:
            assert not big.done()
        runtime.ask("/v1/embeddings", model="m", input="one")
        assert runtime.stats()["queue"]["items"] > 100
        assert [item["index"] for item in big.result().json()["data"]] == list(range(2048))


def test_a_client_that_leaves_takes_its_texts_along(runtime: EmbeddingRuntime) -> None:
    with pytest.raises(httpx.ReadTimeout):
        httpx.post(f"{runtime.url}/v1/embeddings", json={"model": "m", "input": texts(2048)}, timeout=2.0)
    for _ in range(1000):
        if runtime.stats()["queue"]["items"] == 0:
            break
    assert (runtime.stats()["queue"]["items"], runtime.stats()["requests"]) == (0, 0)


def test_what_it_is_and_what_it_loaded_is_told(runtime: EmbeddingRuntime) -> None:
    found = httpx.get(f"{runtime.url}/").json()
    facts = httpx.get(f"{runtime.url}/health/detailed").json()["facts"]

    assert (found["task"], found["model"], found["status"]) == ("embed", "m", "ready")
    assert (facts["device"], facts["contextLength"], facts["quantization"]) == ("cpu", 256, "none")
    assert facts["weightsBytes"] == 90_856_960
