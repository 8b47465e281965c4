"""Pods that fail as a whole, as when a node refuses them: not counted, told, and deleted."""

from typing import Any

from tests.support.api import Api, Object, condition, is_ready, reason
from tests.support.models import model
from tests.support.operator import Audit, OperatorProcess, described
from tests.support.waiting import eventually
from tests.truth import Truth

NOWHERE = {"moorage.test/node": "none"}


def pods(api: Api) -> dict[str, Object]:
    """The pods of the model `tiny`, by name."""
    return {pod["metadata"]["name"]: pod for pod in api.find("Pod", "moorage.dev/model=tiny")}


def fail(api: Api, name: str) -> None:
    """As the kubelet does when a device plugin has nothing to give."""
    status: dict[str, Any] = {
        "phase": "Failed",
        "reason": "UnexpectedAdmissionError",
        "message": "Allocate failed due to no healthy devices present",
        "conditions": [{"type": "Ready", "status": "False", "reason": "PodFailed"}],
    }
    api.patch("Pod", name, {"status": status}, "status")


def alive(api: Api) -> list[str]:
    return [name for name, pod in pods(api).items() if pod["status"]["phase"] != "Failed"]


def test_a_failed_pod_is_replaced_and_deleted(api: Api, operator: OperatorProcess, truth: Truth) -> None:
    api.create(model("tiny"))
    api.wait("InferenceModel", "tiny", is_ready, what="Ready")
    (first,) = pods(api)
    fail(api, first)
    eventually(lambda: first not in pods(api), "the failed pod is deleted")
    api.wait("InferenceModel", "tiny", is_ready, what="Ready again")
    truth.hold()
    truth.kept()


def test_a_node_that_refuses_every_pod_leaves_one_to_look_at(
    api: Api, operator: OperatorProcess, truth: Truth, audit: Audit
) -> None:
    api.create(model("tiny", nodeSelector=NOWHERE))
    seen = set[str]()
    for _ in range(4):
        eventually(lambda: len(alive(api)) == 1, "a pod that the ReplicaSet has made")
        (newest,) = alive(api)
        assert newest not in seen
        seen.add(newest)
        fail(api, newest)
    eventually(lambda: (len(pods(api)), len(alive(api))) == (2, 1), "one failed pod, and the next")
    # Of those that were made within one second any may be the newest.
    assert len(seen & set(pods(api))) == 1
    truth.hold()
    told = api.get("InferenceModel", "tiny")
    assert (reason(told), (told or {})["status"]["replicas"]) == ("Unschedulable", 1), "the newer one speaks"
    # Nothing more is written, however often it is looked at.
    since = audit.position()
    api.patch("Deployment", "tiny", {"metadata": {"labels": {"example.org/touched": "yes"}}})
    api.create(model("later"))
    api.wait("InferenceModel", "later", is_ready, what="Ready")
    assert [line for line in described(audit.writes(since)) if "tiny" in line] == []
    # A model that is stopped needs no pod to explain it.
    api.patch("InferenceModel", "tiny", {"spec": {"suspend": True}})
    eventually(lambda: pods(api) == {}, "no pod is left")
    truth.hold()
    assert condition(api.get("InferenceModel", "tiny"), "Ready")["reason"] == "Stopped"
