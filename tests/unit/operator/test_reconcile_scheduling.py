"""What a reconcile does about waiting, preemption and room for a change."""

from typing import Any

import pytest

from moorage_operator.cluster.errors import ForbiddenError, UnavailableError
from moorage_operator.cluster.kinds import DEPLOYMENTS, EVENTS, PODS
from moorage_operator.metrics import PREEMPTIONS
from moorage_operator.reconcile import BLOCKED_SECONDS
from tests.unit.operator.support import Object, by_type, live_model, live_pod
from tests.unit.operator.test_cluster_view import LOST
from tests.unit.operator.test_preemption import event
from tests.unit.operator.test_reconcile import TINY, Bed

GPU = "nvidia.com/gpu"
GPUS: dict[str, Any] = {"gpu": {"count": 1}}
SAID = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": f"1 Insufficient {GPU}."}


def starved(name: str = "tiny-abc-2", **fields: Any) -> Object:
    """A pod of `tiny` that waits for a GPU."""
    pod = live_pod(name, node=None, conditions=(SAID,), **fields)
    pod["spec"] = {"containers": [{"name": "runtime", "resources": {"requests": {GPU: "1"}}}], "priority": 5000}
    return pod


def revision(bed: Bed) -> str:
    """The revision that the Deployment asks for."""
    labels = bed.kube.objects["Deployment", "tiny"]["spec"]["template"]["metadata"]["labels"]
    return str(labels["moorage.dev/revision"])


def of_revision(pod: Object, revision: str) -> Object:
    """A pod of that revision."""
    pod["metadata"]["labels"]["moorage.dev/revision"] = revision
    return pod


def events(bed: Bed) -> dict[str, str]:
    """The Events that were written: whom they concern, and what they say."""
    found = [obj for (kind, _), obj in bed.kube.objects.items() if kind == "Event"]
    return {f"{obj['involvedObject']['name']} {obj['reason']}": obj["message"] for obj in found}


async def test_a_model_that_waits_gets_a_queue_position() -> None:
    bed = Bed(**GPUS)
    await bed.reconcile()
    bed.view.event(PODS, "ADDED", starved())
    await bed.reconcile()
    assert bed.status["queue"] == {"position": 1, "of": 1, "summary": "1/1", "waitingFor": f"1 {GPU}"}
    bed.view.event(PODS, "DELETED", starved())
    assert await bed.reconcile() == ["status"]
    assert "queue" not in bed.status


async def test_a_model_that_is_gone_leaves_the_queue() -> None:
    bed = Bed(**GPUS)
    await bed.reconcile()
    bed.view.event(PODS, "ADDED", starved())
    await bed.reconcile()
    del bed.kube.objects["InferenceModel", "tiny"]
    await bed.reconcile()
    assert bed.view.queue.keys() == []


async def preempted() -> Bed:
    """A model whose pod was preempted by a pod of `big`, which exists."""
    bed = Bed(**GPUS)
    bed.view.complete()
    bed.kube.put("InferenceModel", live_model("big", uid="uid-of-big"))
    await bed.reconcile()
    bed.view.event(PODS, "ADDED", live_pod("tiny-abc-1", uid="victim", node="node-7", conditions=(LOST,)))
    bed.view.event(PODS, "ADDED", live_pod("big-abc-1", model_name="big", uid="winner"))
    bed.view.event(EVENTS, "ADDED", event())
    return bed


async def test_both_models_are_told_of_a_preemption_once() -> None:
    bed = await preempted()
    assert await bed.reconcile() == ["Event", "Event", "status"]
    assert bed.status["preemptedBy"] == "team-a/big"
    assert events(bed) == {
        "tiny Preempted": "Pod tiny-abc-1 was preempted by team-a/big on node node-7",
        "big Preempting": "Preempted pod tiny-abc-1 of team-a/tiny on node node-7",
    }
    assert await bed.reconcile() == []


async def test_a_preemption_is_counted_once_although_the_status_was_refused_at_first() -> None:
    bed = await preempted()
    before = PREEMPTIONS.labels(*TINY)._value.get()
    bed.kube.refusals["apply", "InferenceModel"] = UnavailableError("503")
    with pytest.raises(UnavailableError):
        await bed.reconcile()
    del bed.kube.refusals["apply", "InferenceModel"]
    assert await bed.reconcile() == ["status"]
    assert PREEMPTIONS.labels(*TINY)._value.get() - before == 1


async def test_an_event_that_exists_already_is_no_error() -> None:
    bed = await preempted()
    await bed.reconcile()
    # A crash between the Events and the status.
    bed.kube.objects["InferenceModel", "tiny"].pop("status")
    assert await bed.reconcile() == ["status"]
    assert bed.status["preemptedBy"] == "team-a/big"


async def test_events_that_may_not_be_written_do_not_keep_the_status_from_telling() -> None:
    bed = await preempted()
    bed.kube.refusals["create", "Event"] = ForbiddenError(403, "Forbidden", 'User "x" cannot create')
    assert await bed.reconcile() == ["status"]
    assert bed.status["preemptedBy"] == "team-a/big"


async def test_a_winner_that_is_gone_is_named_and_told_nothing() -> None:
    bed = await preempted()
    del bed.kube.objects["InferenceModel", "big"]
    assert await bed.reconcile() == ["Event", "status"]
    assert bed.status["preemptedBy"] == "team-a/big"


async def test_a_change_without_room_ends_the_old_pod_first_until_it_is_done() -> None:
    bed = Bed(**GPUS)
    await bed.reconcile()
    old = of_revision(live_pod("tiny-abc-1", ready=True), revision(bed))
    bed.view.event(PODS, "ADDED", old)
    bed.change(maxConcurrency=9)
    await bed.reconcile()
    bed.view.event(PODS, "ADDED", of_revision(starved(), revision(bed)))
    rolling = {"observedGeneration": 1, "replicas": 2, "updatedReplicas": 1, "availableReplicas": 1}
    seen(bed, rolling)
    assert await bed.reconcile() == ["Deployment", "status"]
    assert surge(bed) == {"maxSurge": 0, "maxUnavailable": 1}
    seen(bed, rolling)
    await bed.reconcile()
    assert by_type(bed.status)["Progressing"]["reason"] == "MakingRoom"
    seen(bed, {"observedGeneration": 1, "replicas": 1, "updatedReplicas": 1, "availableReplicas": 1})
    assert (await bed.reconcile())[0] == "Deployment"
    assert surge(bed) == {"maxSurge": 1, "maxUnavailable": 0}


def surge(bed: Bed) -> Object:
    """How the Deployment rolls."""
    found: Object = bed.kube.objects["Deployment", "tiny"]["spec"]["strategy"]["rollingUpdate"]
    return found


def seen(bed: Bed, status: Object) -> None:
    """The Deployment's controller writes its status; the watch tells."""
    live = bed.kube.objects["Deployment", "tiny"]
    live["status"] = status
    live["metadata"]["resourceVersion"] = str(int(live["metadata"]["resourceVersion"]) + 1000)
    live["metadata"]["generation"] = 1
    bed.view.event(DEPLOYMENTS, "MODIFIED", live)


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        ('deployments.apps "tiny" is forbidden: User "x" cannot patch resource "deployments"', "Forbidden"),
        ("denied by the policy of the house", "PodsRefused"),
    ],
)
async def test_a_right_that_is_missing_is_told_from_a_rule(words: str, reason: str) -> None:
    bed = Bed()
    bed.kube.refusals["apply", "Deployment"] = ForbiddenError(403, "Forbidden", words)
    await bed.reconcile()
    assert by_type(bed.status)["Ready"]["reason"] == reason


async def test_pods_that_are_refused_are_tried_again_when_the_rules_change() -> None:
    bed = Bed()
    await bed.reconcile()
    quota = {"metadata": {"name": "small"}, "spec": {"hard": {"pods": "0"}}, "status": {"used": {"pods": "0"}}}
    bed.kube.put("ResourceQuota", quota)
    bed.kube.put("Namespace", {"metadata": {"name": "team-a"}})
    words = 'pods "tiny-abc-1" is forbidden: exceeded quota: small'
    refused = {"conditions": [{"type": "ReplicaFailure", "status": "True", "message": words}]}
    seen(bed, refused)
    assert await bed.reconcile() == ["Deployment", "Event", "status"]
    assert bed.again == BLOCKED_SECONDS
    assert await bed.reconcile() == []
    bed.kube.put("ResourceQuota", {**quota, "spec": {"hard": {"pods": "5"}}})
    assert await bed.reconcile() == ["Deployment"]
    seen(bed, {})
    assert await bed.reconcile() == ["status"]
    assert bed.again is None


async def test_rules_that_may_not_be_read_are_not_asked_again_and_again() -> None:
    bed = Bed()
    await bed.reconcile()
    for kind, verb in (("ResourceQuota", "list"), ("LimitRange", "list"), ("Namespace", "get")):
        bed.kube.refusals[verb, kind] = ForbiddenError(403, "Forbidden", 'User "x" cannot')
    seen(bed, {"conditions": [{"type": "ReplicaFailure", "status": "True", "message": "no"}]})
    assert await bed.reconcile() == ["Deployment", "Event", "status"]
    assert await bed.reconcile() == []


FORBIDDEN = ForbiddenError(403, "Forbidden", 'services "tiny" is forbidden: User "x" cannot patch resource "services"')


async def test_fault_10_a_kind_that_may_not_be_changed_does_not_hold_up_the_others() -> None:
    bed = Bed()
    await bed.reconcile()
    bed.change("Service", ports=[])
    bed.kube.refusals["apply", "Service"] = FORBIDDEN
    bed.change(replicas=2)
    assert await bed.reconcile() == ["Deployment", "Event", "status"]
    assert by_type(bed.status)["Progressing"]["reason"] == "Forbidden"
    bed.kube.refusals.clear()
    assert await bed.reconcile() == ["Service", "status"]
    assert by_type(bed.status)["Progressing"]["reason"] == "RollingOut"


async def test_fault_10_without_a_service_no_pods_are_made_that_nobody_could_reach() -> None:
    bed = Bed()
    bed.kube.refusals["apply", "Service"] = FORBIDDEN
    assert await bed.reconcile() == ["Event", "status"]
    assert by_type(bed.status)["Ready"]["reason"] == "Forbidden"


async def test_fault_16_in_a_namespace_that_is_being_deleted_nothing_is_tried_twice() -> None:
    bed = Bed()
    await bed.reconcile()
    gone = bed.kube.objects.pop(("Service", "tiny"))
    bed.store.remove("Service", gone)
    words = "unable to create new content in namespace team-a because it is being terminated"
    bed.kube.refusals["apply", "Service"] = ForbiddenError(403, "Forbidden", words)
    assert await bed.reconcile() == []
    assert bed.again is None
    reads = len(bed.kube.reads)
    bed.kube.refusals.clear()
    assert await bed.reconcile() == []
    assert bed.kube.reads[reads:] == [("InferenceModel", "tiny")]
    # A namespace of that name that is made later has a model of its own.
    bed.kube.put("InferenceModel", live_model(uid="another"))
    bed.kube.objects.pop(("Deployment", "tiny"))
    bed.store.forget_child(TINY, "Deployment")
    assert "Service" in await bed.reconcile()


async def test_nobody_else_hears_of_a_preemption_that_only_an_event_tells() -> None:
    """An Event of a pod that went before the operator came may be anybody's."""
    bed = Bed(**GPUS)
    bed.kube.put("InferenceModel", live_model("big", uid="uid-of-big"))
    await bed.reconcile()
    bed.view.event(PODS, "ADDED", live_pod("big-abc-1", model_name="big", uid="winner"))
    bed.view.event(EVENTS, None, event())
    bed.view.complete()
    assert await bed.reconcile() == ["Event", "status"]
    assert list(events(bed)) == ["tiny Preempted"]
