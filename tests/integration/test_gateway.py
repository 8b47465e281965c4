"""The gateway with a real API server: who is let in, what they see, and what they are told of models that do not run.

Pods that answer are in the e2e tests: no address of the loopback may stand in an EndpointSlice.
"""

from collections.abc import Iterator
from typing import Any

import httpx
import openai
import pytest

from hack.cluster.api import Cluster
from tests.support.api import Api, reason
from tests.support.gateway import SECRETS, GatewayProcess, gateway_process, make_key
from tests.support.models import model
from tests.support.operator import OperatorProcess, kubeconfig_of, kubectl
from tests.support.people import RBAC
from tests.support.waiting import eventually


@pytest.fixture(scope="module")
def gateway(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[GatewayProcess]:
    """A gateway with the rights of the chart."""
    folder = tmp_path_factory.mktemp("gateway")
    kubeconfig = kubeconfig_of(cluster, folder / "kubeconfig", "moorage-gateway")
    # Those that wait are told why soon: what is held for how long is asked in test_sleeping.
    with gateway_process(kubeconfig, folder, MOORAGE_GATEWAY_HOLD_SECONDS="0.5") as process:
        yield process


@pytest.fixture
def key(admin: Api, api: Api) -> Iterator[str]:
    """A key for the models of the test's namespace."""
    yield make_key(admin, api.namespace, models=f"{api.namespace}/*")
    admin.request("DELETE", f"{SECRETS}/key-{api.namespace}")


def models(gateway: GatewayProcess, credential: str) -> list[str] | int:
    """The models that are listed, or the status where there is no list."""
    headers = {"Authorization": f"Bearer {credential}"}
    answer = httpx.get(f"{gateway.url}/v1/models", headers=headers, trust_env=False)
    return [entry["id"] for entry in answer.json()["data"]] if answer.status_code == 200 else answer.status_code


def token(cluster: Cluster, api: Api, audience: str = "moorage-gateway") -> str:
    """A token of a service account of the test's namespace."""
    return kubectl(cluster, "-n", api.namespace, "create", "token", "default", f"--audience={audience}").strip()


def grant(api: Api, name: str | None = None) -> None:
    """Let the namespace's default service account send requests: to all of its models, or to one."""
    rule: dict[str, Any] = {
        "apiGroups": ["moorage.dev"],
        "resources": ["inferencemodels/generate"],
        "verbs": ["create"],
    }
    if name:
        rule["resourceNames"] = [name]
    role = {"metadata": {"name": "generate"}, "rules": [rule]}
    api.request("POST", f"{RBAC}/namespaces/{api.namespace}/roles", json=role)
    binding = {
        "metadata": {"name": "generate"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "generate"},
        "subjects": [{"kind": "ServiceAccount", "name": "default", "namespace": api.namespace}],
    }
    api.request("POST", f"{RBAC}/namespaces/{api.namespace}/rolebindings", json=binding)


def test_a_key_works_as_soon_as_it_is_there_and_no_longer(gateway: GatewayProcess, admin: Api, api: Api) -> None:
    api.create(model("tiny"))
    key = make_key(admin, f"{api.namespace}-b", models=f"{api.namespace}/tiny")
    eventually(lambda: models(gateway, key) == [f"{api.namespace}/tiny"], "the key is taken", seconds=5)
    admin.request("DELETE", f"{SECRETS}/key-{api.namespace}-b")
    eventually(lambda: models(gateway, key) == 401, "the key is refused", seconds=5)


def test_a_key_sees_its_models_only(gateway: GatewayProcess, api: Api, admin: Api) -> None:
    api.create(model("mine"))
    api.create(model("others"))
    name = f"{api.namespace}-c"
    key = make_key(admin, name, models=f"{api.namespace}/mine")
    eventually(lambda: models(gateway, key) == [f"{api.namespace}/mine"], "one model", seconds=5)
    admin.request("DELETE", f"{SECRETS}/key-{name}")


def test_a_token_may_what_its_role_says(gateway: GatewayProcess, cluster: Cluster, api: Api) -> None:
    api.create(model("mine"))
    api.create(model("others"))
    theirs = token(cluster, api)
    assert models(gateway, theirs) == []
    grant(api, "mine")
    # A no holds for a second.
    eventually(lambda: models(gateway, theirs) == [f"{api.namespace}/mine"], "the role is seen", seconds=10)


def test_bad_input_41_a_token_for_others_is_no_token(gateway: GatewayProcess, cluster: Cluster, api: Api) -> None:
    api.create(model("tiny"))
    grant(api)
    assert models(gateway, token(cluster, api, "somebody-else")) == 401
    assert models(gateway, kubectl(cluster, "-n", api.namespace, "create", "token", "default").strip()) == 401
    assert models(gateway, "ey.not.one") == 401


def test_a_model_that_waits_says_for_what_and_where_in_the_line(
    gateway: GatewayProcess, operator: OperatorProcess, api: Api, key: str
) -> None:
    api.create(model("huge", gpu={"count": 8, "resourceName": "moorage.test/none"}))
    api.wait("InferenceModel", "huge", lambda im: reason(im) in {"WaitingForGPU", "NoSuchResource"}, what="a reason")
    client = openai.OpenAI(base_url=f"{gateway.url}/v1", api_key=key, max_retries=0)

    def told() -> str:
        with pytest.raises(openai.InternalServerError) as refused:
            client.completions.create(model="huge", prompt="Hi", max_tokens=1)
        assert refused.value.status_code == 503
        assert int(refused.value.response.headers["retry-after"]) > 0
        return str(refused.value)

    eventually(lambda: "moorage.test/none" in told(), "the reason of the status", seconds=5)


def test_a_model_that_goes_is_not_found(gateway: GatewayProcess, api: Api, key: str) -> None:
    api.create(model("tiny"))
    client = openai.OpenAI(base_url=f"{gateway.url}/v1", api_key=key, max_retries=0)
    eventually(
        lambda: [entry.id for entry in client.models.list()] == [f"{api.namespace}/tiny"], "it is listed", seconds=5
    )
    api.delete("InferenceModel", "tiny")
    eventually(lambda: not list(client.models.list()), "it is listed no more", seconds=5)
    with pytest.raises(openai.NotFoundError) as refused:
        client.completions.create(model="tiny", prompt="Hi")
    assert refused.value.code == "model_not_found"


def test_no_credential_reaches_the_log(gateway: GatewayProcess, cluster: Cluster, api: Api, key: str) -> None:
    credentials = [key, token(cluster, api), "sk-of-somewhere-else"]
    for credential in credentials:
        models(gateway, credential)
    log = gateway.log.read_text()
    assert not [credential for credential in credentials if credential in log or credential.split("_")[-1] in log]
