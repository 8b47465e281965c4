"""A real model on a real node, in a namespace that enforces Pod Security `restricted`."""

import json
from collections.abc import Callable

from tests.support.api import Api, condition, is_ready, reason
from tests.support.models import model

Post = Callable[[str, str, dict[str, object]], str]
SMALL = {"resources": {"cpu": "200m", "memory": "1Gi"}, "contextLength": 1024}


def test_a_model_is_served_and_survives_what_users_do(api: Api, user: Callable[..., str], post: Post) -> None:
    user("apply", "-f", "-", stdin=json.dumps(model("smollm2", quantization="q4_1", **SMALL)))
    assert "condition met" in user("wait", "--for=condition=Ready", "im/smollm2", "--timeout=60s")
    _answers(post)
    _tells_what_runs(api)
    _a_deleted_pod_is_replaced(api, post)
    _an_edited_deployment_is_mended(api)


def _answers(post: Post) -> None:
    # Without chance: at the engine's own temperature, one answer in some dozens is another.
    sampling = {"max_tokens": 4, "temperature": 0}
    asked = {"model": "smollm2", "prompt": "The capital of France is", **sampling}
    said = json.loads(post("smollm2", "completions", asked))
    assert "Paris" in said["choices"][0]["text"]
    question = {"role": "user", "content": "What is the opposite of hot?"}
    chat = {"model": "smollm2", "messages": [question], "max_tokens": 16, "temperature": 0}
    assert "cold" in json.loads(post("smollm2", "chat/completions", chat))["choices"][0]["message"]["content"]
    stream = post("smollm2", "chat/completions", {**chat, "stream": True})
    events = [line.removeprefix("data: ") for line in stream.splitlines() if line.startswith("data: ")]
    assert events[-1] == "[DONE]"
    pieces = [json.loads(event)["choices"] for event in events[:-1]]
    assert "cold" in "".join(piece[0]["delta"].get("content") or "" for piece in pieces if piece)


def _tells_what_runs(api: Api) -> None:
    seen = api.wait("InferenceModel", "smollm2", lambda im: reason(im, "ModelLoaded") == "Loaded", what="Loaded")
    assert seen is not None
    resolved = seen["status"]["resolved"]
    assert (resolved["engine"], resolved["device"], resolved["contextLength"]) == ("llama.cpp", "cpu", 1024)
    assert resolved["quantization"].lower() == "q4_1"
    assert 90_000_000 < resolved["weightsBytes"] < resolved["memoryBytes"]


def _a_deleted_pod_is_replaced(api: Api, post: Post) -> None:
    (pod,) = api.find("Pod")
    api.delete("Pod", pod["metadata"]["name"])
    api.wait("Pod", pod["metadata"]["name"], lambda found: found is None, what="the pod is gone", seconds=60)
    api.wait("InferenceModel", "smollm2", is_ready, what="Ready again", seconds=60)
    _answers(post)


def _an_edited_deployment_is_mended(api: Api) -> None:
    before = api.get("Deployment", "smollm2")
    assert before is not None
    api.patch("Deployment", "smollm2", {"spec": {"replicas": 0}})
    api.wait("Deployment", "smollm2", lambda d: (d or {})["spec"] == before["spec"], what="as before", seconds=10)
    api.wait("InferenceModel", "smollm2", is_ready, what="Ready again", seconds=60)


def test_a_change_of_the_spec_reaches_the_pods_without_a_gap(api: Api, post: Post) -> None:
    api.create(model("rolling", **SMALL))
    api.wait("InferenceModel", "rolling", is_ready, what="Ready", seconds=60)
    api.patch("InferenceModel", "rolling", {"spec": {"contextLength": 512}})
    seen = api.wait(
        "InferenceModel",
        "rolling",
        lambda im: (
            (im or {})["status"].get("resolved", {}).get("contextLength") == 512
            and reason(im, "Progressing") == "Complete"
        ),
        what="the new context length",
        seconds=60,
    )
    assert condition(seen, "Ready")["status"] == "True"
    created = (seen or {})["metadata"]["creationTimestamp"]
    assert created <= condition(seen, "Ready")["lastTransitionTime"]
    error = post_error(post, {"model": "rolling", "prompt": "word " * 700, "max_tokens": 4})
    assert "400" in error


def post_error(post: Post, body: dict[str, object]) -> str:
    """What the client pod prints when the answer is no success."""
    try:
        return post("rolling", "completions", body)
    except AssertionError as error:
        return str(error)
