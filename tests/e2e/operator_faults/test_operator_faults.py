"""The operator dies, or is away, while people work on: everything ends in the right state."""

from collections.abc import Callable, Iterator

import pytest

from hack.cluster.api import Cluster
from tests.support.api import Api, is_ready
from tests.support.models import model
from tests.support.operator import NAMESPACE, kubectl

SMALL = {"resources": {"cpu": "200m", "memory": "1Gi"}, "contextLength": 512}
DEPLOYMENT = "deployment/moorage-operator"


@pytest.fixture
def no_operator(cluster: Cluster) -> Iterator[Callable[[], None]]:
    """A function that takes the operator away; it is back after the test."""

    def remove() -> None:
        kubectl(cluster, "-n", NAMESPACE, "scale", DEPLOYMENT, "--replicas=0")
        selector = "--selector=app.kubernetes.io/name=moorage-operator"
        kubectl(cluster, "-n", NAMESPACE, "wait", "--for=delete", "pod", selector, "--timeout=60s")

    yield remove
    kubectl(cluster, "-n", NAMESPACE, "scale", DEPLOYMENT, "--replicas=2")
    kubectl(cluster, "-n", NAMESPACE, "rollout", "status", DEPLOYMENT, "--timeout=60s")


def test_the_leading_operator_is_killed(api: Api, admin: Api) -> None:
    api.create(model("survivor", **SMALL))
    api.wait("InferenceModel", "survivor", is_ready, what="Ready", seconds=60)
    system = admin.at(NAMESPACE)
    leader = _leader(system)
    # At once and without a farewell, as when a node dies.
    system.request("DELETE", system.path("Pod", leader), params={"gracePeriodSeconds": "0"})
    api.delete("Service", "survivor")
    api.wait("Service", "survivor", lambda found: found is not None, what="the Service is back", seconds=40)
    system.wait("Lease", "moorage-operator", lambda lease: _holder(lease) not in ("", leader), what="a new leader")


def _leader(system: Api) -> str:
    return _holder(system.get("Lease", "moorage-operator"))


def _holder(lease: dict[str, dict[str, str]] | None) -> str:
    return lease["spec"].get("holderIdentity", "") if lease else ""


def test_a_model_is_deleted_while_the_operator_is_away(api: Api, no_operator: Callable[[], None]) -> None:
    api.create(model("orphan", **SMALL))
    api.wait("InferenceModel", "orphan", is_ready, what="Ready", seconds=60)
    no_operator()
    api.delete("InferenceModel", "orphan")
    for kind in ("Deployment", "Service"):
        api.wait(kind, "orphan", lambda found: found is None, what=f"the {kind} is gone", seconds=30)
    for pod in api.find("Pod"):
        api.wait("Pod", pod["metadata"]["name"], lambda found: found is None, what="the pod is gone", seconds=60)
