"""Pods in phase Failed: which are deleted, and what a reconcile does about them."""

from typing import Any

import pytest

from moorage_operator.cluster.errors import ForbiddenError
from moorage_operator.cluster.failed_pods import AT_ONCE, to_delete
from moorage_operator.status import status
from moorage_operator.status.observe import Observation, PodState, pod_state
from tests.unit.operator.situations import UNREADY, placed, pod, ready
from tests.unit.operator.support import by_type, live_pod, model
from tests.unit.operator.test_reconcile import Bed

NOW = "2026-01-02T03:04:05Z"
REFUSED = "UnexpectedAdmissionError: Allocate failed"


def failed(name: str, second: int, **fields: Any) -> PodState:
    """A pod that a node has refused."""
    made = f"2026-01-02T03:04:{second:02}Z"
    return placed(name, **{"created": made, "finished": True, "failure": REFUSED, **fields})


@pytest.mark.parametrize(
    ("pods", "wanted", "deleted"),
    [
        ((), 1, []),
        ((failed("a", 1),), 1, []),
        ((failed("b", 2), failed("a", 1), failed("c", 3), pod("new")), 1, ["a", "b"]),
        ((failed("a", 1), failed("b", 2), ready()), 1, ["a", "b"]),
        ((failed("a", 1), failed("b", 2), ready()), 2, ["a"]),
        ((failed("a", 1),), 0, ["a"]),
        ((failed("a", 1, terminating=True), failed("b", 2, terminating=True)), 0, []),
        ((placed("succeeded", finished=True), pod("new")), 1, []),
    ],
)
def test_the_newest_failed_pod_stays_until_all_are_ready(
    pods: tuple[PodState, ...], wanted: int, deleted: list[str]
) -> None:
    assert [pod.name for pod in to_delete(pods, wanted)] == deleted


def test_why_a_pod_failed_is_read_from_its_status() -> None:
    live = live_pod()
    live["status"] |= {"phase": "Failed", "reason": "Evicted", "message": "The node was low on resource: memory."}
    state = pod_state(live)
    assert (state.finished, state.failure) == (True, "Evicted: The node was low on resource: memory.")
    live["status"] = {"phase": "Failed"}
    assert pod_state(live).failure == "Failed"
    live["status"] = {"phase": "Succeeded", "reason": "x"}
    assert (pod_state(live).finished, pod_state(live).failure) == (True, "")


def test_a_failed_pod_is_no_replica_and_explains_a_start_but_is_not_its_reason() -> None:
    found = status(model(), Observation(UNREADY, (failed("a", 1), placed(created=NOW))), NOW)
    assert found["replicas"] == 1
    condition = by_type(found)["Ready"]
    assert (condition["reason"], found["phase"]) == ("Starting", "Starting")
    assert condition["message"] == f"Starting the container; the previous pod failed: {REFUSED}"
    earlier = failed("a", 1, revision="of an earlier spec")
    found = status(model(), Observation(UNREADY, (earlier, placed(created=NOW))), NOW)
    assert by_type(found)["Ready"]["message"] == "Starting the container"


def refuse(bed: Bed, name: str, second: int) -> None:
    """A node refuses a pod."""
    live = live_pod(name, creationTimestamp=f"2026-01-02T03:04:{second:02}Z")
    live["status"] |= {"phase": "Failed", "reason": "UnexpectedAdmissionError", "message": "Allocate failed"}
    bed.store.put("Pod", bed.kube.put("Pod", live))


def forget(bed: Bed, name: str) -> None:
    """The watch tells that a pod is gone."""
    bed.store.remove("Pod", live_pod(name, version=9))


async def test_a_reconcile_deletes_failed_pods_by_their_uid_and_then_nothing_more() -> None:
    bed = Bed()
    await bed.reconcile()
    for second, name in enumerate(("a", "b", "c")):
        refuse(bed, name, second)
    bed.kube.objects["Pod", "b"]["metadata"]["uid"] = "of another pod of that name"
    await bed.reconcile()
    assert bed.kube.deleted == ["a"]
    for name in ("a", "b"):
        forget(bed, name)
    assert await bed.reconcile() == []
    assert bed.kube.deleted == ["a"]
    bed.store.put("Pod", live_pod("fine", ready=True))
    await bed.reconcile()
    assert bed.kube.deleted == ["a", "c"]


async def test_many_failed_pods_are_deleted_a_few_at_a_time() -> None:
    bed = Bed()
    await bed.reconcile()
    for number in range(AT_ONCE + 5):
        refuse(bed, f"pod-{number:02}", number)
    await bed.reconcile()
    assert len(bed.kube.deleted) == AT_ONCE


async def test_without_the_right_to_delete_pods_all_else_goes_on() -> None:
    bed = Bed()
    await bed.reconcile()
    for number in range(3):
        refuse(bed, f"pod-{number}", number)
    bed.kube.refusals["delete", "Pod"] = ForbiddenError(403, "Forbidden", "cannot delete")
    bed.change(servedName="qwen")
    assert await bed.reconcile() == ["Deployment", "status"]
    assert await bed.reconcile() == []
