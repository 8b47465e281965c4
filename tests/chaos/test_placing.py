"""Pods that may not be made, find no place, or lose it: each told for what it is, and over when its cause is gone."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

from tests.chaos.bed import Bed
from tests.chaos.pace import LIMIT
from tests.support.api import Object, condition, is_ready, reason
from tests.support.policies import quota
from tests.truth import Truth

GPU_NODE = "/api/v1/nodes/gpu-0"
RARE = "example.com/rare-gpu"

Cause = Callable[[Bed], Any]
"""A context in which pods of the model `tiny` are in trouble."""


@contextmanager
def made(bed: Bed, path: str, manifest: Object) -> Iterator[None]:
    """An object that is there for a while."""
    name = manifest["metadata"]["name"]
    bed.api.request("POST", path, json=manifest)
    try:
        yield
    finally:
        bed.api.request("DELETE", f"{path}/{name}")


@contextmanager
def in_namespace(bed: Bed, resource: str, spec: Object) -> Iterator[None]:
    """An object of the namespace that is there before the model is."""
    path = f"/api/v1/namespaces/{bed.api.namespace}/{resource}"
    with made(bed, path, {"metadata": {"name": "chaos"}, "spec": spec}):
        bed.create()
        yield


@contextmanager
def quota_is_full(bed: Bed) -> Iterator[None]:
    """No pod more is allowed."""
    quota(bed.api, "chaos", {"hard": {"pods": "0"}})
    try:
        bed.create()
        yield
    finally:
        bed.api.request("DELETE", bed.api.path("ResourceQuota", "chaos"))


def limit_range(bed: Bed) -> Any:
    """Every container is too large."""
    return in_namespace(bed, "limitranges", {"limits": [{"type": "Container", "max": {"memory": "8Mi"}}]})


@contextmanager
def pod_security(bed: Bed) -> Iterator[None]:
    """Our pods meet the strictest level, so somebody adds to the template what does not, and the operator lets be."""
    bed.create(replicas=0)
    bed.settles()
    bed.api.patch("Deployment", "tiny", {"spec": {"template": {"spec": {"hostPID": True}}}})
    labels = {"pod-security.kubernetes.io/enforce": "restricted"}
    label_namespace(bed, labels)
    bed.edit(replicas=1)
    try:
        yield
    finally:
        label_namespace(bed, dict.fromkeys(labels))


def label_namespace(bed: Bed, labels: Object) -> None:
    headers = {"Content-Type": "application/merge-patch+json"}
    patch = {"metadata": {"labels": labels}}
    bed.api.request("PATCH", f"/api/v1/namespaces/{bed.api.namespace}", json=patch, headers=headers)


@contextmanager
def image_missing(bed: Bed) -> Iterator[None]:
    """The kubelet's word, as no node of ours has one: its image cannot be pulled, and then it can."""
    bed.create()
    bed.settles()
    (pod,) = bed.api.find("Pod", "moorage.dev/model=tiny")
    name, status = pod["metadata"]["name"], pod["status"]
    waiting = {"reason": "ImagePullBackOff", "message": "Back-off pulling image: not found"}
    (container,) = status["containerStatuses"]
    broken = {**container, "ready": False, "started": False, "state": {"waiting": waiting}}
    conditions = [{**c, "status": "False" if "Ready" in c["type"] else c["status"]} for c in status["conditions"]]
    set_status(bed, name, {"phase": "Pending", "conditions": conditions, "containerStatuses": [broken]})
    yield
    set_status(bed, name, {key: status[key] for key in ("phase", "conditions", "containerStatuses")})


def set_status(bed: Bed, pod: str, status: Object) -> None:
    headers = {"Content-Type": "application/merge-patch+json"}
    bed.api.request("PATCH", bed.api.path("Pod", pod) + "/status", json={"status": status}, headers=headers)


@contextmanager
def claim_missing(bed: Bed) -> Iterator[None]:
    """The model's claim is made later."""
    bed.create(source={"uri": "pvc://absent/model.gguf"})
    yield
    common = {"accessModes": ["ReadWriteOnce"], "storageClassName": ""}
    name, size = f"volume-of-{bed.api.namespace}", {"storage": "1Gi"}
    volume = {**common, "capacity": size, "hostPath": {"path": "/nowhere"}}
    bed.api.request("POST", "/api/v1/persistentvolumes", json={"metadata": {"name": name}, "spec": volume})
    claim = {**common, "volumeName": name, "resources": {"requests": size}}
    path = f"/api/v1/namespaces/{bed.api.namespace}/persistentvolumeclaims"
    bed.api.request("POST", path, json={"metadata": {"name": "absent"}, "spec": claim})


@contextmanager
def no_such_gpu(bed: Bed) -> Iterator[None]:
    """No node has such GPUs until one gets them."""
    bed.create(gpu={"count": 1, "resourceName": RARE})
    yield
    set_capacity(bed, "1")


def set_capacity(bed: Bed, amount: str | None) -> None:
    headers = {"Content-Type": "application/merge-patch+json"}
    status = {"capacity": {RARE: amount}, "allocatable": {RARE: amount}}
    bed.api.request("PATCH", f"{GPU_NODE}/status", json={"status": status}, headers=headers)


CAUSES: dict[str, Cause] = {
    "QuotaExceeded": quota_is_full,
    "LimitRangeViolated": limit_range,
    "PodSecurityDenied": pod_security,
    "ImagePullFailed": image_missing,
    "VolumeNotFound": claim_missing,
    "NoSuchResource": no_such_gpu,
}


def test_fault_24_each_cause_has_its_reason_and_goes_with_it(bed: Bed) -> None:
    for expected, cause in CAUSES.items():
        with cause(bed):
            seen = bed.api.wait("InferenceModel", "tiny", partial(is_told, expected), what=expected, seconds=LIMIT)
            assert condition(seen, "Ready")["status"] == "False"
            bed.truth.hold()
        bed.converges()
        bed.api.delete("InferenceModel", "tiny")
        bed.settles()
    set_capacity(bed, None)
    bed.invariants_hold()


def is_told(why: str, model: Object | None) -> bool:
    return reason(model) == why


GPUS = 8
LOW = [4, 4, 4, 3, 3, 3, 2, 2, 2, 2]
"""Priorities of the models of one GPU each, in the order of their creation: none can preempt another."""


def test_fault_25_priority_takes_what_it_needs_and_no_more(bed: Bed, truth: Truth) -> None:
    bed.api.wait_until_alone()
    bed.truth = truth
    names = [f"low-{number}" for number in range(len(LOW))]
    for name, priority in zip(names, LOW, strict=True):
        bed.create(name, gpu={"count": 1}, priority=priority)
        if name in names[:GPUS]:
            bed.api.wait("InferenceModel", name, is_ready, what="Ready")
    truth.hold()
    assert preempted(bed) == [], "equal priority never preempts"

    began = time.monotonic()
    bed.create("urgent", gpu={"count": 2}, priority=10)
    bed.api.wait("InferenceModel", "urgent", is_ready, what="placed", seconds=LIMIT)
    bed.scenario.converged(time.monotonic() - began)
    truth.hold()
    assert preempted(bed) == names[6:8], "as few as are needed, and the lowest"
    for name in names[6:8]:
        seen = bed.api.get("InferenceModel", name)
        assert seen is not None
        assert seen["status"]["preemptedBy"] == f"{bed.api.namespace}/urgent"
    # Others of the same priority wait, and preempt nothing.
    bed.create("equal", gpu={"count": 1}, priority=2)
    bed.api.wait("InferenceModel", "equal", lambda im: reason(im) == "WaitingForGPU", what="WaitingForGPU")
    truth.hold()
    assert preempted(bed) == names[6:8]

    began = time.monotonic()
    for name in ("equal", "urgent", *names[:2]):
        bed.api.delete("InferenceModel", name)
    bed.converges(since=began)
    assert [reason(m, "Preempted") for m in map(found(bed), names[6:8])] == ["Recovered"] * 2
    truth.hold()
    truth.kept()
    bed.invariants_hold()


def preempted(bed: Bed) -> list[str]:
    """The models that have lost their place, by name."""
    models = bed.api.find("InferenceModel")
    return sorted(m["metadata"]["name"] for m in models if condition(m, "Preempted").get("status") == "True")


def found(bed: Bed) -> Callable[[str], Object | None]:
    return lambda name: bed.api.get("InferenceModel", name)
