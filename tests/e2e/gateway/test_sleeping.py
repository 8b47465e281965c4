"""A model that sleeps, on a real node: its first request is answered, and later it sleeps again."""

import time
from typing import Any

import openai
import pytest

from tests.support.api import Api, condition, reason
from tests.support.models import model
from tests.support.waiting import eventually

SMALL = {"resources": {"cpu": "200m", "memory": "1Gi"}, "contextLength": 1024}
SCALING = {"minReplicas": 0, "maxReplicas": 2, "idleTimeout": "15s"}
QUESTION = {"role": "user", "content": "What is the opposite of hot?"}


def falls_asleep(api: Api, seconds: float) -> None:
    """Wait until the model sleeps, and no pod of it is left."""
    asleep = api.wait(
        "InferenceModel", "smollm2", lambda im: reason(im) == "Sleeping", what="it sleeps", seconds=seconds
    )
    assert asleep is not None
    assert condition(asleep, "Ready")["status"] == "True"
    assert asleep["metadata"]["generation"] == 1
    eventually(lambda: not api.find("Pod", "moorage.dev/model=smollm2"), "its pods are gone", seconds=60)


# It waits for a start and two idle times; and whichever test is the first starts the cluster, too.
def test_a_model_that_sleeps_answers_its_first_request_and_sleeps_again(
    api: Api, client: openai.OpenAI, capsys: pytest.CaptureFixture[str]
) -> None:
    api.create(model("smollm2", quantization="q4_1", scaling=SCALING, **SMALL))
    api.wait("InferenceModel", "smollm2", lambda im: reason(im) == "Serving", what="it starts", seconds=90)
    eventually(lambda: [entry.id for entry in client.models.list()] == [f"{api.namespace}/smollm2"], "it is listed")
    falls_asleep(api, 60)
    began = time.monotonic()
    asked: Any = {"model": "smollm2", "messages": [QUESTION], "max_tokens": 16, "temperature": 0}
    pieces = client.chat.completions.create(**asked, stream=True)
    text = "".join(piece.choices[0].delta.content or "" for piece in pieces if piece.choices)
    answered = time.monotonic() - began
    assert "cold" in text
    woken = api.get("InferenceModel", "smollm2")
    assert woken is not None
    start = woken["status"]["startup"]
    with capsys.disabled():
        print(f"\na model that slept answered after {answered:.1f} s; its own start took {start['totalSeconds']} s")
    falls_asleep(api, 60)
