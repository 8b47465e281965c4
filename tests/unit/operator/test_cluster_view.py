"""What the events of the watches mean for models: children, nodes, the queue, and preemptions."""

import gc
import time
import tracemalloc
from collections.abc import Callable
from typing import Any

from moorage_operator.api.key import Key
from moorage_operator.cluster.cache.cluster_view import HELD_SECONDS, MOST_HELD, ClusterView
from moorage_operator.cluster.kinds import DEPLOYMENTS, EVENTS, INFERENCE_MODELS, NODES, PODS
from moorage_operator.status.observe import QueuePosition
from moorage_operator.status.preemption import Preemption
from tests.unit.operator.support import NAMESPACE, Object, live_deployment, live_model, live_pod
from tests.unit.operator.test_preemption import event

TINY, BIG = Key(NAMESPACE, "tiny"), Key("team-b", "big")
GPU = "nvidia.com/gpu"
WINNER: dict[str, Any] = {"namespace": "team-b", "uid": "winner"}
LOST = {
    "type": "DisruptionTarget",
    "status": "True",
    "reason": "PreemptionByScheduler",
    "lastTransitionTime": "2026-01-02T03:04:05Z",
}


def node(name: str = "n1", gpus: str = "8") -> Object:
    """A node with GPUs."""
    metadata = {"name": name, "uid": f"uid-of-{name}", "resourceVersion": "1"}
    return {"metadata": metadata, "status": {"allocatable": {GPU: gpus, "cpu": "64", "memory": "100Gi"}}}


def victim(**fields: Any) -> Object:
    """The preempted pod, with the condition that confirms it."""
    return live_pod("tiny-abc-1", **{"uid": "victim", "conditions": (LOST,), **fields})


def unharmed() -> Object:
    """The same pod, which has lost nothing."""
    return victim(conditions=())


def starved(name: str, model_name: str, **fields: Any) -> Object:
    """A pod that no node has GPUs for."""
    said = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": f"1 Insufficient {GPU}."}
    pod = live_pod(name, model_name=model_name, node=None, conditions=(said,), **fields)
    pod["spec"] = {"containers": [{"name": "runtime", "resources": {"requests": {GPU: "1"}}}], "priority": 5000}
    return pod


def view(*, sees_nodes: bool = False, clock: Callable[[], float] = time.monotonic) -> ClusterView:
    """A view that has heard every list."""
    made = ClusterView(sees_nodes=sees_nodes, clock=clock)
    made.complete()
    return made


def test_a_preemption_is_told_of_the_victims_model_with_the_winners() -> None:
    seen = view()
    seen.event(PODS, None, live_pod("big-abc-1", model_name="big", **WINNER))
    seen.event(PODS, None, victim())
    assert seen.event(EVENTS, "ADDED", event()) == [TINY]
    assert seen.store.preemptions(TINY) == (Preemption("tiny-abc-1", "2026-01-02T03:04:05Z", "node-1", "team-b/big"),)


def test_pods_that_are_gone_when_the_event_comes_are_remembered() -> None:
    seen = view()
    for pod in (live_pod("big-abc-1", model_name="big", **WINNER), victim()):
        seen.event(PODS, None, pod)
        seen.event(PODS, "DELETED", pod)
    assert seen.event(EVENTS, "ADDED", event()) == [TINY]
    assert seen.store.preemptions(TINY)[0].by == "team-b/big"


def test_pods_that_went_before_we_came_are_known_by_their_names_if_such_models_are() -> None:
    seen = ClusterView()
    assert seen.event(EVENTS, None, event()) == []
    seen.event(INFERENCE_MODELS, None, live_model())
    assert seen.complete() == [TINY]
    (found,) = seen.store.preemptions(TINY)
    assert (found.by, found.confirmed) == ("pod winner", False)


def test_a_forged_event_of_another_namespaces_pod_tells_nothing() -> None:
    """Its uid is known to the users of the models that it has preempted."""
    seen = view()
    seen.event(PODS, None, victim())
    forged = event()
    forged["metadata"] = {**forged["metadata"], "namespace": "evil"}
    forged["involvedObject"] = {**forged["involvedObject"], "namespace": "evil"}
    assert seen.event(EVENTS, "ADDED", forged) == []
    assert seen.event(EVENTS, "ADDED", event(involvedObject={**event()["involvedObject"], "name": "other-abc-1"})) == []
    assert [found.by for found in seen.store.preemptions(TINY)] == [""]


def test_a_pod_that_outlives_its_model_makes_no_forged_event_credible() -> None:
    seen = view()
    seen.event(PODS, None, unharmed())
    seen.store.forget(TINY)
    seen.event(INFERENCE_MODELS, None, live_model())
    assert seen.event(EVENTS, "ADDED", event()) == []
    assert seen.store.preemptions(TINY) == ()


def test_an_old_event_of_a_pod_that_nobody_saw_tells_nothing_at_a_later_list() -> None:
    seen = view()
    seen.event(INFERENCE_MODELS, None, live_model())
    assert seen.event(EVENTS, None, event()) == []


def test_events_that_come_before_the_pods_are_listed_wait() -> None:
    seen = ClusterView()
    assert seen.event(EVENTS, None, event()) == []
    seen.event(PODS, None, live_pod("big-abc-1", model_name="big", **WINNER))
    seen.event(PODS, None, victim())
    assert seen.complete() == [TINY]
    assert seen.store.preemptions(TINY)[0].by == "team-b/big"
    assert seen.complete() == []


def test_the_victims_own_condition_tells_too_and_the_event_completes_it() -> None:
    seen = view()
    seen.event(PODS, "MODIFIED", victim())
    assert seen.store.preemptions(TINY) == (Preemption("tiny-abc-1", "2026-01-02T03:04:05Z", "node-1", ""),)
    seen.event(PODS, None, live_pod("big-abc-1", model_name="big", **WINNER))
    seen.event(EVENTS, "ADDED", event())
    assert [found.by for found in seen.store.preemptions(TINY)] == ["team-b/big"]


def test_a_victim_that_says_so_only_in_its_last_word_is_heard() -> None:
    seen = view()
    seen.event(PODS, None, unharmed())
    assert seen.event(PODS, "DELETED", victim()) == [TINY]
    assert seen.store.preemptions(TINY) == (Preemption("tiny-abc-1", "2026-01-02T03:04:05Z", "node-1", ""),)


def test_an_event_that_overtakes_the_victims_own_word_is_held_for_it() -> None:
    seen = view()
    seen.event(PODS, None, live_pod("big-abc-1", model_name="big", **WINNER))
    seen.event(PODS, None, unharmed())
    assert seen.event(EVENTS, "ADDED", event()) == []
    assert seen.store.preemptions(TINY) == ()
    assert seen.event(PODS, "MODIFIED", victim(version=2)) == [TINY]
    assert [found.by for found in seen.store.preemptions(TINY)] == ["team-b/big"]


def test_a_forged_event_tells_nothing() -> None:
    """Who may edit a namespace may write Events there, but not what a pod says of itself."""
    seen, now = view(clock=lambda: now), 0.0
    seen.event(PODS, None, live_pod("big-abc-1", model_name="big", **WINNER))
    seen.event(PODS, None, unharmed())
    assert seen.event(EVENTS, "ADDED", event()) == []
    now = HELD_SECONDS + 1
    # It does not name a later preemptor either.
    seen.event(PODS, "MODIFIED", victim(version=2))
    assert [found.by for found in seen.store.preemptions(TINY)] == [""]


def test_a_forged_event_of_a_pod_that_ended_for_another_reason_tells_nothing() -> None:
    seen = view()
    for kind in (None, "DELETED"):
        seen.event(PODS, kind, unharmed())
    assert seen.event(EVENTS, "ADDED", event()) == []
    assert seen.store.preemptions(TINY) == ()


def test_a_forged_event_of_a_pod_that_never_was_tells_nothing() -> None:
    seen = view()
    seen.event(INFERENCE_MODELS, None, live_model())
    assert seen.event(EVENTS, "ADDED", event()) == []
    assert seen.store.preemptions(TINY) == ()


def test_of_a_pod_that_went_while_nobody_watched_the_event_is_believed() -> None:
    seen = view()
    seen.event(PODS, None, unharmed())
    seen.store.retain("Pod", set(), None, 10**6)
    assert seen.event(EVENTS, "ADDED", event()) == [TINY]


def test_events_that_nothing_confirms_take_bounded_memory() -> None:
    seen = view()
    for number in range(MOST_HELD + 1):
        uid = f"victim-{number}"
        seen.event(PODS, None, live_pod(f"tiny-abc-{number}", uid=uid, conditions=()))
        pod = {"kind": "Pod", "namespace": NAMESPACE, "name": f"tiny-abc-{number}", "uid": uid}
        seen.event(EVENTS, "ADDED", event(involvedObject=pod))
    for number in (0, 1):
        uid = f"victim-{number}"
        seen.event(PODS, "MODIFIED", live_pod(f"tiny-abc-{number}", uid=uid, conditions=(LOST,), version=2))
    assert {found.pod: found.by for found in seen.store.preemptions(TINY)} == {
        "tiny-abc-0": "",
        "tiny-abc-1": "pod winner",
    }


def test_nodes_are_summed_up_and_a_change_concerns_every_model() -> None:
    seen = view(sees_nodes=True)
    seen.event(INFERENCE_MODELS, None, live_model())
    assert seen.event(NODES, None, node()) == [TINY]
    assert seen.most == {GPU: 8}
    assert list(seen.event(NODES, "MODIFIED", node())) == []
    assert seen.event(NODES, "ADDED", node("n2", "4")) == []
    assert seen.event(NODES, "DELETED", node()) == [TINY]
    assert seen.most == {GPU: 4}
    seen.listed_nodes(set(), 1)
    assert (seen.most, seen.attainable) == ({}, {GPU: 8}), "what a node had may come back"


def test_where_nodes_are_autoscaled_no_request_is_too_large() -> None:
    seen = ClusterView(sees_nodes=True, autoscaled_nodes=True)
    seen.event(NODES, None, node())
    assert (seen.most, seen.attainable) == ({GPU: 8}, None)


def test_without_the_right_to_see_nodes_nothing_is_said_of_them() -> None:
    seen = view()
    assert seen.event(NODES, None, node()) == []
    assert (seen.most, seen.attainable) == (None, None)


def test_all_models_that_wait_are_queued_before_any_position_is_read() -> None:
    seen = view()
    for name in ("tiny", "other"):
        seen.event(DEPLOYMENTS, None, live_deployment(name))
        seen.event(PODS, None, starved(f"{name}-abc-1", name))
    stray = starved("stray", "tiny", model_uid="of-an-earlier-model")
    stray["metadata"]["ownerReferences"][0]["uid"] = "rs-of-an-earlier"
    seen.event(PODS, None, stray)
    seen.rebuild_queue(seen.store.models())
    assert seen.queue.position(Key(NAMESPACE, "other")) == QueuePosition(1, 2, f"1 {GPU}")
    assert seen.queue.position(TINY) == QueuePosition(2, 2, f"1 {GPU}")


def test_bad_input_events_before_the_first_lists_take_bounded_memory_and_none_of_another_namespace() -> None:
    seen = ClusterView()
    seen.event(PODS, None, victim())
    seen.event(EVENTS, None, event())
    gc.collect()
    tracemalloc.start()
    for number in range(3 * MOST_HELD):
        forged = {"kind": "Pod", "namespace": "mallory", "name": "tiny-abc-1", "uid": f"{number}"}
        metadata = {"namespace": "mallory", "annotations": {"x": f"{number}" + "y" * 10**4}}
        seen.event(EVENTS, None, event(metadata=metadata, involvedObject=forged))
    held, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert held < 3 * 10**6, "whole Events would be 30 MB"
    assert list(seen.complete()) == [TINY]
