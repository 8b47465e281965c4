"""What users of the five systems have, row by row: A, the small-model server; C, embeddings; E, 8-bit weights.

The names of the tests say letter and row of the requirements' tables; each row is tried here in the way of its users,
with real models. What belongs to each is tried in depth elsewhere.
"""

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import openai
import psutil
import pytest
from prometheus_client.parser import text_string_to_metric_families

from hack.engines.embedding_models import tiny_qwen2_vl_folder
from hack.engines.models import model_folder
from hack.models import model_path
from tests.engines.conftest import Starter, reason_of
from tests.engines.embedding_runtime import EmbeddingRuntime, embedding_runtime
from tests.engines.test_embeddings_vision import picture
from tests.integration.runtime.conftest import Runtime, runtime_process
from tests.support.waiting import eventually

pytestmark = pytest.mark.timeout(600)

CAPITAL = {"prompt": "The capital of France is", "max_tokens": 4, "temperature": 0}
NAMES = (
    *("MODEL_BACKEND", "MODEL_PATH", "MAX_INPUT_TOKENS", "LLAMA_THREADS", "TORCH_NUM_THREADS", "COMPILE_MODEL"),
    *("MAX_CONCURRENT_REQUESTS", "MODEL_QUANTIZATION", "MODEL_UNLOAD_ENABLED", "MODEL_IDLE_TIMEOUT"),
    *("LOW_CPU_MEM_USAGE", "LOG_LEVEL", "ENABLE_DETAILED_METRICS"),
)


@pytest.fixture(scope="module")
def gguf(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Runtime]:
    """The small-model server with a GGUF file, told everything by the old names that it can be told."""
    old = {
        **{"MODEL_BACKEND": "llamacpp", "MODEL_PATH": str(model_path("smollm2")), "LLAMA_CTX": "512"},
        **{"LLAMA_THREADS": "1", "MAX_CONCURRENT_REQUESTS": "2", "MODEL_QUANTIZATION": "4bit"},
        **{"MODEL_UNLOAD_ENABLED": "true", "MODEL_IDLE_TIMEOUT": "2", "ENABLE_DETAILED_METRICS": "true"},
        **{"LOG_LEVEL": "DEBUG", "TORCH_NUM_THREADS": "1", "COMPILE_MODEL": "false", "LOW_CPU_MEM_USAGE": "true"},
    }
    with runtime_process(tmp_path_factory.mktemp("gguf"), MODEL_NAME="m", **old) as process:
        process.wait_ready()
        yield process


@pytest.fixture(scope="module")
def gme(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddingRuntime]:
    """The embedding service with a Qwen2-VL that is read as GME is."""
    batching = {"MAX_BATCH_SIZE": "16", "MAX_WAIT_MS": "50", "ENABLE_BATCHING": "true"}
    with embedding_runtime(tmp_path_factory.mktemp("gme"), tiny_qwen2_vl_folder(), **batching) as started:
        yield started


def complete(runtime: Runtime, **more: Any) -> Any:
    """Ask for a completion that must succeed."""
    response = httpx.post(f"{runtime.url}/v1/completions", json={"model": "m", **CAPITAL, **more}, timeout=120)
    assert response.status_code == 200, response.text
    return response.json()


def test_requirement_a_1_any_openai_client_chats_and_streams(client: openai.OpenAI) -> None:
    messages: Any = [{"role": "user", "content": "What is the opposite of hot?"}]
    asked: Any = {"model": "smollm2", "messages": messages, "max_tokens": 8, "temperature": 0}

    whole = client.chat.completions.create(**asked)
    pieces = client.chat.completions.create(**asked, stream=True)

    assert "".join(piece.choices[0].delta.content or "" for piece in pieces) == whole.choices[0].message.content


def test_requirement_a_1_any_openai_client_embeds(gme: EmbeddingRuntime) -> None:
    with openai.OpenAI(base_url=f"{gme.url}/v1", api_key="none", max_retries=0) as client:
        found = client.embeddings.create(model="m", input=["one", "two"])
    assert [item.index for item in found.data] == [0, 1]
    assert len(found.data[0].embedding) == len(found.data[1].embedding) > 1


def test_requirement_a_2_two_back_ends(gguf: Runtime, runtime: Runtime) -> None:
    assert "Paris" in complete(gguf)["choices"][0]["text"]
    assert "Paris" in complete(runtime, model="smollm2")["choices"][0]["text"]
    assert [one.health()["engine"] for one in (gguf, runtime)] == ["llama.cpp", "transformers"]


def test_requirement_a_3_the_old_names_of_the_settings_are_known_and_at_work(gguf: Runtime) -> None:
    listed = subprocess.check_output([sys.executable, "-m", "moorage_runtime", "settings"], text=True)
    for name in (*NAMES, "LLAMA_CTX"):
        assert re.search(rf"\b{name}\b", listed), name
    complete(gguf)
    facts = gguf.health()
    assert facts["facts"]["contextLength"] == 512
    assert facts["maxConcurrentRequests"] == 2
    assert facts["requested_quantization"] == "4bit"
    assert facts["quantization"].lower() == "q4_1"
    assert any(line["level"].upper() == "DEBUG" for line in gguf.lines())


def test_requirement_a_4_health_memory_details_and_metrics(gguf: Runtime) -> None:
    complete(gguf)
    assert httpx.get(f"{gguf.url}/health").json()["status"]
    for path in ("/health/memory", "/health/detailed"):
        told = httpx.get(f"{gguf.url}{path}").json()
        assert told["status"]
        assert 0 < told["memory"]["current_usage_percent"] <= 100
    families = {family.name for family in text_string_to_metric_families(httpx.get(f"{gguf.url}/metrics").text)}
    assert {"gen_ai_server_time_to_first_token_seconds", "gen_ai_server_request_duration_seconds"} <= families


def test_requirement_a_5_unloaded_after_an_idle_time_and_loaded_again_at_the_next_request(gguf: Runtime) -> None:
    complete(gguf)
    process = psutil.Process(gguf.process.pid)
    eventually(lambda: not process.children(), "the model is unloaded", seconds=30)
    assert httpx.get(f"{gguf.url}/health").status_code == httpx.get(f"{gguf.url}/health/ready").status_code == 200
    assert "Paris" in complete(gguf)["choices"][0]["text"]


def test_requirement_a_6_a_missing_package_is_named(tmp_path: Path) -> None:
    folder = str(model_folder("smollm2-hf"))
    # Our own environment has neither PyTorch nor transformers.
    said = reason_of(tmp_path, MODEL_BACKEND="transformers", MODEL_PATH=folder)
    assert "the package torch, which is not installed here" in said


def test_requirement_a_6_a_path_that_is_not_there_is_named(tmp_path: Path) -> None:
    said = reason_of(tmp_path, MODEL_BACKEND="llamacpp", MODEL_PATH="/nowhere/model.gguf")
    assert "ModelNotFound" in said
    assert "/nowhere/model.gguf" in said


def test_requirement_a_6_a_context_that_is_too_large_says_both_numbers(gguf: Runtime, tmp_path: Path) -> None:
    said = reason_of(tmp_path, MODEL_PATH=str(model_path("smollm2")), MAX_INPUT_TOKENS="100000")
    assert "100000" in said
    assert "8192" in said
    response = httpx.post(f"{gguf.url}/v1/completions", json={"model": "m", "prompt": "word " * 700}, timeout=60)
    error = response.json()["error"]
    assert (response.status_code, error["code"]) == (400, "context_length_exceeded")
    assert "512" in error["message"]
    assert re.search(r"\b7\d\d\b", error["message"]), error["message"]


def test_requirement_a_6_too_little_memory_is_told_before_it_kills(tmp_path: Path) -> None:
    wanted = {"MAX_INPUT_TOKENS": "8192", "MAX_CONCURRENT_REQUESTS": "256"}
    said = reason_of(tmp_path, MODEL_PATH=str(model_path("smollm2")), **wanted)
    assert "OutOfMemory" in said
    assert "MiB" in said


def test_requirement_a_7_profiles_by_memory_each_setting_of_which_can_be_overridden(tmp_path: Path) -> None:
    smollm2 = {"MODEL_PATH": str(model_path("smollm2")), "MODEL_PRESET": "small", "MAX_CONCURRENT_REQUESTS": "3"}
    with runtime_process(tmp_path, **smollm2) as process:
        process.wait_ready()
        told = process.health()
    assert told["facts"]["contextLength"] == 512
    assert told["maxConcurrentRequests"] == 3


def test_requirement_c_1_the_old_routes(gme: EmbeddingRuntime) -> None:
    images = [picture(1), picture(2)]
    texts = gme.ask("/embeddings/text", texts=["a cat", "a dog"], instruction="Find a picture.")
    assert (len(texts["embeddings"]), len(texts["embeddings"][0])) == (2, texts["dimension"])
    assert len(gme.ask("/embeddings/image", images=images, is_query=True)["embeddings"]) == 2
    assert len(gme.ask("/embeddings/fused", texts=["a cat", "a dog"], images=images)["embeddings"]) == 2
    likeness = gme.ask("/similarity", texts=["a cat", "a dog", "a hat"], images=images)
    assert likeness["shape"] == [3, 2] == [len(likeness["similarity_matrix"]), len(likeness["similarity_matrix"][0])]
    assert {"batches", "queue"} <= gme.stats().keys()
    assert httpx.get(f"{gme.url}/").status_code == 200


def test_requirement_c_2_batches_form_without_a_waiting_window(gme: EmbeddingRuntime) -> None:
    before = gme.stats()["batches"]
    gme.ask("/embeddings/text", texts=["one"])
    assert gme.stats()["batches"] == before + 1
    gme.ask("/embeddings/text", texts=[f"text {number}" for number in range(32)])
    assert before + 3 <= gme.stats()["batches"] <= before + 5, "32 texts are two batches of 16, or a few more"


def test_requirement_c_2_without_batching_each_is_computed_alone(tmp_path: Path) -> None:
    with embedding_runtime(tmp_path, tiny_qwen2_vl_folder(), ENABLE_BATCHING="false") as runtime:
        before = runtime.stats()["batches"]
        runtime.ask("/embeddings/text", texts=[f"text {number}" for number in range(8)])
        assert runtime.stats()["batches"] == before + 8


def test_requirement_c_3_text_and_image_are_in_one_space(gme: EmbeddingRuntime) -> None:
    text = gme.ask("/embeddings/text", texts=["a cat"])
    image = gme.ask("/embeddings/image", images=[picture(1)])
    assert text["dimension"] == image["dimension"]


def test_requirement_e_1_8_bit_weights_halve_the_memory_and_the_threshold_is_a_setting(
    started: Starter, runtime: Runtime
) -> None:
    plain = 269_030_016  # SmolLM2-135M in 16 bits
    with started(MODEL_QUANTIZATION="8bit", INT8_THRESHOLD="6.0") as quantized:
        facts = quantized.health()["facts"]
        answer = complete(quantized, model="smollm2")
    assert facts["quantization"] == "bitsandbytes-8bit"
    # Embeddings and norms, a fifth of so small a model, stay in 16 bit.
    assert facts["weightsBytes"] < 0.65 * plain
    assert "Paris" in answer["choices"][0]["text"]


def test_requirement_e_2_device_and_memory_are_told_at_load(runtime: Runtime) -> None:
    told = runtime.health()
    assert told["device"] == "cpu"
    assert told["memory"]["current_usage_percent"] > 0
    assert told["facts"]["memoryBytes"] > told["weights_bytes"] > 0
    [loaded] = [line for line in runtime.lines() if line["message"] == "the model is loaded and answers"]
    assert loaded["device"] == "cpu"
    assert loaded["memory_bytes"] == told["facts"]["memoryBytes"]
