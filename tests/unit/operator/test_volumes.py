"""Pods whose volumes do not come: what Events say of them, and when anybody asks."""

from typing import Any

import pytest

from moorage_operator.api.conditions import Reason
from moorage_operator.cluster.errors import ForbiddenError
from moorage_operator.cluster.kinds import PODS
from moorage_operator.cluster.pod_events import ASK_SECONDS, PodEvents
from moorage_operator.status.observe import pod_state
from moorage_operator.status.volumes import attached_elsewhere, problem_in, seconds_left
from tests.unit.operator.fake_kube import FakeKube
from tests.unit.operator.support import NAMESPACE, Clock, Object, by_type, live_pod
from tests.unit.operator.test_reconcile import TINY, Bed
from tests.unit.operator.test_reconcile_scheduling import events, of_revision, revision

CREATING: Object = {"state": {"waiting": {"reason": "ContainerCreating"}}}
SINCE = "2026-01-02T03:04:05Z"
MOUNT = 'MountVolume.SetUp failed for volume "models": mount failed: exit status 32'
TIMED_OUT = "Unable to attach or mount volumes: unmounted volumes=[model]: timed out waiting for the condition"
MULTI_ATTACH = 'Multi-Attach error for volume "pvc-1" Volume is already used by pod(s) tiny-abc-1'


def event(reason: str, message: str, at: str = SINCE, name: str = "", uid: str = "uid-of-tiny-1") -> Object:
    """A Warning Event on a pod."""
    return {
        "metadata": {"name": name or f"{reason}.{len(message)}", "namespace": NAMESPACE},
        "involvedObject": {"kind": "Pod", "uid": uid},
        "reason": reason,
        "type": "Warning",
        "message": message,
        "lastTimestamp": at,
    }


def creating(**fields: Any) -> Object:
    """A pod that got its node at SINCE, and no container yet."""
    placed = {"type": "PodScheduled", "status": "True", "lastTransitionTime": SINCE}
    conditions = (placed, *fields.pop("conditions", ()))
    return live_pod(**{"container": CREATING, "conditions": conditions, **fields})


def test_a_pod_is_starting_from_its_node_to_its_first_container() -> None:
    assert pod_state(creating()).starting_since == SINCE
    assert pod_state(creating(container=None)).starting_since == SINCE
    assert pod_state(creating(node=None)).starting_since is None
    assert pod_state(creating(container={"state": {"running": {}}})).starting_since is None
    assert pod_state(creating(container={"state": {"waiting": {"reason": "ErrImagePull"}}})).starting_since is None
    mounted = {"type": "PodReadyToStartContainers", "status": "True"}
    assert pod_state(creating(conditions=(mounted,))).starting_since is None, "it pulls its image"


def test_a_pod_whose_fetching_container_runs_is_not_starting() -> None:
    pod = creating(container={"state": {"waiting": {"reason": "PodInitializing"}}})
    waits = {"name": "fetch", "state": {"waiting": {"reason": "PodInitializing"}}}
    pod["status"]["initContainerStatuses"] = [waits]
    assert pod_state(pod).starting_since == SINCE
    pod["status"]["initContainerStatuses"] = [{"name": "fetch", "state": {"running": {}}}]
    assert pod_state(pod).starting_since is None


def test_it_counts_as_stuck_after_ten_seconds() -> None:
    assert seconds_left(SINCE, "2026-01-02T03:04:12Z") == 3
    assert seconds_left(SINCE, "2026-01-02T03:05:00Z") == 0
    assert seconds_left("not a time", SINCE) == 10


@pytest.mark.parametrize("order", [1, -1])
def test_the_event_with_the_cause_is_told_whichever_came_last(order: int) -> None:
    found = [event("FailedMount", TIMED_OUT), event("FailedMount", MOUNT), event("FailedScheduling", "no node")]
    problem = problem_in(found[::order])
    assert problem is not None
    assert (problem.reason, problem.message) == (Reason.VOLUME_UNAVAILABLE, f"FailedMount: {MOUNT}")
    assert not attached_elsewhere(problem)
    assert attached_elsewhere(problem_in([*found, event("FailedAttachVolume", MULTI_ATTACH)]))


def test_what_is_long_over_is_not_told() -> None:
    old = event("FailedAttachVolume", MULTI_ATTACH)
    problem = problem_in([old, event("FailedMount", MOUNT, at="2026-01-02T03:14:05Z")])
    assert problem is not None
    assert problem.message == f"FailedMount: {MOUNT}"


def test_events_that_anybody_has_written_do_no_harm() -> None:
    assert problem_in([]) is None
    assert problem_in([event("Pulled", "x")]) is None
    assert problem_in([{**event("FailedMount", MOUNT), "lastTimestamp": "yesterday"}]) is None
    without = {key: value for key, value in event("FailedMount", MOUNT).items() if key != "message"}
    assert problem_in([without]) is not None
    long = problem_in([event("FailedMount", "x" * 5000)])
    assert long is not None
    assert len(long.message) == 1024


async def test_nobody_is_asked_before_ten_seconds_and_then_once_in_ten() -> None:
    kube, clock, now = FakeKube(), Clock(), ["2026-01-02T03:04:08Z"]
    asker = PodEvents(kube, lambda: now[0], clock)
    pods = (pod_state(creating()),)
    kube.put("Event", event("FailedMount", MOUNT))
    assert await asker.explained(TINY, pods) == pods
    assert (kube.reads, asker.again(TINY, pods)) == ([], 7)
    now[0] = "2026-01-02T03:04:15Z"
    for _ in range(3):
        (told,) = await asker.explained(TINY, pods)
        assert told.problem is not None
        assert told.problem.message == f"FailedMount: {MOUNT}"
    assert (kube.reads, asker.again(TINY, pods)) == ([("Event", "")], ASK_SECONDS)
    clock.advance(ASK_SECONDS)
    await asker.explained(TINY, pods)
    assert len(kube.reads) == 2
    assert await asker.explained(TINY, ()) == ()
    assert asker.again(TINY, ()) is None


async def test_a_pod_that_is_stuck_for_long_is_asked_for_ever_more_rarely_until_the_answer_is_another() -> None:
    kube, clock = FakeKube(), Clock()
    asker = PodEvents(kube, lambda: "2026-01-02T03:05:00Z", clock)
    pods = (pod_state(creating()),)
    kube.put("Event", event("FailedMount", MOUNT))
    pauses: list[float | None] = []
    for number in range(6):
        if number == 5:
            kube.objects.clear()
        await asker.explained(TINY, pods)
        pauses.append(asker.again(TINY, pods))
        clock.advance(pauses[-1] or 0)
    assert pauses == [10, 20, 40, 60, 60, 10]
    assert len(kube.reads) == 6


async def test_a_right_that_is_missing_costs_the_words_only() -> None:
    kube = FakeKube()
    kube.refusals["list", "Event"] = ForbiddenError(403, "Forbidden", 'User "x" cannot list')
    pods = (pod_state(creating()),)
    assert await PodEvents(kube, lambda: "2026-01-02T03:05:00Z").explained(TINY, pods) == pods


async def test_a_healthy_start_asks_nobody() -> None:
    bed = Bed()
    await bed.reconcile()
    bed.view.event(PODS, "ADDED", live_pod(ready=True, container={"state": {"running": {}}, "started": True}))
    await bed.reconcile()
    assert bed.again is None
    assert ("Event", "") not in bed.kube.reads
    assert events(bed) == {}


async def test_cluster_09_a_volume_that_cannot_be_mounted_is_told_once_in_the_kubelets_words() -> None:
    bed = Bed()
    await bed.reconcile()
    pod = of_revision(creating(), revision(bed))
    pod["status"]["conditions"][0]["lastTransitionTime"] = "2026-01-02T03:03:00Z"
    bed.view.event(PODS, "ADDED", pod)
    bed.kube.put("Event", event("FailedMount", MOUNT + "\x1b[2J"))
    assert await bed.reconcile() == ["Event", "status"]
    ready = by_type(bed.status)["Ready"]
    assert (ready["reason"], bed.status["phase"]) == ("VolumeUnavailable", "Failed")
    assert ready["message"] == f"FailedMount: {MOUNT} [2J"
    del bed.kube.objects["Event", f"FailedMount.{len(MOUNT) + 4}"]
    assert events(bed) == {"tiny VolumeUnavailable": ready["message"]}
    assert await bed.reconcile() == []
    assert 0 < (bed.again or 0) <= ASK_SECONDS
