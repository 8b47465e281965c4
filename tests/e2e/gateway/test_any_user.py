"""The images run as any user with group 0, as on OpenShift: here a policy gives all pods such a user."""

from collections.abc import Callable, Iterator
from contextlib import suppress

import openai
import pytest

from hack.cluster.api import Cluster
from tests.support.api import Api, ApiRefusedError, is_ready
from tests.support.models import model
from tests.support.operator import NAMESPACE, kubectl
from tests.support.waiting import eventually

ADMISSION = "/apis/admissionregistration.k8s.io/v1"
USER = 1000720000
ASSIGNED = f"runAsUser: {USER}, runAsGroup: 0, fsGroup: {USER}"
OURS = ("deployment/moorage-operator", "deployment/moorage-gateway")
EXPRESSION = f"Object{{spec: Object.spec{{securityContext: Object.spec.securityContext{{{ASSIGNED}}}}}}}"


@pytest.fixture
def assigned_user(cluster: Cluster, api: Api, gateway: str) -> Iterator[None]:
    """New pods of Moorage and of the test's namespace are of a user that no image knows, in group 0."""
    policy = {
        "metadata": {"name": "assigned-user"},
        "spec": {
            "reinvocationPolicy": "Never",
            "matchConstraints": {
                "resourceRules": [
                    {"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["pods"]}
                ]
            },
            "mutations": [
                {"patchType": "ApplyConfiguration", "applyConfiguration": {"expression": EXPRESSION}},
            ],
        },
    }
    name = {"key": "kubernetes.io/metadata.name", "operator": "In", "values": [api.namespace, NAMESPACE]}
    here = {"namespaceSelector": {"matchExpressions": [name]}}
    binding = {
        "metadata": {"name": "assigned-user"},
        "spec": {"policyName": "assigned-user", "matchResources": here},
    }
    paths = {f"{ADMISSION}/mutatingadmissionpolicies": policy, f"{ADMISSION}/mutatingadmissionpolicybindings": binding}
    try:
        for path, body in paths.items():
            api.request("POST", path, json=body)
        eventually(lambda: user_of_a_new_pod(api) == USER, "the policy is at work")
        restart(cluster)
        yield
    finally:
        for path in paths:
            with suppress(ApiRefusedError):  # it was not made
                api.request("DELETE", f"{path}/assigned-user")
        eventually(lambda: user_of_a_new_pod(api) != USER, "the policy is gone")
        restart(cluster)


def user_of_a_new_pod(api: Api) -> int | None:
    """The user that the API server would give a pod."""
    restricted = {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}
    container = {"name": "main", "image": "registry.example/x:1", "securityContext": restricted}
    pod = {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}}
    spec = {"securityContext": pod, "containers": [container]}
    made = api.create({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "probe"}, "spec": spec}, dry_run=True)
    user: int | None = made["spec"]["securityContext"].get("runAsUser")
    return user


def restart(cluster: Cluster) -> None:
    """New pods of operator and gateway, which are ready."""
    for name in OURS:
        kubectl(cluster, "-n", NAMESPACE, "rollout", "restart", name)
        kubectl(cluster, "-n", NAMESPACE, "rollout", "status", name, "--timeout=120s")


@pytest.mark.usefixtures("assigned_user")
def test_cluster_05_operator_gateway_and_models_run_as_a_user_that_the_cluster_assigns(
    cluster: Cluster, api: Api, user: Callable[..., str], client: openai.OpenAI
) -> None:
    api.create(model("tiny", resources={"cpu": "200m", "memory": "1Gi"}, contextLength=512))
    api.wait("InferenceModel", "tiny", is_ready, what="Ready", seconds=90)
    said = client.completions.create(model="tiny", prompt="The capital of France is", max_tokens=4, temperature=0)
    assert "Paris" in said.choices[0].text
    (pod,) = api.find("Pod", "moorage.dev/model=tiny")
    assert user("exec", pod["metadata"]["name"], "--", "id", "-u").strip() == str(USER)
    for name in OURS:
        assert kubectl(cluster, "-n", NAMESPACE, "exec", name, "--", "id", "-u").strip() == str(USER)
