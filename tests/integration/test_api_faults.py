"""The API server and its store fail under a running operator: it recovers by itself, in the same process."""

from collections.abc import Iterator
from signal import SIGCONT, SIGSTOP

import pytest

from hack.cluster.api import Cluster
from moorage_operator.cluster.lease import RENEW_DEADLINE
from tests.support.api import Api, is_ready
from tests.support.models import model
from tests.support.operator import Audit, OperatorProcess, described


@pytest.fixture
def serving(api: Api, operator: OperatorProcess) -> str:
    """The name of a model that serves."""
    api.create(model("steady"))
    api.wait("InferenceModel", "steady", is_ready, what="Ready")
    return "steady"


def works(api: Api, name: str, replicas: int) -> None:
    """A change is acted on and its outcome told."""
    api.patch("InferenceModel", name, {"spec": {"replicas": replicas}})
    api.wait(
        "InferenceModel",
        name,
        lambda im: is_ready(im) and (im or {})["status"]["readyReplicas"] == replicas,
        what=f"{replicas} replicas",
    )


@pytest.mark.parametrize("component", ["kube-apiserver", "etcd"])
def test_a_killed_component_comes_back(
    api: Api, serving: str, operator: OperatorProcess, cluster: Cluster, component: str
) -> None:
    process = operator.process
    for replicas in (2, 3):
        cluster.kill(component)
        cluster.start(component)
        cluster.wait_until_ready()
        works(api, serving, replicas)
    assert operator.process is process
    assert process is not None
    assert process.poll() is None


def test_a_child_that_went_while_nobody_could_see_it_comes_back(
    api: Api, serving: str, operator: OperatorProcess, cluster: Cluster
) -> None:
    operator.signal(SIGSTOP)
    cluster.kill("kube-apiserver")
    cluster.start("kube-apiserver")
    cluster.wait_until_ready()
    for kind in ("Deployment", "Service"):
        api.delete(kind, serving)
        api.wait(kind, serving, lambda found: found is None, what="gone")
    operator.signal(SIGCONT)
    for kind in ("Deployment", "Service"):
        api.wait(kind, serving, lambda found: found is not None, what=f"the {kind} again")
    works(api, serving, 2)


def test_a_frozen_api_server_is_waited_for(api: Api, serving: str, operator: OperatorProcess, cluster: Cluster) -> None:
    # Longer than the operator may hold its Lease without renewing it: it must stop working, and begin again by itself.
    cluster.signal("kube-apiserver", SIGSTOP)
    try:
        assert operator.ends_within(RENEW_DEADLINE + 5) is False
        assert "lease" in operator.not_ready()
    finally:
        cluster.signal("kube-apiserver", SIGCONT)
    cluster.wait_until_ready()
    works(api, serving, 2)


@pytest.fixture
def left_behind(api: Api, cluster: Cluster) -> Iterator[Api]:
    """A namespace that is gone, but a model in it is not: what an API server that restarts meanwhile may leave."""
    gone = api.at(f"{api.namespace}-gone")
    path = f"/api/v1/namespaces/{gone.namespace}"
    cluster.signal("kube-controller-manager", SIGSTOP)
    try:
        api.request("POST", "/api/v1/namespaces", json={"metadata": {"name": gone.namespace}})
        gone.create(model("lost"))
        ending = api.request("DELETE", path)
        api.request("PUT", f"{path}/finalize", json={**ending, "spec": {"finalizers": []}})
    finally:
        cluster.signal("kube-controller-manager", SIGCONT)
    yield gone
    gone.delete("InferenceModel", "lost")


def test_a_model_that_its_namespace_has_left_behind_is_tried_once(
    api: Api, left_behind: Api, operator: OperatorProcess, audit: Audit
) -> None:
    api.create(model("steady"))
    api.wait("InferenceModel", "steady", is_ready, what="Ready")
    works(api, "steady", 2)
    assert left_behind.get("InferenceModel", "lost")
    lost = [write for write in described(audit.writes()) if left_behind.namespace in write]
    assert lost == [f"patch {left_behind.namespace}/services/lost 404"]
