"""Aliases, prefixes and scenarios on a real node, with a real model."""

from typing import Any

import httpx
import openai

from tests.support.api import Api, is_ready
from tests.support.models import model
from tests.support.operator import NAMESPACE
from tests.support.waiting import eventually

SMALL = {"resources": {"cpu": "200m", "memory": "1Gi"}, "contextLength": 1024, "quantization": "q4_1"}
SERIES = ("moorage_gateway_ready_pods", "moorage_gateway_upstream")
COUNTED = "moorage_runtime_requests_total{"
QUESTION = "What is the opposite of hot?"


def ready(api: Api, name: str, replicas: int = 1) -> None:
    """Wait until a model has so many replicas that answer."""

    def all_of_them(live: Any) -> bool:
        return is_ready(live) and live["status"]["readyReplicas"] == replicas

    api.wait("InferenceModel", name, all_of_them, what=f"{replicas} replicas", seconds=90)


def told_of_pods(api: Api, name: str) -> list[list[str]]:
    """What each gateway tells of a model's pods and of the connections to them."""
    gateways = api.at(NAMESPACE).find("Pod", "app.kubernetes.io/name=moorage-gateway")
    running = [pod["status"]["podIP"] for pod in gateways if "deletionTimestamp" not in pod["metadata"]]
    pages = [httpx.get(f"http://{address}:9090/metrics", trust_env=False).text for address in running]
    label = f'model="{api.namespace}/{name}"'
    return [[line for line in page.splitlines() if line.startswith(SERIES) and label in line] for page in pages]


def all_see(api: Api, name: str, pods: int) -> bool:
    """Whether every gateway sees so many ready pods: it learns of them by itself, not by the model's status."""
    seen = f'moorage_gateway_ready_pods{{model="{api.namespace}/{name}",state="used"}} {pods}.0'
    return all(seen in lines for lines in told_of_pods(api, name))


def answered(api: Api, name: str) -> dict[str, float]:
    """The chats that each pod of a model has answered."""
    found = {}
    for pod in api.find("Pod", f"moorage.dev/model={name}"):
        page = httpx.get(f"http://{pod['status']['podIP']}:8000/metrics", trust_env=False).text
        lines = [line for line in page.splitlines() if line.startswith(COUNTED) and "/v1/chat/completions" in line]
        found[pod["metadata"]["name"]] = sum(float(line.rsplit(" ", 1)[1]) for line in lines)
    return found


def test_an_alias_generate_and_prefixes_on_real_pods(api: Api, client: openai.OpenAI) -> None:
    api.create(model("smollm2", replicas=2, routing={"strategy": "PrefixHash"}, **SMALL))
    api.create(model("canary", **SMALL))
    shares = [{"name": "smollm2", "weight": 1}, {"name": "canary", "weight": 1}]
    api.create(
        {
            **{"apiVersion": "moorage.dev/v1alpha1", "kind": "ModelAlias", "metadata": {"name": "assistant"}},
            "spec": {"models": shares},
        }
    )
    ready(api, "smollm2", 2)
    ready(api, "canary")
    both = {f"{api.namespace}/smollm2", f"{api.namespace}/canary"}
    listed = {f"{api.namespace}/assistant", *both}
    eventually(lambda: {entry.id for entry in client.models.list()} == listed, "all are listed")

    # With the alias, both models answer within a while, and each answer says which did.
    met = set()
    for _ in range(30):
        raw = client.completions.with_raw_response.create(model="assistant", prompt=QUESTION, max_tokens=1)
        met.add(raw.headers["x-moorage-model"])
    assert met == both

    # A gateway that sees one of the pods later places prefixes anew.
    eventually(lambda: all_see(api, "smollm2", 2), "every gateway sees both pods")
    # By the prefix, the turns of a chat meet one of the two pods.
    before = answered(api, "smollm2")
    chat: list[Any] = [{"role": "user", "content": QUESTION}]
    for _ in range(4):
        said = client.chat.completions.create(model="smollm2", messages=chat, max_tokens=8, temperature=0)
        chat += [{"role": "assistant", "content": said.choices[0].message.content}, {"role": "user", "content": "Why?"}]
    after = answered(api, "smollm2")
    assert sorted(after[pod] - before[pod] for pod in before) == [0, 4], told_of_pods(api, "smollm2")

    headers = {"Authorization": f"Bearer {client.api_key}"}
    fields = {"inputs": QUESTION, "scenario": "qa", "parameters": {"max_new_tokens": 16, "temperature": 0}}
    for name in ("smollm2", "assistant"):
        url = f"{str(client.base_url).rstrip('/')}/generate"
        answer = httpx.post(url, json={"model_id": name, **fields}, headers=headers, timeout=60, trust_env=False)
        assert answer.status_code == 200, answer.text
        told = answer.json()
        assert set(told) == {"generated_text", "model", "tokens"}
        assert told["generated_text"]
        assert told["model"] in both
        assert 0 < told["tokens"] <= 16
