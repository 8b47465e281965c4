"""What the events of the watches mean for models: children, nodes, the line, and who took whose place."""

from typing import Any

from moorage_operator.cluster_view import ClusterView
from moorage_operator.kube import DEPLOYMENTS, EVENTS, INFERENCE_MODELS, NODES, PODS
from moorage_operator.observe import Place
from moorage_operator.preemption import Preemption
from moorage_operator.store import Key
from tests.unit.operator.support import NAMESPACE, Object, live_deployment, live_model, live_pod
from tests.unit.operator.test_preemption import event

TINY, BIG = Key(NAMESPACE, "tiny"), Key("team-b", "big")
GPU = "nvidia.com/gpu"
WINNER: dict[str, Any] = {"namespace": "team-b", "uid": "winner"}


def node(name: str = "n1", gpus: str = "8") -> Object:
    """A node with GPUs."""
    return {"metadata": {"name": name}, "status": {"allocatable": {GPU: gpus, "cpu": "64", "memory": "100Gi"}}}


def victim(**fields: Any) -> Object:
    """The pod that lost its place."""
    return live_pod("tiny-abc-1", **{"uid": "victim", **fields})


def starved(name: str, model_name: str, **fields: Any) -> Object:
    """A pod that no node has GPUs for."""
    said = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": f"1 Insufficient {GPU}."}
    pod = live_pod(name, model_name=model_name, node=None, conditions=(said,), **fields)
    pod["spec"] = {"containers": [{"name": "runtime", "resources": {"requests": {GPU: "1"}}}], "priority": 5000}
    return pod


def view(*, sees_nodes: bool = False) -> ClusterView:
    """A view that has heard every list."""
    made = ClusterView(sees_nodes=sees_nodes)
    made.complete()
    return made


def test_a_preemption_is_told_of_the_victims_model_with_the_winners() -> None:
    seen = view()
    seen.event(PODS, None, live_pod("big-abc-1", model_name="big", **WINNER))
    seen.event(PODS, None, victim())
    assert seen.event(EVENTS, "ADDED", event()) == [TINY]
    assert seen.store.preemptions(TINY) == (Preemption("tiny-abc-1", "2026-01-02T03:04:05Z", "node-7", "team-b/big"),)


def test_pods_that_are_gone_when_the_event_comes_are_remembered() -> None:
    seen = view()
    for pod in (live_pod("big-abc-1", model_name="big", **WINNER), victim()):
        seen.event(PODS, None, pod)
        seen.event(PODS, "DELETED", pod)
    assert seen.event(EVENTS, "ADDED", event()) == [TINY]
    assert seen.store.preemptions(TINY)[0].by == "team-b/big"


def test_pods_that_were_never_seen_are_known_by_their_names_if_such_models_are() -> None:
    seen = view()
    assert seen.event(EVENTS, None, event()) == []
    model = live_model()
    seen.event(INFERENCE_MODELS, None, model)
    assert seen.event(EVENTS, None, event()) == [TINY]
    assert seen.store.preemptions(TINY)[0].by == "pod winner"


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
    lost = {
        "type": "DisruptionTarget",
        "status": "True",
        "reason": "PreemptionByScheduler",
        "lastTransitionTime": "2026-01-02T03:04:05Z",
    }
    seen.event(PODS, "MODIFIED", victim(conditions=(lost,)))
    assert seen.store.preemptions(TINY) == (Preemption("tiny-abc-1", "2026-01-02T03:04:05Z", "node-1", ""),)
    seen.event(PODS, None, live_pod("big-abc-1", model_name="big", **WINNER))
    seen.event(EVENTS, "ADDED", event())
    assert [found.by for found in seen.store.preemptions(TINY)] == ["team-b/big"]


def test_nodes_are_summed_up_and_a_change_concerns_every_model() -> None:
    seen = view(sees_nodes=True)
    seen.event(INFERENCE_MODELS, None, live_model())
    assert seen.event(NODES, None, node()) == [TINY]
    assert seen.most == {GPU: 8}
    assert list(seen.event(NODES, "MODIFIED", node())) == []
    assert seen.event(NODES, "ADDED", node("n2", "4")) == []
    assert seen.event(NODES, "DELETED", node()) == [TINY]
    assert seen.most == {GPU: 4}
    seen.listed_nodes(set())
    assert seen.most == {}


def test_without_the_right_to_see_nodes_nothing_is_said_of_them() -> None:
    seen = view()
    assert seen.event(NODES, None, node()) == []
    assert seen.most is None


def test_all_who_wait_are_in_line_before_anybody_is_told() -> None:
    seen = view()
    for name in ("tiny", "other"):
        seen.event(DEPLOYMENTS, None, live_deployment(name))
        seen.event(PODS, None, starved(f"{name}-abc-1", name))
    stray = starved("stray", "tiny", model_uid="of-an-earlier-model")
    stray["metadata"]["ownerReferences"][0]["uid"] = "rs-of-an-earlier"
    seen.event(PODS, None, stray)
    seen.line_up()
    assert seen.line.place(Key(NAMESPACE, "other")) == Place(1, 2, f"1 {GPU}")
    assert seen.line.place(TINY) == Place(2, 2, f"1 {GPU}")
