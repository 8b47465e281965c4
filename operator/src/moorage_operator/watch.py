"""What the operator watches, and which of it: the watching itself is `moorage_common.kube.watch`."""

from collections.abc import Mapping
from typing import Final

from moorage_common.kube.client import Kube
from moorage_common.kube.resources import (
    DEPLOYMENTS,
    DISRUPTION_BUDGETS,
    EVENTS,
    INFERENCE_MODELS,
    NODES,
    PODS,
    SERVICES,
    Resource,
)
from moorage_common.kube.watch import Sink, Watched, WatchHealth, watch_all
from moorage_common.labels import MANAGED_BY, MANAGED_BY_LABEL
from moorage_operator.preemption import EVENT_REASON

CHILDREN: Final = (DEPLOYMENTS, SERVICES, DISRUPTION_BUDGETS, PODS)
WATCHED: Final = (INFERENCE_MODELS, *CHILDREN, EVENTS)
EVERYWHERE: Final = (None,)
"""The namespaces of an operator that serves all of them; it sees the nodes too."""

OURS: Final = {"labelSelector": f"{MANAGED_BY_LABEL}={MANAGED_BY}"}
SELECTORS: Final[Mapping[Resource, Mapping[str, str]]] = {
    **dict.fromkeys(CHILDREN, OURS),
    EVENTS: {"fieldSelector": f"reason={EVENT_REASON}"},
}


def watches(namespaces: tuple[str | None, ...]) -> list[Watched]:
    """What is watched to serve `namespaces`, kind by kind and namespace by namespace."""
    nodes: list[Watched] = [(NODES, None)] if namespaces == EVERYWHERE else []
    return [(resource, namespace) for resource in WATCHED for namespace in namespaces] + nodes


async def watch(kube: Kube, namespaces: tuple[str | None, ...], sink: Sink, health: WatchHealth) -> None:
    """Watches everything until cancelled."""
    await watch_all(kube, watches(namespaces), sink, health, SELECTORS)
