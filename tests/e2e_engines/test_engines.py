"""Three InferenceModels of one model, one for each engine: what a client sends and sees is the same."""

import json
from collections.abc import Callable, Mapping
from typing import Any

import pytest

from tests.support.api import Api, is_ready, reason
from tests.support.models import model

# Importing gigabytes of images into the node is part of the first test.
pytestmark = pytest.mark.timeout(1800)

Post = Callable[[str, str, dict[str, object]], str]

FOLDER = {"uri": "oci://localhost/models/smollm2-hf:135m"}
MODELS: Mapping[str, dict[str, Any]] = {
    "llamacpp": {"resources": {"cpu": "100m", "memory": "1Gi"}},
    "transformers": {"source": FOLDER, "resources": {"cpu": "100m", "memory": "3Gi"}},
    "vllm": {"source": FOLDER, "resources": {"cpu": "100m", "memory": "6Gi"}},
}
"""What each needs beside its framework; the name of the model is that of the framework."""

ENGINES = {"llamacpp": "llama.cpp", "transformers": "transformers", "vllm": "vLLM"}
START_SECONDS = 420
ANSWER = {"max_tokens": 8, "temperature": 0}
CAPITAL = {"prompt": "The capital of France is", **ANSWER}
CHAT = {"messages": [{"role": "user", "content": "What is the opposite of hot?"}], **ANSWER}
COMMON = frozenset({"id", "object", "created", "model", "choices", "usage"})
"""What OpenAI's answers have; engines may say more."""


def test_the_same_request_to_three_engines_gives_answers_of_the_same_shape(api: Api, post: Post) -> None:
    for framework, needs in MODELS.items():
        api.create(model(framework, framework=framework, contextLength=512, maxConcurrency=2, **needs))
    for framework in MODELS:
        api.wait("InferenceModel", framework, is_ready, what="Ready", seconds=START_SECONDS)
        _tells_what_runs(api, framework)
    asked = [("completions", CAPITAL), ("chat/completions", CHAT)]
    for route, body in asked:
        answers = {name: json.loads(post(name, route, {**body, "model": name})) for name in MODELS}
        shapes = {name: _shape({key: answer[key] for key in COMMON}) for name, answer in answers.items()}
        assert shapes["llamacpp"] == shapes["transformers"] == shapes["vllm"], answers
        assert {answer["model"] for answer in answers.values()} == set(MODELS)
        prompt = {answer["usage"]["prompt_tokens"] for answer in answers.values()}
        assert len(prompt) == 1, f"the engines count one prompt differently: {prompt}"
    for name in MODELS:
        assert "Paris" in json.loads(post(name, "completions", {**CAPITAL, "model": name}))["choices"][0]["text"]
        _streams(post, name)


def test_one_spec_makes_embeddings_by_each_engine_of_its_files(api: Api, post: Post) -> None:
    names = {"llamacpp": "embeds-gguf", "vllm": "embeds-folder"}
    for framework, name in names.items():
        needs = MODELS[framework]
        api.create(model(name, framework=framework, task="embed", contextLength=512, **needs))
    sizes = set()
    for name in names.values():
        api.wait("InferenceModel", name, is_ready, what="Ready", seconds=START_SECONDS)
        answer = json.loads(post(name, "embeddings", {"model": name, "input": ["one", "two"]}))
        sizes |= {len(item["embedding"]) for item in answer["data"]}
        assert [item["index"] for item in answer["data"]] == [0, 1]
    assert sizes == {576}


def _tells_what_runs(api: Api, framework: str) -> None:
    seen = api.wait("InferenceModel", framework, lambda im: reason(im, "ModelLoaded") == "Loaded", what="Loaded")
    resolved = (seen or {})["status"]["resolved"]
    assert (resolved["engine"], resolved["device"]) == (ENGINES[framework], "cpu")
    assert resolved["contextLength"] == 512
    assert resolved["engineVersion"]


def _streams(post: Post, name: str) -> None:
    body = {**CHAT, "model": name, "stream": True, "stream_options": {"include_usage": True}}
    events = [line.removeprefix("data: ") for line in post(name, "chat/completions", body).splitlines() if line]
    assert events[-1] == "[DONE]"
    chunks = [json.loads(event) for event in events[:-1]]
    assert {chunk["object"] for chunk in chunks} == {"chat.completion.chunk"}
    assert "".join(c["choices"][0]["delta"].get("content") or "" for c in chunks if c["choices"])
    assert chunks[-1]["usage"]["completion_tokens"] > 0


def _shape(value: Any) -> Any:
    """The names and kinds of an answer's common part, without what it says."""
    if isinstance(value, dict):
        known = {"index", "message", "text", "finish_reason", "role", "content"}
        known |= {"prompt_tokens", "completion_tokens", "total_tokens"} | COMMON
        return {key: _shape(inner) for key, inner in sorted(value.items()) if key in known}
    if isinstance(value, list):
        return [_shape(inner) for inner in value]
    return type(value).__name__
