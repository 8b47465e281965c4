"""Who gets the GPUs, who waits, and what they are told; on eight fake GPUs, by the real scheduler.

After each step every field of every status is held against the truth, and at the end all that was seen between.
"""

import time
from collections.abc import Callable
from typing import Any

import pytest

from tests.support.api import Api, ApiRefusedError, Object, condition, is_ready, reason
from tests.support.models import model
from tests.support.operator import Audit, OperatorProcess, described
from tests.support.policies import quota
from tests.support.waiting import eventually
from tests.truth import Truth

TOLD_WITHIN = 5.0
"""Seconds; the goal of 1 s is measured by the benchmark, a busy machine must not fail this."""


def on_gpus(name: str, count: int = 1, **spec: Any) -> Object:
    """A model that needs GPUs."""
    return model(name, gpu={"count": count}, **spec)


def status(obj: Object | None) -> Object:
    """The status of a model."""
    found: Object = (obj or {}).get("status", {})
    return found


def queue_summary(obj: Object | None) -> str:
    """The queue position."""
    return str(status(obj).get("queue", {}).get("summary", ""))


def is_preempted(obj: Object | None) -> bool:
    """Whether the model has lost a pod and says to whom."""
    return condition(obj, "Preempted").get("status") == "True" and bool(status(obj).get("preemptedBy"))


def has_recovered(obj: Object | None) -> bool:
    """Whether all of the model's pods are back."""
    return is_ready(obj) and reason(obj, "Preempted") == "Recovered"


def wait_all(api: Api, names: list[str], until: Callable[[Object | None], Any], what: str) -> None:
    """Wait for each of the models."""
    for name in names:
        api.wait("InferenceModel", name, until, what=f"{name}: {what}")


def test_the_story_of_eight_gpus(api: Api, operator: OperatorProcess, truth: Truth) -> None:
    low = [f"low-{number}" for number in range(4)]
    for name in low:
        api.create(on_gpus(name, 2, priority=3))
    wait_all(api, low, is_ready, "Ready")
    truth.hold()

    def victims() -> list[str]:
        return [name for name in low if is_preempted(api.get("InferenceModel", name))]

    api.create(on_gpus("big", 2, priority=8))
    api.wait("InferenceModel", "big", is_ready, what="the model of high priority runs")
    ready_at = time.monotonic()
    eventually(lambda: len(victims()) == 1, "the victim is told")
    assert time.monotonic() - ready_at < TOLD_WITHIN
    [victim] = victims()
    seen = api.get("InferenceModel", victim)
    assert status(seen)["preemptedBy"] == f"{api.namespace}/big"
    assert status(seen)["preemption"]["count"] == 1
    assert status(seen)["preemption"]["last"]["by"] == f"{api.namespace}/big"
    assert status(seen)["preemption"]["last"]["node"].startswith("gpu-")
    seen = api.wait("InferenceModel", victim, lambda im: queue_summary(im) == "1/1", what="a queue position")
    assert status(seen)["phase"] == "WaitingForResources"
    assert status(seen)["queue"]["waitingFor"] == "2 nvidia.com/gpu"
    assert reason(seen) == "WaitingForGPU"
    assert "position 1 of 1" in condition(seen, "Ready")["message"]
    for name, event in ((victim, "Preempted"), ("big", "Preempting")):
        wait_for_event(api, name, event)
    truth.hold()

    # A later model is behind, one of higher priority before.
    api.create(on_gpus("later", 2, priority=3))
    api.create(on_gpus("urgent", 2, priority=4))
    api.wait("InferenceModel", "urgent", is_ready, what="urgent runs: its priority is higher than the others'")
    eventually(lambda: len(victims()) == 2, "two victims are told")
    preempted = victims()
    # Where it stands, the truth says: those that have come in the same second may stand in any order.
    wait_all(api, [*preempted, "later"], lambda im: queue_summary(im).endswith("/3"), "three in the queue")
    truth.hold()

    # Both go, so there is room for two of the three that wait: which of them, the scheduler's backoff says.
    api.delete("InferenceModel", "big")
    api.delete("InferenceModel", "urgent")
    waiting = [*preempted, "later"]
    wait_all(api, waiting, lambda im: is_ready(im) or queue_summary(im) == "1/1", "back, or next")
    assert len([name for name in waiting if is_ready(api.get("InferenceModel", name))]) == 2
    truth.hold()
    api.delete("InferenceModel", next(name for name in low if name not in preempted))
    wait_all(api, preempted, has_recovered, "back")
    api.wait("InferenceModel", "later", is_ready, what="Ready")
    truth.hold()
    truth.kept()
    for name in preempted:
        seen = api.get("InferenceModel", name)
        assert "queue" not in status(seen)
        assert "preemptedBy" not in status(seen)
        assert status(seen)["preemption"]["count"] == 1


def wait_for_event(api: Api, name: str, event: str) -> None:
    """Wait for an Event on a model."""
    uid = (api.get("InferenceModel", name) or {})["metadata"]["uid"]
    selector = {"fieldSelector": f"involvedObject.uid={uid},reason={event}"}
    eventually(lambda: api.request("GET", api.path("Event"), params=selector)["items"], f"an Event {event} on {name}")


def test_equal_priority_never_takes_a_place(api: Api, operator: OperatorProcess, truth: Truth) -> None:
    api.create(on_gpus("first", 8, priority=5))
    api.wait("InferenceModel", "first", is_ready, what="Ready")
    api.create(on_gpus("second", 1, priority=5))
    api.wait("InferenceModel", "second", lambda im: queue_summary(im) == "1/1", what="waiting")
    assert reason(api.get("InferenceModel", "first"), "Preempted") == "Never"
    assert is_ready(api.get("InferenceModel", "first"))
    truth.hold()
    truth.kept()


def test_models_of_many_replicas_lose_replicas_rather_than_others_their_service(
    api: Api, operator: OperatorProcess, truth: Truth
) -> None:
    api.create(on_gpus("many", 2, replicas=3, priority=3))
    api.wait("InferenceModel", "many", lambda im: status(im).get("readyReplicas") == 3, what="3 replicas")
    api.create(on_gpus("single", 2, priority=3))
    api.wait("InferenceModel", "single", is_ready, what="Ready")
    wait_for_budget(api, "many", disruptions=2)
    truth.hold()
    api.create(on_gpus("big", 4, priority=8))
    api.wait("InferenceModel", "big", is_ready, what="Ready")
    api.wait("InferenceModel", "many", is_preempted, what="told")
    seen = api.wait("InferenceModel", "many", lambda im: status(im)["readyReplicas"] == 1, what="both are told")
    assert is_ready(seen)
    assert reason(api.get("InferenceModel", "single"), "Preempted") == "Never"
    truth.hold()
    truth.kept()


def wait_for_budget(api: Api, name: str, disruptions: int) -> None:
    """Wait until the budget allows so many pods to go, as its controller counts them."""
    api.wait(
        "PodDisruptionBudget",
        name,
        lambda pdb: status(pdb).get("disruptionsAllowed") == disruptions,
        what=f"{disruptions} disruptions allowed",
    )


def test_a_drain_takes_a_replica_but_never_the_last_one(api: Api, operator: OperatorProcess, truth: Truth) -> None:
    api.create(model("pair", replicas=2))
    api.create(model("single"))
    api.wait("InferenceModel", "pair", lambda im: status(im).get("readyReplicas") == 2, what="2 replicas")
    api.wait("InferenceModel", "single", is_ready, what="Ready")
    wait_for_budget(api, "pair", disruptions=1)
    wait_for_budget(api, "single", disruptions=0)
    with pytest.raises(ApiRefusedError, match="would violate the pod's disruption budget") as refused:
        evict(api, "single")
    assert refused.value.status == 429
    evict(api, "pair")
    api.wait("InferenceModel", "pair", lambda im: status(im).get("readyReplicas") == 2, what="2 replicas again")
    truth.hold()
    truth.kept()
    assert reason(api.get("InferenceModel", "pair"), "Preempted") == "Never"


def evict(api: Api, name: str) -> None:
    """Asks for the end of a pod of the model, as `kubectl drain` does."""
    pod = api.find("Pod", f"moorage.dev/model={name}")[0]["metadata"]["name"]
    eviction = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": pod}}
    api.request("POST", api.path("Pod", pod) + "/eviction", json=eviction)


def test_a_change_on_a_full_cluster_finishes(api: Api, operator: OperatorProcess, truth: Truth) -> None:
    api.create(on_gpus("only", 8))
    api.wait("InferenceModel", "only", is_ready, what="Ready")
    api.wait("InferenceModel", "only", lambda im: reason(im, "Progressing") == "Complete", what="Complete")
    api.patch("InferenceModel", "only", {"spec": {"maxConcurrency": 7}})
    api.wait("InferenceModel", "only", lambda im: reason(im, "Progressing") == "MakingRoom", what="MakingRoom")
    api.wait("InferenceModel", "only", lambda im: reason(im, "Progressing") == "Complete", what="Complete")
    api.wait("InferenceModel", "only", is_ready, what="Ready")
    child = api.wait("Deployment", "only", lambda d: surge(d) == 1, what="the next change tries a second pod first")
    env = (child or {})["spec"]["template"]["spec"]["containers"][0]["env"]
    assert {"name": "MAX_CONCURRENT_REQUESTS", "value": "7"} in env
    truth.hold()
    truth.kept()


def surge(deployment: Object | None) -> Any:
    """The pods that a change may bring up beside the old ones."""
    return (deployment or {})["spec"]["strategy"]["rollingUpdate"]["maxSurge"]


def test_a_model_that_is_suspended_gives_its_gpus_back(api: Api, operator: OperatorProcess, truth: Truth) -> None:
    api.create(on_gpus("first", 8))
    api.wait("InferenceModel", "first", is_ready, what="Ready")
    api.create(on_gpus("second", 8))
    api.wait("InferenceModel", "second", lambda im: queue_summary(im) == "1/1", what="waiting")
    api.patch("InferenceModel", "first", {"spec": {"suspend": True}})
    api.wait("InferenceModel", "second", is_ready, what="Ready")
    api.wait("InferenceModel", "first", lambda im: status(im).get("phase") == "Stopped", what="Stopped")
    truth.hold()
    api.patch("InferenceModel", "first", {"spec": {"suspend": False}})
    api.wait("InferenceModel", "first", lambda im: queue_summary(im) == "1/1", what="waiting")
    api.delete("InferenceModel", "second")
    api.wait("InferenceModel", "first", is_ready, what="Ready again")
    truth.hold()
    truth.kept()


def test_more_gpus_than_any_node_has_are_not_waited_for(api: Api, operator: OperatorProcess, truth: Truth) -> None:
    api.create(on_gpus("huge", 9))
    seen = api.wait("InferenceModel", "huge", lambda im: reason(im) == "NoSuchResource", what="NoSuchResource")
    assert "Each replica requests 9 nvidia.com/gpu, but no node has more than 8" in condition(seen, "Ready")["message"]
    assert "queue" not in status(seen)
    truth.hold()
    api.patch("InferenceModel", "huge", {"spec": {"gpu": {"count": 8}}})
    api.wait("InferenceModel", "huge", is_ready, what="Ready")
    truth.hold()
    truth.kept()


def test_a_model_starts_soon_after_its_quota_has_been_raised(api: Api, operator: OperatorProcess, truth: Truth) -> None:
    """The ReplicaSet controller would try again after 40 s, 80 s and so on by then."""
    quota(api, "none", {"hard": {"pods": "0"}})
    api.create(model("tiny"))
    seen = api.wait("InferenceModel", "tiny", lambda im: reason(im) == "QuotaExceeded", what="QuotaExceeded")
    assert status(seen)["phase"] == "WaitingForResources"
    assert "exceeded quota: none" in condition(seen, "Scheduled")["message"]
    api.wait("ReplicaSet", replica_set(api), tried_under, what="the rules it is tried under")
    truth.hold()
    api.request("DELETE", api.path("ResourceQuota", "none"))
    api.wait("InferenceModel", "tiny", is_ready, what="Ready")
    truth.hold()
    truth.kept()


def test_a_quota_keeps_high_priorities_for_some(api: Api, operator: OperatorProcess, truth: Truth) -> None:
    """The quota of docs/preemption.md."""
    classes = {"scopeName": "PriorityClass", "operator": "In", "values": ["moorage-8", "moorage-9", "moorage-10"]}
    spec = {"hard": {"pods": "0"}, "scopeSelector": {"matchExpressions": [classes]}}
    quota(api, "no-high-priorities", spec)
    api.create(model("modest", priority=7))
    api.create(model("grand", priority=8))
    api.wait("InferenceModel", "modest", is_ready, what="Ready")
    api.wait("InferenceModel", "grand", lambda im: reason(im) == "QuotaExceeded", what="QuotaExceeded")
    truth.hold()
    truth.kept()


def replica_set(api: Api) -> str:
    """The name of the only ReplicaSet."""
    (found,) = api.request("GET", api.path("ReplicaSet"))["items"]
    return str(found["metadata"]["name"])


def tried_under(obj: Object | None) -> str:
    """The name of the rules under which pods were last tried."""
    return str((obj or {})["metadata"].get("annotations", {}).get("moorage.dev/tried-under", ""))


def test_a_restart_forgets_nothing_of_a_preemption_and_writes_nothing(
    api: Api, operator: OperatorProcess, audit: Audit, truth: Truth
) -> None:
    api.create(on_gpus("low", 8, priority=3))
    api.wait("InferenceModel", "low", is_ready, what="Ready")
    api.create(on_gpus("big", 8, priority=8))
    api.wait(
        "InferenceModel",
        "low",
        lambda im: is_preempted(im) and queue_summary(im) == "1/1",
        what="preempted, and in the queue",
    )
    api.wait("InferenceModel", "big", lambda im: reason(im, "Progressing") == "Complete", what="Complete")
    # The pod of `big` is another one when the operator looks again: the Event then names no pod that it knows.
    operator.kill()
    pods = api.request("GET", api.path("Pod"), params={"labelSelector": "moorage.dev/model=big"})["items"]
    api.delete("Pod", pods[0]["metadata"]["name"])
    operator.start()
    api.wait("InferenceModel", "big", is_ready, what="Ready again")
    seen = api.wait("InferenceModel", "low", is_preempted, what="still told")
    assert status(seen)["preemptedBy"] == f"{api.namespace}/big"
    api.wait("InferenceModel", "big", lambda im: reason(im, "Progressing") == "Complete", what="Complete")
    truth.hold()
    operator.kill()
    since = audit.position()
    operator.start()
    api.patch("InferenceModel", "low", {"metadata": {"labels": {"touched": "yes"}}})
    api.delete("InferenceModel", "big")
    api.wait("InferenceModel", "low", has_recovered, what="back")
    truth.hold()
    written = described(audit.writes(since))
    events = [(event["reason"], event["message"]) for event in api.request("GET", api.path("Event"))["items"]]
    assert not [line for line in written if "create" in line and api.namespace in line], (written, events)
