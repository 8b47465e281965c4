"""Clients of the gateway on a real node: they are answered, whatever happens to pods and gateways meanwhile."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import openai
import pytest

from hack.cluster.api import Cluster
from tests.support.api import Api, is_ready
from tests.support.models import model
from tests.support.operator import NAMESPACE, kubectl
from tests.support.waiting import eventually

SMALL = {"resources": {"cpu": "200m", "memory": "1Gi"}, "contextLength": 1024}
CAPITAL = "The capital of France is"


def complete(client: openai.OpenAI) -> str:
    """A short answer without chance."""
    answer = client.completions.create(model="smollm2", prompt=CAPITAL, max_tokens=4, temperature=0)
    return answer.choices[0].text


@dataclass
class Load:
    """Clients that ask all the time."""

    answers: int = 0
    failures: list[str] = field(default_factory=list)


@contextmanager
def load(client: openai.OpenAI, clients: int = 4) -> Iterator[Load]:
    """Ask from several threads, each request on a connection of its own, until the end of the block."""
    told, over, lock = Load(), threading.Event(), threading.Lock()
    # A connection that the server closes between two requests is the client's to try again; that is not asked here.
    apart = client.with_options(default_headers={"Connection": "close"})

    def ask() -> None:
        while not over.is_set():
            try:
                text = complete(apart)
                failure = "" if "Paris" in text else f"wrong answer: {text}"
            except openai.OpenAIError as error:
                failure = f"{type(error).__name__}: {error}"
            with lock:
                told.answers += not failure
                told.failures += [failure] if failure else []

    threads = [threading.Thread(target=ask) for _ in range(clients)]
    for thread in threads:
        thread.start()
    try:
        yield told
    finally:
        over.set()
        for thread in threads:
            thread.join()


@pytest.fixture
def smollm2(api: Api, client: openai.OpenAI) -> None:
    """Two replicas that answer, of which the gateway knows."""
    api.create(model("smollm2", quantization="q4_1", replicas=2, **SMALL))
    api.wait("InferenceModel", "smollm2", lambda im: is_ready(im) and two_ready(api), what="two replicas", seconds=90)
    eventually(lambda: [entry.id for entry in client.models.list()] == [f"{api.namespace}/smollm2"], "it is listed")


def two_ready(api: Api) -> bool:
    """Whether both replicas are ready."""
    seen = api.get("InferenceModel", "smollm2") or {}
    return bool(seen.get("status", {}).get("readyReplicas") == 2)


@pytest.mark.usefixtures("smollm2")
def test_openais_client_chats_streams_and_completes(client: openai.OpenAI) -> None:
    assert "Paris" in complete(client)
    question: Any = {"role": "user", "content": "What is the opposite of hot?"}
    asked: Any = {"model": "smollm2", "messages": [question], "max_tokens": 16, "temperature": 0}
    assert "cold" in client.chat.completions.create(**asked).choices[0].message.content
    pieces = client.chat.completions.create(**asked, stream=True)
    text = "".join(piece.choices[0].delta.content or "" for piece in pieces if piece.choices)
    assert "cold" in text


@pytest.mark.usefixtures("smollm2")
def test_pods_that_go_and_gateways_that_are_replaced_lose_no_request(
    cluster: Cluster, api: Api, client: openai.OpenAI, user: Callable[..., str]
) -> None:
    eventually(lambda: "Paris" in complete(client), "an answer")
    with load(client) as told:
        eventually(lambda: told.answers > 10, "answers")
        user("delete", "pod", api.find("Pod", "moorage.dev/model=smollm2")[0]["metadata"]["name"])
        kubectl(cluster, "-n", NAMESPACE, "rollout", "restart", "deployment/moorage-gateway")
        kubectl(cluster, "-n", NAMESPACE, "rollout", "status", "deployment/moorage-gateway", "--timeout=120s")
        eventually(lambda: two_ready(api), "two replicas again", seconds=60)
        # Killed at once, as by the kernel for memory: nothing is finished, nobody says goodbye.
        victim = api.find("Pod", "moorage.dev/model=smollm2")[0]["metadata"]["name"]
        user("delete", "pod", victim, "--grace-period=0", "--force")
        before = told.answers
        eventually(lambda: told.answers > before + 20, "answers after it", seconds=60)
    assert told.failures == []
