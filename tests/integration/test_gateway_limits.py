"""What the gateway asks of a real API server and how seldom, and limits as OpenAI's own client sees them.

A proxy before the API server counts what it is asked.
"""

import json
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import httpx
import openai
import pytest

from hack.cluster.api import Cluster
from tests.chaos.bed import kubeconfig_through, proxy_of
from tests.support.api import Api
from tests.support.fault_proxy import FaultProxy
from tests.support.gateway import SECRETS, GatewayProcess, gateway_process, make_key
from tests.support.models import model
from tests.support.operator import kubeconfig_of, kubectl
from tests.support.people import RBAC
from tests.support.sleeping import AnsweringPod, becomes_ready
from tests.support.waiting import eventually

LOGINS = 20
ALL_MODELS = "/apis/moorage.dev/v1alpha1/inferencemodels"
MODELS = 30


@dataclass
class Bed:
    """A gateway, and a proxy before the API server that it talks to."""

    gateway: GatewayProcess
    proxy: FaultProxy
    client: httpx.Client

    def status(self, credential: str) -> int:
        return self.models(credential).status_code

    def models(self, credential: str) -> httpx.Response:
        headers = {"Authorization": f"Bearer {credential}"}
        return self.client.get(f"{self.gateway.url}/v1/models", headers=headers)

    def reviews(self, resource: str, since: int) -> int:
        """How many of that kind the API server was asked for since then."""
        return sum(1 for call in self.proxy.calls(since) if call.resource == resource)

    def lines(self, message: str) -> list[dict[str, Any]]:
        """Lines of its logs."""
        return [line for line in self.gateway.lines() if line["message"] == message]


@pytest.fixture
def bed(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bed]:
    """A gateway of the test's own: what failed in another one is not remembered."""
    folder = tmp_path_factory.mktemp("gateway")
    direct = kubeconfig_of(cluster, folder / "direct", "moorage-gateway")
    settings = {"MOORAGE_GATEWAY_FAILED_LOGINS_PER_MINUTE": str(LOGINS), "MOORAGE_GATEWAY_MAKE_TRACES": "true"}
    with proxy_of(cluster) as proxy:
        through = kubeconfig_through(proxy, direct, folder / "kubeconfig")
        with (
            gateway_process(through, folder, **settings) as process,
            httpx.Client(trust_env=False, timeout=60) as client,
        ):
            yield Bed(process, proxy, client)


@pytest.fixture
def new_key(admin: Api, api: Api) -> Iterator[Callable[..., str]]:
    """Makes keys for the models of the test's namespace."""
    made: list[str] = []

    def make(**entries: str) -> str:
        made.append(f"{api.namespace}-{len(made)}")
        return make_key(admin, made[-1], models=f"{api.namespace}/*", **entries)

    yield make
    for identity in made:
        admin.request("DELETE", f"{SECRETS}/key-{identity}")


def token(cluster: Cluster, api: Api) -> str:
    """A token of a service account of the test's namespace; a new one each time."""
    return kubectl(cluster, "-n", api.namespace, "create", "token", "default", "--audience=moorage-gateway").strip()


def grant(api: Api, *names: str) -> None:
    """Let the namespace's default service account send requests: to all of its models, or to those."""
    rule: dict[str, Any] = {
        "apiGroups": ["moorage.dev"],
        "resources": ["inferencemodels/generate"],
        "verbs": ["create"],
    }
    if names:
        rule["resourceNames"] = list(names)
    api.request("POST", f"{RBAC}/namespaces/{api.namespace}/roles", json={"metadata": {"name": "g"}, "rules": [rule]})
    binding = {
        "metadata": {"name": "g"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "g"},
        "subjects": [{"kind": "ServiceAccount", "name": "default", "namespace": api.namespace}],
    }
    api.request("POST", f"{RBAC}/namespaces/{api.namespace}/rolebindings", json=binding)
    reviews = "/apis/authorization.k8s.io/v1/subjectaccessreviews"
    attributes = {"namespace": api.namespace, "group": "moorage.dev", "resource": "inferencemodels"}
    wanted = {**attributes, "subresource": "generate", "verb": "create", "name": names[0] if names else ""}
    user = f"system:serviceaccount:{api.namespace}:default"
    review = {"spec": {"user": user, "resourceAttributes": wanted}}
    eventually(
        lambda: api.request("POST", reviews, json=review)["status"]["allowed"], "the role is taken in", seconds=10
    )


def test_bad_input_41_a_flood_of_bad_logins_ends_before_the_api_server(
    bed: Bed, cluster: Cluster, api: Api, new_key: Callable[..., str]
) -> None:
    key, good = new_key(), token(cluster, api)
    eventually(lambda: bed.status(key) == 200, "the key is taken", seconds=5)
    assert bed.status(good) == 200
    since = bed.proxy.position()

    began = time.monotonic()
    with ThreadPoolExecutor(32) as pool:
        statuses = list(pool.map(bed.status, [f"hunter2-{number}" for number in range(400)]))
    assert set(statuses) == {401, 429}
    flown_in = (time.monotonic() - began) * LOGINS / 60
    assert bed.reviews("tokenreviews", since) <= LOGINS + flown_in + 1
    assert statuses.count(401) == bed.reviews("tokenreviews", since)

    # The good ones of the same address go on all the time.
    assert bed.status(key) == 200
    assert bed.status(good) == 200
    told = bed.lines("login failed")
    assert 0 < len(told) <= 400
    assert {line["client"] for line in told} == {"127.0.0.1"}
    assert "hunter2" not in bed.gateway.log.read_text()


def reviews_of_others(api: Api) -> int:
    """The most reviews that models of other tests' namespaces cost: for all of a namespace first, then for each."""
    left = [obj["metadata"] for obj in api.request("GET", ALL_MODELS)["items"]]
    others = [metadata for metadata in left if metadata["namespace"] != api.namespace]
    return len(others) + len({metadata["namespace"] for metadata in others})


def test_a_list_of_models_costs_one_review_for_who_may_all(bed: Bed, cluster: Cluster, api: Api) -> None:
    grant(api)
    for number in range(MODELS):
        api.create(model(f"m{number}"))
    theirs = token(cluster, api)
    eventually(lambda: len(bed.models(theirs).json()["data"]) == MODELS, "all are listed", seconds=15)
    another = token(cluster, api)
    of_others = reviews_of_others(api)
    since = bed.proxy.position()
    assert len(bed.models(another).json()["data"]) == MODELS
    assert bed.reviews("tokenreviews", since) == 1
    assert bed.reviews("subjectaccessreviews", since) <= 2 + of_others
    since = bed.proxy.position()
    assert len(bed.models(another).json()["data"]) == MODELS
    assert bed.reviews("subjectaccessreviews", since) <= 2


def test_a_list_of_models_asks_by_name_where_all_is_denied(bed: Bed, cluster: Cluster, api: Api) -> None:
    grant(api, "m3")
    for number in range(MODELS):
        api.create(model(f"m{number}"))
    theirs = token(cluster, api)
    mine = f"{api.namespace}/m3"
    eventually(lambda: mine in bed.models(theirs).text, "it is listed", seconds=15)
    another = token(cluster, api)
    most = MODELS + 10 + reviews_of_others(api)
    since = bed.proxy.position()
    with ThreadPoolExecutor(8) as pool:
        lists = list(pool.map(lambda _: bed.models(another).json()["data"], range(8)))
    assert [[entry["id"] for entry in found] for found in lists] == [[mine]] * 8
    # All eight lists together ask once about each model.
    assert MODELS < bed.reviews("subjectaccessreviews", since) <= most
    assert bed.reviews("tokenreviews", since) == 1


def test_bad_input_54_openais_client_is_told_of_the_limits_of_its_key(
    bed: Bed, api: Api, new_key: Callable[..., str]
) -> None:
    api.create(model("tiny"))
    key = new_key(requestsPerMinute="3", tokensPerMinute="1000")
    with AnsweringPod().serving() as pod:
        becomes_ready(api, "tiny", pod.port)
        headers = {"Authorization": f"Bearer {new_key()}"}

        def serves() -> bool:
            body = {"model": f"{api.namespace}/tiny", "prompt": "Hi"}
            answer = httpx.post(f"{bed.gateway.url}/v1/completions", json=body, headers=headers, trust_env=False)
            return answer.status_code == 200

        eventually(serves, "the pod is seen", seconds=10)
        client = openai.OpenAI(base_url=f"{bed.gateway.url}/v1", api_key=key, max_retries=0)
        left = []
        for _ in range(3):
            raw = client.completions.with_raw_response.create(model="tiny", prompt="Hi", max_tokens=100)
            assert raw.parse().choices[0].text == "Paris"
            left.append(int(raw.headers["x-ratelimit-remaining-requests"]))
            assert 850 < int(raw.headers["x-ratelimit-remaining-tokens"]) < 900
            assert raw.headers["x-ratelimit-reset-tokens"].endswith("s")
            assert raw.headers["x-request-id"]
        assert left == [2, 1, 0]
        with pytest.raises(openai.RateLimitError) as refused:
            client.completions.create(model="tiny", prompt="Hi")
        assert (refused.value.code, refused.value.type) == ("rate_limit_exceeded", "requests")
        assert 0 < int(refused.value.response.headers["retry-after"]) <= 20

        greedy = openai.OpenAI(base_url=f"{bed.gateway.url}/v1", api_key=new_key(tokensPerMinute="100"), max_retries=0)
        eventually(lambda: list(greedy.models.list()), "the key is taken", seconds=5)
        greedy.completions.create(model="tiny", prompt="Hi", max_tokens=90)
        # Six tokens were used, so most of the bucket is there again.
        greedy.completions.create(model="tiny", prompt="Hi", max_tokens=60)
        with pytest.raises(openai.RateLimitError) as refused:
            greedy.completions.create(model="tiny", prompt="Hi", max_tokens=99)
        assert refused.value.type == "tokens"
        # A client that waits as it is told to gets its answer.
        patient = greedy.with_options(max_retries=2)
        assert patient.completions.create(model="tiny", prompt="Hi", max_tokens=80).choices[0].text == "Paris"

    def logged() -> bool:
        lines = [line for line in bed.lines("request") if line.get("model") == f"{api.namespace}/tiny"]
        return len([line for line in lines if line["status"] == 200]) >= 6

    eventually(logged, "the access log has the requests", seconds=5)
    line = next(line for line in bed.lines("request") if line.get("caller") == f"key:{api.namespace}-0")
    assert {"seconds", "bytes_in", "bytes_out", "request_id", "trace_id", "client", "pod"} <= set(line)
    assert (line["tokens_in"], line["tokens_out"], line["route"]) == (5, 1, "/v1/completions")
    assert key.split("_")[-1] not in json.dumps(bed.gateway.lines())

    page = httpx.get(f"http://127.0.0.1:{bed.gateway.admin_port}/metrics", trust_env=False).text
    assert f'moorage_gateway_rate_limited_total{{caller="key:{api.namespace}-0",limit="requests"}} 1.0' in page
    assert f'moorage_gateway_upstream_total{{event="reused",model="{api.namespace}/tiny"}}' in page
    api.delete("InferenceModel", "tiny")

    def vanished() -> bool:
        told = httpx.get(f"http://127.0.0.1:{bed.gateway.admin_port}/metrics", trust_env=False).text
        return f"{api.namespace}/tiny" not in told

    eventually(vanished, "the series of a model that has gone", seconds=5)
