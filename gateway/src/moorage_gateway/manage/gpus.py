"""Who has which GPUs, from nodes and pods. Pure."""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import Any, Final, NamedTuple

from moorage_common.labels import MODEL_LABEL

_LABELS: Final[Mapping[str, str]] = {"nvidia.com/gpu.product": "product", "nvidia.com/gpu.memory": "memoryMiB"}
"""What the device plugin's feature discovery says of a node's GPUs."""

_OVER: Final = frozenset({"Succeeded", "Failed"})


class Held(NamedTuple):
    """What one pod has of the extended resources of its node."""

    node: str
    holder: str
    """`namespace/name` of its model, or of the pod where it is of none."""
    counts: tuple[tuple[str, int], ...]


def held(pod: Mapping[str, Any]) -> Held | None:
    """What a pod has; None where that is nothing."""
    node = pod.get("spec", {}).get("nodeName")
    counts = _asked(pod)
    if not node or not counts or pod.get("status", {}).get("phase") in _OVER:
        return None
    metadata = pod["metadata"]
    model = (metadata.get("labels") or {}).get(MODEL_LABEL)
    return Held(node, f"{metadata['namespace']}/{model or metadata['name']}", tuple(sorted(counts.items())))


def nodes_told(nodes: Iterable[Mapping[str, Any]], pods: Iterable[Held] | None) -> list[dict[str, Any]]:
    """Nodes with extended resources: how many of each there are, how many can be given, and who has them.

    Extended resources are what device plugins offer, GPUs above all. `pods` None: who has them is not known.
    """
    used = _used(pods) if pods is not None else None
    return [told for node in nodes if (told := _node(node, used))["resources"]]


def totals_told(nodes: Iterable[Mapping[str, Any]]) -> dict[str, dict[str, int | None]]:
    """The sums over what `nodes_told` gave, by resource."""
    sums: dict[str, dict[str, int | None]] = {}
    for node in nodes:
        for name, counts in node["resources"].items():
            total = sums.setdefault(name, {"capacity": 0, "allocatable": 0, "used": 0})
            for kind in total:
                one, all_of_it = counts[kind], total[kind]
                total[kind] = None if one is None or all_of_it is None else all_of_it + one
    return dict(sorted(sums.items()))


Used = dict[str, dict[str, list[tuple[str, int]]]]


def _used(pods: Iterable[Held]) -> Used:
    """By node and resource: which pods or models have how many."""
    found: Used = defaultdict(lambda: defaultdict(list))
    for pod in pods:
        for resource, count in pod.counts:
            found[pod.node][resource].append((pod.holder, count))
    return found


def _asked(pod: Mapping[str, Any]) -> dict[str, int]:
    asked: dict[str, int] = defaultdict(int)
    for container in pod["spec"].get("containers") or ():
        for name, amount in (container.get("resources", {}).get("requests") or {}).items():
            if is_extended(name):
                asked[name] += _number(amount)
    return asked


def _node(node: Mapping[str, Any], used: Used | None) -> dict[str, Any]:
    metadata, status = node["metadata"], node.get("status") or {}
    labels = metadata.get("labels") or {}
    resources: dict[str, dict[str, Any]] = {}
    for name, amount in sorted((status.get("capacity") or {}).items()):
        if not is_extended(name):
            continue
        holders = None if used is None else used.get(metadata["name"], {}).get(name, [])
        resources[name] = {
            "capacity": _number(amount),
            "allocatable": _number((status.get("allocatable") or {}).get(name, "0")),
            "used": None if holders is None else sum(count for _, count in holders),
            "by": None if holders is None else [{"name": who, "count": count} for who, count in sorted(holders)],
        }
    conditions = {condition["type"]: condition["status"] for condition in status.get("conditions") or ()}
    return {
        "name": metadata["name"],
        "ready": conditions.get("Ready") == "True",
        "schedulable": not (node.get("spec") or {}).get("unschedulable", False),
        **{told: labels[label] for label, told in _LABELS.items() if label in labels},
        "resources": resources,
    }


def is_extended(name: str) -> bool:
    """Whether a resource is what a device plugin offers; they are counted in whole numbers."""
    domain, slash, _ = name.partition("/")
    return bool(slash) and "kubernetes.io" not in domain and not name.startswith("requests.")


def _number(amount: object) -> int:
    text = str(amount)
    if text.isdecimal():
        return int(text)
    # The API server writes 1000 as 1k.
    return int(float(text[:-1]) * {"k": 10**3, "M": 10**6}.get(text[-1:], 0)) if text[:-1].isdecimal() else 0
