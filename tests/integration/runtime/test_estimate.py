"""The estimate against what llama.cpp really holds, with real models: the error is printed and bounded."""

from pathlib import Path

import httpx
import msgspec
import pytest

from hack.models import model_path
from moorage_common.estimate import Demand, estimate, mib
from moorage_common.facts import Health
from tests.integration.runtime.conftest import runtime_process

# What is counted and comes with use only: copies of sliding windows, which Gemma 3 has in 15 of 18 layers.
LEAST = -0.05
MOST = {"smollm2": 0.08, "gemma3-270m": 0.25}
EMBEDDING = 0.1


@pytest.mark.parametrize(
    ("name", "context", "requests"),
    [("smollm2", 256, 1), ("smollm2", 4096, 4), ("gemma3-270m", 256, 1), ("gemma3-270m", 4096, 4)],
)
def test_the_estimate_is_what_the_engine_holds(
    name: str, context: int, requests: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = {"MAX_INPUT_TOKENS": str(context), "MAX_CONCURRENT_REQUESTS": str(requests)}
    with runtime_process(tmp_path, MODEL_PATH=str(model_path(name)), **asked) as runtime:
        runtime.wait_ready()
        health = msgspec.convert(runtime.health(), Health)

    assert health.shape is not None
    assert health.facts is not None
    assert health.facts.memory_bytes is not None
    assert health.facts.device == "cpu", "there is no other in this build of llama.cpp"
    found, held = estimate(health.shape, Demand("llamacpp", context, requests)), health.facts.memory_bytes
    error = (found.total - held) / held
    with capsys.disabled():
        print(f"\n{name}, {requests} requests of {context} tokens: {found}; held {mib(held)}: {error:+.1%}", end=" ")
    assert LEAST < error < MOST[name]


def test_the_shape_of_a_real_file_is_that_of_its_card(tmp_path: Path) -> None:
    with runtime_process(tmp_path, MODEL_PATH=str(model_path("smollm2"))) as runtime:
        runtime.wait_ready()
        shape = msgspec.convert(runtime.health(), Health).shape

    # The card of HuggingFaceTB/SmolLM2-135M: 134.5M parameters, 30 layers, 9 heads, 3 of them for KV.
    assert shape is not None
    assert (shape.architecture, shape.quantization) == ("llama", "q4_1")
    assert (shape.parameters, shape.layers, shape.heads, shape.kv_heads) == (134_515_008, 30, 9, 3)
    assert (shape.head_size, shape.vocabulary, shape.context_length) == (64, 49_152, 8192)
    assert sum(shape.tensor_bytes.values()) == shape.stored_bytes


def test_the_estimate_for_embeddings_is_what_a_long_text_takes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = {"MAX_INPUT_TOKENS": "1024", "MAX_CONCURRENT_REQUESTS": "2", "MODEL_TASK": "embed", "MODEL_NAME": "m"}
    with runtime_process(tmp_path, MODEL_PATH=str(model_path("smollm2")), **asked) as runtime:
        runtime.wait_ready()
        texts = ["hello " * 1000]
        answer = httpx.post(f"{runtime.url}/v1/embeddings", json={"model": "m", "input": texts}, timeout=100)
        assert answer.status_code == 200
        health = runtime.health()

    shape, held = msgspec.convert(health, Health).shape, health["engineResidentBytes"]
    assert shape is not None
    found = estimate(shape, Demand("llamacpp", 1024, 2, embeds=True))
    error = (found.total - held) / held
    with capsys.disabled():
        print(f"\nsmollm2, embeddings of 1024 tokens: {found}; held {mib(held)}: {error:+.1%}", end=" ")
    assert LEAST < error < EMBEDDING
