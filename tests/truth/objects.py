"""Reads what matters out of objects as the API server hands them out; written from Kubernetes' documentation. Pure."""

from collections.abc import Iterable, Mapping
from decimal import Decimal
from typing import Any, Final

Object = dict[str, Any]

_SUFFIXES: Final = {
    **{suffix: Decimal(1024) ** power for power, suffix in enumerate(("Ki", "Mi", "Gi", "Ti", "Pi", "Ei"), start=1)},
    **{suffix: Decimal(1000) ** power for power, suffix in enumerate(("k", "M", "G", "T", "P", "E"), start=1)},
    "m": Decimal("0.001"),
}


def name_of(obj: Object) -> str:
    """NAMESPACE/NAME."""
    return f"{obj['metadata'].get('namespace', '')}/{obj['metadata']['name']}"


def uid(obj: Object) -> str:
    """Its uid."""
    return str(obj["metadata"]["uid"])


def controller(obj: Object) -> str:
    """The uid of the object's controller; empty when it has none."""
    owners: Iterable[Object] = obj["metadata"].get("ownerReferences") or ()
    return next((str(owner["uid"]) for owner in owners if owner.get("controller")), "")


def condition(obj: Object, kind: str) -> Object:
    """A condition of an object; empty when it is not there."""
    conditions: Iterable[Object] = (obj.get("status") or {}).get("conditions") or ()
    return next((entry for entry in conditions if entry["type"] == kind), {})


def is_ending(obj: Object) -> bool:
    """Whether it has been deleted, and is finishing."""
    return "deletionTimestamp" in obj["metadata"]


def is_finished(pod: Object) -> bool:
    """Whether the pod has ended for good."""
    return (pod.get("status") or {}).get("phase") in ("Succeeded", "Failed")


def is_ready(pod: Object) -> bool:
    """Whether a Service sends requests to the pod."""
    return condition(pod, "Ready").get("status") == "True" and not is_ending(pod) and not is_finished(pod)


def node_of(pod: Object) -> str:
    """The node that the pod was given to."""
    return str(pod["spec"].get("nodeName") or "")


def refusal_of(pod: Object) -> str | None:
    """What the scheduler says about a pod that it found no node for; None when it has not said so."""
    scheduled = condition(pod, "PodScheduled")
    waits = not node_of(pod) and scheduled.get("status") == "False" and scheduled.get("reason") == "Unschedulable"
    return str(scheduled.get("message") or "") if waits else None


def is_victim(pod: Object) -> bool:
    """Whether the scheduler has preempted the pod."""
    target = condition(pod, "DisruptionTarget")
    return target.get("status") == "True" and target.get("reason") == "PreemptionByScheduler"


def claims_of(pod: Object) -> set[str]:
    """The PersistentVolumeClaims that the pod uses."""
    volumes: Iterable[Object] = pod["spec"].get("volumes") or ()
    return {str(one["persistentVolumeClaim"]["claimName"]) for one in volumes if "persistentVolumeClaim" in one}


def has_begun(pod: Object) -> bool:
    """Whether a container of the pod has begun, or failed to."""
    status = pod.get("status") or {}
    containers: list[Object] = [*(status.get("initContainerStatuses") or ()), *(status.get("containerStatuses") or ())]
    states = [(one.get("state") or {}).get("waiting", {}).get("reason") for one in containers]
    return any(reason not in ("ContainerCreating", "PodInitializing") for reason in states)


def requests(pod: Object, resource: str) -> Decimal:
    """How much of a resource the pod asks for."""
    containers: Iterable[Object] = pod["spec"].get("containers") or ()
    asked = [(one.get("resources") or {}).get("requests") or {} for one in containers]
    return sum((quantity(str(one[resource])) for one in asked if resource in one), start=Decimal())


def quantity(text: str) -> Decimal:
    """A Kubernetes quantity as a number.

    >>> quantity("1.5Gi"), quantity("250m"), quantity("3")
    (Decimal('1610612736.0'), Decimal('0.250'), Decimal('3'))
    """
    for suffix, factor in _SUFFIXES.items():
        if text.endswith(suffix):
            return Decimal(text.removesuffix(suffix)) * factor
    return Decimal(text)


def template(obj: Object) -> Object:
    """The pod template of a Deployment or ReplicaSet, without the label by which ReplicaSets tell theirs apart."""
    found: Object = obj["spec"].get("template") or {}
    metadata = found.get("metadata") or {}
    labels = {key: value for key, value in (metadata.get("labels") or {}).items() if key != "pod-template-hash"}
    return {**found, "metadata": {**metadata, "labels": labels}}


def as_map(conditions: Iterable[Mapping[str, Any]]) -> dict[str, Mapping[str, Any]]:
    """Conditions by their type."""
    return {str(entry.get("type")): entry for entry in conditions}
